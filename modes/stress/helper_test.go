package stress

import (
	"errors"
	"os"
	"testing"
)

// testVersion is the version of the program and of all nodes.
const testVersion = "1.0"

// errDown is the error of a node that does not answer.
var errDown = errors.New("it is down")

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
