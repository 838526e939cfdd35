package wire

// RunState is the state of a run of the stress test that a node has started.
type RunState string

// The states of a run.
const (
	RunNone    RunState = "none" // none was started since the node was
	RunRunning RunState = "running"
	RunEnded   RunState = "ended"
	RunFailed  RunState = "failed" // it could not go on, see Problem
)

// Run is the run that was started last.
type Run struct {
	// Possible: client and nodes are on one machine, so that a run may be started here.
	Possible bool     `json:"possible"`
	State    RunState `json:"state"`
	Done     int64    `json:"done"`  // uploads
	Count    int64    `json:"count"` // of so many; 0: not known yet
	Problem  string   `json:"problem,omitempty"`
}

// RunRequest asks for a run.
type RunRequest struct {
	Profile string `json:"profile"`
}
