package modes

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/wait"
	"imgcluster/config"
)

// programEnv makes this test binary the program itself. The server processes that up and demo start
// inherit it, so that all processes run the code under test.
const programEnv = "TEST_BINARY_IS_PROGRAM"

func TestMain(m *testing.M) {
	if a := os.Getenv(attackEnv); a != "" {
		os.Exit(runAttack(a))
	}
	if os.Getenv(programEnv) == "" {
		for _, v := range os.Environ() {
			if name, _, _ := strings.Cut(v, "="); strings.HasPrefix(name, "IMGCLUSTER_") {
				os.Unsetenv(name)
			}
		}
		os.Setenv(programEnv, "1") // for every process from here
		os.Exit(m.Run())
	}
	os.Exit(Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// waitMax is the limit of every wait in these tests, far above what any should take.
const waitMax = 2 * time.Minute

// call runs a command within this process and in its folder. It is much cheaper than program, for
// commands that get no signals and leave no settings behind.
func call(t *testing.T, args ...string) ended {
	t.Helper()
	var out, errs bytes.Buffer
	defer debug.SetMemoryLimit(debug.SetMemoryLimit(-1)) // stress lowers it
	status := Main(t.Context(), args, strings.NewReader(""), &out, &errs)
	return ended{strings.Join(args, " "), out.String(), errs.String(), status}
}

// program returns a command to be run as a process, in a folder.
func program(t *testing.T, dir string, args ...string) *exec.Cmd {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), waitMax)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Dir = dir
	return cmd
}

// built builds the program as users have it, and returns its path.
func built(t *testing.T) string {
	t.Helper()
	binary := filepath.Join(t.TempDir(), "imgcluster")
	cmd := exec.Command("go", "build", "-trimpath", "-o", binary, "..")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return binary
}

// ended is a command that has ended.
type ended struct {
	line     string
	out, err string
	status   int
}

func (e ended) String() string {
	return fmt.Sprintf("imgcluster %s: exit status %d\n%s%s", e.line, e.status, e.out, e.err)
}

// expectErr checks the exit status, and that standard error has all of these texts.
func (e ended) expectErr(t *testing.T, status int, texts ...string) {
	t.Helper()
	e.expect(t, status, "standard error", e.err, texts)
}

// expectOut checks the exit status, and that standard output has all of these texts.
func (e ended) expectOut(t *testing.T, status int, texts ...string) {
	t.Helper()
	e.expect(t, status, "standard output", e.out, texts)
}

// expectRefused is expectErr for a command that was refused: it names the next step and prints nothing.
func (e ended) expectRefused(t *testing.T, status int, texts ...string) {
	t.Helper()
	e.expectErr(t, status, append(texts, "hint: ")...)
	if e.out != "" {
		t.Errorf("a refused command prints %q", e.out)
	}
}

func (e ended) expect(t *testing.T, status int, stream, text string, wants []string) {
	t.Helper()
	if e.status != status {
		t.Errorf("want exit status %d of %v", status, e)
	}
	for _, want := range wants {
		if !strings.Contains(text, want) {
			t.Errorf("no %q on %s of %v", want, stream, e)
		}
	}
}

// finish runs a command to its end.
func finish(t *testing.T, cmd *exec.Cmd) ended {
	t.Helper()
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatalf("%v: %v", cmd.Args, err)
	}
	return ended{strings.Join(cmd.Args[1:], " "), out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// eventually polls until a condition holds.
func eventually(t *testing.T, what string, holds func() bool) {
	t.Helper()
	poll.Until(t, waitMax, what, holds)
}

// lines collects the output of a running process. It is safe for concurrent use.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(p)
}

func (l *lines) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
}

// running is a process that was started.
type running struct {
	cmd      *exec.Cmd
	out, err lines
	ended    chan struct{} // closed when it has ended
}

func start(t *testing.T, cmd *exec.Cmd) *running {
	t.Helper()
	r := &running{cmd: cmd, ended: make(chan struct{})}
	cmd.Stdout, cmd.Stderr = &r.out, &r.err
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		cmd.Wait() // the error is in its state
		close(r.ended)
	}()
	t.Cleanup(func() {
		cmd.Process.Kill() // when the test has failed
		<-r.ended
	})
	return r
}

// awaitText waits until the process has written a text that matches, and returns the submatches.
func (r *running) awaitText(t *testing.T, l *lines, pattern string) []string {
	t.Helper()
	re := regexp.MustCompile(pattern)
	var found []string
	eventually(t, pattern, func() bool {
		over := r.over()
		if found = re.FindStringSubmatch(l.String()); found == nil && over {
			t.Fatalf("no %q before the end: %s%s", pattern, &r.out, &r.err)
		}
		return found != nil
	})
	return found
}

// over reports whether the process has ended.
func (r *running) over() bool { return wait.Closed(r.ended) }

// status waits for the end and returns the exit status.
func (r *running) status() int {
	<-r.ended
	return r.cmd.ProcessState.ExitCode()
}

// interrupt sends SIGINT, waits for the end, and returns the exit status.
func (r *running) interrupt(t *testing.T) int {
	t.Helper()
	if err := r.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	return r.status()
}

// upCluster is a cluster that "imgcluster up" runs.
type upCluster struct {
	*running
	t    *testing.T
	dir  string // where the data is and commands run
	pids map[int]int
}

// up starts a cluster on free ports, with short waits, so that errors come soon. more is added to its
// configuration.
func up(t *testing.T, more ...string) *upCluster {
	t.Helper()
	dir := t.TempDir()
	writeConfig(t, dir, strings.Join(more, "\n"))
	l := &upCluster{running: start(t, program(t, dir, "up")), t: t, dir: dir, pids: map[int]int{}}
	l.awaitText(t, &l.out, `Stop +Ctrl-C`)
	node := regexp.MustCompile(`node (\d) .* process (\d+)`)
	for _, m := range node.FindAllStringSubmatch(l.out.String(), -1) {
		id, _ := strconv.Atoi(m[1])
		l.pids[id], _ = strconv.Atoi(m[2])
	}
	if len(l.pids) != 3 {
		t.Fatalf("up says %s", &l.out)
	}
	return l
}

// writeConfig writes an imgcluster.yaml of three nodes on free ports.
func writeConfig(t *testing.T, dir, more string) {
	t.Helper()
	ports, err := config.FreePorts(6)
	if err != nil {
		t.Fatal(err)
	}
	text := "cluster:\n  nodes:\n"
	for i := range 3 {
		text += fmt.Sprintf("    - {id: %d, host: 127.0.0.1, api_port: %d, raft_port: %d}\n",
			i+1, ports[2*i], ports[2*i+1])
	}
	text += "client: {attempts: 2}\nlimits: {disk_free_bytes: 1MiB}\n" + more
	if err := os.WriteFile(filepath.Join(dir, "imgcluster.yaml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

// run calls a command for the cluster, in whose folder the test runs.
func (l *upCluster) run(args ...string) ended {
	l.t.Helper()
	return call(l.t, args...)
}

// expectExit is run for a command with this exit status. It returns standard output.
func (l *upCluster) expectExit(status int, args ...string) string {
	l.t.Helper()
	e := l.run(args...)
	if e.status != status {
		l.t.Fatalf("want exit status %d of %v", status, e)
	}
	return e.out
}

// processEnded reports whether no process has this ID any more.
func processEnded(pid int) bool { return errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// expectFields checks that a JSON text has all of these fields. "nodes.0.id" is the id of the first of nodes.
func expectFields(t *testing.T, text string, paths ...string) {
	t.Helper()
	var doc any
	if err := json.Unmarshal([]byte(text), &doc); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	for _, path := range paths {
		at := doc
		for name := range strings.SplitSeq(path, ".") {
			at = member(at, name)
		}
		if at == nil {
			t.Errorf("no %s in %s", path, text)
		}
	}
}

func member(v any, name string) any {
	switch v := v.(type) {
	case map[string]any:
		return v[name]
	case []any:
		if i, err := strconv.Atoi(name); err == nil && i < len(v) {
			return v[i]
		}
	}
	return nil
}

// decode reads a JSON text.
func decode[T any](t *testing.T, text string) (v T) {
	t.Helper()
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in %q", err, text)
	}
	return v
}

// photoDir is absolute, since tests change their folder.
var photoDir, _ = filepath.Abs("../testdata/photos")

// photos returns the paths of real photographs.
func photos(t *testing.T) []string {
	t.Helper()
	var found []string
	for _, pattern := range []string{"*.jpeg", "*.png"} {
		names, err := filepath.Glob(filepath.Join(photoDir, pattern))
		if err != nil {
			t.Fatal(err)
		}
		found = append(found, names...)
	}
	if len(found) < 3 {
		t.Fatalf("only %d photographs", len(found))
	}
	slices.SortFunc(found, func(a, b string) int { return strings.Compare(filepath.Base(a), filepath.Base(b)) })
	return found
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// logLines returns the lines of a run's log by type.
func logLines(t *testing.T, path string) map[string][]string {
	t.Helper()
	byType := map[string][]string{}
	scan := bufio.NewScanner(bytes.NewReader(read(t, path)))
	scan.Buffer(nil, 1<<20)
	for scan.Scan() {
		typ := decode[struct{ Type string }](t, scan.Text()).Type
		byType[typ] = append(byType[typ], scan.Text())
	}
	if err := scan.Err(); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return byType
}
