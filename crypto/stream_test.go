package crypto

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"
)

// edges are the plaintext lengths around the ends of segments.
func edges(segment int) (lengths []int) {
	first, full := segment-tagBytes-StreamHeaderBytes, segment-tagBytes
	for _, at := range []int{0, first, first + full, first + 3*full} {
		for _, d := range []int{-1, 0, 1} {
			if at+d >= 0 {
				lengths = append(lengths, at+d)
			}
		}
	}
	return lengths
}

func TestRoundTripAtEdges(t *testing.T) {
	k := testKey(1)
	for _, segment := range []int{testSegment, 1000} {
		for _, length := range edges(segment) {
			plain := testPlain(length)
			for _, chunk := range []int{
				1, 7, firstPlain, fullPlain, segment - tagBytes, segment, length + 1,
			} {
				file := encryptWith(t, k, testFields(length, segment), plain, chunk, rand.Reader)
				for _, size := range []int{1, 13, fullPlain, 1 << 16} {
					checkFile(t, file, plain, k, size)
				}
			}
		}
	}
}

// TestSealedInPlace: a destination that lends its buffer gets the same file as one that has none.
func TestSealedInPlace(t *testing.T) {
	plain := testPlain(5*fullPlain + 7)
	var files [2]bytes.Buffer
	for i, dst := range []io.Writer{&files[0], struct{ io.Writer }{&files[1]}} {
		fields := testFields(len(plain), testSegment)
		w := must[*EncryptWriter](t)(newEncryptWriter(dst, testKey(1), fields, &counter{}))
		if lends := w.direct != nil; lends != (i == 0) {
			t.Errorf("destination %d lends its buffer: %t", i, lends)
		}
		if _, err := w.Write(plain); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(files[0].Bytes(), files[1].Bytes()) {
		t.Error("the files differ")
	}
}

func TestRoundTripWithDefaultSegments(t *testing.T) {
	k := testKey(1)
	const first, full = SegmentSizeDefault - tagBytes - StreamHeaderBytes, SegmentSizeDefault - tagBytes
	for _, length := range []int{first - 1, first, first + 1, first + full} {
		plain := testPlain(length)
		file := encryptWith(t, k, testFields(length, 0), plain, 32<<10, rand.Reader)
		checkFile(t, file, plain, k, 32<<10)
	}
}

// checkFile reads the file in every way there is.
func checkFile(t *testing.T, file, plain []byte, k Key, size int) {
	t.Helper()
	r := must[*RangeReader](t)(newReader(file, k))
	var got bytes.Buffer
	if _, err := io.CopyBuffer(&got, struct{ io.Reader }{r}, make([]byte, size)); err != nil ||
		!bytes.Equal(got.Bytes(), plain) {
		t.Fatalf("length %d, read size %d: %d bytes read: %v", len(plain), size, got.Len(), err)
	}
	if n, err := r.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("after the end: %d, %v", n, err)
	}
	h := must[*Header](t)(Verify(io.Discard, bytes.NewReader(file), just(k)))
	if h.FileLen() != int64(len(file)) || h.Length != int64(len(plain)) {
		t.Fatalf("the header says %d and %d bytes, there are %d and %d", h.FileLen(), h.Length, len(file),
			len(plain))
	}
	if s := must[[]byte](t)(stream(file, k)); !bytes.Equal(s, plain) {
		t.Fatalf("streamed %d bytes, not the plaintext", len(s))
	}
}

func TestFileLen(t *testing.T) {
	const first = SegmentSizeDefault - tagBytes - StreamHeaderBytes
	for _, length := range []int{0, 1, first, first + 1} {
		file := encrypt(t, testKey(1), testFields(length, 0), testPlain(length))
		h := Header{HeaderFields: HeaderFields{
			Tenant: "alice", Length: int64(length), SegmentSize: SegmentSizeDefault,
		}}
		if got := h.FileLen(); got != int64(len(file)) {
			t.Errorf("%d bytes of plaintext: %d, the file has %d", length, got, len(file))
		}
	}
}

// Sources and sinks that behave in odd, allowed ways.
func TestOddSources(t *testing.T) {
	k, plain := testKey(1), testPlain(300)
	file := encrypt(t, k, testFields(len(plain), testSegment), plain)
	for name, odd := range map[string]func(io.Reader) io.Reader{
		"one byte": iotest.OneByteReader, "half": iotest.HalfReader, "data with EOF": iotest.DataErrReader,
	} {
		if _, err := Verify(io.Discard, odd(bytes.NewReader(file)), just(k)); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := iotest.TestReader(must[*RangeReader](t)(newReader(file, k)), plain); err != nil {
		t.Error(err)
	}
	var got bytes.Buffer
	if n, err := must[*RangeReader](t)(newReader(file, k)).WriteTo(&got); n != int64(len(plain)) || err != nil ||
		!bytes.Equal(got.Bytes(), plain) {
		t.Errorf("WriteTo: %d, %v", n, err)
	}
}

// idle returns nothing and no error, for ever.
type idle struct{}

func (idle) Read([]byte) (int, error) { return 0, nil }

// A source that fails says nothing about the file, wherever it fails: it must not look tampered
// with, or a lost connection would have a good copy repaired.
func TestSourceErrorsAreNotErrAuth(t *testing.T) {
	k, plain := testKey(1), testPlain(100)
	file := encrypt(t, k, testFields(len(plain), testSegment), plain)
	for _, cause := range []error{io.ErrUnexpectedEOF, errors.New("connection reset")} {
		for cut := range len(file) + 1 {
			_, err := Verify(io.Discard, io.MultiReader(bytes.NewReader(file[:cut]), iotest.ErrReader(cause)), just(k))
			if !errors.Is(err, cause) || refused(err) {
				t.Fatalf("%v at byte %d: %v", cause, cut, err)
			}
		}
	}
	if _, err := Verify(io.Discard, idle{}, just(k)); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("an idle source: %v", err)
	}
	lost := errors.New("no such user")
	_, err := Verify(io.Discard, bytes.NewReader(file), func(h *Header) (Key, error) {
		if h.Tenant != "alice" || h.UserKey != 7 {
			t.Errorf("asked for key %d of %q", h.UserKey, h.Tenant)
		}
		return Key{}, lost
	})
	if !errors.Is(err, lost) || refused(err) {
		t.Errorf("a key that cannot be had: %v", err)
	}
}

// failing is a sink whose writes fail from the n-th on.
type failing struct{ n int }

var errDisk = errors.New("disk full")

func (f *failing) Write(p []byte) (int, error) {
	if f.n--; f.n < 0 {
		return 0, errDisk
	}
	return len(p), nil
}

func TestSinkFailsAtEachWrite(t *testing.T) {
	plain := testPlain(300)
	f := testFields(len(plain), testSegment)
	h := must[*Header](t)(ParseHeader(encrypt(t, testKey(1), f, plain)))
	writes := 1 + int(h.layout().segments())
	for i := range writes {
		w, err := NewEncryptWriter(&failing{n: i}, testKey(1), f)
		if (i == 0) != errors.Is(err, errDisk) {
			t.Fatalf("write 0: %v", err)
		}
		if err != nil {
			continue
		}
		_, werr := w.Write(plain)
		if last := i == writes-1; !errors.Is(werr, errDisk) != last {
			t.Errorf("write %d fails: Write says %v", i, werr)
		}
		for range 2 {
			if err := w.Close(); !errors.Is(err, errDisk) {
				t.Errorf("write %d fails: Close says %v", i, err)
			}
		}
		if _, err := w.Write(nil); !errors.Is(err, errDisk) {
			t.Errorf("write %d fails: the error does not stick: %v", i, err)
		}
	}
}

func TestWrongLength(t *testing.T) {
	k := testKey(1)
	for _, length := range edges(testSegment) {
		plain := testPlain(length + 1)
		var out bytes.Buffer
		long := must[*EncryptWriter](t)(NewEncryptWriter(&out, k, testFields(length, testSegment)))
		n, err := long.Write(plain)
		wantKind(t, err, ErrLength)
		if n != 0 {
			t.Errorf("%d bytes of too many were taken", n)
		}
		wantKind(t, long.Close(), ErrLength)

		var one bytes.Buffer
		byOne := must[*EncryptWriter](t)(NewEncryptWriter(&one, k, testFields(length, testSegment)))
		must[int](t)(byOne.Write(plain[:length]))
		_, err = byOne.Write(plain[length:])
		wantKind(t, err, ErrLength)
		if length > 0 {
			short := must[*EncryptWriter](t)(NewEncryptWriter(&out, k, testFields(length, testSegment)))
			must[int](t)(short.Write(plain[:length-1]))
			wantKind(t, short.Close(), ErrLength)
			wantKind(t, short.Close(), ErrLength)
		}
		// What is left of a failed file authenticates nowhere.
		for _, file := range [][]byte{out.Bytes(), one.Bytes()} {
			_, err := Verify(io.Discard, bytes.NewReader(file), just(k))
			wantKind(t, err, ErrAuth)
		}
	}
}

func TestWriteAfterClose(t *testing.T) {
	w := must[*EncryptWriter](t)(NewEncryptWriter(io.Discard, testKey(1), testFields(0, 0)))
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := w.Write(nil)
	wantKind(t, err, ErrInvalid)
	if err := w.Close(); err != nil {
		t.Errorf("a second Close says %v", err)
	}
}

// A caller's bytes are its own: they are neither changed nor kept.
func TestWriteLeavesItsArgument(t *testing.T) {
	plain := testPlain(400)
	mine := bytes.Clone(plain)
	var out bytes.Buffer
	w := must[*EncryptWriter](t)(NewEncryptWriter(&out, testKey(1), testFields(len(mine), testSegment)))
	must[int](t)(w.Write(mine))
	if !bytes.Equal(mine, plain) {
		t.Fatal("Write changed its argument")
	}
	clear(mine)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if got := must[[]byte](t)(verify(out.Bytes(), testKey(1))); !bytes.Equal(got, plain) {
		t.Error("Write kept its argument")
	}
}

func TestRangesAgainstTheWhole(t *testing.T) {
	k := testKey(1)
	for _, length := range []int{0, 1, firstPlain, firstPlain + 1, firstPlain + fullPlain, 70} {
		plain := testPlain(length)
		file := encrypt(t, k, testFields(length, testSegment), plain)
		o := must[*Opened](t)(Open(file[:min(len(file), PrefixMaxBytes)], k))
		for off := range length + 1 {
			for n := range length - off + 1 {
				got, err := readRange(o, file, int64(off), int64(n))
				if err != nil || !bytes.Equal(got, plain[off:off+n]) {
					t.Fatalf("length %d, %d bytes at %d: %d bytes, %v", length, n, off, len(got), err)
				}
			}
		}
	}
}

// readRange fetches exactly the bytes that Range names, as from another node.
func readRange(o *Opened, file []byte, off, n int64) ([]byte, error) {
	ctOff, ctLen, err := o.Range(off, n)
	if err != nil {
		return nil, err
	}
	end := min(ctOff+ctLen, int64(len(file))) // of a cut file there is less
	r, err := o.NewRangeReader(bytes.NewReader(file[min(ctOff, end):end]), off, n)
	if err != nil {
		return nil, err
	}
	return io.ReadAll(struct{ io.Reader }{r})
}

func TestRangeFetchesLittle(t *testing.T) {
	length := 5 << 20
	o := must[*Opened](t)(Open(encrypt(t, testKey(1), testFields(length, 0), testPlain(length)), testKey(1)))
	for _, c := range []struct{ off, n, segments int64 }{
		{0, 1, 1}, {2 << 20, 10, 1}, {SegmentSizeDefault - 60, 10, 2}, {0, 5 << 20, 6},
	} {
		_, ctLen, err := o.Range(c.off, c.n)
		if most := c.segments * SegmentSizeDefault; err != nil || ctLen > most || ctLen < c.n {
			t.Errorf("%d bytes at %d take %d bytes of the file, at most %d: %v", c.n, c.off, ctLen, most, err)
		}
	}
}

func TestRangesOutside(t *testing.T) {
	o := must[*Opened](t)(
		Open(encrypt(t, testKey(1), testFields(100, testSegment), testPlain(100)), testKey(1)))
	for _, c := range [][2]int64{
		{-1, 1}, {0, -1}, {0, 101}, {100, 1}, {101, 0}, {50, 1<<63 - 1}, {1<<63 - 1, 1},
	} {
		_, _, err := o.Range(c[0], c[1])
		wantKind(t, err, ErrRange)
		_, err = o.NewRangeReader(bytes.NewReader(nil), c[0], c[1])
		wantKind(t, err, ErrRange)
	}
}

func TestRangeReaderAfterClose(t *testing.T) {
	file := encrypt(t, testKey(1), testFields(100, testSegment), testPlain(100))
	o := must[*Opened](t)(Open(file, testKey(1)))
	r := must[*RangeReader](t)(
		o.NewRangeReader(bytes.NewReader(file[headerBytes("alice")+StreamHeaderBytes:]), 0, 100))
	must[int](t)(r.Read(make([]byte, 3)))
	r.Close()
	if n, err := r.Read(make([]byte, 3)); n != 0 || !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("read %d bytes after Close: %v", n, err)
	}
}

// Plaintext does not stay behind in buffers that go back to the pool.
func TestBuffersAreCleared(t *testing.T) {
	plain := testPlain(100)
	w := must[*EncryptWriter](t)(NewEncryptWriter(io.Discard, testKey(1), testFields(len(plain)+1, 0)))
	must[int](t)(w.Write(plain))
	buf := *w.buf
	if !bytes.Equal(buf[:len(plain)], plain) {
		t.Fatal("the writer does not collect in its buffer")
	}
	wantKind(t, w.Close(), ErrLength)
	if bytes.Contains(buf, plain[:8]) || bytes.Contains(buf, plain[90:]) {
		t.Error("a writer that gave up leaves plaintext")
	}
	r := must[*RangeReader](t)(newReader(encrypt(t, testKey(1), testFields(len(plain), 0), plain), testKey(1)))
	must[int](t)(r.Read(make([]byte, 3)))
	buf = *r.buf
	r.Close()
	if bytes.Contains(buf, plain[:8]) || bytes.Contains(buf, plain[90:]) {
		t.Error("a reader leaves plaintext")
	}
}

// Many slow readers of small segments hold small buffers.
func TestSmallSegmentsTakeSmallBuffers(t *testing.T) {
	for segment, want := range map[int]int{
		4096: 128 << 10, 128 << 10: 128 << 10, 128<<10 + 1: SegmentSizeDefault, 0: SegmentSizeDefault,
	} {
		w := must[*EncryptWriter](t)(NewEncryptWriter(io.Discard, testKey(1), testFields(1, segment)))
		if got := len(*w.buf); got != want {
			t.Errorf("segments of %d bytes take a buffer of %d, want %d", segment, got, want)
		}
		w.Close() // gives it back
	}
}

// One Opened serves many readers at once.
func TestOpenedIsShared(t *testing.T) {
	plain := testPlain(2000)
	file := encrypt(t, testKey(1), testFields(len(plain), testSegment), plain)
	o := must[*Opened](t)(Open(file, testKey(1)))
	var wg sync.WaitGroup
	errs := make(chan error, 8)
	for i := range cap(errs) {
		wg.Go(func() {
			off := int64(i * 100)
			got, err := readRange(o, file, off, 1000)
			if err == nil && !bytes.Equal(got, plain[off:off+1000]) {
				err = fmt.Errorf("reader %d read other bytes", i)
			}
			errs <- err
		})
	}
	wg.Wait()
	for range cap(errs) {
		if err := <-errs; err != nil {
			t.Error(err)
		}
	}
}

// Two files of the same image, user and attempt have no secret, salt or nonce in common.
func TestEncryptionsAreIndependent(t *testing.T) {
	k, plain := testKey(1), testPlain(100)
	seen := map[string]string{}
	for range 64 {
		file := encrypt(t, k, testFields(len(plain), testSegment), plain)
		h := must[*Header](t)(ParseHeader(file))
		dataKey := must[Key](t)(h.openHeader(k))
		body := file[headerBytes(h.Tenant):]
		for what, v := range map[string][]byte{
			"data key":    dataKey.b()[:],
			"salt":        h.salt[:],
			"wrapped key": h.wrapped[:],
			"commitment":  h.commitment[:],
			"stream salt": body[1 : 1+saltBytes],
			"segment 0":   body[StreamHeaderBytes : StreamHeaderBytes+firstPlain+tagBytes],
		} {
			if before, ok := seen[string(v)]; ok {
				t.Fatalf("%s is the same as a %s before", what, before)
			}
			seen[string(v)] = what
		}
	}
}

func TestNoAllocationPerSegment(t *testing.T) {
	const runs = 50
	plain := testPlain(10 * fullPlain)
	w := must[*EncryptWriter](t)(
		NewEncryptWriter(io.Discard, testKey(1), testFields((runs+2)*len(plain), testSegment)))
	if n := testing.AllocsPerRun(runs, func() { must[int](t)(w.Write(plain)) }); n > 1 { // must makes one
		t.Errorf("%v allocations for ten segments written", n)
	}
	file := encrypt(t, testKey(1), testFields(100*fullPlain, testSegment), testPlain(100*fullPlain))
	r := must[*RangeReader](t)(newReader(file, testKey(1)))
	buf := make([]byte, fullPlain)
	must[int](t)(r.Read(buf))
	if n := testing.AllocsPerRun(runs, func() { r.Read(buf) }); n > 0 {
		t.Errorf("%v allocations for a segment read", n)
	}
}
