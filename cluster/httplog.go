package cluster

import (
	"bytes"
	"log"
	"sync"
	"time"

	"go.uber.org/zap"
)

// handshakesEvery is the pause between two log lines about failed TLS handshakes: anyone can cause as many as
// they like.
const handshakesEvery = 10 * time.Second

// handshakeFailed begins what net/http logs of one.
var handshakeFailed = []byte("http: TLS handshake error from ")

// httpLog is what an HTTP server logs to.
type httpLog struct {
	logger *zap.Logger

	mu      sync.Mutex
	said    time.Time // when a failed handshake was logged last
	skipped int       // failed handshakes since then
}

func newHTTPLog(logger *zap.Logger) *log.Logger { return log.New(&httpLog{logger: logger}, "", 0) }

// Write implements io.Writer: p is one line.
func (l *httpLog) Write(p []byte) (int, error) {
	line := string(bytes.TrimSpace(p))
	if !bytes.HasPrefix(p, handshakeFailed) {
		l.logger.Info(line)
		return len(p), nil
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if time.Since(l.said) < handshakesEvery {
		l.skipped++
		return len(p), nil
	}
	l.logger.Info(line, zap.Int("others_before", l.skipped))
	l.said = time.Now()
	l.skipped = 0
	return len(p), nil
}
