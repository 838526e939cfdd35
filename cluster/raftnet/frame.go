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
// message, big-endian, and the message. A datagram is one frame.
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

// readFrame reads a message into buf, which grows with what comes and not with what is announced.
func readFrame(r io.Reader, buf *bytes.Buffer) (kind uint32, err error) {
	var header [frameHeader]byte
	if _, err := io.ReadFull(r, header[:]); err != nil {
		return 0, err
	}
	kind = binary.BigEndian.Uint32(header[:])
	size := binary.BigEndian.Uint32(header[4:])
	if kind != frameBatch && kind != frameSnapshot || size > frameBytesMax {
		return 0, errFrame
	}
	if buf.Cap() > frameBufferKept {
		*buf = bytes.Buffer{}
	}
	buf.Reset()
	if _, err := io.CopyN(buf, r, int64(size)); err != nil {
		return 0, err
	}
	if checksum(header[:8], buf.Bytes()) != binary.BigEndian.Uint32(header[8:]) {
		return 0, errFrame
	}
	return kind, nil
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
