package stress

import "errors"

// testVersion is the version of the program and of all nodes.
const testVersion = "1.0"

// errDown is the error of a node that does not answer.
var errDown = errors.New("it is down")
