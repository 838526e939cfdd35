package local

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"sync"
	"time"

	"imgcluster/config"
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
	path, folder, err := shortPath(controlPath(cfg))
	if err != nil {
		return nil, refusef(hint, "no imgcluster up with this configuration was started in this folder: %w", err)
	}
	defer folder.Close()
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
