package raftnet

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
)

// A connection carries frames one way: a header of the kind, the length and the checksum of a
// message, big-endian, and the message.
const (
	frameHeader          = 12
	frameBatch    uint32 = 0x49525401 // a raftpb.MessageBatch
	frameSnapshot uint32 = 0x49525402 // a raftpb.Chunk

	frameBytesMax   = 96 << 20 // of a message: dragonboat makes batches of up to 64 MiB
	frameBufferKept = 1 << 20  // bytes; a larger buffer is not kept for the next frame
)

var errFrame = errors.New("not a frame of Raft's transport")

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(header, message []byte) uint32 {
	return crc32.Update(crc32.Checksum(header, castagnoli), castagnoli, message)
}

// header is what comes before a message.
type header struct {
	raw  [frameHeader]byte
	kind uint32
	size int
}

// readHeader reads what comes before a message.
func readHeader(r io.Reader) (h header, err error) {
	if _, err := io.ReadFull(r, h.raw[:]); err != nil {
		return h, err
	}
	h.kind = binary.BigEndian.Uint32(h.raw[:])
	size := binary.BigEndian.Uint32(h.raw[4:])
	if h.kind != frameBatch && h.kind != frameSnapshot || size > frameBytesMax {
		return h, errFrame
	}
	h.size = int(size)
	return h, nil
}

// readMessage reads the message into buf, which grows with what comes and not with what is announced.
func (h *header) readMessage(r io.Reader, buf *bytes.Buffer) error {
	if buf.Cap() > frameBufferKept {
		*buf = bytes.Buffer{}
	}
	buf.Reset()
	if _, err := io.CopyN(buf, r, int64(h.size)); err != nil {
		return err
	}
	if checksum(h.raw[:8], buf.Bytes()) != binary.BigEndian.Uint32(h.raw[8:]) {
		return errFrame
	}
	return nil
}

// frames makes frames, each for use until the next one is made.
type frames struct{ buf []byte }

// make returns a frame of a message of at most size bytes, which marshal writes.
func (f *frames) make(kind uint32, size int, marshal func([]byte) (int, error)) ([]byte, error) {
	if size > frameBytesMax {
		return nil, fmt.Errorf("a message of %d bytes is larger than %d", size, frameBytesMax)
	}
	if cap(f.buf) < frameHeader+size || cap(f.buf) > frameBufferKept {
		f.buf = make([]byte, frameHeader+size)
	}
	buf := f.buf[:frameHeader+size]
	n, err := marshal(buf[frameHeader:])
	if err != nil {
		return nil, err
	}
	buf = buf[:frameHeader+n]
	binary.BigEndian.PutUint32(buf, kind)
	binary.BigEndian.PutUint32(buf[4:], uint32(n))
	binary.BigEndian.PutUint32(buf[8:], checksum(buf[:8], buf[frameHeader:]))
	return buf, nil
}
