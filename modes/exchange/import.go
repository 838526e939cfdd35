package exchange

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"unicode/utf8"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/wire"
)

// smallBytes is the most that an image has to be sent from memory. Larger ones are read for each node.
const smallBytes = 1 << 20

// Import stores files as images of a user.
type Import struct {
	Move
	Paths    []string // folders, whose files get names relative to them, and files
	Prefix   string   // of all names
	Replace  bool     // replaces images of the same name
	AnyFile  bool     // files that are no images too
	BytesMax int64    // of an image
	Chosen   func(*client.Choice)

	sources []*source
	there   map[string]wire.Info // of the names to import, what the cluster has
}

// errOther is the error of a name that another image has.
var errOther = &advised{
	errors.New("another image has this name"),
	"add --replace to replace it, or a --prefix to store it under another name",
}

// Run imports. Files that the cluster has already are not sent; those that could not be imported are counted
// and reported.
func (m *Import) Run(ctx context.Context) (Tally, error) {
	defer func() {
		for _, s := range m.sources {
			s.root.Close()
		}
	}()
	files, err := m.scan()
	if err != nil {
		return m.tally, err
	}
	if len(files) == 0 {
		return m.tally, nil
	}
	m.tally.Of = len(files)
	for _, f := range files {
		m.tally.OfBytes += f.bytes
	}
	if err := m.list(ctx, files); err != nil {
		return m.tally, err
	}
	err = each(ctx, m.AtOnce, files, m.one)
	return m.tally, err
}

// Incomplete returns the folders whose manifests have no end: not all images of the export are in them.
func (m *Import) Incomplete() (dirs []string) {
	for _, s := range m.sources {
		if s.byFile != nil && !s.complete {
			dirs = append(dirs, s.root.Name())
		}
	}
	return dirs
}

// list asks the cluster what it has of the names.
func (m *Import) list(ctx context.Context, files []*imported) error {
	wanted := map[string]bool{}
	prefix := files[0].name
	for _, f := range files {
		wanted[f.name] = true
		for !strings.HasPrefix(f.name, prefix) {
			_, last := utf8.DecodeLastRuneInString(prefix)
			prefix = prefix[:len(prefix)-last]
		}
	}
	m.there = map[string]wire.Info{}
	for info, err := range m.Client.All(ctx, m.User, prefix) {
		if err != nil {
			return err
		}
		if wanted[info.Name] {
			m.there[info.Name] = info
		}
	}
	return nil
}

// one imports one file. Its error ends the import.
func (m *Import) one(ctx context.Context, f *imported) error {
	sent, err := m.store(ctx, f)
	switch {
	case err == nil && sent:
		m.moved(f.bytes)
		return nil
	case err == nil:
		m.count(func(t *Tally) { t.Present++ })
		return nil
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case isLocal(err):
		err = &advised{fmt.Errorf("it cannot be read: %w", oserr.NoPath(err)), oserr.Hint(err, "")}
	case ends(err):
		return err
	}
	m.tell(Event{Type: Failed, Name: f.name, File: f.path(), Err: err})
	return nil
}

// store sends a file unless the cluster has it.
func (m *Import) store(ctx context.Context, f *imported) (sent bool, err error) {
	file, err := f.open()
	if err != nil {
		return false, err
	}
	defer file.Close()
	sum, body, err := f.read(file)
	if err != nil {
		return false, err
	}
	if f.listed != nil && f.listed.SHA256 != sum {
		return false, &advised{
			errors.New("its SHA-256 is not that of the manifest: it is damaged, or was changed"),
			"export again into the folder, or import this file by itself",
		}
	}
	if there, ok := m.there[f.name]; ok {
		same, err := m.same(ctx, there, f.bytes, sum)
		if same || err != nil {
			return false, err
		}
		if !m.Replace {
			return false, errOther
		}
	}
	return m.send(ctx, f, sum, body)
}

// read returns the SHA-256 of a file, and its bytes to send.
func (f *imported) read(file *os.File) (sum image.Digest, body func() io.Reader, err error) {
	n := int64(0)
	if f.bytes <= smallBytes {
		var data []byte
		data, err = io.ReadAll(io.LimitReader(file, smallBytes+1))
		n = int64(len(data))
		sum = sha256.Sum256(data)
		body = func() io.Reader { return bytes.NewReader(data) }
	} else {
		sum, n, err = digest(io.Discard, file)
		body = func() io.Reader { return io.NewSectionReader(file, 0, f.bytes) }
	}
	if err == nil && n != f.bytes {
		err = &advised{errors.New("it is being changed"), "import it again when nothing changes it"}
	}
	return sum, body, err
}

// same reports whether what the cluster has are these bytes. Where it has no digest, it is read.
func (m *Import) same(ctx context.Context, there wire.Info, size int64, sum image.Digest) (bool, error) {
	if there.Bytes != size || there.SHA256 != "" {
		return there.SHA256 == sum.String(), nil
	}
	obj, err := m.Client.Get(ctx, m.User, there.Name, false)
	if err != nil {
		return false, err
	}
	defer obj.Body.Close()
	stored, _, err := digest(io.Discard, obj.Body)
	return stored == sum, err
}

// send stores an image. Unless it replaces, an image that has got the name meanwhile is kept.
func (m *Import) send(
	ctx context.Context, f *imported, sum image.Digest, body func() io.Reader,
) (sent bool, err error) {
	up := client.Upload{
		User: m.User, Name: f.name, Size: f.bytes, Body: body, Digest: &sum, IfNoneMatch: !m.Replace,
	}
	if f.listed != nil && f.listed.Type != typeOf(f.name) {
		up.Type = f.listed.Type
	}
	r, err := m.Client.Put(ctx, up)
	if r.Done != nil {
		<-r.Done
	}
	if c := r.Chosen(); c != nil {
		m.Chosen(c)
	}
	if image.KindOf(err) != image.KindExists {
		return err == nil, err
	}
	info, err := m.Client.Head(ctx, m.User, f.name)
	if err != nil {
		return false, err
	}
	if same, err := m.same(ctx, info.Info, f.bytes, sum); same || err != nil {
		return false, err
	}
	return false, errOther
}
