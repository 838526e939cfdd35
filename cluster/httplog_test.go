package cluster

import (
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

// TestHandshakesLogged: whoever fails many handshakes does not fill the log, and they are counted.
func TestHandshakesLogged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.DebugLevel)
		l := newHTTPLog(zap.New(core))
		for range 1000 {
			l.Print("http: TLS handshake error from 10.0.0.1:1234: EOF")
			time.Sleep(handshakesEvery / 400)
		}
		l.Print("http: panic serving")
		lines := logs.TakeAll()
		if len(lines) != 4 || lines[3].Message != "http: panic serving" {
			t.Fatalf("logged %v", lines)
		}
		if n := lines[1].ContextMap()["others_before"]; n != int64(399) {
			t.Errorf("%v were counted", n)
		}
	})
}
