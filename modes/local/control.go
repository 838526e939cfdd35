package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"imgcluster/config"
)

// The control socket of up: who may open it (mode 0600) can make its nodes fail. A session begins
// with a line "nodes 1 2 3" of up, or "error WHY"; then each line "kill 2" (an Action and a node) is answered by "ok" or "error WHY". There is one session at a time. However it
// ends, up brings back what was paused or ended in it.
const (
	controlLineMax = 1024             // bytes
	controlDial    = 2 * time.Second  // for up to greet
	controlAnswer  = 45 * time.Second // for up to do what it was told, the end of a node included
)

// controlPath is where up with this configuration listens. The port makes it one socket for each
// cluster that can run at once.
func controlPath(cfg *config.Config) string {
	first := cfg.Cluster.Nodes[0]
	return filepath.Join(filepath.Dir(cfg.DataDir(first.ID)), fmt.Sprintf("up-%d.sock", first.APIPort))
}

// shortPath gives a socket a path by its folder's descriptor: the system takes 107 bytes only. The
// folder is to be closed after the last use of the path.
func shortPath(path string) (short string, folder *os.File, err error) {
	folder, err = os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)), folder, nil
}

// Control is the socket of a cluster that up runs.
type Control struct {
	cluster *Cluster
	say     func(format string, args ...any)
	folder  *os.File
	socket  net.Listener
	served  chan struct{} // closed when nothing is served any more
	session sync.Mutex

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Listen serves the control socket of a cluster until Close, and says what is done to its nodes. They must be
// ready: then no other up has them, and a socket that is there was left by one that has ended.
func Listen(ctx context.Context, l *Cluster, say func(format string, args ...any)) (*Control, error) {
	path, folder, err := shortPath(controlPath(l.cfg))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		folder.Close()
		return nil, err
	}
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// Before bind, so that it never is open to others.
		outer := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(outer, err)
	}}
	socket, err := private.Listen(ctx, "unix", path)
	if err != nil {
		folder.Close()
		return nil, err
	}
	c := &Control{
		cluster: l, say: say, folder: folder, socket: socket, served: make(chan struct{}), conns: map[net.Conn]bool{},
	}
	go c.serve(ctx)
	return c, nil
}

func (c *Control) serve(ctx context.Context) {
	defer close(c.served)
	var sessions sync.WaitGroup
	defer sessions.Wait()
	for {
		conn, err := c.socket.Accept()
		if err != nil {
			return
		}
		c.mu.Lock()
		c.conns[conn] = true
		c.mu.Unlock()
		sessions.Go(func() {
			c.serveOne(ctx, conn)
			c.mu.Lock()
			delete(c.conns, conn)
			c.mu.Unlock()
			conn.Close()
		})
	}
}

// serveOne serves a session, and puts right what it leaves.
func (c *Control) serveOne(ctx context.Context, conn net.Conn) {
	if !c.session.TryLock() {
		fmt.Fprintln(conn, "error another stress --chaos is running")
		return
	}
	defer c.session.Unlock()
	fmt.Fprintln(conn, "nodes", strings.Trim(fmt.Sprint(c.cluster.running()), "[]"))
	lines := bufio.NewScanner(conn)
	lines.Buffer(nil, controlLineMax)
	for lines.Scan() {
		answer := "ok"
		if err := c.obey(ctx, lines.Text()); err != nil {
			answer = "error " + strings.ReplaceAll(err.Error(), "\n", " ")
		}
		if _, err := fmt.Fprintln(conn, answer); err != nil {
			break
		}
	}
	if ctx.Err() != nil {
		return // all nodes are about to be stopped
	}
	if err := c.cluster.restore(ctx); err != nil {
		c.say("after stress --chaos: %v", err)
	}
}

func (c *Control) obey(ctx context.Context, line string) error {
	action, id, _ := strings.Cut(line, " ")
	node, err := strconv.Atoi(id)
	if err != nil {
		return fmt.Errorf("%q is not an action and a node", line)
	}
	err = c.cluster.Do(ctx, Action(action), node)
	if err == nil {
		c.say("stress --chaos: %s node %d", action, node)
	}
	return err
}

// Close ends all sessions; when it returns, no node is touched any more. The context of
// Listen must be done, or the nodes of a session are brought back first.
func (c *Control) Close() {
	c.socket.Close()
	c.mu.Lock()
	for conn := range c.conns {
		conn.Close()
	}
	c.mu.Unlock()
	<-c.served
	c.folder.Close()
}
