// Package camera makes photographs for tests, as cameras write them.
package camera

import (
	"bytes"
	"encoding/binary"
)

// WithEXIF puts what a camera says of an image into a JPEG: how it lies, and a preview, which may be nil.
func WithEXIF(text []byte, orientation uint16, preview []byte, order binary.ByteOrder) []byte {
	const (
		app1                = 0xffe1
		tagOrientation      = 0x0112
		tagPreviewOffset    = 0x0201
		tagPreviewLength    = 0x0202
		typeShort, typeLong = uint16(3), uint16(4)
	)
	var b bytes.Buffer
	put := func(values ...any) {
		for _, v := range values {
			binary.Write(&b, order, v)
		}
	}
	head := "II*\x00"
	if order == binary.BigEndian {
		head = "MM\x00*"
	}
	b.WriteString(head)
	put(uint32(8), uint16(1))
	put(uint16(tagOrientation), typeShort, uint32(1), orientation, uint16(0), uint32(26))
	put(uint16(2))
	put(uint16(tagPreviewOffset), typeLong, uint32(1), uint32(56))
	put(uint16(tagPreviewLength), typeLong, uint32(1), uint32(len(preview)), uint32(0))
	b.Write(preview)
	body := append([]byte("Exif\x00\x00"), b.Bytes()...)
	segment := binary.BigEndian.AppendUint16(nil, app1)
	segment = binary.BigEndian.AppendUint16(segment, uint16(len(body)+2))
	return bytes.Join([][]byte{text[:2], segment, body, text[2:]}, nil)
}
