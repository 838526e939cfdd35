//go:build !windows

package local

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"

	"imgcluster/cluster/wait"
)

// Node is one server process.
type Node struct {
	ID      int
	API     string // address, with its scheme
	LogPath string

	logFrom int64 // offset in the log where this process began
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process has ended
	err     error         // how it ended; read after exited
	asked   atomic.Bool   // it was told to end, so that its end is no failure
	paused  bool          // by SIGSTOP; guarded by the cluster's lock
}

// PID returns the ID of the process.
func (n *Node) PID() int { return n.cmd.Process.Pid }

// Asked reports whether the process was told to end, so that its end is no failure.
func (n *Node) Asked() bool { return n.asked.Load() }

// otherFolder is the hint when the nodes' data cannot be written.
const otherFolder = "start it in a folder that this user can write to, " +
	"or name one with --set node.data_dir=FOLDER/node{id}"

// start runs the process of a node. It has a process group of its own, so that Ctrl-C does not reach it
// directly, and is killed when this process ends.
func (n *Node) start(exe string, args []string) error {
	if err := os.MkdirAll(filepath.Dir(n.LogPath), 0o755); err != nil {
		return refusef(otherFolder, "folder of the nodes: %w", err)
	}
	log, err := os.OpenFile(n.LogPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return refusef(otherFolder, "log of node %d: %w", n.ID, err)
	}
	if n.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		log.Close()
		return fmt.Errorf("log of node %d: %w", n.ID, err)
	}
	n.cmd = exec.Command(exe, args...)
	n.cmd.Stdout = log
	n.cmd.Stderr = log
	untie, err := tie(n.cmd)
	if err != nil {
		log.Close()
		return fmt.Errorf("start node %d: %w", n.ID, err)
	}
	n.exited = make(chan struct{})
	started := make(chan error)
	go func() {
		defer log.Close()
		defer untie()
		runtime.LockOSThread() // Linux ties the end of the process to the thread that forks
		err := n.cmd.Start()
		started <- err
		if err == nil {
			n.err = n.cmd.Wait()
		}
		close(n.exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start node %d: %w", n.ID, err)
	}
	return nil
}

// probes asks the processes whether they are ready. They have just been started here, and learn nothing: so
// the certificate is not checked, whose authority may be what they have yet to make.
var probes = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}

func (n *Node) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, n.API+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := probes.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK && !n.hasExited() // or someone else answers there
}

func (n *Node) hasExited() bool { return wait.Closed(n.exited) }

// logTailBytes is how much of a failed node's log is searched for its error.
const logTailBytes = 4096

// Failure returns how a node ended, with the error that its log ends with. The process must have ended.
func (n *Node) Failure() *NodeError {
	f := &NodeError{
		ID:     n.ID,
		Said:   "the process ended",
		Next:   "its log is " + n.LogPath,
		Status: n.cmd.ProcessState.ExitCode(),
	}
	if n.err != nil {
		f.Said = fmt.Sprintf("the process ended: %v", n.err)
	}
	if f.Status <= 0 {
		return f // it has logged no error
	}
	tail := "\n" + string(n.logTail())
	at := strings.LastIndex(tail, "\nimgcluster: ")
	if at < 0 {
		return f
	}
	said, hint, hinted := strings.Cut(tail[at+len("\nimgcluster: "):], "\nhint: ")
	f.Said = strings.TrimSpace(said)
	if hinted {
		f.Next = strings.TrimSpace(hint)
	}
	return f
}

// logTail returns the end of what this process logged.
func (n *Node) logTail() []byte {
	f, err := os.Open(n.LogPath)
	if err != nil {
		return nil
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil
	}
	from := max(n.logFrom, info.Size()-logTailBytes)
	b, _ := io.ReadAll(io.NewSectionReader(f, from, logTailBytes)) // what can be read is enough
	return b
}
