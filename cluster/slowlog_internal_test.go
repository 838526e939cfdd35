package cluster

import (
	"errors"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"imgcluster/cluster/api"
	"imgcluster/cluster/trace"
)

// TestSlowLog: what is slow has a line, also when it failed, and of many a few.
func TestSlowLog(t *testing.T) {
	core, logs := observer.New(zap.InfoLevel)
	l := newSlowLog(time.Minute, zap.New(core))
	quick, slow := trace.New("quick"), trace.New("slow")
	slow.Began = slow.Began.Add(-time.Hour)
	slow.Add(trace.Fsync, 59*time.Minute)
	failed := errors.New("the disk is on fire")
	l.add(trace.Upload, quick, api.Outcome{User: "alice", Name: "a", Err: failed})
	if logs.Len() != 0 {
		t.Fatalf("a quick one was logged: %v", logs.All())
	}
	const many = 1000
	for range many {
		l.add(trace.Upload, slow, api.Outcome{User: "alice", Name: "a", Bytes: 7, Err: failed})
	}
	first := logs.All()[0]
	m := first.ContextMap()
	if first.Message != "slow upload" || m["image"] != "alice/a" || m["bytes"] != int64(7) ||
		m["fsync_s"] != 3540.0 || m["took_s"].(float64) < 3600 || m["request"] != "slow" ||
		m["error"] != failed.Error() {
		t.Errorf("logged %q %v", first.Message, m)
	}
	if n := logs.Len(); n < slowPerSecond || n > many/2 {
		t.Errorf("%d lines of %d", n, many)
	}
	newSlowLog(0, zap.New(core)).add(trace.Read, slow, api.Outcome{})
	if logs.FilterMessage("slow read").Len() != 0 {
		t.Error("a line though log.slow is 0")
	}
}
