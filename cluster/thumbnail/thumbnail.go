// Package thumbnail makes small pictures of stored images: of photographs from the preview that the camera
// put into them, where it is large enough, else from the whole image. It is bounded in memory and in
// processors, and works at the lowest priority, so that it is never in the way of uploads.
package thumbnail

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/jpeg"
	"io"
	"runtime"

	_ "image/gif" // decoders
	_ "image/png"

	"golang.org/x/image/draw"
	"golang.org/x/sync/semaphore"

	_ "golang.org/x/image/bmp"
	_ "golang.org/x/image/tiff"
	_ "golang.org/x/image/webp"
)

const (
	// EdgeMax is the longest edge of a thumbnail, in pixels, and EdgeDefault what is made unasked.
	EdgeMax     = 1024
	EdgeDefault = 256
	// memoryMax bounds the bytes of all images that are decoded at once, and with it an image: 50 megapixels
	// of a PNG, 67 of a photograph, 13 of a progressive one.
	memoryMax = 192 << 20
	// workersMax is how many images are decoded at once, if there are more processors than that; else one less
	// than there are, and at least one. Their threads are the last that the kernel runs, and while one waits for
	// that, Go runs nothing else on its processor: one must always be left for the rest of the node.
	workersMax = 2
	// headBytes is how much is read to look for a preview.
	headBytes = 128 << 10
	quality   = 82
)

// ErrNone is wrapped by the errors of what has no thumbnail: it is no image, one of a kind that is not known,
// damaged, or too large.
var ErrNone = errors.New("no thumbnail")

// Source is an image's bytes: all of them, unless Section says otherwise.
type Source interface {
	io.Reader
	Size() int64
	// Section has Read give the n bytes at off, and then end.
	Section(off, n int64)
}

// Maker makes thumbnails. It is safe for concurrent use.
type Maker struct {
	memory  *semaphore.Weighted
	workers *semaphore.Weighted
}

// NewMaker returns a Maker.
func NewMaker() *Maker {
	workers := max(1, min(workersMax, runtime.GOMAXPROCS(0)-1))
	return &Maker{memory: semaphore.NewWeighted(memoryMax), workers: semaphore.NewWeighted(int64(workers))}
}

// Make returns a JPEG that is upright and at most edge pixels wide and high. It waits for its turn until ctx
// ends. The errors are ErrNone, ctx's, and those of src.
func (m *Maker) Make(ctx context.Context, src Source, edge int) ([]byte, error) {
	src.Section(0, min(headBytes, src.Size()))
	head, err := io.ReadAll(src)
	if err != nil {
		return nil, err
	}
	exif := parseEXIF(head)
	if p := exif.preview; p != nil && edge <= EdgeDefault {
		if text, err := m.of(ctx, bytes.NewReader(p), edge, exif.orientation); err == nil {
			return text, nil
		}
	}
	src.Section(0, src.Size())
	return m.of(ctx, src, edge, exif.orientation)
}

// of makes the thumbnail of one image file.
func (m *Maker) of(ctx context.Context, r io.Reader, edge int, o orientation) (text []byte, err error) {
	var first bytes.Buffer
	config, format, err := image.DecodeConfig(bufio.NewReader(io.TeeReader(r, &first)))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	need := decodedBytes(config, format == "jpeg" && progressive(first.Bytes()))
	if need > memoryMax {
		return nil, fmt.Errorf("%w: %d x %d pixels are too many", ErrNone, config.Width, config.Height)
	}
	if err := m.memory.Acquire(ctx, need); err != nil {
		return nil, err
	}
	defer m.memory.Release(need)
	if err := m.workers.Acquire(ctx, 1); err != nil {
		return nil, err
	}
	defer m.workers.Release(1)
	atLowestPriority(func() {
		defer func() {
			if p := recover(); p != nil { // a decoder met what it did not expect
				err = fmt.Errorf("%w: %v", ErrNone, p)
			}
		}()
		text, err = shrink(io.MultiReader(&first, r), edge, o)
	})
	return text, err
}

// decodedBytes is what an image takes in memory while it is decoded, at most. A progressive JPEG, which comes
// in several scans, has all its coefficients there too.
func decodedBytes(c image.Config, progressive bool) int64 {
	perPixel := int64(4)
	switch {
	case c.ColorModel == color.YCbCrModel || c.ColorModel == color.GrayModel:
		perPixel = 3
	case c.ColorModel == color.RGBA64Model || c.ColorModel == color.NRGBA64Model:
		perPixel = 8
	}
	if progressive {
		perPixel *= 1 + 4 // a coefficient has 32 bits
	}
	if c.Width <= 0 || c.Height <= 0 || c.Width > 1<<24 || c.Height > 1<<24 {
		return 1 << 62
	}
	return int64(c.Width) * int64(c.Height) * perPixel
}

// atLowestPriority runs fn on a thread that the kernel runs after all others, and that ends with it.
func atLowestPriority(fn func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks: the thread ends
		lowerPriority()
		fn()
	}()
	<-done
}

// shrink decodes an image and writes it smaller.
func shrink(r io.Reader, edge int, o orientation) ([]byte, error) {
	full, _, err := image.Decode(bufio.NewReaderSize(r, 64<<10))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrNone, err)
	}
	b := full.Bounds()
	w, h := b.Dx(), b.Dy()
	if longest := max(w, h); longest > edge {
		w, h = max(1, w*edge/longest), max(1, h*edge/longest)
	}
	small := image.NewRGBA(image.Rect(0, 0, w, h))
	draw.Draw(small, small.Bounds(), image.NewUniform(color.White), image.Point{}, draw.Src)
	draw.BiLinear.Scale(small, small.Bounds(), full, b, draw.Over, nil)
	var out bytes.Buffer
	if err := jpeg.Encode(&out, o.upright(small), &jpeg.Options{Quality: quality}); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}
