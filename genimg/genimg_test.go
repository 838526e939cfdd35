package genimg

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"image"
	"image/png"
	"io"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
)

var update = flag.Bool("update", false, "write the golden files again")

// decode reads a file with the standard library's decoder, the oracle of these tests.
func decode(t testing.TB, file []byte) *image.Gray16 {
	t.Helper()
	img, err := png.Decode(bytes.NewReader(file))
	if err != nil {
		t.Fatal(err)
	}
	gray, ok := img.(*image.Gray16)
	if !ok {
		t.Fatalf("decoded as %T, not as 16-bit gray", img)
	}
	return gray
}

// someSet is the default set, or one of small images in the short version.
func someSet(seed uint64) Spec {
	if testing.Short() {
		return Spec{Seed: seed, MinPixels: 300, MaxPixels: 900}
	}
	return Default(seed)
}

func TestEveryClassDecodes(t *testing.T) {
	for n := 1; n <= 4; n++ {
		im := someSet(1).Image(n)
		file := im.AppendTo([]byte("before"))[len("before"):]
		if int64(len(file)) != im.Size {
			t.Errorf("image %d has %d bytes, its Size says %d", n, len(file), im.Size)
		}
		if got := decode(t, file).Bounds(); got != image.Rect(0, 0, im.Pixels, im.Pixels) {
			t.Errorf("image %d measures %v, not %d pixels", n, got, im.Pixels)
		}
	}
}

func TestSizesAtTheEdgesOfBands(t *testing.T) {
	// Up to 180 pixels all rows fit one band (181 rows of 361 bytes); from 181 on there are two.
	for _, px := range []int{pixelsLowest, 17, 180, 181, 182, 255, 256, 257} {
		im := Spec{Seed: 3, MinPixels: px, MaxPixels: px}.Image(1)
		file := im.AppendTo(nil)
		if im.Pixels != px || int64(len(file)) != im.Size {
			t.Errorf("%d pixels: made %d and %d bytes, said %d", px, im.Pixels, len(file), im.Size)
		}
		decode(t, file)
	}
}

func TestLargestImageIsWhole(t *testing.T) {
	if testing.Short() {
		t.Skip("makes 800 MB")
	}
	im := Spec{Seed: 3, MinPixels: pixelsHighest, MaxPixels: pixelsHighest}.Image(1)
	n, err := im.WriteTo(io.Discard)
	if err != nil || n != im.Size {
		t.Errorf("wrote %d bytes (%v), said %d", n, err, im.Size)
	}
}

func TestWriteToGivesTheSameBytes(t *testing.T) {
	im := Spec{Seed: 9, MinPixels: 400, MaxPixels: 500}.Image(7)
	var buf bytes.Buffer
	n, err := im.WriteTo(&buf)
	if err != nil || n != im.Size || !bytes.Equal(buf.Bytes(), im.AppendTo(nil)) {
		t.Errorf("WriteTo wrote %d bytes (%v) that are not those of AppendTo (%d)", n, err, im.Size)
	}
}

// failAfter takes so many bytes.
type failAfter struct{ left int }

var errFull = errors.New("full")

func (f *failAfter) Write(p []byte) (int, error) {
	n := min(len(p), f.left)
	f.left -= n
	if n < len(p) {
		return n, errFull
	}
	return n, nil
}

func TestWriteToReportsFailures(t *testing.T) {
	im := Spec{MinPixels: 300, MaxPixels: 300}.Image(1)
	for _, size := range []int{0, 10, 70_000, int(im.Size) - 1} {
		if n, err := im.WriteTo(&failAfter{size}); !errors.Is(err, errFull) || n != int64(size) {
			t.Errorf("a writer that takes %d bytes: wrote %d, %v", size, n, err)
		}
	}
}

// labelDots reads the label back: it averages each dot of the place where it must be.
func labelDots(img *image.Gray16, tx text) string {
	var out strings.Builder
	for row := range glyphHeight {
		for col := range textWidth(tx.s) {
			sum := 0
			for y := range tx.dot {
				for x := range tx.dot {
					sum += int(img.Gray16At(tx.x+col*tx.dot+x, tx.y+row*tx.dot+y).Y)
				}
			}
			if sum/(tx.dot*tx.dot) >= 0xC000 {
				out.WriteByte('#')
			} else {
				out.WriteByte('.')
			}
		}
		out.WriteByte('\n')
	}
	return out.String()
}

// drawn is what labelDots has to find, from the font alone.
func drawn(s string) string {
	var out strings.Builder
	for row := range glyphHeight {
		var line strings.Builder
		for i := range len(s) {
			bits := fmt.Sprintf("%05b.", glyphs[s[i]][row])
			line.WriteString(strings.NewReplacer("1", "#", "0", ".").Replace(bits))
		}
		out.WriteString(strings.TrimSuffix(line.String(), ".") + "\n")
	}
	return out.String()
}

func TestLabelIsReadable(t *testing.T) {
	for n := 1; n <= 4; n++ {
		im := someSet(20).Image(n)
		img := decode(t, im.AppendTo(nil))
		for _, l := range label(im)[1:] {
			tx := l.shape.(text)
			if got, want := labelDots(img, tx), drawn(tx.s); got != want {
				t.Errorf("image %d: the label %q reads\n%s", n, tx.s, got)
			}
		}
	}
}

func TestLabelGolden(t *testing.T) {
	im := Default(1).Image(17)
	var got strings.Builder
	for _, l := range label(im)[1:] {
		tx := l.shape.(text)
		fmt.Fprintf(&got, "%s\n\n%s\n", tx.s, drawn(tx.s))
	}
	golden(t, "testdata/label.txt", got.String())
}

func TestFontHasEveryLetterOfALabel(t *testing.T) {
	letters := "stress_image_0123456789x seed " + strings.Join(classNames[:], "")
	for i := range len(letters) {
		if g, ok := glyphs[letters[i]]; !ok || (letters[i] != ' ' && g == [glyphHeight]byte{}) {
			t.Errorf("the font lacks %q", letters[i])
		}
	}
}

func TestShapesAreDrawn(t *testing.T) {
	im := someSet(1).Image(1)
	img := decode(t, im.AppendTo(nil))
	for i, l := range newScene(im)[:5] {
		covered, wrong := 0, 0
		for y := range im.Pixels {
			row := make([]byte, 2*im.Pixels)
			l.shape.draw(y, pen{row, light})
			for x := range im.Pixels {
				if row[2*x] == 0 {
					continue
				}
				covered++
				if tone(img.Gray16At(x, y).Y>>8)&toneBits != l.tone {
					wrong++
				}
			}
		}
		// Layers may cross; most of each is seen.
		if covered < im.Pixels || wrong*10 > covered {
			t.Errorf("shape %d covers %d pixels, %d of them of another tone", i, covered, wrong)
		}
	}
}

// golden compares got with a file; go test ./genimg -update writes it again.
func golden(t *testing.T, file, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("not as in %s:\n%s", file, got)
	}
}

func TestSameBytesForEver(t *testing.T) {
	small := Spec{Seed: 1, MinPixels: 100, MaxPixels: 400}
	var got strings.Builder
	for _, set := range []Spec{Default(1), small, {Seed: math.MaxUint64, MinPixels: 16, MaxPixels: 20}} {
		for n := 1; n <= 4; n++ {
			im := set.Image(n)
			fmt.Fprintf(&got, "seed %d, %d-%d: %s %s %dx%d %d bytes %x\n",
				set.Seed, set.MinPixels, set.MaxPixels, im.Name, im.Class,
				im.Pixels, im.Pixels, im.Size, sha256.Sum256(im.AppendTo(nil)))
		}
	}
	golden(t, "testdata/images.txt", got.String())
}

func TestConcurrentUse(t *testing.T) {
	im := Spec{Seed: 5, MinPixels: 300, MaxPixels: 300}.Image(2)
	want := im.AppendTo(nil)
	var group sync.WaitGroup
	for range 8 {
		group.Go(func() {
			if !bytes.Equal(im.AppendTo(nil), want) {
				t.Error("another goroutine made other bytes")
			}
		})
	}
	group.Wait()
}

func TestSizesOfTheExtremeRun(t *testing.T) {
	sum := Default(1).Summary(1500)
	ranges := []struct{ pxLo, pxHi, mbLo, mbHi int }{
		{1600, 2000, 5, 8},
		{2000, 2500, 8, 13},
		{2500, 3000, 12, 18},
		{3000, 3500, 18, 25},
	}
	for i, r := range ranges {
		c := sum.Classes[i]
		if c.Images != 375 || c.MinPixels < r.pxLo || c.MaxPixels > r.pxHi {
			t.Errorf("%s: %d images of %d to %d pixels", c.Class, c.Images, c.MinPixels, c.MaxPixels)
		}
		if lo, hi := fileSize(c.MinPixels), fileSize(c.MaxPixels); lo < int64(r.mbLo)*1e6 ||
			hi > int64(r.mbHi)*1e6 {
			t.Errorf("%s: files of %d to %d bytes", c.Class, lo, hi)
		}
		if spread := c.MaxPixels - c.MinPixels; spread < (r.pxHi-r.pxLo)*95/100 {
			t.Errorf("%s: sizes spread over %d pixels only", c.Class, spread)
		}
	}
	if gb := float64(sum.Bytes) / 1e9; gb < 19.6 || gb > 20.1 {
		t.Errorf("1500 images take %.2f GB", gb)
	}
	if mib := float64(sum.Average()) / (1 << 20); mib < 12.5 || mib > 12.8 {
		t.Errorf("the average image has %.2f MiB", mib)
	}
	if sum.Broadcast(3) != 3*sum.Bytes || sum.Images != 1500 {
		t.Errorf("the broadcast of %d images takes %d bytes", sum.Images, sum.Broadcast(3))
	}
}

func TestEmptySummary(t *testing.T) {
	if sum := Default(1).Summary(0); sum.Average() != 0 || sum.Bytes != 0 || len(sum.Classes) != 4 {
		t.Errorf("an empty set takes %+v", sum)
	}
}

func TestFourEqualClasses(t *testing.T) {
	sum := Spec{Seed: 1, MinPixels: 100, MaxPixels: 500}.Summary(8000)
	for i, c := range sum.Classes {
		lo, hi := 100+100*i, 199+100*i
		if i == 3 {
			hi = 500
		}
		if c.MinPixels != lo || c.MaxPixels != hi || c.Images != 2000 {
			t.Errorf("%s: %d images of %d to %d pixels, want %d to %d", c.Class, c.Images, c.MinPixels,
				c.MaxPixels, lo, hi)
		}
	}
}

// blockBytes is the length from which a repetition is looked for.
const blockBytes = 1024

// TestNothingRepeats looks for the same 1 KiB twice, anywhere within a file or in two of them: it
// samples eight bytes so often that each such block has a sample, and looks at every position.
func TestNothingRepeats(t *testing.T) {
	var all []byte
	for _, set := range []Spec{
		{Seed: 1, MinPixels: 300, MaxPixels: 600},
		{Seed: 2, MinPixels: 300, MaxPixels: 600},
	} {
		for n := 1; n <= 4; n++ {
			all = set.Image(n).AppendTo(all)
		}
	}
	samples := map[uint64]int{}
	for i := 0; i+8 <= len(all); i += blockBytes - 8 {
		samples[binary.LittleEndian.Uint64(all[i:])] = i
	}
	for i := range len(all) - 8 {
		at, ok := samples[binary.LittleEndian.Uint64(all[i:])]
		if !ok || at == i {
			continue
		}
		if n := sameAround(all, at, i); n >= blockBytes {
			t.Fatalf("%d bytes around %d come again around %d", n, at, i)
		}
	}
}

// sameAround returns for how many bytes before and after them the places a and b are alike, at
// most twice blockBytes.
func sameAround(all []byte, a, b int) int {
	n := 0
	for ; n < blockBytes && max(a, b)+n < len(all) && all[a+n] == all[b+n]; n++ {
	}
	back := 0
	for ; back < blockBytes && min(a, b) > back && all[a-back-1] == all[b-back-1]; back++ {
	}
	return n + back
}

func TestSameAroundFindsACopy(t *testing.T) {
	all := []byte("..a block that comes twice;;a block that comes twice!")
	again := bytes.LastIndex(all, []byte("comes"))
	got := sameAround(all, bytes.Index(all, []byte("comes")), again)
	if want := len("a block that comes twice"); got != want {
		t.Errorf("found %d alike bytes of %d", got, want)
	}
}

func TestIncompressible(t *testing.T) {
	set := Default(4)
	for n := 3; n <= 4; n++ { // the largest class and the smallest
		if n == 3 && testing.Short() {
			continue
		}
		file := set.Image(n).AppendTo(nil)
		var packed countWriter
		w, err := gzip.NewWriterLevel(&packed, gzip.DefaultCompression)
		if err != nil {
			t.Fatal(err)
		}
		w.Write(file)
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if float64(packed) < 0.999*float64(len(file)) {
			t.Errorf("image %d of %d bytes packs to %d", n, len(file), packed)
		}
	}
}

type countWriter int64

func (c *countWriter) Write(p []byte) (int, error) { *c += countWriter(len(p)); return len(p), nil }

func TestNoGarbage(t *testing.T) {
	im := Spec{Seed: 1, MinPixels: 600, MaxPixels: 600}.Image(1)
	buf := make([]byte, 0, im.Size)
	// Key schedule, counter, scene and label: some dozens of small pieces, whatever the size.
	if n := testing.AllocsPerRun(5, func() { im.AppendTo(buf) }); n > 40 {
		t.Errorf("an image takes %.0f allocations", n)
	}
	if got := im.AppendTo(buf); &got[0] != &buf[:1][0] {
		t.Error("the buffer had room and was not used")
	}
}

func TestSpecRefusals(t *testing.T) {
	for _, s := range []Spec{
		{},
		{MinPixels: 15, MaxPixels: 100},
		{MinPixels: -5, MaxPixels: 9},
		{MinPixels: 100, MaxPixels: 20001},
		{MinPixels: 200, MaxPixels: 199},
	} {
		var e *Error
		if err := s.Validate(); !errors.As(err, &e) || !errors.Is(err, ErrSpec) || e.Hint() == "" {
			t.Errorf("%+v: %v", s, err)
		}
	}
	for _, s := range []Spec{Default(0), {MinPixels: 16, MaxPixels: 16}, {MinPixels: 16, MaxPixels: 20000}} {
		if err := s.Validate(); err != nil {
			t.Errorf("%+v: %v", s, err)
		}
	}
}

func FuzzSpec(f *testing.F) {
	f.Add(uint64(1), 1600, 3500, 17)
	f.Add(uint64(0), 16, 16, -1)
	f.Add(uint64(1)<<63, 20, 19, 0)
	f.Add(uint64(7), 16, 18, 3)
	f.Fuzz(func(t *testing.T, seed uint64, low, high, n int) {
		s := Spec{Seed: seed, MinPixels: low, MaxPixels: high}
		if s.Validate() != nil {
			return
		}
		im := s.Image(n)
		if im.Pixels < low || im.Pixels > high || im != s.Image(n) {
			t.Fatalf("%+v: image %d is %+v", s, n, im)
		}
		if im.Pixels > 600 {
			return // making it takes too long for a fuzz target
		}
		file := im.AppendTo(nil)
		if int64(len(file)) != im.Size {
			t.Fatalf("%+v has %d bytes", im, len(file))
		}
		decode(t, file)
	})
}

func BenchmarkAppendTo(b *testing.B) {
	for n := 1; n <= 4; n++ {
		im := Default(1).Image(n)
		b.Run(im.Class, func(b *testing.B) {
			buf := make([]byte, 0, im.Size)
			b.SetBytes(im.Size)
			b.ReportAllocs()
			for b.Loop() {
				im.AppendTo(buf)
			}
		})
	}
}

func BenchmarkWriteTo(b *testing.B) {
	im := Default(1).Image(2)
	b.SetBytes(im.Size)
	b.ReportAllocs()
	for b.Loop() {
		im.WriteTo(io.Discard)
	}
}

func BenchmarkImage(b *testing.B) {
	for b.Loop() {
		Default(1).Image(1234)
	}
}
