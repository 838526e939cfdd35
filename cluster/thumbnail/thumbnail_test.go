package thumbnail

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"os"
	"path/filepath"
	"runtime/metrics"
	"testing"

	"golang.org/x/image/bmp"
	"golang.org/x/image/tiff"

	"imgcluster/cluster/clustertest/camera"
)

// source is an image in memory, which counts what is read of it.
type source struct {
	*bytes.Reader
	text []byte
	read int64
}

func newSource(text []byte) *source { return &source{text: text, Reader: bytes.NewReader(text)} }

func (s *source) Size() int64 { return int64(len(s.text)) }

func (s *source) Section(off, n int64) { s.Reader = bytes.NewReader(s.text[off : off+n]) }

func (s *source) Read(p []byte) (int, error) {
	n, err := s.Reader.Read(p)
	s.read += int64(n)
	return n, err
}

// quarters is an image with a red, a green, a blue and a black quarter, from the top left in reading order.
func quarters(w, h int) *image.RGBA {
	m := image.NewRGBA(image.Rect(0, 0, w, h))
	colors := []color.RGBA{{255, 0, 0, 255}, {0, 255, 0, 255}, {0, 0, 255, 255}, {0, 0, 0, 255}}
	for y := range h {
		for x := range w {
			m.SetRGBA(x, y, colors[2*(2*y/h)+2*x/w])
		}
	}
	return m
}

// letters names the colours of an image's quarters, in reading order.
func letters(m image.Image) (s string) {
	b := m.Bounds()
	for _, p := range []image.Point{{1, 1}, {3, 1}, {1, 3}, {3, 3}} {
		r, g, bl, _ := m.At(b.Min.X+p.X*b.Dx()/4, b.Min.Y+p.Y*b.Dy()/4).RGBA()
		switch {
		case r > 0x8000:
			s += "r"
		case g > 0x8000:
			s += "g"
		case bl > 0x8000:
			s += "b"
		default:
			s += "k"
		}
	}
	return s
}

func encoded(t testing.TB, encode func(*bytes.Buffer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := encode(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func makeThumbnail(t *testing.T, text []byte, edge int) image.Image {
	t.Helper()
	small, err := NewMaker().Make(t.Context(), newSource(text), edge)
	if err != nil {
		t.Fatal(err)
	}
	m, err := jpeg.Decode(bytes.NewReader(small))
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestFormats(t *testing.T) {
	m := quarters(1200, 600)
	for name, text := range map[string][]byte{
		"png":  encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, m) }),
		"jpeg": encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, m, nil) }),
		"gif":  encoded(t, func(b *bytes.Buffer) error { return gif.Encode(b, m, nil) }),
		"bmp":  encoded(t, func(b *bytes.Buffer) error { return bmp.Encode(b, m) }),
		"tiff": encoded(t, func(b *bytes.Buffer) error { return tiff.Encode(b, m, nil) }),
	} {
		small := makeThumbnail(t, text, 256)
		if got := small.Bounds().Size(); got != image.Pt(256, 128) || letters(small) != "rgbk" {
			t.Errorf("%s: %v, %s", name, got, letters(small))
		}
		if small := makeThumbnail(t, text, 1024); small.Bounds().Dx() != 1024 {
			t.Errorf("%s: %v", name, small.Bounds())
		}
	}
	tiny := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, quarters(20, 10)) })
	if small := makeThumbnail(t, tiny, 256); small.Bounds().Dx() != 20 {
		t.Errorf("a small image became %v", small.Bounds())
	}
}

// TestPhotographs makes thumbnails of real photographs.
func TestPhotographs(t *testing.T) {
	files, err := filepath.Glob("../../testdata/photos/*")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	made := 0
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		small, err := NewMaker().Make(t.Context(), newSource(text), EdgeDefault)
		if err != nil {
			if !errors.Is(err, ErrNone) {
				t.Errorf("%s: %v", path, err)
			}
			t.Logf("%s: %v", filepath.Base(path), err)
			continue
		}
		made++
		t.Logf("%s: %d bytes of %d", filepath.Base(path), len(small), len(text))
	}
	if made == 0 {
		t.Error("no photograph has a thumbnail")
	}
}

func TestOrientation(t *testing.T) {
	text := encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, quarters(640, 320), nil) })
	// As the image is to be seen, from Exif 2.32, figure 2: the first row and column lie at ...
	for o, want := range map[uint16]string{
		0: "rgbk", 1: "rgbk", 2: "grkb", 3: "kbgr", 4: "bkrg", 5: "rbgk", 6: "brkg", 7: "kgbr", 8: "gkrb",
		9: "rgbk",
	} {
		for _, order := range []binary.ByteOrder{binary.LittleEndian, binary.BigEndian} {
			small := makeThumbnail(t, camera.WithEXIF(text, o, nil, order), 128)
			size := image.Pt(128, 64)
			if o >= 5 && o <= 8 {
				size = image.Pt(64, 128)
			}
			if letters(small) != want || small.Bounds().Size() != size {
				t.Errorf("orientation %d: %s, %v; want %s, %v", o, letters(small), small.Bounds(), want, size)
			}
		}
	}
}

// TestPreview: of a photograph with a preview nothing but its beginning is read, unless the preview is too
// small or damaged.
func TestPreview(t *testing.T) {
	photo := encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, quarters(4000, 3000), nil) })
	photo = append(photo, make([]byte, 300_000)...)
	other := image.NewRGBA(image.Rect(0, 0, 320, 240)) // all of one colour, unlike the photograph
	preview := encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, other, nil) })
	small := encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, quarters(40, 30), nil) })
	for name, c := range map[string]struct {
		preview []byte
		edge    int
		used    bool
	}{
		"good":           {preview, 256, true},
		"too small":      {small, 256, false},
		"damaged":        {preview[:len(preview)/2], 256, false},
		"large is asked": {preview, 1024, false},
	} {
		src := newSource(camera.WithEXIF(photo, 1, c.preview, binary.LittleEndian))
		text, err := NewMaker().Make(t.Context(), src, c.edge)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		m, err := jpeg.Decode(bytes.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		if used := letters(m) == "kkkk"; used != c.used || used != (src.read <= headBytes) {
			t.Errorf("%s: the preview was used: %v, %d bytes read", name, used, src.read)
		}
	}
}

func TestNoThumbnail(t *testing.T) {
	whole := encoded(t, func(b *bytes.Buffer) error { return png.Encode(b, quarters(300, 300)) })
	huge := bytes.Clone(whole)
	binary.BigEndian.PutUint32(huge[16:], 60_000)
	binary.BigEndian.PutUint32(huge[20:], 60_000)
	for name, text := range map[string][]byte{
		"text":      []byte("not an image at all, but long enough to be looked at"),
		"one byte":  {1},
		"cut":       whole[:len(whole)/2],
		"too large": huge,
	} {
		if _, err := NewMaker().Make(t.Context(), newSource(text), 256); !errors.Is(err, ErrNone) {
			t.Errorf("%s: %v", name, err)
		}
	}
	m := NewMaker()
	for m.workers.TryAcquire(1) {
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := m.Make(ctx, newSource(whole), 256); !errors.Is(err, context.Canceled) {
		t.Errorf("while all workers are busy: %v", err)
	}
}

// TestLargePhotographs: one of 24 megapixels has a thumbnail, unless it is progressive and would take too
// much.
func TestLargePhotographs(t *testing.T) {
	text := encoded(t, func(b *bytes.Buffer) error { return jpeg.Encode(b, quarters(6000, 4000), nil) })
	if m := makeThumbnail(t, text, 256); m.Bounds().Size() != image.Pt(256, 170) || letters(m) != "rgbk" {
		t.Errorf("%v, %s", m.Bounds(), letters(m))
	}
	sof := bytes.Index(text, []byte{0xff, 0xc0})
	text[sof+1] = markerSOF2
	if _, err := NewMaker().Make(t.Context(), newSource(text), 256); !errors.Is(err, ErrNone) {
		t.Errorf("a progressive one: %v", err)
	}
}

// FuzzEXIF: whatever a file says of itself, nothing outside it is read.
func FuzzEXIF(f *testing.F) {
	text := encoded(f, func(b *bytes.Buffer) error { return jpeg.Encode(b, quarters(200, 160), nil) })
	f.Add(camera.WithEXIF(text, 6, text, binary.LittleEndian))
	f.Add(camera.WithEXIF(text[:4], 6, text, binary.BigEndian))
	f.Fuzz(func(t *testing.T, head []byte) {
		if x := parseEXIF(head); len(x.preview) > len(head) {
			t.Error("a preview of more bytes than the file has")
		}
	})
}

// decodedSlack is what making a thumbnail takes beside the decoded image: what decoders and JPEG buffer.
const decodedSlack = 64 << 20

// FuzzMake: whatever a file is, there is a thumbnail of it or there is none, and it is made in bounded
// memory.
func FuzzMake(f *testing.F) {
	m := quarters(24, 16)
	for _, text := range [][]byte{
		encoded(f, func(b *bytes.Buffer) error { return png.Encode(b, m) }),
		encoded(f, func(b *bytes.Buffer) error { return jpeg.Encode(b, m, nil) }),
		encoded(f, func(b *bytes.Buffer) error { return gif.Encode(b, m, nil) }),
		encoded(f, func(b *bytes.Buffer) error { return bmp.Encode(b, m) }),
		encoded(f, func(b *bytes.Buffer) error { return tiff.Encode(b, m, nil) }),
		encoded(f, func(b *bytes.Buffer) error {
			return tiff.Encode(b, m, &tiff.Options{Compression: tiff.Deflate, Predictor: true})
		}),
		[]byte("RIFF\x1a\x00\x00\x00WEBPVP8L\x0d\x00\x00\x00" +
			"\x2f\x00\x00\x00\x10\x07\x10\x11\x11\x88\x88\xfe\x07\x00"),
	} {
		f.Add(text)
		f.Add(text[:len(text)/2])
	}
	allocated := []metrics.Sample{{Name: "/gc/heap/allocs:bytes"}}
	f.Fuzz(func(t *testing.T, text []byte) {
		metrics.Read(allocated)
		before := allocated[0].Value.Uint64()
		small, err := NewMaker().Make(t.Context(), newSource(text), EdgeDefault)
		metrics.Read(allocated)
		if more := allocated[0].Value.Uint64() - before; more > memoryMax+decodedSlack {
			t.Errorf("%d bytes of memory for a file of %d", more, len(text))
		}
		if err != nil {
			if !errors.Is(err, ErrNone) {
				t.Error(err)
			}
			return
		}
		c, err := jpeg.DecodeConfig(bytes.NewReader(small))
		if err != nil || c.Width < 1 || c.Height < 1 || max(c.Width, c.Height) > EdgeDefault {
			t.Errorf("%d x %d, %v", c.Width, c.Height, err)
		}
	})
}

func BenchmarkMake(b *testing.B) {
	photo := encoded(b, func(w *bytes.Buffer) error { return jpeg.Encode(w, quarters(6000, 4000), nil) })
	preview := encoded(b, func(w *bytes.Buffer) error { return jpeg.Encode(w, quarters(320, 240), nil) })
	for name, text := range map[string][]byte{
		"24 megapixels": photo, "preview": camera.WithEXIF(photo, 6, preview, binary.LittleEndian),
	} {
		b.Run(name, func(b *testing.B) {
			m := NewMaker()
			for b.Loop() {
				if _, err := m.Make(b.Context(), newSource(text), EdgeDefault); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
