package modes

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/config"
)

// localCluster is a cluster of server processes on this machine.
type localCluster struct {
	cfg   *config.Config
	ended chan *localNode // each process that ends, until done
	done  chan struct{}   // closed by stop

	mu    sync.Mutex
	nodes []*localNode // the last process of each node
}

// localNode is one server process.
type localNode struct {
	id      image.NodeID
	api     string
	logPath string
	logFrom int64 // where this process's words begin in the log
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	err     error         // how it ended; read after exited
	asked   atomic.Bool   // its end was asked for, so that it is no failure
	paused  bool          // by SIGSTOP; the cluster's lock guards it
}

// nodeError says how a node's process ended.
type nodeError struct {
	id     image.NodeID
	said   string // its last words, or how it ended
	hint   string
	status int // its exit status, -1 for a signal
}

func (n *nodeError) Error() string {
	if name := fmt.Sprintf("node %d", n.id); !strings.HasPrefix(n.said, name+" ") {
		return name + ": " + n.said
	}
	return n.said
}

// Hint returns the next step.
func (n *nodeError) Hint() string { return n.hint }

// ExitStatus is the process's own where the command line or the configuration has to change.
func (n *nodeError) ExitStatus() int {
	if n.status == exitUsage {
		return exitUsage
	}
	return exitFailed
}

// startLocal starts every node of a loopback configuration as a process of its own and waits until
// all are ready. Whatever fails, the processes that were started are ended.
func startLocal(ctx context.Context, e *env, cfg *config.Config, cfgPath string) (l *localCluster, err error) {
	switch {
	case !cfg.OneMachine():
		return nil, usagef("start each machine's node there, with: imgcluster server --id N"+e.sameConfig(), "the configuration's nodes are not all on this machine")
	case cfg.ListenPorts() && len(cfg.Cluster.Nodes) > 1:
		return nil, usagef("give an address without ports, or start each node with imgcluster server --listen", "node.listen has the ports of one node, and there are %d", len(cfg.Cluster.Nodes))
	}
	if err := checkPorts(cfg); err != nil {
		return nil, err
	}
	exe, err := executable()
	if err != nil {
		return nil, err
	}
	l = &localCluster{cfg: cfg, ended: make(chan *localNode), done: make(chan struct{})}
	defer func() {
		if err != nil {
			err = errors.Join(err, l.shutdown(ctx))
		}
	}()
	for _, n := range cfg.Cluster.Nodes {
		log := filepath.Join(filepath.Dir(cfg.DataDir(n.ID)), fmt.Sprintf("node%d.log", n.ID))
		node := &localNode{id: n.ID, api: n.APIAddr(), logPath: log}
		if err := node.start(exe, serverArgs(e, cfgPath, n.ID)); err != nil {
			return l, err
		}
		l.nodes = append(l.nodes, node)
		l.watch(node)
	}
	return l, l.waitReady(ctx)
}

// watch hands the process on when it has ended.
func (l *localCluster) watch(n *localNode) {
	go func() {
		<-n.exited
		select {
		case l.ended <- n:
		case <-l.done:
		}
	}()
}

// checkPorts finds ports that are taken before anything is started or made. Without it a cluster
// that runs already would answer for the new one.
func checkPorts(cfg *config.Config) error {
	for _, n := range cfg.Cluster.Nodes {
		on := cfg.ListenOn(n)
		for _, addr := range []string{on.APIAddr(), on.RaftAddr()} {
			l, err := net.Listen("tcp", addr)
			if errors.Is(err, syscall.EADDRINUSE) {
				return usagef("imgcluster status shows whether a cluster runs already; else end that process, or configure other ports",
					"node %d needs %s, which another process has", n.ID, addr)
			}
			if err != nil {
				return usagef("configure an address of this machine", "node %d cannot use %s: %w", n.ID, addr, err)
			}
			l.Close()
		}
	}
	return nil
}

// otherFolder is the next step where the nodes' data cannot be written.
const otherFolder = "start it in a folder that this user can write to, or name one with --set node.data_dir=FOLDER/node{id}"

// start runs one server. It has a process group of its own, so that Ctrl-C reaches it through
// stop only, and dies with this process whatever happens.
func (n *localNode) start(exe string, args []string) error {
	if err := os.MkdirAll(filepath.Dir(n.logPath), 0o755); err != nil {
		return usagef(otherFolder, "folder of the nodes: %w", err)
	}
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		return usagef(otherFolder, "log of node %d: %w", n.id, err)
	}
	if n.logFrom, err = log.Seek(0, io.SeekEnd); err != nil {
		log.Close()
		return fmt.Errorf("log of node %d: %w", n.id, err)
	}
	n.cmd = exec.Command(exe, args...)
	n.cmd.Stdout, n.cmd.Stderr = log, log
	n.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	n.exited = make(chan struct{})
	started := make(chan error)
	go func() {
		defer log.Close()
		runtime.LockOSThread() // Pdeathsig is tied to the thread that forks
		err := n.cmd.Start()
		started <- err
		if err == nil {
			n.err = n.cmd.Wait()
		}
		close(n.exited)
	}()
	if err := <-started; err != nil {
		return fmt.Errorf("start node %d: %w", n.id, err)
	}
	return nil
}

// readyPoll is how often a starting node is asked.
const readyPoll = 50 * time.Millisecond

func (l *localCluster) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, l.cfg.Timeouts.Start)
	defer cancel()
	for _, n := range l.nodes {
		for !n.ready(ctx) {
			select {
			case <-n.exited:
				return n.failure()
			case <-ctx.Done():
				return fmt.Errorf("node %d is not ready: %w; its log is %s", n.id, context.Cause(ctx), n.logPath)
			case <-time.After(readyPoll):
			}
		}
	}
	for _, n := range l.nodes {
		if n.gone() {
			return n.failure()
		}
	}
	return nil
}

func (n *localNode) ready(ctx context.Context) bool {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+n.api+"/readyz", nil)
	if err != nil {
		return false
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	io.Copy(io.Discard, resp.Body)
	return resp.StatusCode == http.StatusOK && !n.gone() // or someone else answers there
}

func (n *localNode) gone() bool {
	select {
	case <-n.exited:
		return true
	default:
		return false
	}
}

// logTailBytes is how much of a failed node's log is looked at.
const logTailBytes = 4096

// failure says how a node ended, in the last words of its log. The node must be gone.
func (n *localNode) failure() *nodeError {
	f := &nodeError{id: n.id, said: fmt.Sprintf("the process ended: %v", n.err), hint: "its log is " + n.logPath, status: n.cmd.ProcessState.ExitCode()}
	if n.err == nil {
		f.said = "the process ended"
	}
	if f.status <= 0 {
		return f // it had no last words: what the log ends with is another's
	}
	tail := "\n" + string(n.words())
	at := strings.LastIndex(tail, "\nimgcluster: ")
	if at < 0 {
		return f
	}
	said, hint, hinted := strings.Cut(tail[at+len("\nimgcluster: "):], "\nhint: ")
	f.said = strings.TrimSpace(said)
	if hinted {
		f.hint = strings.TrimSpace(hint)
	}
	return f
}

// words returns the end of what this process logged.
func (n *localNode) words() []byte {
	f, err := os.Open(n.logPath)
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

// stopMargin is what a node gets beyond its own bound before it is killed.
const stopMargin = 5 * time.Second

// shutdown is stop within the bound that the nodes have for it, also when ctx is over.
func (l *localCluster) shutdown(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), l.cfg.Timeouts.Shutdown+stopMargin)
	defer cancel()
	return l.stop(ctx)
}

// stop asks all nodes to end, those that are paused too, and kills those that still run when ctx is
// done. It is called once.
func (l *localCluster) stop(ctx context.Context) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.done)
	for _, n := range l.nodes {
		n.cmd.Process.Signal(syscall.SIGTERM)
		n.cmd.Process.Signal(syscall.SIGCONT)
	}
	var wg sync.WaitGroup
	errs := make([]error, len(l.nodes))
	for i, n := range l.nodes {
		wg.Go(func() {
			select {
			case <-n.exited:
			case <-ctx.Done():
				n.cmd.Process.Kill()
				<-n.exited
				errs[i] = fmt.Errorf("node %d did not stop in time and was killed; its log is %s", n.id, n.logPath)
			}
		})
	}
	wg.Wait()
	return errors.Join(errs...)
}
