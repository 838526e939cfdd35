package consensus

import (
	"fmt"
	"log"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/lni/dragonboat/v4/logger"
	"go.uber.org/zap"
)

// dragonboat has one logger for the whole process, and importing it takes the standard log over.
// Both go to the logger of the node that started last; a server process has one node.
var (
	rootLogger  atomic.Pointer[zap.Logger]
	takeLogOver sync.Once
)

func setLogger(l *zap.Logger) {
	rootLogger.Store(l)
	takeLogOver.Do(func() {
		logger.SetLoggerFactory(func(pkg string) logger.ILogger { return raftLogger{pkg} })
		log.SetFlags(0)
		log.SetPrefix("")
		log.SetOutput(standardLog{})
	})
}

// standardLog is where the standard log writes to.
type standardLog struct{}

func (standardLog) Write(p []byte) (int, error) {
	rootLogger.Load().Named("stdlog").Info(strings.TrimSpace(string(p)))
	return len(p), nil
}

// raftLogger is dragonboat's logger for one of its packages. Its info is debug here, and so are the
// warnings of its package raft: both have every step of every shard, a vote for example. So is what is
// quiet. Levels belong to zap, so SetLevel does nothing.
type raftLogger struct{ pkg string }

// quiet are warnings and errors of dragonboat, by their format, that this program logs in its own words or
// that nothing follows from.
var quiet = map[string]bool{
	// Its transport is not in use, and what the ratio may be is a check of the configuration: five
	// heartbeats to an election serve.
	"mutual TLS disabled, communication is insecure":          true,
	"ElectionRTT is not a magnitude larger than HeartbeatRTT": true,
	// This process had no processor for a while, logged for every shard. What comes of it is logged:
	// elections.
	"%s had %d LocalTick msgs in one batch": true,
	// A node that does not answer, logged for every link and again and again: see Unreachable.
	"Nodehost %s failed to get a connection to %s, %v":        true,
	"send batch failed, target %s (%v), %d":                   true,
	"send batch failed, taret node %s (%v), %d":               true,
	"breaker %s to %s failed, connect and process failed: %s": true,
	"%s became unreachable, affected %d nodes":                true,
}

func (l raftLogger) to() *zap.SugaredLogger {
	return rootLogger.Load().Named("dragonboat").Named(l.pkg).Sugar()
}

func (l raftLogger) debug(format string, args []any) {
	if rootLogger.Load().Core().Enabled(zap.DebugLevel) {
		l.to().Debugf(format, args...)
	}
}

func (l raftLogger) SetLevel(logger.LogLevel)          {}
func (l raftLogger) Debugf(format string, args ...any) { l.debug(format, args) }
func (l raftLogger) Infof(format string, args ...any)  { l.debug(format, args) }

func (l raftLogger) Errorf(format string, args ...any) {
	if quiet[format] {
		l.debug(format, args)
		return
	}
	l.to().Errorf(format, args...)
}

func (l raftLogger) Warningf(format string, args ...any) {
	if l.pkg == "raft" || quiet[format] {
		l.debug(format, args)
		return
	}
	l.to().Warnf(format, args...)
}

// Panicf must panic: dragonboat calls it where going on would lose data. It does so with an error, for
// dragonboat swallows a panic with a text while it starts.
func (l raftLogger) Panicf(format string, args ...any) {
	p := &panicked{text: fmt.Sprintf(format, args...)}
	for _, a := range args {
		if err, ok := a.(error); ok {
			p.cause = err
		}
	}
	defer func() {
		recover() // zap's, which is a text
		panic(p)
	}()
	l.to().Panic(p.text)
}

// panicked is what dragonboat panics with.
type panicked struct {
	text  string
	cause error
}

func (p *panicked) Error() string { return p.text }
func (p *panicked) Unwrap() error { return p.cause }

// pebbleLogger is pebble's logger; its Fatalf must not return, and must not end the process behind
// the back of main.
type pebbleLogger struct{ log *zap.SugaredLogger }

func (l pebbleLogger) Infof(format string, args ...any)  { l.log.Debugf(format, args...) }
func (l pebbleLogger) Errorf(format string, args ...any) { l.log.Errorf(format, args...) }
func (l pebbleLogger) Fatalf(format string, args ...any) { l.log.Panicf(format, args...) }
