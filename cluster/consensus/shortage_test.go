package consensus

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/image"
	"imgcluster/cluster/witness"
)

// The variables that make the test binary start a node in a process that has too little of something.
const (
	shortDir     = "CONSENSUS_TEST_DIR"
	shortAddress = "CONSENSUS_TEST_ADDRESS"
	shortFiles   = "CONSENSUS_TEST_FILES" // its limit of open files
	shortUser    = "CONSENSUS_TEST_USER"  // its user
)

// TestMain is that process where the variables are set.
func TestMain(m *testing.M) {
	if os.Getenv(shortDir) != "" {
		os.Exit(startShort())
	}
	os.Exit(m.Run())
}

// startShort starts a node once, prints why it does not start, and ends.
func startShort() int {
	address := os.Getenv(shortAddress)
	o := testOptions(1, "127.0.0.1:0", os.Getenv(shortDir)) // the test has its own port open
	o.RaftAddress, o.Listen = address, address
	if n, err := strconv.ParseUint(os.Getenv(shortFiles), 10, 64); err == nil {
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: n, Max: n}); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	if n, err := strconv.Atoi(os.Getenv(shortUser)); err == nil {
		if err := errors.Join(syscall.Setgid(n), syscall.Setuid(n)); err != nil {
			fmt.Println(err)
			return 1
		}
	}
	c, err := startNode(o, []Shard{{ID: 1, Members: map[image.NodeID]string{1: address}, Apply: toyApply}})
	if err != nil {
		var e *image.Error
		errors.As(err, &e)
		fmt.Printf("refused as %s: %v\nhint: %s\n", e.Kind, err, e.Hint())
		return 0
	}
	fmt.Println("started")
	if err := c.Close(); err != nil {
		fmt.Println(err)
		return 1
	}
	return 0
}

// short runs startShort as another process.
func short(t *testing.T, o Options, env ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), append(env, shortDir+"="+o.Dir, shortAddress+"="+o.RaftAddress)...)
	b, err := cmd.CombinedOutput()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return string(b)
}

// oneNode runs a node for a while, stops it, and returns its options.
func oneNode(t *testing.T) (*toyCluster, Options) {
	t.Helper()
	c := newCluster(t, 1, 1, nil)
	c.startAll()
	for i := range 20 {
		c.propose(0, 1, fmt.Sprintf("set a%d b", i))
	}
	c.stop(0)
	return c, c.nodes[0].opts
}

// TestShortageIsNoDamage starts a good node with every number of file descriptors that is too small, and with
// each of its files and folders forbidden to its user. It never reports damage, and it starts afterwards.
func TestShortageIsNoDamage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a process a hundred times")
	}
	t.Parallel()
	t.Run("files", func(t *testing.T) {
		t.Parallel()
		c, o := oneNode(t)
		refusals := 0
		named := 0
		for n := 6; n < 60; n++ {
			output := short(t, o, fmt.Sprint(shortFiles, "=", n))
			if strings.Contains(output, "started") {
				break
			}
			refusals++
			if strings.Contains(output, "too many open files") && strings.Contains(output, "ulimit -n") {
				named++
			}
			expectNoDamage(t, fmt.Sprint(n, " descriptors"), output)
		}
		if refusals < 5 || named < refusals/2 {
			t.Errorf("%d numbers of descriptors are too small, of which %d are named so", refusals, named)
		}
		expectStarts(t, c)
	})
	t.Run("rights", func(t *testing.T) {
		t.Parallel()
		if os.Getuid() != 0 {
			t.Skip("needs root, to be another user")
		}
		const user = 65534
		c, o := oneNode(t)
		var all []string
		// what t.TempDir made
		must(t, errors.Join(os.Chmod(o.Dir, 0o755), os.Chmod(filepath.Dir(o.Dir), 0o755)))
		must(t, filepath.WalkDir(o.Dir, func(path string, _ fs.DirEntry, err error) error {
			all = append(all, path)
			return errors.Join(err, os.Lchown(path, user, user))
		}))
		refusals := 0
		for _, path := range all {
			info, err := os.Stat(path)
			if errors.Is(err, fs.ErrNotExist) {
				continue // an earlier start has replaced it
			}
			must(t, err)
			must(t, os.Chmod(path, 0))
			output := short(t, o, fmt.Sprint(shortUser, "=", user))
			must(t, os.Chmod(path, info.Mode().Perm()))
			expectNoDamage(t, path, output)
			if !strings.Contains(output, "started") {
				refusals++
				if !strings.Contains(output, "permission denied") ||
					!strings.Contains(output, "is of user 65534 with mode 0000") {
					t.Errorf("%s cannot be opened: %s", path, output)
				}
			}
		}
		if refusals < 8 {
			t.Errorf("of %d files and folders %d are missed", len(all), refusals)
		}
		must(t, os.Lchown(filepath.Join(o.Dir, witness.FileName), 0, 0))
		output := short(t, o, fmt.Sprint(shortUser, "=", user))
		if !strings.Contains(output, "run it as user 0, or chown -R 65534") {
			t.Errorf("with a file of another user: %s", output)
		}
		expectStarts(t, c)
	})
}

func expectNoDamage(t *testing.T, what, output string) {
	t.Helper()
	if strings.Contains(output, "damaged") || strings.Contains(output, "--replace") ||
		strings.Contains(output, string(image.KindDamaged)) {
		t.Errorf("%s: %s", what, output)
	}
}

func expectStarts(t *testing.T, c *toyCluster) {
	t.Helper()
	c.start(0)
	if got := c.read(0, 1, "a19"); got != "b" {
		t.Errorf("read %q afterwards", got)
	}
}

// TestStartErrors: what stops a start is damage only when a check of what was read says so.
func TestStartErrors(t *testing.T) {
	panics := func(with any) (err error) {
		defer recovered(&err)
		panic(with)
	}
	at := func(no syscall.Errno) error { return &fs.PathError{Op: "read", Path: "/data/raft/a.sst", Err: no} }
	for _, c := range []struct {
		err     error
		kind    image.Kind
		damaged bool
		hint    string
	}{
		{damaged(errors.New("invalid checksum")), image.KindDamaged, true, "--replace"},
		{damaged(at(syscall.ENOENT)), image.KindDamaged, true, "--replace"},
		{panics("corrupted"), image.KindDamaged, true, "--replace"},
		{panics(&panicked{text: "invalid commitTo"}), image.KindDamaged, true, "--replace"},
		{damaged(at(syscall.EIO)), image.KindInvalid, false, "dmesg"},
		{panics(at(syscall.EIO)), image.KindInvalid, false, "disk under /data/raft/a.sst"},
		{panics("failed: input/output error"), image.KindInvalid, false, "dmesg"},
		{
			panics(&panicked{text: "no", cause: at(syscall.ENOMEM)}), image.KindInvalid, false,
			"limits.memory_bytes",
		},
		{damaged(at(syscall.ENOSPC)), image.KindDiskFull, false, "make room"},
		{damaged(at(syscall.EROFS)), image.KindInvalid, false, "read-write"},
		{
			damaged(errors.New("lock held by current process")), image.KindInvalid, false,
			"stop the other process",
		},
		{panics(fmt.Sprint(at(syscall.EMFILE))), image.KindInvalid, false, "ulimit -n"},
		{
			func() (err error) { defer recovered(&err); return errors.New(os.Args[len(os.Args)]) }(),
			image.KindInternal, false, "see the log",
		},
		{errors.New("shard 2 runs already"), image.KindInternal, false, "see the log"},
	} {
		err := startError(c.err, &Options{Dir: t.TempDir(), RaftAddress: "127.0.0.1:1"})
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != c.kind || errors.Is(err, ErrDamaged) != c.damaged ||
			!strings.Contains(e.Hint(), c.hint) {
			t.Errorf("%v became %v of kind %s with the hint %q", c.err, err, e.Kind, e.Hint())
		}
	}
}
