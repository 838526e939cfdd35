package modes

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/wire"
)

// TestHabits does to one cluster what people do with files, names, pipes and signals.
func TestHabits(t *testing.T) {
	t.Parallel()
	l := up(t)
	photo := read(t, photos(t)[0])
	for name, data := range map[string][]byte{"a.jpg": photo, "b.jpg": photo[1:], "empty.jpg": nil, "dir/c.jpg": photo[2:]} {
		path := filepath.Join(l.dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644))
	}
	must(t, os.Symlink("gone", filepath.Join(l.dir, "broken.jpg")), syscall.Mkfifo(filepath.Join(l.dir, "pipe"), 0o644))
	t.Run("put several", l.testPutSeveral)
	t.Run("put a pipe", l.testPutPipe)
	t.Run("stress with strays", l.testStressStrays)
	t.Run("get", l.testGetTo)
	t.Run("output", l.testCannotPrint)
	t.Run("names", l.testNamesShown)
	t.Run("hang up", l.testHangUp)
}

func must(t *testing.T, errs ...error) {
	t.Helper()
	for _, err := range errs {
		if err != nil {
			t.Fatal(err)
		}
	}
}

// do runs a command as a process in the cluster's folder.
func (l *upCluster) do(t *testing.T, args ...string) ended {
	t.Helper()
	return finish(t, program(t, l.dir, args...))
}

// bash runs a line of a shell there; "$img" is the program.
func (l *upCluster) bash(t *testing.T, line string) ended {
	t.Helper()
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	cmd := program(t, l.dir)
	cmd.Path, cmd.Args, cmd.Env = shell, []string{shell, "-c", line}, append(os.Environ(), "img="+os.Args[0])
	return finish(t, cmd)
}

func (l *upCluster) testPutSeveral(t *testing.T) {
	e := l.do(t, "put", "a.jpg", "broken.jpg", "dir", "empty.jpg", "pipe", "b.jpg", "ctl\x1b.jpg")
	if e.status != exitFailed || strings.Count(e.out, "copies on") != 2 || !strings.Contains(e.err, "imgcluster: 5 of 7 images were not stored\n") {
		t.Errorf("want two receipts of %v", e)
	}
	for _, said := range []string{"broken.jpg: no such file or directory", "dir is a folder", "empty.jpg is empty", "pipe is not a file: give it a name of its own with --name", `has a control character`} {
		if !strings.Contains(e.err, said) {
			t.Errorf("want %q of %v", said, e)
		}
	}
}

func (l *upCluster) testPutPipe(t *testing.T) {
	for _, line := range []string{`"$img" put --name piped.jpg <(cat a.jpg)`, `cat a.jpg | "$img" put --name piped.jpg -`, `cat a.jpg >pipe & "$img" put --name piped.jpg pipe`} {
		if e := l.bash(t, line+` && "$img" get default/piped.jpg -o - | cmp - a.jpg && "$img" rm default/piped.jpg`); e.status != 0 || !strings.Contains(e.out, "default/piped.jpg") {
			t.Errorf("%s: %v", line, e)
		}
	}
	if e := l.bash(t, `"$img" put --name piped.jpg <(true)`); e.status != exitUsage || !strings.Contains(e.err, "it is empty") {
		t.Error(e)
	}
}

func (l *upCluster) testStressStrays(t *testing.T) {
	args := []string{"stress", "--images", "strays", "--log", "strays.jsonl", "--force"}
	dir := filepath.Join(l.dir, "strays")
	must(t, os.MkdirAll(filepath.Join(dir, "sub"), 0o755), os.WriteFile(filepath.Join(dir, "sub/a.jpg"), read(t, filepath.Join(l.dir, "a.jpg")), 0o644),
		os.Symlink("gone", filepath.Join(dir, "broken.jpg")), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644), os.WriteFile(filepath.Join(dir, "none.jpg"), nil, 0o644),
		os.Symlink("sub", filepath.Join(dir, "folder")), os.Truncate(filepath.Join(dir, "none.jpg"), 0))
	large, err := os.Create(filepath.Join(dir, "large.jpg"))
	must(t, err, large.Truncate(64<<20+1), large.Close())
	e := l.do(t, args...)
	if e.status != exitFailed || !strings.Contains(e.out, "Success 1 of 1") || !strings.Contains(e.out, "Note: not all of --images was sent; left out: ") {
		t.Errorf("want one upload of %v", e)
	}
	run := decode[struct {
		LeftOut []string `json:"left_out"`
	}](t, logLines(t, filepath.Join(l.dir, "strays.jsonl"))["run"][0])
	for _, said := range []string{
		"strays/broken.jpg: no such file or directory", "strays/folder is a folder", "strays/large.jpg has 67108865 bytes, limits.image_bytes allows 67108864",
		"strays/none.jpg is empty", "strays/pipe is not a file",
	} {
		if !strings.Contains(e.err, said) || !strings.Contains(strings.Join(run.LeftOut, "\n"), said) {
			t.Errorf("want %q in %q and of %v", said, run.LeftOut, e)
		}
	}
	if e := l.do(t, append(args, "--dry-run")...); e.status != exitFailed || !strings.Contains(e.err, "5 of 6 in --images strays are not sent") {
		t.Error(e)
	}
}

func (l *upCluster) testGetTo(t *testing.T) {
	dir := filepath.Join(l.dir, "got")
	must(t, os.Mkdir(dir, 0o755), os.WriteFile(filepath.Join(dir, "old"), nil, 0o600), os.Chmod(filepath.Join(dir, "old"), 0o604),
		os.Symlink("old", filepath.Join(dir, "link")), syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644), os.Symlink("/dev/null", filepath.Join(dir, "null")))
	long := strings.Repeat("n", 255)
	for _, test := range []struct {
		line   string
		status int
		said   string
	}{
		{`umask 027; "$img" get default/a.jpg -o got/new`, 0, ""},
		{`"$img" get default/a.jpg -o got/old`, exitUsage, "got/old exists"},
		{`"$img" get default/a.jpg -o got/link --force && cmp got/old a.jpg`, 0, ""},
		{`"$img" get default/a.jpg -o got/null`, 0, ""},
		{`cmp got/pipe a.jpg & "$img" get default/a.jpg -o got/pipe && wait $!`, 0, ""},
		{`"$img" get default/a.jpg -o >(cmp - a.jpg && touch got/compared) && while ! test -e got/compared; do :; done`, 0, ""},
		{`"$img" get default/a.jpg -o /dev/stdout | cmp - a.jpg`, 0, ""},
		{`"$img" get default/a.jpg -o got/` + long, 0, ""},
		{`"$img" get default/a.jpg -o got/n` + long, exitUsage, "file name too long"},
		{`"$img" put --name ` + long + `n a.jpg && cd got && "$img" --config ../imgcluster.yaml get default/` + long + "n", exitUsage, "name another file with -o"},
		{`"$img" report strays.jsonl --html got/` + long + ` >/dev/null && head -c 15 got/` + long + ` | grep -q doctype`, 0, ""},
	} {
		if e := l.bash(t, test.line); e.status != test.status || !strings.Contains(e.err, test.said) {
			t.Errorf("want status %d and %q of %s: %v", test.status, test.said, test.line, e)
		}
	}
	for name, mode := range map[string]os.FileMode{"new": 0o640, "old": 0o604, "link": os.ModeSymlink | 0o777, "pipe": os.ModeNamedPipe | 0o644, "null": os.ModeSymlink | 0o777} {
		if info, err := os.Lstat(filepath.Join(dir, name)); err != nil || info.Mode() != mode {
			t.Errorf("%s is %v now, not %v: %v", name, info.Mode(), mode, err)
		}
	}
	if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// cannotPrint has every command print to a full disk, and to a pipe that nobody reads.
func (l *upCluster) testCannotPrint(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	reader, broken, err := os.Pipe()
	must(t, err, reader.Close())
	defer broken.Close()
	for _, line := range []string{
		"", "--help", "ls --help", "version", "version --json", "completion bash", "config show", "config validate", "config validate --json", "status", "status --json", "status --watch",
		"ls", "ls --json", "stat default/a.jpg", "stat default/a.jpg --json", "put a.jpg", "put --json a.jpg b.jpg", "get default/a.jpg -o -", "get default/a.jpg -o got/x --json --force",
		"member list", "member list --json", "verify", "verify --json", "report strays.jsonl", "report strays.jsonl --json", "report strays.jsonl --csv", "report strays.jsonl --markdown",
		"generate --count 1 --min-pixels 16 --max-pixels 40 --out set", "init --set node.master_key_file=keys/%d.key", "stress --dry-run --force", "clean --yes --json --user nobody",
		"stress --count 1 --min-pixels 16 --max-pixels 40 --log own.jsonl --force --json",
	} {
		for i, out := range []*os.File{full, broken} {
			args := strings.Fields(strings.ReplaceAll(line, "%d", fmt.Sprint(i)))
			cmd, errs := program(t, l.dir, args...), bytes.Buffer{}
			cmd.Stdout, cmd.Stderr = out, &errs
			cmd.Run() // its state tells
			const said = "imgcluster: standard output cannot be written: "
			if cmd.ProcessState.ExitCode() != exitFailed || strings.Count(errs.String(), said) != 1-i {
				t.Errorf("imgcluster %s: %v\n%s", line, cmd.ProcessState, &errs)
			}
		}
	}
	if log := logLines(t, filepath.Join(l.dir, "own.jsonl")); len(log["upload"]) != 1 || len(log["end"]) != 1 {
		t.Errorf("the log of a run that nobody listens to: %v", log)
	}
}

// shows stores a name that would turn a line around, and looks at it in every way.
func (l *upCluster) testNamesShown(t *testing.T) {
	const name, shown = "a\u202egpj.exe", `a\u202egpj.exe`
	for _, args := range [][]string{
		{"put", "--user", "eve", "--name", name, "a.jpg"},
		{"stat", "eve/" + name},
		{"get", "eve/" + name, "-o", "got/" + name},
		{"get", "eve/no" + name},
		{"get", "eve/" + name, "-o", "got/" + name},
		{"report", name},
		{"ls", "eve" + name},
		{"ls", "eve", "--json"},
		{"stat", "eve/" + name, "--json"},
		{"put", name, "a.jpg"},
		{"rm", "eve/" + name + name},
		{"--config", name, "status"},
		{"stress", "--images", name},
	} {
		if e := l.do(t, args...); strings.Contains(e.out+e.err, name) || !strings.Contains(e.out+e.err, shown) && !strings.Contains(e.out+e.err, `a\342\200\256gpj.exe`) {
			t.Errorf("%q: %q", args, e.out+e.err)
		}
	}
	if e := l.do(t, "ls", "eve"); !strings.HasSuffix(e.out, "  "+name+"\n") {
		t.Errorf("not the exact name for scripts: %q", e.out)
	}
	var info wire.Info
	if err := json.Unmarshal([]byte(l.do(t, "ls", "eve", "--json").out), &info); err != nil || info.Name != name {
		t.Errorf("%q, %v", info.Name, err)
	}
	user, tty := terminal(t)
	cmd, screen := program(t, l.dir, "ls", "eve"), seen(user)
	cmd.Stdout = tty
	must(t, cmd.Run())
	eventually(t, "the name on a terminal", func() bool { return strings.Contains(screen.String(), shown) })
	if strings.Contains(screen.String(), name) {
		t.Errorf("on a terminal: %q", screen)
	}
}

// hangsUp sends SIGHUP to a node, which goes on, and to up, which ends with all nodes.
func (l *upCluster) testHangUp(t *testing.T) {
	must(t, syscall.Kill(l.pids[1], syscall.SIGHUP))
	eventually(t, "a line in the node's log, with its number once", func() bool {
		log := read(t, filepath.Join(l.dir, "imgcluster-data/node1.log"))
		return bytes.Contains(log, []byte("SIGHUP is ignored; SIGTERM stops the node {\"node\": 1}\n"))
	})
	if e := l.do(t, "status"); e.status != 0 || strings.Contains(e.out, "down") {
		t.Error(e)
	}
	r := start(t, program(t, l.dir, "stress", "--count", "100000", "--min-pixels", "16", "--max-pixels", "40", "--log", "hung.jsonl", "--force"))
	r.awaitText(t, &r.err, "uploads")
	must(t, r.cmd.Process.Signal(syscall.SIGHUP))
	r.awaitText(t, &r.out, "(?m)^Verdict: ")
	if log := logLines(t, filepath.Join(l.dir, "hung.jsonl")); r.status() == 0 || len(log["end"]) != 1 {
		t.Errorf("a run that was hung up: %s", &r.err)
	}
	must(t, l.cmd.Process.Signal(syscall.SIGHUP))
	if status := l.status(); status != 0 || !strings.Contains(l.err.String(), "stopping") {
		t.Errorf("up ended with %d: %s", status, &l.err)
	}
	eventually(t, "the nodes are gone", func() bool { return processEnded(l.pids[1]) && processEnded(l.pids[2]) && processEnded(l.pids[3]) })
}

// TestGetInterrupted stops a get in the middle of the image: nothing is left of it, and what was there
// before stays.
func TestGetInterrupted(t *testing.T) {
	t.Parallel()
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !strings.HasPrefix(r.URL.Path, "/v1/images/") {
			http.NotFound(w, r)
			return
		}
		w.Header().Set("Content-Length", "1000000")
		w.Write(make([]byte, 100_000))
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(node.Close)
	_, port, err := net.SplitHostPort(node.Listener.Addr().String())
	must(t, err)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		dir := t.TempDir()
		must(t, os.WriteFile(filepath.Join(dir, "a.jpg"), []byte("before"), 0o644))
		r := start(t, program(t, dir, "get", "alice/a.jpg", "--force", "--set", "cluster.replicas=1", "--set", "cluster.nodes=1=127.0.0.1:"+port+":1"))
		eventually(t, "a temporary file", func() bool {
			names, err := os.ReadDir(dir)
			return err == nil && len(names) == 2 || r.over()
		})
		must(t, r.cmd.Process.Signal(sig))
		if status := r.status(); status != exitCanceled {
			t.Errorf("%v: exit status %d: %s", sig, status, &r.err)
		}
		if names, err := os.ReadDir(dir); err != nil || len(names) != 1 || string(read(t, filepath.Join(dir, "a.jpg"))) != "before" {
			t.Errorf("%v: left %v, %v", sig, names, err)
		}
	}
}

// TestInputInterrupted stops commands that wait for standard input, or for what a pipe brings.
func TestInputInterrupted(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeConfig(t, dir, "")
	pipe := filepath.Join(dir, "pipe")
	must(t, syscall.Mkfifo(pipe, 0o644))
	for _, line := range []string{"put --name a.jpg -", "put --name a.jpg pipe", "report -", "report pipe"} {
		reader, writer, err := os.Pipe()
		must(t, err)
		cmd := program(t, dir, strings.Fields(line)...)
		cmd.Stdin = reader
		r := start(t, cmd)
		if strings.HasSuffix(line, "pipe") {
			writer.Close()
			eventually(t, "a reader of the pipe", func() bool {
				writer, err = os.OpenFile(pipe, os.O_WRONLY|syscall.O_NONBLOCK, 0)
				return err == nil || r.over()
			})
		}
		_, err = writer.WriteString("x")
		must(t, err)
		eventually(t, "it is read", func() bool {
			left, err := unix.IoctlGetInt(int(writer.Fd()), unix.TIOCINQ)
			return err == nil && left == 0 || r.over()
		})
		if status := r.interrupt(t); status != exitCanceled {
			t.Errorf("%s: exit status %d: %s", line, status, &r.err)
		}
		must(t, writer.Close(), reader.Close())
	}
}

// The variables that Kubernetes makes of a service refuse nothing; others that are no settings warn.
func TestForeignVariables(t *testing.T) {
	t.Parallel()
	for variable, said := range map[string]string{
		"IMGCLUSTER_PORT=tcp://10.0.0.1:80": "", "IMGCLUSTER_SERVICE_PORT_API=8001": "",
		"IMGCLUSTER_LOG_LEVLE=debug": "imgcluster: warning: env IMGCLUSTER_LOG_LEVLE: no setting has this name\nhint: did you mean IMGCLUSTER_LOG_LEVEL?\n",
	} {
		cmd := program(t, t.TempDir(), "config", "show", "--json")
		cmd.Env = append(os.Environ(), variable)
		if e := finish(t, cmd); e.status != 0 || e.err != said || !strings.Contains(e.out, "cluster.name") {
			t.Errorf("%s: %v", variable, e)
		}
	}
	cmd := program(t, t.TempDir(), "config", "show")
	cmd.Env = append(os.Environ(), "IMGCLUSTER_LOG_LEVEL=loud")
	if e := finish(t, cmd); e.status != exitUsage {
		t.Errorf("a bad value of a setting: %v", e)
	}
}
