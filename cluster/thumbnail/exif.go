package thumbnail

import (
	"bytes"
	"encoding/binary"
	"image"
	"iter"
)

// exif is what is used of a photograph's metadata (CIPA DC-008, "Exif 2.32", and TIFF 6.0).
type exif struct {
	orientation orientation
	preview     []byte // a JPEG; nil: there is none that would do
}

// The markers, tags and types.
const (
	markerSOI  = 0xd8
	markerSOS  = 0xda
	markerAPP1 = 0xe1
	markerSOF2 = 0xc2

	tagOrientation   = 0x0112
	tagPreviewOffset = 0x0201
	tagPreviewLength = 0x0202

	typeShort = 3
	typeLong  = 4

	entriesMax = 512 // of a directory
	previewMin = 160 // pixels of the longer edge that a preview must have
)

// parseEXIF reads the beginning of a file. What is malformed counts as not there.
func parseEXIF(head []byte) (x exif) {
	tiff := findEXIF(head)
	if len(tiff) < 8 {
		return x
	}
	var order binary.ByteOrder
	switch string(tiff[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return x
	}
	d := directory{tiff, order}
	next := d.read(order.Uint32(tiff[4:]), func(tag uint16, v uint32) {
		if tag == tagOrientation {
			x.orientation = orientation(v)
		}
	})
	var offset, length uint32
	d.read(next, func(tag uint16, v uint32) {
		switch tag {
		case tagPreviewOffset:
			offset = v
		case tagPreviewLength:
			length = v
		}
	})
	if end := uint64(offset) + uint64(length); length > 0 && end <= uint64(len(tiff)) {
		preview := tiff[offset:end]
		c, format, err := image.DecodeConfig(bytes.NewReader(preview))
		if err == nil && format == "jpeg" && max(c.Width, c.Height) >= previewMin {
			x.preview = preview
		}
	}
	return x
}

// segments yields the markers of a JPEG's beginning, up to its first scan, with what follows each. What is
// cut off is left out.
func segments(head []byte) iter.Seq2[byte, []byte] {
	return func(yield func(byte, []byte) bool) {
		if len(head) < 4 || head[0] != 0xff || head[1] != markerSOI {
			return
		}
		for at := 2; at+4 <= len(head) && head[at] == 0xff; {
			marker, length := head[at+1], int(binary.BigEndian.Uint16(head[at+2:]))
			body := head[at+4:]
			if marker == markerSOS || length < 2 || !yield(marker, body[:min(length-2, len(body))]) {
				return
			}
			at += 2 + length
		}
	}
}

// findEXIF returns the TIFF structure of a JPEG's metadata, nil when there is none.
func findEXIF(head []byte) []byte {
	for marker, body := range segments(head) {
		if tiff, ok := bytes.CutPrefix(body, []byte("Exif\x00\x00")); ok && marker == markerAPP1 {
			return tiff
		}
	}
	return nil
}

// progressive reports whether a JPEG comes in several scans.
func progressive(head []byte) bool {
	for marker := range segments(head) {
		if marker == markerSOF2 {
			return true
		}
	}
	return false
}

// directory reads the directories of a TIFF structure.
type directory struct {
	tiff  []byte
	order binary.ByteOrder
}

// read calls each with the entries of the directory at an offset that are one number, and returns the offset
// of the next directory; 0 when there is none.
func (d directory) read(at uint32, each func(tag uint16, v uint32)) (next uint32) {
	const entry = 12
	if uint64(at)+2 > uint64(len(d.tiff)) || at == 0 {
		return 0
	}
	n := int(d.order.Uint16(d.tiff[at:]))
	rest := d.tiff[at+2:]
	if n > entriesMax || len(rest) < n*entry {
		return 0
	}
	for i := range n {
		e := rest[i*entry:]
		if d.order.Uint32(e[4:]) != 1 {
			continue
		}
		switch tag := d.order.Uint16(e); d.order.Uint16(e[2:]) {
		case typeShort:
			each(tag, uint32(d.order.Uint16(e[8:])))
		case typeLong:
			each(tag, d.order.Uint32(e[8:]))
		}
	}
	if rest = rest[n*entry:]; len(rest) < 4 {
		return 0
	}
	return d.order.Uint32(rest)
}

// orientation is how the first row and column of an image lie, by the tag's numbers; others mean upright.
type orientation int

// upright returns the image as it is to be looked at.
func (o orientation) upright(m *image.RGBA) *image.RGBA {
	if o < 2 || o > 8 {
		return m
	}
	w, h := m.Rect.Dx(), m.Rect.Dy()
	turned := image.Rect(0, 0, w, h)
	if o >= 5 {
		turned = image.Rect(0, 0, h, w)
	}
	out := image.NewRGBA(turned)
	to := o.place(w, h)
	for y := range h {
		for x := range w {
			p := to(x, y)
			copy(out.Pix[out.PixOffset(p.X, p.Y):][:4], m.Pix[m.PixOffset(x, y):])
		}
	}
	return out
}

// place returns where a pixel of an image of w x h goes.
func (o orientation) place(w, h int) func(x, y int) image.Point {
	return [...]func(x, y int) image.Point{
		func(x, y int) image.Point { return image.Point{X: w - 1 - x, Y: y} },
		func(x, y int) image.Point { return image.Point{X: w - 1 - x, Y: h - 1 - y} },
		func(x, y int) image.Point { return image.Point{X: x, Y: h - 1 - y} },
		func(x, y int) image.Point { return image.Point{X: y, Y: x} },
		func(x, y int) image.Point { return image.Point{X: h - 1 - y, Y: x} },
		func(x, y int) image.Point { return image.Point{X: h - 1 - y, Y: w - 1 - x} },
		func(x, y int) image.Point { return image.Point{X: y, Y: w - 1 - x} },
	}[o-2]
}
