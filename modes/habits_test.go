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
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/wire"
	"imgcluster/modes/runlog"
)

// TestHabits uses one cluster with all kinds of files, names, pipes and signals.
func TestHabits(t *testing.T) {
	t.Parallel()
	l := up(t)
	photo := read(t, photos(t)[0])
	for name, data := range map[string][]byte{
		"a.jpg":     photo,
		"b.jpg":     photo[1:],
		"empty.jpg": nil,
		"dir/c.jpg": photo[2:],
	} {
		path := filepath.Join(l.dir, name)
		must(t, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644))
	}
	must(t,
		os.Symlink("none", filepath.Join(l.dir, "broken.jpg")),
		syscall.Mkfifo(filepath.Join(l.dir, "pipe"), 0o644))
	t.Run("put several", l.testPutSeveral)
	t.Run("put a pipe", l.testPutPipe)
	t.Run("stress with strays", l.testStressStrays)
	t.Run("get", l.testGetTo)
	t.Run("output", l.testCannotPrint)
	t.Run("names", l.testNamesShown)
	t.Run("hang up", l.testHangUp)
}

// must fails the test at the first error.
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

// bash runs a shell script in the cluster's folder; "$img" is the program.
func (l *upCluster) bash(t *testing.T, line string) ended {
	t.Helper()
	shell, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("no bash")
	}
	cmd := program(t, l.dir)
	cmd.Path = shell
	cmd.Args = []string{shell, "-c", line}
	cmd.Env = append(os.Environ(), "img="+os.Args[0])
	return finish(t, cmd)
}

func (l *upCluster) testPutSeveral(t *testing.T) {
	e := l.do(t, "put", "a.jpg", "broken.jpg", "dir", "empty.jpg", "pipe", "b.jpg", "ctl\x1b.jpg")
	e.expectErr(t, exitFailed,
		"imgcluster: 5 of 7 images were not stored\n",
		"broken.jpg: no such file or directory",
		"dir is a folder",
		"empty.jpg is empty",
		"pipe is not a file: give it a name of its own with --name",
		"has a control character",
	)
	if strings.Count(e.out, "copies on") != 2 {
		t.Errorf("want two receipts of %v", e)
	}
}

func (l *upCluster) testPutPipe(t *testing.T) {
	const compare = ` && "$img" get default/piped.jpg -o - | cmp - a.jpg && "$img" rm default/piped.jpg`
	for _, line := range []string{
		`"$img" put --name piped.jpg <(cat a.jpg)`,
		`cat a.jpg | "$img" put --name piped.jpg -`,
		`cat a.jpg >pipe & "$img" put --name piped.jpg pipe`,
	} {
		l.bash(t, line+compare).expectOut(t, 0, "default/piped.jpg")
	}
	l.bash(t, `"$img" put --name piped.jpg <(true)`).expectErr(t, exitUsage, "it is empty")
}

func (l *upCluster) testStressStrays(t *testing.T) {
	args := []string{"stress", "--images", "strays", "--log", "strays.jsonl", "--force"}
	dir := filepath.Join(l.dir, "strays")
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.MkdirAll(in("sub"), 0o755),
		os.WriteFile(in("sub/a.jpg"), read(t, filepath.Join(l.dir, "a.jpg")), 0o644),
		os.WriteFile(in("none.jpg"), nil, 0o644),
		os.WriteFile(in("large.jpg"), nil, 0o644),
		os.Truncate(in("large.jpg"), 64<<20+1),
		os.Symlink("none", in("broken.jpg")),
		os.Symlink("sub", in("folder")),
		syscall.Mkfifo(in("pipe"), 0o644))
	e := l.do(t, args...)
	e.expectOut(t, exitFailed, "Success 1 of 1", "Note: not all of --images was sent; left out: ")
	run := decode[runlog.Run](t, logLines(t, filepath.Join(l.dir, "strays.jsonl"))["run"][0])
	leftOut := strings.Join(run.LeftOut, "\n")
	for _, said := range []string{
		"strays/broken.jpg: no such file or directory",
		"strays/folder is a folder",
		"strays/large.jpg has 67108865 bytes, limits.image_bytes allows 67108864",
		"strays/none.jpg is empty",
		"strays/pipe is not a file",
	} {
		if !strings.Contains(e.err, said) || !strings.Contains(leftOut, said) {
			t.Errorf("want %q in %q and of %v", said, leftOut, e)
		}
	}
	dry := l.do(t, append(args, "--dry-run")...)
	dry.expectErr(t, exitFailed, "5 of 6 in --images strays are not sent")
}

func (l *upCluster) testGetTo(t *testing.T) {
	dir := filepath.Join(l.dir, "got")
	in := func(name string) string { return filepath.Join(dir, name) }
	must(t,
		os.Mkdir(dir, 0o755),
		os.WriteFile(in("old"), nil, 0o600),
		os.Chmod(in("old"), 0o604),
		os.Symlink("old", in("link")),
		os.Symlink("/dev/null", in("null")),
		syscall.Mkfifo(in("pipe"), 0o644))
	long := strings.Repeat("n", 255)
	const untilCompared = ` && while ! test -e got/compared; do :; done`
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
		{`"$img" get default/a.jpg -o >(cmp - a.jpg && touch got/compared)` + untilCompared, 0, ""},
		{`"$img" get default/a.jpg -o /dev/stdout | cmp - a.jpg`, 0, ""},
		{`"$img" get default/a.jpg -o got/` + long, 0, ""},
		{`"$img" get default/a.jpg -o got/n` + long, exitUsage, "file name too long"},
		{
			`"$img" put --name ` + long + `n a.jpg && cd got && ` +
				`"$img" --config ../imgcluster.yaml get default/` + long + `n`,
			exitUsage, "name another file with -o",
		},
		{
			`"$img" report strays.jsonl --html got/` + long + ` >/dev/null && ` +
				`head -c 15 got/` + long + ` | grep -q doctype`,
			0, "",
		},
	} {
		l.bash(t, test.line).expectErr(t, test.status, test.said)
	}
	for name, mode := range map[string]os.FileMode{
		"new":  0o640,
		"old":  0o604,
		"link": os.ModeSymlink | 0o777,
		"pipe": os.ModeNamedPipe | 0o644,
		"null": os.ModeSymlink | 0o777,
	} {
		if info, err := os.Lstat(in(name)); err != nil || info.Mode() != mode {
			t.Errorf("%s is %v now, not %v: %v", name, info.Mode(), mode, err)
		}
	}
	if left, _ := filepath.Glob(in(".*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// testCannotPrint has every command print to a full disk, and to a pipe whose reader is closed.
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
		"", "--help", "ls --help",
		"version", "version --json", "completion bash",
		"config show", "config validate", "config validate --json",
		"status", "status --json", "status --watch",
		"ls", "ls --json",
		"stat default/a.jpg", "stat default/a.jpg --json",
		"put a.jpg", "put --json a.jpg b.jpg",
		"get default/a.jpg -o -", "get default/a.jpg -o got/x --json --force",
		"member list", "member list --json",
		"verify", "verify --json",
		"report strays.jsonl", "report strays.jsonl --json",
		"report strays.jsonl --csv", "report strays.jsonl --markdown",
		"generate --count 1 --min-pixels 16 --max-pixels 40 --out set",
		"init --set node.master_key_file=keys/%d.key --set node.data_dir=new/{id}",
		"stress --dry-run --force",
		"clean --yes --json --user nobody",
		"stress --count 1 --min-pixels 16 --max-pixels 40 --log own.jsonl --force --json",
	} {
		for i, out := range []*os.File{full, broken} {
			args := strings.Fields(strings.ReplaceAll(line, "%d", fmt.Sprint(i)))
			var errs bytes.Buffer
			cmd := program(t, l.dir, args...)
			cmd.Stdout = out
			cmd.Stderr = &errs
			cmd.Run() // the error is in its state
			const said = "imgcluster: standard output cannot be written: "
			if cmd.ProcessState.ExitCode() != exitFailed || strings.Count(errs.String(), said) != 1-i {
				t.Errorf("imgcluster %s: %v\n%s", line, cmd.ProcessState, &errs)
			}
		}
	}
	if log := logLines(t, filepath.Join(l.dir, "own.jsonl")); len(log["upload"]) != 1 || len(log["end"]) != 1 {
		t.Errorf("the log of a run whose output is closed: %v", log)
	}
}

// testNamesShown stores an image whose name would reverse a line, and has every command show it.
func (l *upCluster) testNamesShown(t *testing.T) {
	const (
		name   = "a\u202egpj.exe"
		shown  = `a\u202egpj.exe`
		quoted = `a\342\200\256gpj.exe` // in a command line for a shell
	)
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
		e := l.do(t, args...)
		said := strings.ReplaceAll(e.out+e.err, quoted, shown)
		if strings.Contains(said, name) || !strings.Contains(said, shown) {
			t.Errorf("%q: %q", args, said)
		}
	}
	if e := l.do(t, "ls", "eve"); !strings.HasSuffix(e.out, "  "+name+"\n") {
		t.Errorf("not the exact name for scripts: %q", e.out)
	}
	var info wire.Info
	list := l.do(t, "ls", "eve", "--json").out
	if err := json.Unmarshal([]byte(list), &info); err != nil || info.Name != name {
		t.Errorf("%q, %v", info.Name, err)
	}
	user, tty := terminal(t)
	cmd, screen := program(t, l.dir, "ls", "eve"), outputOf(user)
	cmd.Stdout = tty
	must(t, cmd.Run())
	eventually(t, "the name on a terminal", func() bool { return strings.Contains(screen.String(), shown) })
	if strings.Contains(screen.String(), name) {
		t.Errorf("on a terminal: %q", screen)
	}
}

// testHangUp sends SIGHUP to a node, which goes on, to a stress, which ends with its report, and to
// up, which ends with all nodes.
func (l *upCluster) testHangUp(t *testing.T) {
	if signal.Ignored(syscall.SIGHUP) {
		t.Skip("the tests run under nohup: SIGHUP is ignored")
	}
	must(t, syscall.Kill(l.pids[1], syscall.SIGHUP))
	eventually(t, "a line in the node's log, with its number once", func() bool {
		log := read(t, filepath.Join(l.dir, "imgcluster-data/node1.log"))
		return bytes.Contains(log, []byte("reloaded {\"node\": 1, \"level\": \"info\", \"after_restart\": []}\n"))
	})
	if e := l.do(t, "status"); e.status != 0 || strings.Contains(e.out, "down") {
		t.Error(e)
	}
	r := start(t, program(t, l.dir, "stress", "--count", "100000", "--min-pixels", "16", "--max-pixels", "40",
		"--log", "hung.jsonl", "--force"))
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
	eventually(t, "the nodes have ended", func() bool {
		return processEnded(l.pids[1]) && processEnded(l.pids[2]) && processEnded(l.pids[3])
	})
}

// TestGetInterrupted stops a get in the middle of the image: it leaves nothing behind, and an existing
// file as it was.
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
		r := start(t, program(t, dir, "get", "alice/a.jpg", "--force",
			"--set", "cluster.replicas=1", "--set", "cluster.nodes=1=127.0.0.1:"+port+":1"))
		eventually(t, "a temporary file", func() bool {
			names, err := os.ReadDir(dir)
			return err == nil && len(names) == 2 || r.over()
		})
		must(t, r.cmd.Process.Signal(sig))
		if status := r.status(); status != exitCanceled {
			t.Errorf("%v: exit status %d: %s", sig, status, &r.err)
		}
		names, err := os.ReadDir(dir)
		if text := string(read(t, filepath.Join(dir, "a.jpg"))); err != nil || len(names) != 1 || text != "before" {
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
			left, err := unix.IoctlGetInt(int(writer.Fd()), unreadBytes)
			return err == nil && left == 0 || r.over()
		})
		if status := r.interrupt(t); status != exitCanceled {
			t.Errorf("%s: exit status %d: %s", line, status, &r.err)
		}
		must(t, writer.Close(), reader.Close())
	}
}

// Environment variables that Kubernetes sets for a service are ignored. Others that are no settings are
// warned of.
func TestForeignVariables(t *testing.T) {
	t.Parallel()
	for variable, said := range map[string]string{
		"IMGCLUSTER_PORT=tcp://10.0.0.1:80": "",
		"IMGCLUSTER_SERVICE_PORT_API=8001":  "",
		"IMGCLUSTER_LOG_LEVLE=debug": "imgcluster: warning: env IMGCLUSTER_LOG_LEVLE: no setting has this name\n" +
			"hint: did you mean IMGCLUSTER_LOG_LEVEL?\n",
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
