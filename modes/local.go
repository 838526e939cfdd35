package modes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/config"
)

// localCluster is a cluster of server processes on this machine.
type localCluster struct {
	cfg   *config.Config
	nodes []*localNode
}

// localNode is one server process.
type localNode struct {
	id      image.NodeID
	api     string
	data    string
	logPath string
	cmd     *exec.Cmd
	exited  chan struct{} // closed when the process is gone
	err     error         // how it ended; read after exited
}

// startLocal starts every node of a loopback configuration as a process of its own and waits until
// all are ready. Whatever fails, the processes that were started are ended.
func startLocal(ctx context.Context, e *env, cfg *config.Config, cfgPath string) (*localCluster, error) {
	if !cfg.Loopback() {
		return nil, usagef("start each machine's node there, with: imgcluster server --id N", "the configuration's nodes are not all on this machine")
	}
	exe, err := executable()
	if err != nil {
		return nil, err
	}
	l := &localCluster{cfg: cfg}
	for _, n := range cfg.Cluster.Nodes {
		node := &localNode{id: n.ID, api: n.APIAddr(), data: cfg.DataDir(n.ID)}
		node.logPath = filepath.Join(filepath.Dir(node.data), fmt.Sprintf("node%d.log", n.ID))
		if err := node.start(exe, serverArgs(e, cfgPath, n.ID)); err != nil {
			return nil, errors.Join(err, l.stop(ctx))
		}
		l.nodes = append(l.nodes, node)
	}
	if err := l.waitReady(ctx); err != nil {
		stopping, cancel := context.WithTimeout(context.WithoutCancel(ctx), cfg.Timeouts.Shutdown)
		defer cancel()
		return nil, errors.Join(err, l.stop(stopping))
	}
	return l, nil
}

// start runs one server. It has a process group of its own, so that Ctrl-C reaches it through
// stop only, and dies with this process whatever happens.
func (n *localNode) start(exe string, args []string) error {
	if err := os.MkdirAll(filepath.Dir(n.logPath), 0o755); err != nil {
		return fmt.Errorf("folder of the nodes: %w", err)
	}
	log, err := os.OpenFile(n.logPath, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
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
				return fmt.Errorf("node %d is not ready: %w; its log is %s", n.id, ctx.Err(), n.logPath)
			case <-time.After(readyPoll):
			}
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
	select {
	case <-n.exited: // someone else answers there
		return false
	default:
		return resp.StatusCode == http.StatusOK
	}
}

// logTailBytes is how much of a failed node's log is looked at.
const logTailBytes = 4096

// failure says how a node ended, in the last words of its log.
func (n *localNode) failure() error {
	tail := lastBytes(n.logPath, logTailBytes)
	if _, said, ok := bytes.Cut(tail, []byte("imgcluster: ")); ok {
		return fmt.Errorf("node %d: %s", n.id, bytes.TrimSpace(said))
	}
	return fmt.Errorf("node %d ended (%v); its log is %s", n.id, n.err, n.logPath)
}

func lastBytes(path string, n int64) []byte {
	f, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > n {
		f.Seek(-n, io.SeekEnd)
	}
	b, _ := io.ReadAll(f)
	return b
}

// stop asks all nodes to end, and kills those that still run when ctx is done.
func (l *localCluster) stop(ctx context.Context) error {
	for _, n := range l.nodes {
		n.cmd.Process.Signal(syscall.SIGTERM)
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
