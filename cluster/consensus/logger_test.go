package consensus

import (
	"log"
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestLogger(t *testing.T) {
	core, logs := observer.New(zap.DebugLevel)
	setLogger(zap.New(core))
	defer setLogger(zap.NewNop())
	l := raftLogger{"transport"}
	raftLogger{"raft"}.Warningf("vote %d", 0)
	l.Warningf("%s became unreachable, affected %d nodes", "x", 1)
	l.Errorf("send batch failed, target %s (%v), %d", "x", "why", 1)
	l.Debugf("a %d", 1)
	l.Infof("b %d", 2)
	l.Warningf("c %d", 3)
	l.Errorf("d %d", 4)
	func() {
		defer func() {
			if recover() == nil {
				t.Error("Panicf did not panic")
			}
		}()
		l.Panicf("e %d", 5)
	}()
	log.Print("the standard log")
	want := map[string]zapcore.Level{
		"x became unreachable, affected 1 nodes": zap.DebugLevel,
		"send batch failed, target x (why), 1":   zap.DebugLevel,
		"vote 0":                                 zap.DebugLevel,
		"a 1":                                    zap.DebugLevel,
		"b 2":                                    zap.DebugLevel,
		"c 3":                                    zap.WarnLevel,
		"d 4":                                    zap.ErrorLevel,
		"e 5":                                    zap.PanicLevel,
		"the standard log":                       zap.InfoLevel,
	}
	for _, e := range logs.All() {
		if level, ok := want[e.Message]; ok && level == e.Level && e.LoggerName != "" &&
			!strings.HasSuffix(e.LoggerName, ".") {
			delete(want, e.Message)
		}
	}
	if len(want) > 0 {
		t.Errorf("not logged so: %v", want)
	}
}
