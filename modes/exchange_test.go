//go:build linux

package modes

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/modes/exchange"
)

// awkwardNames cannot all be paths beside each other, or look like what an export or import leaves out.
var awkwardNames = []string{
	"a", "a/b", "a/b/c.jpg", "A", ".hidden", ".x/y.png", "imgcluster-export.jsonl", "imgcluster-export.sha256",
	"imgcluster-export-names/x", `back\slash "quotes" <&>.png`, "x y/ü.jpg", "-o", "...", "\u202egpj.exe",
	strings.Repeat("n", 300) + ".jpg", strings.Repeat("d/", 500) + "deep.jpg", typedName,
}

// typedName is that of an image whose type its name does not say.
const typedName = "typed"

// TestExchange moves images out of one cluster, and into it, with all that can be in the way.
func TestExchange(t *testing.T) {
	t.Parallel()
	l := up(t)
	l.store(t, "alice", "one.jpg", blob(1, 3000), "")
	for i, name := range awkwardNames {
		contentType := ""
		if name == typedName {
			contentType = "image/heic"
		}
		l.store(t, "odd", name, blob(uint64(i), 2000+i), contentType)
	}
	t.Run("round trip", l.testRoundTrip)
	t.Run("changes", l.testExportChanges)
	t.Run("refused folders", l.testExportRefused)
	t.Run("any files", l.testImportFiles)
	t.Run("another image", l.testImportOther)
	t.Run("meanwhile", l.testImportMeanwhile)
	t.Run("changed files", l.testImportChanged)
	t.Run("stopped", l.testExchangeStopped)
	t.Run("no room", l.testExportNoRoom)
	t.Run("damaged", l.testExportDamaged)
}

// blob returns bytes that are the same for the same seed.
func blob(seed uint64, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)}).Read(b)
	return b
}

// client returns a client of the cluster.
func (l *upCluster) client(t *testing.T) *client.Client {
	t.Helper()
	e := &env{path: filepath.Join(l.dir, "imgcluster.yaml"), err: &bytes.Buffer{}, ctx: t.Context()}
	_, c, err := e.connect()
	must(t, err)
	t.Cleanup(c.Close)
	return c
}

// store stores an image, with a Content-Type if it is not empty. Of one with an odd number of bytes the
// cluster gets no digest.
func (l *upCluster) store(t *testing.T, user, name string, data []byte, contentType string) {
	t.Helper()
	up := client.Upload{
		User: user, Name: name, Size: int64(len(data)), Type: contentType,
		Body: func() io.Reader { return bytes.NewReader(data) },
	}
	if sum := image.Digest(sha256.Sum256(data)); len(data)%2 == 0 {
		up.Digest = &sum
	}
	r, err := l.client(t).Put(t.Context(), up)
	must(t, err)
	<-r.Done
}

// listed returns what ls says of a user's images, without what is not of the images themselves.
func (l *upCluster) listed(t *testing.T, user string) string {
	t.Helper()
	var all strings.Builder
	for info, err := range l.client(t).All(t.Context(), user, "") {
		must(t, err)
		fmt.Fprintln(&all, info.Name, info.Bytes, info.Type, info.SHA256)
	}
	return all.String()
}

// end returns the last line of a command with --json.
func (e ended) end(t *testing.T) (end exchange.Tally) {
	t.Helper()
	lines := strings.Split(strings.TrimSpace(e.out), "\n")
	must(t, json.Unmarshal([]byte(lines[len(lines)-1]), &end))
	return end
}

// expectEnd runs an export or import and checks what it counts.
func (l *upCluster) expectEnd(t *testing.T, status int, want exchange.Tally, args ...string) ended {
	t.Helper()
	e := l.do(t, append(args, "--json")...)
	got := e.end(t)
	got.Of, got.OfBytes, got.Bytes = want.Of, want.OfBytes, want.Bytes
	if e.status != status || got != want {
		t.Errorf("counted %+v, want %+v and status %d of %v", got, want, status, e)
	}
	return e
}

// testRoundTrip exports all users, checks the sums, and imports everything for other users.
func (l *upCluster) testRoundTrip(t *testing.T) {
	odd, alice := l.listed(t, "odd"), l.listed(t, "alice")
	for i, name := range awkwardNames { // those without a digest get theirs by the import
		data := blob(uint64(i), 2000+i)
		odd = regexp.MustCompile(`(?m)^(`+regexp.QuoteMeta(name)+` \d+ \S+) .*$`).
			ReplaceAllString(odd, fmt.Sprintf("$1 %x", sha256.Sum256(data)))
	}
	n := len(awkwardNames)
	l.expectEnd(t, 0, exchange.Tally{Images: n + 1}, "export", "all")
	l.expectEnd(t, 0, exchange.Tally{Present: n + 1}, "export", "all")
	dir := filepath.Join(l.dir, "all", "odd")
	text := string(read(t, filepath.Join(dir, "imgcluster-export.sha256")))
	sums := strings.Split(strings.TrimSpace(text), "\n")
	for _, line := range sums {
		sum, file, _ := strings.Cut(strings.TrimPrefix(line, `\`), "  ")
		if strings.HasPrefix(line, `\`) {
			file = strings.ReplaceAll(file, `\\`, `\`)
		}
		if got := sha256.Sum256(read(t, filepath.Join(dir, file))); hex.EncodeToString(got[:]) != sum {
			t.Errorf("%s is not what its line says", file)
		}
	}
	if len(sums) != n {
		t.Errorf("%d sums of %d images", len(sums), n)
	}
	if info, err := os.Stat(filepath.Join(dir, "x y/ü.jpg")); err != nil || !info.Mode().IsRegular() {
		t.Errorf("a name that can be a path is none: %v", err)
	}
	l.expectEnd(t, 0, exchange.Tally{Present: n + 1}, "import", "all")
	l.expectEnd(t, 0, exchange.Tally{Images: n}, "import", "--user", "copy", "all/odd")
	l.expectEnd(t, 0, exchange.Tally{Images: 1}, "import", "--prefix", "old/", "all/alice")
	if got := l.listed(t, "copy"); got != odd {
		t.Errorf("imported:\n%s\nexported:\n%s", got, odd)
	}
	if got := l.listed(t, "alice"); got != strings.Replace(alice, "one", "old/one", 1)+alice {
		t.Errorf("with --prefix:\n%s", got)
	}
	l.do(t, "import", "--user", "bob", "all").expectRefused(t, exitUsage, "of several users", "leave out --user")
	l.do(t, "rm", "alice/old/one.jpg").expectErr(t, 0)
	must(t, os.WriteFile(filepath.Join(l.dir, "all", "notes"), nil, 0o600))
	l.do(t, "export", "all").expectRefused(t, exitUsage, "no export of all users: it has notes")
}

// testExportChanges exports again after images were changed, deleted and added, and files damaged and
// removed.
func (l *upCluster) testExportChanges(t *testing.T) {
	for i := range 6 {
		l.store(t, "carol", fmt.Sprintf("%d.jpg", i), blob(uint64(i), 4000), "")
	}
	in := func(name string) string { return filepath.Join(l.dir, "carol", name) }
	export := []string{"export", "--user", "carol", "carol"}
	l.expectEnd(t, 0, exchange.Tally{Images: 6}, export...)
	l.store(t, "carol", "0.jpg", blob(100, 4000), "")
	l.store(t, "carol", "new/a.jpg", blob(101, 5000), "")
	l.do(t, "rm", "carol/1.jpg").expectErr(t, 0)
	must(t,
		os.WriteFile(in("2.jpg"), blob(102, 4000), 0o600), // of the same size
		os.Truncate(in("3.jpg"), 100),
		os.Remove(in("4.jpg")),
		os.Symlink("5.jpg", in("4.jpg")),
		os.WriteFile(in(".imgcluster-export-tempX"), nil, 0o600))
	e := l.expectEnd(t, 0, exchange.Tally{Images: 5, Present: 1, Gone: 1}, export...)
	e.expectOut(t, 0, `"type":"gone","user":"carol","name":"1.jpg","file":"carol/1.jpg"`)
	for name, want := range map[string][]byte{
		"0.jpg": blob(100, 4000), "1.jpg": blob(1, 4000), "2.jpg": blob(2, 4000), "3.jpg": blob(3, 4000),
		"4.jpg": blob(4, 4000), "5.jpg": blob(5, 4000), "new/a.jpg": blob(101, 5000),
	} {
		if !bytes.Equal(read(t, in(name)), want) {
			t.Errorf("%s is not what the cluster has", name)
		}
	}
	if _, err := os.Lstat(in(".imgcluster-export-tempX")); err == nil {
		t.Error("a temporary file of a killed export is left")
	}
	l.do(t, export...).expectErr(t, 0, "left carol/1.jpg: the cluster has no such image any more",
		"6 were there already; 1 left of images that are gone")
	e = l.expectEnd(t, 0, exchange.Tally{Present: 6, Skipped: 1}, "import", "carol")
	e.expectOut(t, 0, "its image was not in the cluster any more")
	l.do(t, append(export, "--quiet")...).expectErr(t, 0)
}

func (l *upCluster) testExportRefused(t *testing.T) {
	in := func(name string) string { return filepath.Join(l.dir, "refused", name) }
	must(t, os.MkdirAll(in("full"), 0o700), os.WriteFile(in("full/x"), nil, 0o600),
		os.MkdirAll(in("fresh/lost+found"), 0o700), os.MkdirAll(in("strange"), 0o700),
		os.WriteFile(in("strange/imgcluster-export.jsonl"), []byte("{}\n"), 0o600))
	l.do(t, "export", "--user", "alice", "refused/full").
		expectRefused(t, exitUsage, `is not empty, and no export: it has "x"`, "another folder")
	l.do(t, "export", "--user", "alice", "refused/full/x").expectRefused(t, exitUsage, "cannot be")
	l.do(t, "export", "--user", "alice", "refused/strange").expectRefused(t, exitUsage, "first line of")
	l.do(t, "import", "refused/strange").expectRefused(t, exitUsage, "first line of")
	l.do(t, "export", "--user", "alice", "refused/fresh").expectErr(t, 0, "exported 1 image,")
	l.do(t, "export", "--user", "odd", "refused/fresh").
		expectRefused(t, exitUsage, `is an export of user "alice", not of "odd"`)
	l.do(t, "export", "--user", "alice", "--set", "cluster.name=other", "refused/fresh").
		expectRefused(t, exitUsage, `is an export of the cluster "imgcluster", not of "other"`)
	l.do(t, "export", "--user", "", "x").expectRefused(t, exitUsage, "--user")
	l.do(t, "export", "").expectRefused(t, exitUsage, "the folder has no name")
	l.do(t, "export", "--concurrency", "65", "x").expectRefused(t, exitUsage, "from 1 to 64")
	lock, err := os.Open(in("fresh"))
	must(t, err)
	defer lock.Close()
	must(t, unix.Flock(int(lock.Fd()), unix.LOCK_EX))
	l.do(t, "export", "--user", "alice", "refused/fresh").
		expectRefused(t, exitUsage, "another export into refused/fresh is running")
}

// testImportFiles imports a folder that has all kinds of files.
func (l *upCluster) testImportFiles(t *testing.T) {
	in := func(name string) string { return filepath.Join(l.dir, "mixed", name) }
	png := append([]byte("\x89PNG\r\n\x1a\n"), blob(1, 100)...)
	must(t, os.MkdirAll(in("sub/.thumbs"), 0o755), os.MkdirAll(in("none"), 0o755))
	for name, data := range map[string][]byte{
		"a.JPG": blob(1, 500), "sub/b.tiff": blob(2, 500), "sub/no ending": png, "big.png": blob(3, 2<<20),
		"notes.txt": []byte("text"), "empty.jpg": nil, ".DS_Store": png, "sub/.thumbs/a.jpg": png,
		"ctl\x01.jpg": png, "none/x.txt": []byte("text"),
	} {
		must(t, os.WriteFile(in(name), data, 0o644))
	}
	secret := filepath.Join(t.TempDir(), "secret.jpg")
	must(t, os.WriteFile(secret, png, 0o600),
		os.Symlink(secret, in("out.jpg")), os.Symlink(filepath.Dir(secret), in("folder")),
		os.Symlink("a.JPG", in("inside.jpg")), syscall.Mkfifo(in("pipe.jpg"), 0o600))
	l.do(t, "import", "mixed").expectRefused(t, exitUsage, "mixed is no export", "--user alice")
	l.do(t, "import", "--user", "dave", "mixed/none").
		expectErr(t, exitUsage, "there is no image in mixed/none", "--any-file",
			"skipped mixed/none/x.txt: it is no image")
	l.do(t, "import", "--user", "dave", "nowhere").expectRefused(t, exitUsage, "nowhere: no such file")
	e := l.do(t, "import", "--user", "dave", "mixed")
	e.expectErr(t, exitFailed, "imported 4 images", "6 skipped", "2 failed", "2 of 6 images were not imported",
		"skipped mixed/notes.txt: it is no image", "skipped mixed/folder: it is a symbolic link",
		"skipped mixed/inside.jpg: it is a symbolic link", "skipped mixed/out.jpg: it is a symbolic link",
		"skipped mixed/pipe.jpg: it is no regular file", "mixed/empty.jpg: it is empty", "control character")
	var names []string
	for line := range strings.Lines(l.listed(t, "dave")) {
		names = append(names, strings.Join(strings.Fields(line)[:len(strings.Fields(line))-3], " "))
	}
	if got := strings.Join(names, "|"); got != "a.JPG|big.png|sub/b.tiff|sub/no ending" {
		t.Errorf("imported %s", got)
	}
	l.expectEnd(t, exitFailed, exchange.Tally{Images: 2, Present: 4, Skipped: 4, Failed: 2},
		"import", "--user", "dave", "--any-file", "mixed")
	l.do(t, "import", "--user", "erin", "mixed/notes.txt").
		expectRefused(t, exitUsage, "is no image", "--any-file")
	l.expectEnd(t, 0, exchange.Tally{Images: 1}, "import", "--user", "erin", "--any-file", "mixed/notes.txt")
	l.do(t, "import", "--user", "erin", "mixed/a.JPG", "mixed", "mixed/sub").
		expectRefused(t, exitUsage, `would both be stored as "a.JPG"`, "--prefix")
	l.do(t, "import", "--user", "erin", "--prefix", "/x", "mixed").
		expectRefused(t, exitUsage, "--prefix such as")
}

// testImportOther: an image of the same name is kept, unless it is to be replaced.
func (l *upCluster) testImportOther(t *testing.T) {
	must(t, os.MkdirAll(filepath.Join(l.dir, "other"), 0o755),
		os.WriteFile(filepath.Join(l.dir, "other/one.jpg"), blob(9, 3000), 0o644),
		os.WriteFile(filepath.Join(l.dir, "other/two.jpg"), blob(10, 3000), 0o644))
	before := l.listed(t, "alice")
	args := []string{"import", "--user", "alice", "other"}
	l.do(t, args...).expectErr(t, exitFailed, "other/one.jpg: another image has this name", "--replace",
		"1 of 2 images were not imported")
	if now := l.listed(t, "alice"); !strings.HasPrefix(now, before) || strings.Count(now, "\n") != 2 {
		t.Errorf("there is now\n%s", now)
	}
	l.expectEnd(t, 0, exchange.Tally{Images: 1, Present: 1}, append(args, "--replace")...)
	if now := l.listed(t, "alice"); strings.HasPrefix(now, before) {
		t.Error("the image was not replaced")
	}
}

// testImportMeanwhile: an image that gets its name after the import has listed what is there is kept.
func (l *upCluster) testImportMeanwhile(t *testing.T) {
	dir := t.TempDir()
	for i, name := range []string{"a.jpg", "b.jpg", "c.jpg"} {
		must(t, os.WriteFile(filepath.Join(dir, name), blob(uint64(i), 4001), 0o600))
	}
	other := blob(99, 4001)
	meanwhile := sync.OnceFunc(func() {
		l.store(t, "mia", "b.jpg", other, "")
		l.store(t, "mia", "c.jpg", blob(2, 4001), "")
	})
	var failed []string
	i := &exchange.Import{
		Paths: []string{dir}, BytesMax: 1 << 20,
		Move: exchange.Move{
			Client: l.client(t), User: "mia", AtOnce: 1,
			Event:    func(e exchange.Event) { failed = append(failed, e.Name+": "+e.Problem) },
			Progress: func(exchange.Tally) { meanwhile() },
		},
	}
	tally, err := i.Run(t.Context())
	if err != nil || tally.Images != 1 || tally.Present != 1 ||
		!slices.Equal(failed, []string{"b.jpg: another image has this name"}) {
		t.Errorf("%+v, %q, %v", tally, failed, err)
	}
	obj, err := l.client(t).Get(t.Context(), "mia", "b.jpg", false)
	must(t, err)
	defer obj.Body.Close()
	if got, err := io.ReadAll(obj.Body); err != nil || !bytes.Equal(got, other) {
		t.Errorf("the image was replaced (%v)", err)
	}
}

// testImportChanged: files that are not what the manifest says are named and left out.
func (l *upCluster) testImportChanged(t *testing.T) {
	for i := range 4 {
		l.store(t, "frank", fmt.Sprintf("%d.jpg", i), blob(uint64(i), 4000), "")
	}
	l.do(t, "export", "--user", "frank", "frank").expectErr(t, 0)
	in := func(name string) string { return filepath.Join(l.dir, "frank", name) }
	must(t, os.WriteFile(in("1.jpg"), blob(50, 4000), 0o600), os.Remove(in("2.jpg")))
	e := l.do(t, "import", "--user", "grace", "frank")
	e.expectErr(t, exitFailed, "frank/1.jpg: its SHA-256 is not that of the manifest",
		"frank/2.jpg: it is in the manifest, and not in the folder", "2 of 4 images were not imported")
	if got := l.listed(t, "grace"); strings.Count(got, "\n") != 2 {
		t.Errorf("imported\n%s", got)
	}
	manifest := in("imgcluster-export.jsonl")
	whole := read(t, manifest)
	header, _, _ := bytes.Cut(whole, []byte("\n"))
	must(t, os.WriteFile(manifest, slices.Concat(header, []byte("\n{\n"), whole), 0o600))
	l.do(t, "import", "--user", "grace", "frank").
		expectRefused(t, exitUsage, "line 2 of frank/imgcluster-export.jsonl")
	l.expectEnd(t, 0, exchange.Tally{Images: 2, Present: 2}, "export", "--user", "frank", "frank")
	l.expectEnd(t, 0, exchange.Tally{Images: 2, Present: 2}, "import", "--user", "grace", "frank")
}

// testExchangeStopped stops an export and an import after a few images; they go on where they were.
func (l *upCluster) testExchangeStopped(t *testing.T) {
	const images, first = 20, 5
	for i := range images {
		l.store(t, "heidi", fmt.Sprintf("x/%02d.jpg", i), blob(uint64(i), 3000+i), "") // half without a digest
	}
	dir := filepath.Join(l.dir, "heidi")
	move := func(user string, cancel func()) exchange.Move {
		return exchange.Move{
			Client: l.client(t), User: user, AtOnce: 2,
			Event: func(e exchange.Event) { t.Errorf("%+v", e) },
			Progress: func(tally exchange.Tally) {
				if tally.Images+tally.Present == first {
					cancel()
				}
			},
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	x := &exchange.Export{Move: move("heidi", cancel), Cluster: "imgcluster", Dir: dir}
	tally, err := x.Run(ctx)
	if !errors.Is(err, context.Canceled) || tally.Images < first || tally.Images == images {
		t.Fatalf("%+v, %v", tally, err)
	}
	files := 0
	must(t, filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if d.Type().IsRegular() && !strings.Contains(path, "imgcluster-export.") {
			files++
		}
		return err
	}))
	if files != tally.Images {
		t.Errorf("%d files of %d images", files, tally.Images)
	}
	e := l.do(t, "import", "--user", "ivan", "heidi")
	e.expectErr(t, 0, "heidi is an export that did not come to its end")
	l.expectEnd(t, 0, exchange.Tally{Present: tally.Images, Images: images - tally.Images},
		"export", "--user", "heidi", "heidi")

	ctx, cancel = context.WithCancel(t.Context())
	i := &exchange.Import{Move: move("judy", cancel), Paths: []string{dir}, BytesMax: 1 << 20}
	if tally, err = i.Run(ctx); !errors.Is(err, context.Canceled) || tally.Images == images {
		t.Fatalf("%+v, %v", tally, err)
	}
	e = l.do(t, "import", "--user", "judy", "heidi", "--json")
	// Uploads that were under way may have been stored after that.
	if got := e.end(t); e.status != 0 || got.Present < tally.Images || got.Present+got.Images != images {
		t.Errorf("after %+v: %v", tally, e)
	}

	for _, pid := range l.pids {
		must(t, syscall.Kill(pid, syscall.SIGSTOP))
	}
	resume := func() {
		for _, pid := range l.pids {
			must(t, syscall.Kill(pid, syscall.SIGCONT))
		}
	}
	defer resume()
	r := start(t, program(t, l.dir, "export", "--user", "heidi", "heidi"))
	r.awaitText(t, &r.err, "still trying")
	if status := r.interrupt(t); status != exitCanceled {
		t.Errorf("Ctrl-C gives %d: %s", status, &r.err)
	}
	r.awaitText(t, &r.err, "hint: the same command goes on where it was stopped")
}

// testExportNoRoom exports to a disk that is too small.
func (l *upCluster) testExportNoRoom(t *testing.T) {
	dir := filepath.Join(l.dir, "disk")
	must(t, os.Mkdir(dir, 0o700))
	if err := unix.Mount("none", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("no file system to fill: %v", err)
	}
	defer unix.Unmount(dir, 0)
	for i := range 3 {
		l.store(t, "kim", fmt.Sprintf("%d.jpg", i), blob(uint64(i), 30_000), "")
	}
	l.do(t, "export", "--user", "kim", "disk").
		expectErr(t, exitFailed, "disk has room for", "need 90.0 kB more", "hint: make room")
	must(t, unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=96k"))
	// Whole pages of three images and the manifest are more than it has.
	l.do(t, "export", "--user", "kim", "disk").
		expectErr(t, exitFailed, "disk cannot be written: no space left on device", "hint: ")
	must(t, unix.Mount("none", dir, "tmpfs", unix.MS_REMOUNT, "size=1m"))
	e := l.do(t, "export", "--user", "kim", "disk", "--json")
	if got := e.end(t); e.status != 0 || got.Images+got.Present != 3 || got.Present == 0 {
		t.Errorf("%v", e)
	}
}

// testExportDamaged: an image whose copies are all bad does not stop the others.
func (l *upCluster) testExportDamaged(t *testing.T) {
	const size = 123_457 // of no other image
	l.store(t, "leo", "bad.jpg", blob(1, size), "")
	for i := range 3 {
		l.store(t, "leo", fmt.Sprintf("good%d.jpg", i), blob(uint64(i), 3000), "")
	}
	damaged := 0
	data := filepath.Join(l.dir, "imgcluster-data")
	must(t, filepath.WalkDir(data, func(path string, d fs.DirEntry, err error) error {
		if err != nil || filepath.Ext(path) != ".img" {
			return nil
		}
		if info, err := d.Info(); err == nil && info.Size() >= size && info.Size() < size+2000 {
			damaged++
			return errors.Join(os.Chmod(path, 0o600), os.Truncate(path, size/2))
		}
		return nil
	}))
	if damaged != 2 {
		t.Fatalf("%d copies were damaged", damaged)
	}
	e := l.expectEnd(t, exitFailed, exchange.Tally{Images: 3, Failed: 1}, "export", "--user", "leo", "leo")
	e.expectErr(t, exitFailed, "1 of 4 images were not exported")
	e.expectOut(t, exitFailed, `"type":"failed","user":"leo","name":"bad.jpg"`)
	if _, err := os.Stat(filepath.Join(l.dir, "leo/bad.jpg")); err == nil {
		t.Error("there is a file of an image that cannot be read")
	}
}

// TestExchangeKeys moves images with access keys: one that may only read can export, and nothing else.
func TestExchangeKeys(t *testing.T) {
	t.Parallel()
	l := up(t, "security: {always: true}")
	own := func(args ...string) ended { return finish(t, program(t, l.dir, args...)) }
	own("init").expectOut(t, 0, "ca.crt")
	photo := photos(t)[0]
	own("put", "--user", "alice", "--name", "one.jpg", photo).expectErr(t, 0)
	g := newGuest(t, l)
	add := func(role string) *guest {
		made := decode[wire.NewKey](t, own("key", "add", "--json", "--user", "alice", "--role", role).out)
		return g.with(made.ID, made.Secret)
	}
	reader, writer := add("read"), add("write")
	eventually(t, "the keys are known", func() bool {
		return reader.run("ls", "alice").status == 0 && writer.run("ls", "alice").status == 0
	})
	reader.run("export", "--user", "alice", "out").expectErr(t, 0, "exported 1 image,")
	reader.run("export", "all").expectRefused(t, exitFailed, "is not for access key", "with --user")
	reader.run("export", "--user", "bob", "bob").expectErr(t, exitFailed, "is not for access key")
	reader.run("import", "out").expectErr(t, 0, "1 were there already")
	reader.run("import", "--prefix", "x/", "out").expectErr(t, exitFailed, "is not for access key")
	writer.run("import", "--prefix", "x/", "out").expectErr(t, 0, "imported 1 image,")
	g.run("export", "--user", "alice", "none").expectErr(t, exitFailed, "asks for an access key")
	own("export", "all").expectErr(t, 0, "exported 2 images")
}
