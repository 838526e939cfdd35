//go:build !windows

package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
)

// Control serves the control socket of a cluster.
type Control struct {
	cluster *Cluster
	say     func(format string, args ...any)
	done    func() // with the socket's path
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
	path, done, err := shortPath(controlPath(cluster.cfg))
	if err != nil {
		return nil, err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		done()
		return nil, err
	}
	socket, err := listenPrivate(ctx, path)
	if err != nil {
		done()
		return nil, err
	}
	c := &Control{
		cluster: cluster,
		say:     say,
		done:    done,
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
	c.done()
}
