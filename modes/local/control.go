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

// Limits of the protocol on the control socket of up. Whoever may open the socket (mode 0600) can make
// the nodes fail. A session begins with a line "nodes 1 2 3" from up, or "error WHY". Then each line
// "kill 2" (an Action and a node) is answered by "ok" or "error WHY". There is one session at a time.
// However it ends, up continues the nodes that were paused in it and restarts those that were ended.
const (
	controlLineMax = 1024             // bytes
	controlDial    = 2 * time.Second  // until the first line from up
	controlAnswer  = 45 * time.Second // until an action is answered, which may wait for a node to end
)

// controlPath returns the path of the socket on which up listens with this configuration. The API port in it
// keeps clusters apart that run at the same time.
func controlPath(cfg *config.Config) string {
	first := cfg.Cluster.Nodes[0]
	return filepath.Join(filepath.Dir(cfg.DataDir(first.ID)), fmt.Sprintf("up-%d.sock", first.APIPort))
}

// shortPath returns a path by its folder's descriptor, since a socket's path has at most 107 bytes
// (unix(7)). The caller closes the folder after the last use of the path.
func shortPath(path string) (short string, folder *os.File, err error) {
	folder, err = os.Open(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", folder.Fd(), filepath.Base(path)), folder, nil
}

// Control serves the control socket of a cluster.
type Control struct {
	cluster *Cluster
	say     func(format string, args ...any)
	folder  *os.File
	socket  net.Listener
	served  chan struct{} // closed when all sessions have ended
	session sync.Mutex    // held by the one session

	mu    sync.Mutex
	conns map[net.Conn]bool
}

// Listen serves the control socket of a cluster until Close, and says what is done to its nodes. The
// nodes must be ready: then no other up runs them, and an existing socket is a leftover of one that has
// ended.
func Listen(ctx context.Context, cluster *Cluster, say func(format string, args ...any)) (*Control, error) {
	path, folder, err := shortPath(controlPath(cluster.cfg))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		folder.Close()
		return nil, err
	}
	private := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		// Before bind, so that it is never open to other users.
		outer := c.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) })
		return errors.Join(outer, err)
	}}
	socket, err := private.Listen(ctx, "unix", path)
	if err != nil {
		folder.Close()
		return nil, err
	}
	c := &Control{
		cluster: cluster,
		say:     say,
		folder:  folder,
		socket:  socket,
		served:  make(chan struct{}),
		conns:   map[net.Conn]bool{},
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

// serveOne serves a session, and restores the nodes at its end.
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

// Close ends all sessions and waits for their end. Unless the context of Listen is done, each session
// restores the nodes first.
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
