package modes

import (
	"bytes"
	"compress/gzip"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestUntilInputEnds: a server that is tied to its standard input stops with that, and not before.
func TestUntilInputEnds(t *testing.T) {
	read, held := io.Pipe()
	e := &env{in: &input{ctx: t.Context(), r: read}}
	ctx := e.untilInputEnds(t.Context())
	if _, err := held.Write([]byte("x")); err != nil || ctx.Err() != nil {
		t.Fatalf("it ends with the first byte: %v, %v", err, ctx.Err())
	}
	must(t, held.Close())
	<-ctx.Done()
}

// TestService runs a node as systemd does: it says when it serves, reloads and stops. On SIGHUP it takes the
// log level of its configuration, and of one that is wrong nothing.
func TestService(t *testing.T) {
	dir := t.TempDir()
	writeConfig(t, dir, "log: {level: warn}")
	at := filepath.Join(dir, "imgcluster.yaml")
	path := &net.UnixAddr{Name: filepath.Join(dir, "notify"), Net: "unixgram"}
	socket, err := net.ListenUnixgram("unixgram", path)
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	expect := func(want string) {
		t.Helper()
		socket.SetReadDeadline(time.Now().Add(time.Minute))
		b := make([]byte, 1000)
		n, err := socket.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), want) {
			t.Fatalf("systemd is told %q (%v), want %s", b[:n], err, want)
		}
	}
	cmd := program(t, dir, "server", "--id", "1")
	cmd.Env = append(cmd.Environ(), "NOTIFY_SOCKET="+socket.LocalAddr().String())
	node := start(t, cmd)
	expect("READY=1")
	reload := func(old, now string) {
		t.Helper()
		text := read(t, at)
		must(t, os.WriteFile(at, bytes.Replace(text, []byte(old), []byte(now), 1), 0o600))
		must(t, cmd.Process.Signal(syscall.SIGHUP))
		expect("RELOADING=1\nMONOTONIC_USEC=")
		expect("READY=1")
	}
	reload("level: warn", "level: debug, slow: 3s")
	node.awaitText(t, &node.err, `INFO +reloaded .*"level": "debug", "after_restart": \["log.slow"\]`)
	reload("level: debug", "level: loud")
	node.awaitText(t, &node.err, "ERROR +the changed configuration is not used: the one before it is .*loud")
	must(t, cmd.Process.Signal(syscall.SIGTERM))
	expect("STOPPING=1")
	if status := node.status(); status != 0 {
		t.Errorf("it ended with %d: %s", status, &node.err)
	}
}

// TestDebianPackage: the package has the program, its unit, manual pages and completions; made twice it is
// the same.
func TestDebianPackage(t *testing.T) {
	dpkg, err := exec.LookPath("dpkg-deb")
	if err != nil {
		t.Skip("no dpkg-deb")
	}
	dir := t.TempDir()
	run := func(env string, name string, args ...string) string {
		t.Helper()
		cmd := exec.Command(name, args...)
		cmd.Env = append(os.Environ(), env)
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	binary := built(t)
	made := [2]string{}
	for i := range made {
		made[i] = run("COMPRESS=none", "../testdata/deploy/deb.sh", binary, filepath.Join(dir, strconv.Itoa(i)))
	}
	if first := read(t, made[0]); !bytes.Equal(first, read(t, made[1])) {
		t.Error("two packages of the same binary differ")
	}
	fields := run("", dpkg, "--field", made[0], "Package", "Version", "Architecture")
	if !regexp.MustCompile(`^Package: imgcluster\nVersion: \d[\w.~+]*\nArchitecture: \w+$`).MatchString(fields) {
		t.Errorf("its fields are %s", fields)
	}
	root := filepath.Join(dir, "root")
	run("", dpkg, "--extract", made[0], root)
	installed := filepath.Join(root, "usr/bin/imgcluster")
	if v := run("", installed, "version"); v != run("", binary, "version") {
		t.Errorf("it is version %s", v)
	}
	unit := filepath.Join(root, "usr/lib/systemd/system/imgcluster.service")
	if !bytes.Contains(read(t, unit), []byte("ExecStart=/usr/bin/imgcluster server ")) {
		t.Error("its unit does not start its program")
	}
	share := filepath.Join(root, "usr/share")
	for path, want := range map[string]string{
		"man/man1/imgcluster-put.1.gz":              `imgcluster\-put \- Store images`,
		"man/man5/imgcluster.yaml.5.gz":             "cluster.replicas",
		"bash-completion/completions/imgcluster":    "complete -o default",
		"zsh/vendor-completions/_imgcluster":        "#compdef imgcluster",
		"fish/vendor_completions.d/imgcluster.fish": "complete -c imgcluster",
	} {
		text := read(t, filepath.Join(share, path))
		if strings.HasSuffix(path, ".gz") {
			text = unzip(t, text)
		}
		if !bytes.Contains(text, []byte(want)) {
			t.Errorf("%s has no %q", path, want)
		}
	}
}

func unzip(t *testing.T, text []byte) []byte {
	t.Helper()
	r, err := gzip.NewReader(bytes.NewReader(text))
	must(t, err)
	plain, err := io.ReadAll(r)
	must(t, err)
	return plain
}
