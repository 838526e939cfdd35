package read

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// plaintext is an image's content. When a copy fails, in whatever segment, it continues with the next copy at
// the same place.
type plaintext struct {
	m      *Images
	ctx    context.Context
	rec    *image.Record
	copies []image.Copy // the first is being read, earlier ones have failed
	opened *crypto.Opened
	body   *crypto.RangeReader
	close  func()
	off    int64
	end    int64 // of what is to be read
}

// Size implements wire.Content.
func (p *plaintext) Size() int64 { return p.rec.Bytes }

// Section implements wire.Content.
func (p *plaintext) Section(off, n int64) {
	p.Close()
	p.off, p.end = off, off+n
}

// Close implements io.Closer.
func (p *plaintext) Close() error {
	if p.close != nil {
		p.close()
	}
	p.body, p.close = nil, nil
	return nil
}

// Read implements io.Reader.
func (p *plaintext) Read(b []byte) (n int, err error) {
	err = p.advance(func() error {
		n, err = p.body.Read(b)
		return err
	})
	p.off += int64(n)
	return n, err
}

// WriteTo implements io.WriterTo: whole segments are written from where they were decrypted.
func (p *plaintext) WriteTo(w io.Writer) (total int64, err error) {
	for {
		var b []byte
		err := p.advance(func() error {
			b, err = p.body.Next()
			return err
		})
		if err == io.EOF {
			return total, nil
		} else if err != nil {
			return total, err
		}
		n, err := w.Write(b)
		p.off += int64(n)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
}

// advance calls read for the bytes at off until it returns nil, with each copy in turn. It returns io.EOF
// after the last.
func (p *plaintext) advance(read func() error) error {
	for p.off < p.end {
		err := p.position()
		if err == nil {
			if err = read(); err == nil {
				return nil
			}
		}
		if p.ctx.Err() != nil {
			return context.Cause(p.ctx)
		}
		if err = p.next(err); err != nil {
			return err
		}
	}
	return io.EOF
}

// position starts to read the first copy at off.
func (p *plaintext) position() (err error) {
	if p.body != nil {
		return nil
	}
	c := p.copies[0]
	if p.opened == nil {
		if p.opened, err = p.m.open(p.ctx, p.rec, c); err != nil {
			return err
		}
	}
	n := p.end - p.off
	start, size, err := p.opened.Range(p.off, n)
	if err != nil {
		return err
	}
	src, err := p.m.source(p.ctx, p.rec, c, start, size)
	if err != nil {
		return err
	}
	body, err := p.opened.NewRangeReader(src, p.off, n)
	if err != nil {
		src.Close()
		return err
	}
	p.body, p.close = body, func() { body.Close(); src.Close() }
	return nil
}

// doubtful reports whether a failure to read a copy may be the copy's fault. It is not when there was no
// answer, a resource ran out, or a key cannot be looked up.
func doubtful(err error) bool {
	switch image.KindOf(err) {
	case image.KindNotFound, image.KindDamaged:
		return true
	case image.KindInternal: // how another node reports a disk that cannot be read
		return errors.As(err, new(*image.Error)) || errors.As(err, new(*crypto.Error)) ||
			oserr.ClassOf(err) == oserr.Broken ||
			errors.Is(err, io.ErrUnexpectedEOF) // or its disk failed in the middle of a copy
	}
	return false
}

// moved reports whether the copy that is being read has been replaced by another one of the image, and has
// the newest copies read then.
func (p *plaintext) moved() bool {
	now, err := p.m.record(p.ctx, p.rec.User, p.rec.Name)
	if err != nil || now == nil || now.ID != p.rec.ID || slices.Contains(now.Copies, p.copies[0]) {
		return false
	}
	p.Close()
	p.rec, p.copies, p.opened = now, p.m.order(now), nil
	return true
}

// next switches to another copy because of err.
func (p *plaintext) next(err error) error {
	if image.KindOf(err) == image.KindNotFound && p.moved() {
		return nil
	}
	c := p.copies[0]
	p.m.Logger.Error("copy of an image is unreadable", zap.String("user", p.rec.User),
		zap.Stringer("image", p.rec.ID), trace.From(p.ctx).Field(),
		zap.Uint32("of_node", uint32(c.Node)), zap.Int64("offset", p.off), zap.Error(err))
	if doubtful(err) {
		p.m.Suspect(p.rec, c.Node)
	}
	p.Close()
	p.opened = nil
	if p.copies = p.copies[1:]; len(p.copies) > 0 {
		return nil
	}
	p.copies = p.m.order(p.rec)
	return image.Errorf(image.KindDamaged, "no copy of image %q on nodes %v can be read and authenticated",
		p.rec.Name, p.rec.Replicas()).
		WithHint("start the nodes that are down; the nodes' logs name what is wrong with each copy")
}

// OpenEncrypted returns the first copy that can be reached, as it is stored, and which it is.
func (m *Images) OpenEncrypted(ctx context.Context, rec *image.Record) (wire.Content, image.Copy, error) {
	var errs []error
	for _, c := range m.order(rec) {
		if c.Node == m.Self {
			f, err := m.OpenCopy(rec.File(c))
			if err == nil {
				return f, c, nil
			}
			errs = append(errs, err)
			continue
		}
		size, err := m.Peers.CopyBytes(ctx, c.Node, rec.File(c))
		if err == nil {
			return &remoteFile{ctx: ctx, m: m, rec: rec, c: c, size: size, end: size}, c, nil
		}
		errs = append(errs, err)
	}
	return nil, image.Copy{}, image.Errorf(image.KindDamaged, "no copy of image %q can be reached: %w", rec.Name,
		errors.Join(errs...)).
		WithHint("start the nodes that are down")
}

// OpenCopy opens this node's file of a copy, as it is stored.
func (m *Images) OpenCopy(id image.FileID) (wire.Content, error) {
	f, err := m.Store.Open(id)
	if err != nil {
		return nil, err
	}
	return &fileContent{f, io.NewSectionReader(f, 0, f.Size())}, nil
}

// fileContent is a stored file as it is.
type fileContent struct {
	f File
	*io.SectionReader
}

// Size implements wire.Content.
func (c *fileContent) Size() int64 { return c.f.Size() }

// Section implements wire.Content.
func (c *fileContent) Section(off, n int64) { c.SectionReader = io.NewSectionReader(c.f, off, n) }

// Close implements io.Closer.
func (c *fileContent) Close() error { return c.f.Close() }

// remoteFile is another node's file as it is.
type remoteFile struct {
	ctx  context.Context
	m    *Images
	rec  *image.Record
	c    image.Copy
	size int64
	off  int64
	end  int64 // of what is to be read
	body io.ReadCloser
}

// Size implements wire.Content.
func (r *remoteFile) Size() int64 { return r.size }

// Section implements wire.Content.
func (r *remoteFile) Section(off, n int64) {
	r.Close()
	r.off, r.end = off, off+n
}

// Read implements io.Reader.
func (r *remoteFile) Read(b []byte) (n int, err error) {
	if r.off >= r.end {
		return 0, io.EOF
	}
	if r.body == nil {
		if r.body, err = r.m.source(r.ctx, r.rec, r.c, r.off, r.end-r.off); err != nil {
			return 0, image.Errorf(image.KindDamaged, "the copy on node %d: %w", r.c.Node, err)
		}
	}
	n, err = r.body.Read(b)
	r.off += int64(n)
	if err == io.EOF && r.off < r.end {
		err = fmt.Errorf("the copy on node %d: %w", r.c.Node, io.ErrUnexpectedEOF)
	}
	return n, err
}

// Close implements io.Closer.
func (r *remoteFile) Close() error {
	if r.body == nil {
		return nil
	}
	err := r.body.Close()
	r.body = nil
	return err
}
