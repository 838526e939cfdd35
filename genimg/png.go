package genimg

import (
	"crypto/aes"
	"crypto/cipher"
	"encoding/binary"
	"hash"
	"hash/adler32"
	"hash/crc32"
	"io"
	"slices"
)

// The file, by the PNG specification (third edition) and RFC 1950 and 1951: signature, IHDR, one
// IDAT for each band of rows, IEND. A band is as many whole rows as one stored block of deflate
// holds, so that a file can be made in one pass through one small buffer.
const (
	signature   = "\x89PNG\r\n\x1a\n"
	chunkExtra  = 12    // length, type, CRC
	headerBytes = 13    // IHDR's data
	storedMax   = 65535 // bytes in a stored block
	storedExtra = 5     // final flag, length, its complement
	zlibHeader  = "\x78\x01"
	zlibExtra   = len(zlibHeader) + adler32.Size

	// bandBytesMax is the longest that one call of encoder.band can append.
	bandBytesMax = len(
		signature,
	) + chunkExtra + headerBytes + chunkExtra + storedExtra + storedMax + zlibExtra + chunkExtra
)

// rowBytes is a row of 16-bit gray pixels with its filter type.
func rowBytes(px int) int { return 1 + 2*px }

func bandRows(px int) int { return storedMax / rowBytes(px) }

func fileSize(px int) int64 {
	bands := (px + bandRows(px) - 1) / bandRows(px)
	fixed := len(signature) + chunkExtra + headerBytes + zlibExtra + chunkExtra
	return int64(fixed) + int64(bands)*(chunkExtra+storedExtra) + int64(px)*int64(rowBytes(px))
}

// AppendTo appends the file to dst and returns the extended slice. It allocates nothing of the
// image's size when dst has room for Size bytes.
func (im Image) AppendTo(dst []byte) []byte {
	dst = slices.Grow(dst, int(im.Size))
	for e := newEncoder(im); e.more(); {
		dst = e.band(dst)
	}
	return dst
}

// WriteTo writes the file to w in pieces of at most about 64 KiB.
func (im Image) WriteTo(w io.Writer) (int64, error) {
	var written int64
	buf := make([]byte, 0, bandBytesMax)
	for e := newEncoder(im); e.more(); {
		n, err := w.Write(e.band(buf))
		written += int64(n)
		if err != nil {
			return written, err
		}
	}
	return written, nil
}

// encoder makes one file, a band at a time.
type encoder struct {
	px    int
	row   int // the next one
	noise cipher.Stream
	sum   hash.Hash32 // Adler-32 of all rows so far
	art   scene
}

// newEncoder keys the noise with (seed, N). AES in counter mode serves as the generator: its bytes
// are fixed by a standard, cannot be told from random ones, and come about seven times as fast as
// those of ChaCha8 where the processor has AES instructions.
func newEncoder(im Image) *encoder {
	var key, counter [aes.BlockSize]byte
	binary.BigEndian.PutUint64(key[:], im.seed)
	binary.BigEndian.PutUint64(key[8:], uint64(im.N))
	block, err := aes.NewCipher(key[:])
	if err != nil {
		panic(err) // the key has one of AES's lengths
	}
	return &encoder{
		px: im.Pixels, noise: cipher.NewCTR(block, counter[:]), sum: adler32.New(), art: newScene(im),
	}
}

func (e *encoder) more() bool { return e.row < e.px }

// band appends the next band, with what stands before the first and after the last.
func (e *encoder) band(dst []byte) []byte {
	first := e.row == 0
	if first {
		dst = append(dst, signature...)
		dst = appendHeader(dst, e.px)
	}
	rows := min(bandRows(e.px), e.px-e.row)
	last := e.row+rows == e.px

	dst, start := openChunk(dst, "IDAT")
	if first {
		dst = append(dst, zlibHeader...)
	}
	dst = appendStored(dst, rows*rowBytes(e.px), last)
	dst = e.rows(dst, rows)
	if last {
		dst = e.sum.Sum(dst)
	}
	dst = closeChunk(dst, start)
	if last {
		dst, start = openChunk(dst, "IEND")
		dst = closeChunk(dst, start)
	}
	return dst
}

// zeros is what the noise is laid over.
var zeros [storedMax]byte

// rows appends the next rows of pixels, each after its filter type: 0, none.
func (e *encoder) rows(dst []byte, rows int) []byte {
	size := rowBytes(e.px)
	start := len(dst)
	dst = slices.Grow(dst, rows*size)[:start+rows*size]
	data := dst[start:]
	e.noise.XORKeyStream(data, zeros[:len(data)])
	for row := range slices.Chunk(data, size) {
		row[0] = 0
		e.art.draw(row[1:], e.row)
		e.row++
	}
	e.sum.Write(data)
	return dst
}

func appendHeader(dst []byte, px int) []byte {
	dst, start := openChunk(dst, "IHDR")
	dst = binary.BigEndian.AppendUint32(dst, uint32(px))
	dst = binary.BigEndian.AppendUint32(dst, uint32(px))
	dst = append(dst, 16, 0, 0, 0, 0) // bits; gray; the only compression and filter methods; not interlaced
	return closeChunk(dst, start)
}

// appendStored appends the head of a stored block: the last one's flag, its length twice.
func appendStored(dst []byte, size int, last bool) []byte {
	flag := byte(0)
	if last {
		flag = 1
	}
	dst = append(dst, flag)
	dst = binary.LittleEndian.AppendUint16(dst, uint16(size))
	return binary.LittleEndian.AppendUint16(dst, ^uint16(size))
}

// openChunk appends a chunk's head; closeChunk fills in its length and appends its CRC.
func openChunk(dst []byte, kind string) (_ []byte, start int) {
	start = len(dst)
	return append(append(dst, 0, 0, 0, 0), kind...), start
}

func closeChunk(dst []byte, start int) []byte {
	typed := dst[start+4:]
	binary.BigEndian.PutUint32(dst[start:], uint32(len(typed)-4))
	return binary.BigEndian.AppendUint32(dst, crc32.ChecksumIEEE(typed))
}
