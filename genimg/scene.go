package genimg

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
)

// Shapes are drawn into the noise by fixing the two upper bits of a pixel and leaving it the other
// fourteen: bright or dark to the eye, and still next to nothing for a compressor to gain. All of it is whole
// numbers and exact square roots, so that no processor rounds it differently.
type tone byte

const (
	dark  tone = 0x00
	light tone = 0xC0

	toneBits = 0xC0
)

// shape paints the pixels that it covers in row y.
type shape interface {
	draw(y int, p pen)
}

// pen draws on one row of the picture: 16-bit pixels with the upper byte first.
type pen struct {
	row  []byte
	tone tone
}

// span draws the columns from up to to; they may lie outside of the picture.
func (p pen) span(from, to int) {
	from, to = max(from, 0), min(to, len(p.row)/2)
	for x := from; x < to; x++ {
		p.row[2*x] = p.row[2*x]&^toneBits | byte(p.tone)
	}
}

type layer struct {
	shape shape
	tone  tone
}

// scene is what is drawn into one image, the lowest layer first.
type scene []layer

// newScene lays out lines, a circle, a rectangle and the label.
func newScene(im Image) scene {
	px := im.Pixels
	dice := pick(im.seed, im.N)
	dice.Uint64() // the first number was the image's size
	thick := max(1, px/150)

	var s scene
	for i := range 3 {
		s = append(s,
			layer{newLine(roll(dice, 0, px), roll(dice, 0, px), px, thick), []tone{light, dark, light}[i]})
	}
	r := roll(dice, px/8, px/4)
	s = append(s,
		layer{ring{x: roll(dice, r, px-r), y: roll(dice, r, px*3/5), outer: r, inner: r - thick}, light})
	w, h := roll(dice, px/5, px/2), roll(dice, px/6, px/3)
	s = append(s,
		layer{frame{box{x: roll(dice, 0, px-w), y: roll(dice, 0, px*3/5), w: w, h: h}, thick}, dark})
	return append(s, label(im)...)
}

// roll returns a number from lo up to hi, lo when hi is not above it.
func roll(dice *rand.PCG, lo, hi int) int {
	n := dice.Uint64() // also when there is no choice, so that the next roll is the same
	if hi <= lo {
		return lo
	}
	return lo + int(n%uint64(hi-lo))
}

// label is the image's name in large letters over its class, size and seed in small ones, on a
// dark plate at the lower left. In an image of a few pixels it is cut off.
func label(im Image) scene {
	const small, large, pad = 1, 2, 5 // in dots
	title := strings.TrimSuffix(im.Name, ".png")
	line := fmt.Sprintf("%s %dx%d seed %d", im.Class, im.Pixels, im.Pixels, im.seed)
	w := max(large*textWidth(title), small*textWidth(line)) + 2*pad
	h := (large+small)*glyphHeight + 3*pad
	dot := max(1, im.Pixels/2/w) // pixels on a side: the plate is half as wide as the image

	x, y := im.Pixels/24, im.Pixels-im.Pixels/24-h*dot
	in, below := x+pad*dot, y+(large*glyphHeight+2*pad)*dot
	return scene{
		{box{x: x, y: y, w: w * dot, h: h * dot}, dark},
		{text{s: title, x: in, y: y + pad*dot, dot: large * dot}, light},
		{text{s: line, x: in, y: below, dot: small * dot}, light},
	}
}

// draw draws on row y of the picture.
func (s scene) draw(row []byte, y int) {
	for _, l := range s {
		l.shape.draw(y, pen{row, l.tone})
	}
}

// box is a filled rectangle.
type box struct{ x, y, w, h int }

func (b box) draw(y int, p pen) {
	if y >= b.y && y < b.y+b.h {
		p.span(b.x, b.x+b.w)
	}
}

// frame is the rim of a box.
type frame struct {
	box
	thick int
}

func (f frame) draw(y int, p pen) {
	switch {
	case y < f.y || y >= f.y+f.h:
	case y < f.y+f.thick || y >= f.y+f.h-f.thick:
		p.span(f.x, f.x+f.w)
	default:
		p.span(f.x, f.x+f.thick)
		p.span(f.x+f.w-f.thick, f.x+f.w)
	}
}

// ring is a circle's line, between two radii.
type ring struct{ x, y, outer, inner int }

func (r ring) draw(y int, p pen) {
	d := y - r.y
	out, ok := halfChord(r.outer, d)
	if !ok {
		return
	}
	in, ok := halfChord(r.inner, d)
	if !ok {
		p.span(r.x-out, r.x+out)
		return
	}
	p.span(r.x-out, r.x-in)
	p.span(r.x+in, r.x+out)
}

// halfChord is half the width of a circle at the distance d from its centre.
func halfChord(radius, d int) (int, bool) {
	rest := radius*radius - d*d
	if rest <= 0 {
		return 0, false
	}
	return int(math.Sqrt(float64(rest))), true
}

// line runs from the upper edge of the picture to the lower one.
type line struct{ top, bottom, height, half int }

func newLine(top, bottom, height, thick int) line {
	run := bottom - top
	length := int(math.Sqrt(float64(run*run + height*height)))
	return line{top: top, bottom: bottom, height: height, half: max(1, thick*length/height/2)}
}

func (l line) draw(y int, p pen) {
	x := l.top + (l.bottom-l.top)*y/l.height
	p.span(x-l.half, x+l.half)
}
