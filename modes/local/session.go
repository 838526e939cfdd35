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

// Session lets this process make the nodes of another one's Cluster fail. It is safe for concurrent use.
type Session struct {
	mu   sync.Mutex
	conn net.Conn
	in   *bufio.Reader
}

// Connect finds the up that runs the configuration's nodes. same is the end of a command line that has that
// configuration, for hints.
func Connect(ctx context.Context, cfg *config.Config, same string) (*Session, error) {
	const hint = "end what runs the nodes now and start them with: imgcluster up"
	path, folder, err := shortPath(controlPath(cfg))
	if err != nil {
		return nil, refusef(hint+same, "no imgcluster up with this configuration was started in this folder: %w", err)
	}
	defer folder.Close()
	dialer := net.Dialer{Timeout: controlDial}
	conn, err := dialer.DialContext(ctx, "unix", path)
	if err != nil {
		return nil, refusef(hint+same, "the nodes are not processes of an imgcluster up that can be asked to stop them: %s: %w",
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
		return nil, refusef(hint+same, "imgcluster up does not run all nodes: it has %s", greeting)
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

// read returns up's next line.
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

// Close lets up put right what is left.
func (s *Session) Close() error { return s.conn.Close() }
