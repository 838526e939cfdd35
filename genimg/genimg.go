// Package genimg makes the images of the stress test: square PNGs of noise, incompressible, every
// one different, and the same bytes for the same seed and number on every machine and for ever.
//
// An image is known before it is made: [Spec.Image] gives its name, class and exact size without
// making a single pixel. [Image.AppendTo] and [Image.WriteTo] then make the bytes, the first into
// memory, the second through one buffer of 64 KiB; [Generate] writes a whole set to a folder.
package genimg

import (
	"fmt"
	"math/rand/v2"
	"strconv"
)

// The pixels on a side when nobody asks for others.
const (
	MinPixelsDefault = 1600
	MaxPixelsDefault = 3500
)

// The bounds of Spec, in pixels on a side. The upper one keeps a row of pixels within one stored
// block of deflate (65,535 bytes), which is what the PNG writer is built on.
const (
	pixelsLowest  = 16
	pixelsHighest = 20000
)

// classNames by N mod 4.
var classNames = [4]string{"small", "medium", "large", "xlarge"}

// classEdges are the sides at which the classes of the default set meet.
var classEdges = [5]int{MinPixelsDefault, 2000, 2500, 3000, MaxPixelsDefault}

// Spec describes a set of images. Two sets with the same Spec are the same, byte for byte.
type Spec struct {
	Seed                 uint64
	MinPixels, MaxPixels int // on a side; both are possible sizes
}

// Default returns the set that the stress test runs on.
func Default(seed uint64) Spec {
	return Spec{Seed: seed, MinPixels: MinPixelsDefault, MaxPixels: MaxPixelsDefault}
}

// Validate returns an *Error that is ErrSpec when no images can be made of s.
func (s Spec) Validate() error {
	bounds := fmt.Sprintf("give --min-pixels and --max-pixels between %d and %d", pixelsLowest, pixelsHighest)
	switch {
	case s.MinPixels < pixelsLowest:
		return refuse(bounds, "images of %d pixels on a side are too small", s.MinPixels)
	case s.MaxPixels > pixelsHighest:
		return refuse(bounds, "images of %d pixels on a side are too large", s.MaxPixels)
	case s.MinPixels > s.MaxPixels:
		return refuse("swap --min-pixels and --max-pixels",
			"the smallest image, %d pixels, is larger than the largest, %d", s.MinPixels, s.MaxPixels)
	}
	return nil
}

// Image is one image of a set, not yet made. It is a value: copy it, share it, and make its bytes
// from as many goroutines as you like.
type Image struct {
	N      int    // its number in the set, from 1
	Name   string // of its file: stress_image_N.png
	Class  string // small, medium, large or xlarge
	Pixels int    // on a side
	Size   int64  // of the whole file, in bytes; exact
	seed   uint64
}

// Image returns image n of the set, which must be a valid one. It takes less than a microsecond.
func (s Spec) Image(n int) Image {
	class := n & 3 // n mod 4
	lo, hi := s.classRange(class)
	px := lo + int(pick(s.Seed, n).Uint64()%uint64(hi-lo+1))
	return Image{
		N: n, Name: "stress_image_" + strconv.Itoa(n) + ".png", Class: classNames[class],
		Pixels: px, Size: fileSize(px), seed: s.Seed,
	}
}

// classRange returns the least and the greatest side of a class. Classes do not overlap: an edge
// between two belongs to the upper one, so that no file is just above its class's size.
func (s Spec) classRange(class int) (lo, hi int) {
	edges := classEdges
	if s.MinPixels != MinPixelsDefault || s.MaxPixels != MaxPixelsDefault {
		for i := range edges {
			edges[i] = s.MinPixels + (s.MaxPixels-s.MinPixels)*i/4
		}
	}
	lo, hi = edges[class], edges[class+1]
	if class < 3 && hi > lo {
		hi--
	}
	return lo, hi
}

// pick returns the source of an image's size and shapes. PCG's numbers are fixed by its
// documentation; those of rand.Rand's methods are not, so they are not used.
func pick(seed uint64, n int) *rand.PCG { return rand.NewPCG(seed, uint64(n)) }
