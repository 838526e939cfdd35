package api

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/access"
	"imgcluster/cluster/wire"
)

// TestLogLevel: a change is logged whatever was logged before, holds at once, and what is no level changes
// nothing.
func TestLogLevel(t *testing.T) {
	who := access.Administrator
	h, _ := guarded(&who)
	level := zap.NewAtomicLevelAt(zap.ErrorLevel)
	core, logs := observer.New(level)
	h.Logger, h.Level = zap.New(core), level
	server := httptest.NewServer(h)
	defer server.Close()
	ask := func(method, body string) (status int, l wire.LogLevel) {
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+wire.LogPath, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Content-Type", wire.DocumentType)
		resp, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		text, err := io.ReadAll(resp.Body)
		if err == nil && resp.StatusCode == http.StatusOK {
			err = json.Unmarshal(text, &l)
		}
		if err != nil || resp.StatusCode != http.StatusOK && !bytes.Contains(text, []byte("debug, info, warn")) {
			t.Errorf("%s: %s, %v", body, text, err)
		}
		return resp.StatusCode, l
	}
	for _, to := range []string{"debug", "warn", "error", "info"} {
		if status, l := ask(http.MethodPut, `{"level":"`+to+`"}`); status != http.StatusOK || l.Level != to {
			t.Errorf("%s: %d %v", to, status, l)
		}
		if _, l := ask(http.MethodGet, ""); l.Level != to || level.Level().String() != to {
			t.Errorf("%v after it was set to %s", l, to)
		}
	}
	lines := logs.FilterMessage("log level changed").All()
	if len(lines) != 4 || lines[0].ContextMap()["from"] != "error" || lines[3].ContextMap()["to"] != "info" ||
		lines[0].ContextMap()["request"] == nil {
		t.Errorf("logged %v", lines)
	}
	for _, bad := range []string{
		`{"level":""}`, `{}`, `{"level":"fatal"}`, `{"level":"INFO"}`, `{"level":3}`, `[]`,
		`{"level":"debug","x":1}`, ``,
	} {
		if status, _ := ask(http.MethodPut, bad); status != http.StatusBadRequest {
			t.Errorf("%s: %d", bad, status)
		}
	}
	if level.Level() != zap.InfoLevel {
		t.Errorf("%v after what is no level", level.Level())
	}
}
