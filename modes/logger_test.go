package modes

import (
	"bytes"
	"fmt"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// thing is an object that is logged inline and has a String method.
type thing struct{}

func (thing) String() string { return "three things" }

func (thing) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt("things", 3)
	return nil
}

// TestLogLines: on the console an inline object is logged as its string, in JSON as its fields.
func TestLogLines(t *testing.T) {
	for format, want := range map[string][]string{
		"console": {
			`^\d{4}-\d\d-\d\dT[\d:.]+\S+ INFO  three things \{"node": 2\}$`,
			`^\S+ WARN  peers peer is down \{"node": 2, "peer": 3, "after": "1.5s"\}$`,
		},
		"json": {
			`^\{"level":"info","ts":"[^"]+","msg":"things","node":2,"things":3\}$`,
			`^\{"level":"warn","ts":"[^"]+","logger":"peers","msg":"peer is down","node":2,"peer":3,"after":1.5\}$`,
		},
	} {
		var out bytes.Buffer
		cfg := config.Default()
		cfg.Log.Format = format
		l, _, err := newLogger(cfg, 2, &out)
		if err != nil {
			t.Fatal(err)
		}
		l.Debug("not said")
		l.Info("things", zap.Inline(thing{}))
		l.Named("peers").Warn("peer is down", zap.Int("peer", 3), zap.Duration("after", 1500*time.Millisecond))
		lines := bytes.Split(bytes.TrimSpace(out.Bytes()), []byte("\n"))
		if len(lines) != len(want) {
			t.Fatalf("%s: %s", format, &out)
		}
		for i, line := range lines {
			if !regexp.MustCompile(want[i]).Match(line) {
				t.Errorf("%s: got %s, want %s", format, line, want[i])
			}
		}
	}
}

// TestLogOnATerminal: a line has neither the node nor the date.
func TestLogOnATerminal(t *testing.T) {
	user, program := terminal(t)
	l, _, err := newLogger(config.Default(), 2, program)
	if err != nil {
		t.Fatal(err)
	}
	l.Info("things", zap.Inline(thing{}))
	line := make([]byte, 200)
	n, err := user.Read(line)
	if err != nil || !regexp.MustCompile(`^\d\d:\d\d:\d\d\.\d{3} INFO  three things\r\n$`).Match(line[:n]) {
		t.Errorf("%q, %v", line[:n], err)
	}
}

// TestLogOfACrash kills a node: the others warn that it is down once, and of nothing else.
func TestLogOfACrash(t *testing.T) {
	l := up(t, "log: {level: debug}")
	t.Chdir(l.dir)
	log := func(id int) string {
		return string(read(t, filepath.Join(l.dir, "imgcluster-data", fmt.Sprintf("node%d.log", id))))
	}
	l.kill(2)
	l.awaitState(2, wire.NodeDown)
	for _, id := range []int{1, 3} {
		eventually(t, "Raft's links log it", func() bool { return strings.Contains(log(id), "became unreachable") })
	}
	back := start(t, program(t, l.dir, "server", "--id", "2"))
	l.awaitState(2, wire.NodeUp)
	back.interrupt(t)
	l.interrupt(t)
	harmless := regexp.MustCompile(`^\S+ (INFO|DEBUG) `)
	for _, id := range []int{1, 3} {
		var warnings []string
		for line := range strings.Lines(log(id)) {
			if !harmless.MatchString(line) && !strings.Contains(line, "limits.disk_free_bytes") {
				warnings = append(warnings, line)
			}
		}
		if len(warnings) != 1 || !strings.Contains(warnings[0], " WARN  peers peer is down ") {
			t.Errorf("node %d warns\n%s", id, strings.Join(warnings, ""))
		}
		if !strings.Contains(log(id), " INFO  peers peer has stopped ") {
			t.Errorf("node %d does not log that node 2 has stopped", id)
		}
	}
}

// TestNodeIsLoggedOnce: every line has the number of the node whose log it is. A field of the same name
// would be a second one, which JSON's readers take in its place.
func TestNodeIsLoggedOnce(t *testing.T) {
	field := regexp.MustCompile(`zap\.\w+\("node",`)
	for _, pattern := range []string{"*.go", "../cluster/*.go", "../cluster/*/*.go"} {
		files, err := filepath.Glob(pattern)
		must(t, err)
		for _, file := range files {
			base := filepath.Base(file)
			if strings.HasSuffix(base, "_test.go") || base == "logger.go" || base == "clustertest.go" {
				continue
			}
			if found := field.Find(read(t, file)); found != nil {
				t.Errorf("%s: %s...)", file, found)
			}
		}
	}
}

// TestLogLevelOfRunningNodes changes what nodes log while they run.
func TestLogLevelOfRunningNodes(t *testing.T) {
	l := up(t)
	t.Chdir(l.dir)
	expect := func(status int, want string, args ...string) {
		t.Helper()
		p := program(t, l.dir, append([]string{"log-level"}, args...)...)
		out, err := p.CombinedOutput()
		if p.ProcessState.ExitCode() != status || !strings.Contains(string(out), want) {
			t.Errorf("log-level %q: %v\n%s, want %d and %q", args, err, out, status, want)
		}
	}
	expect(0, "node 1  info\nnode 2  info\nnode 3  info\n")
	expect(0, "node 2  debug\n", "debug", "--node", "2")
	expect(0, "node 1  info\nnode 2  debug\nnode 3  info\n")
	expect(0, `{"node":2,"level":"debug"}`, "--json", "--node", "2")
	expect(2, "use one of debug, info, warn, error", "loud")
	expect(2, "not a member", "--node", "7")
	l.kill(1)
	expect(1, "node 2  warn\nnode 3  warn\n", "warn")
	l.interrupt(t)
	log := string(read(t, filepath.Join(l.dir, "imgcluster-data", "node2.log")))
	if !strings.Contains(log, " DEBUG ") || strings.Count(log, "log level changed") != 2 {
		t.Errorf("node 2 logs\n%s", log)
	}
}
