package crypto

import "encoding/binary"

const (
	// SegmentSizeDefault is the size of a ciphertext segment in bytes, and the largest there is:
	// one segment is what a reader or a writer holds in memory.
	SegmentSizeDefault = 1 << 20
	// segmentSizeMin leaves room for the stream header and a tag in the first segment.
	segmentSizeMin = 64
	// lengthMax bounds the plaintext of one file, in bytes.
	lengthMax = 1 << 40
	// segmentsMax is what Tink's layout can count.
	segmentsMax = 1<<32 - 1

	prefixBytes = 7
	// StreamHeaderBytes is the start of the body: its own length, salt, nonce prefix.
	StreamHeaderBytes = 1 + saltBytes + prefixBytes
)

// layout is where things are in one file. Segment k of the plaintext becomes segment k of the
// file; the stream header counts as part of segment 0, so that all but the last one end on
// multiples of the segment size after the header.
type layout struct {
	header  int64 // bytes of the header
	segment int64 // bytes of a full ciphertext segment
	length  int64 // bytes of plaintext
}

func (l layout) plainSegment() int64 { return l.segment - tagBytes }

// PlainSegments returns how many bytes of plaintext the first segments of a file have, so many of them, and
// as many segments further on. Plaintext that is written in such pieces is sealed from where it is.
func PlainSegments(segmentSize, segments int) (first, further int) {
	further = segments * (segmentSize - tagBytes)
	return further - StreamHeaderBytes, further
}

// segments is at least 1: an empty image has one segment with only a tag.
func (l layout) segments() int64 {
	return (l.length + StreamHeaderBytes + l.plainSegment() - 1) / l.plainSegment()
}

// at returns the segment that has the plaintext byte at off.
func (l layout) at(off int64) int64 { return (off + StreamHeaderBytes) / l.plainSegment() }

// plain returns the range of plaintext in segment k.
func (l layout) plain(k int64) (start, end int64) {
	start = max(0, k*l.plainSegment()-StreamHeaderBytes)
	return start, min(l.length, (k+1)*l.plainSegment()-StreamHeaderBytes)
}

// file returns the range of segment k in the file.
func (l layout) file(k int64) (start, end int64) {
	start = l.header + k*l.segment
	if k == 0 {
		start += StreamHeaderBytes
	}
	ps, pe := l.plain(k)
	return start, start + pe - ps + tagBytes
}

func (l layout) fileLen() int64 {
	return l.header + StreamHeaderBytes + l.length + l.segments()*tagBytes
}

// setNonce fills n as Tink does: prefix, counter, last-segment flag. A stream key is used for one
// file only, so no nonce comes twice under it.
func setNonce(n *[nonceBytes]byte, prefix *[prefixBytes]byte, k int64, last bool) {
	copy(n[:], prefix[:])
	binary.BigEndian.PutUint32(n[prefixBytes:], uint32(k)) // below segmentsMax, see HeaderFields.check
	n[nonceBytes-1] = 0
	if last {
		n[nonceBytes-1] = 1
	}
}
