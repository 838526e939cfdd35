// Package local supervises a cluster all of whose nodes are processes on this machine: it starts them,
// waits until they are ready, makes them fail on purpose and restarts them (Cluster.Do), and stops them.
// The process that started them can let another one do so through a socket (Listen, Connect).
package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

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

// Action is what can be done to a node's process.
type Action string

// The actions. Start waits until the process that was killed or stopped has ended, and so does Kill. The
// others return at once.
const (
	ActionKill     Action = "kill"     // SIGKILL
	ActionStop     Action = "stop"     // SIGTERM
	ActionPause    Action = "pause"    // SIGSTOP
	ActionContinue Action = "continue" // SIGCONT
	ActionStart    Action = "start"
)

// Session lets this process make the nodes fail that an imgcluster up runs. It is safe for concurrent use.
type Session struct {
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
}

// Connect opens a session with the up that runs the configuration's nodes. same is for hints: the options
// that give a command the same configuration.
func Connect(ctx context.Context, cfg *config.Config, same string) (*Session, error) {
	hint := "end what runs the nodes now and start them with: imgcluster up" + same
	path, done, err := shortPath(controlPath(cfg))
	if err != nil {
		return nil, refusef(hint, "no imgcluster up with this configuration was started in this folder: %w", err)
	}
	defer done()
	dialer := net.Dialer{Timeout: controlDial}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, refusef(hint, "no imgcluster up that runs the nodes listens on %s: %w",
			controlPath(cfg), errors.Unwrap(err))
	}
	s := &Session{conn: conn, in: bufio.NewReaderSize(io.Reader(conn), controlLineMax)}
	greeting, err := s.read(controlDial)
	if err != nil {
		conn.Close()
		return nil, refusef("wait for its end", "imgcluster up refuses: %w", err)
	}
	if running := strings.Fields(greeting); len(running) != len(cfg.Cluster.Nodes)+1 {
		conn.Close()
		return nil, refusef(hint, "imgcluster up does not run all nodes: it has %s", greeting)
	}
	return s, nil
}

// linkedPath returns a path by a symbolic link to its folder in the temporary folder, where it is shorter
// than the path itself. done removes the link.
func linkedPath(path string) (short string, done func(), err error) {
	folder, err := filepath.Abs(filepath.Dir(path))
	if err != nil {
		return "", nil, err
	}
	dir, err := os.MkdirTemp("", "img")
	if err != nil {
		return "", nil, err
	}
	link := filepath.Join(dir, "d")
	if err := os.Symlink(folder, link); err != nil {
		return "", nil, errors.Join(err, os.RemoveAll(dir))
	}
	return filepath.Join(link, filepath.Base(path)), func() { os.RemoveAll(dir) }, nil
}

// Do takes an action on a node.
func (s *Session) Do(_ context.Context, a Action, node int) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conn.SetDeadline(time.Now().Add(controlAnswer))
	if _, err := fmt.Fprintln(s.conn, string(a), node); err != nil {
		return fmt.Errorf("imgcluster up has ended: %w", err)
	}
	_, err := s.read(controlAnswer)
	return err
}

// read returns the next line from up.
func (s *Session) read(limit time.Duration) (string, error) {
	s.conn.SetReadDeadline(time.Now().Add(limit))
	line, err := s.in.ReadString('\n')
	if err != nil {
		return "", fmt.Errorf("imgcluster up does not answer: %w", err)
	}
	line = strings.TrimSpace(line)
	if why, refused := strings.CutPrefix(line, "error "); refused {
		return "", errors.New(why)
	}
	return line, nil
}

// Close ends the session, after which up restores the nodes.
func (s *Session) Close() error { return s.conn.Close() }
