package crypto

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// vectorMaker makes vectors.
type vectorMaker struct {
	t *testing.T
	v vectors
}

func makeVectors(t *testing.T) vectors {
	m := vectorMaker{t: t, v: vectors{Remake: "go test ./crypto -run TestVectors -update"}}
	m.goodFiles()
	m.changedHeaders()
	m.changedBodies()
	m.forgedFiles()
	m.userKeys()
	m.checks()
	m.digests()
	return m.v
}

var (
	vectorKey      = testKey(0x40)
	otherVectorKey = testKey(0x41)
)

func (m *vectorMaker) file(name, expect string, k Key, file, plain []byte) {
	x := fileVector{
		Name: name, Expect: expect, UserKey: hex.EncodeToString(k.b()[:]), File: hex.EncodeToString(file),
	}
	if expect == expectOK {
		x.Plaintext = hex.EncodeToString(plain)
	}
	m.v.Files = append(m.v.Files, x)
}

// bad adds the file of vectorPlain after a change.
func (m *vectorMaker) bad(name, expect string, change func([]byte) []byte) {
	m.file(name, expect, vectorKey, change(bytes.Clone(m.three())), nil)
}

// three is a file of three full segments of 64 bytes.
func (m *vectorMaker) three() []byte {
	plain := testPlain(firstPlain + 2*fullPlain)
	return encryptWith(m.t, vectorKey, testFields(len(plain), testSegment), plain, len(plain), &counter{})
}

// Of the file three: where its parts are.
const (
	threeHeader = offTenant + len("alice")
	threeStream = threeHeader + StreamHeaderBytes
	threeBytes  = threeHeader + 3*testSegment
)

// goodFiles have plaintexts that end at, before and after the ends of segments, in segments of several sizes,
// and fields at their limits.
func (m *vectorMaker) goodFiles() {
	good := func(name string, f HeaderFields, plain []byte) {
		m.file(name, expectOK, vectorKey, encryptWith(m.t, vectorKey, f, plain, len(plain)+1, &counter{}), plain)
	}
	for _, segment := range []int{64, 65, 100, 256} {
		first, full := segment-tagBytes-StreamHeaderBytes, segment-tagBytes
		for _, size := range slices.Compact([]int{
			0, 1, first - 1, first, first + 1, first + full - 1, first + full, first + full + 1, first + 3*full,
		}) {
			plain := testPlain(size)
			good(fmt.Sprintf("%d bytes in segments of %d", size, segment), testFields(size, segment), plain)
		}
	}
	good("three bytes, default segment", testFields(3, 0), []byte("abc"))
	f := testFields(5, testSegment)
	f.Tenant = "a"
	good("tenant of one byte", f, testPlain(5))
	f.Tenant = strings.Repeat("ä", tenantMaxBytes/2)
	good("longest tenant", f, testPlain(5))
	f = testFields(5, testSegment)
	f.Image, f.Attempt, f.UserKey = [16]byte{}, [16]byte{}, 0
	good("image, attempt and user-key ID of zeros", f, testPlain(5))
	f.Image, f.Attempt = [16]byte(bytes.Repeat([]byte{0xff}, 16)), [16]byte(bytes.Repeat([]byte{0xff}, 16))
	f.UserKey = 1<<32 - 1
	good("image, attempt and user-key ID of ones", f, testPlain(5))
}

func flip(i int) func([]byte) []byte { return func(b []byte) []byte { b[i] ^= 1; return b } }

func (m *vectorMaker) changedHeaders() {
	set := func(name, expect string, at int, bytes ...byte) {
		m.bad(name, expect, func(b []byte) []byte { copy(b[at:], bytes); return b })
	}
	u16 := func(n int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(n)) }
	u32 := func(n uint32) []byte { return binary.BigEndian.AppendUint32(nil, n) }
	u64 := func(n uint64) []byte { return binary.BigEndian.AppendUint64(nil, n) }
	length := uint64(firstPlain + 2*fullPlain)
	m.bad("first byte of the magic changed", expectFormat, flip(0))
	m.bad("last byte of the magic changed", expectFormat, flip(7))
	set("version 0", expectFormat, offVersion, 0)
	set("version 2", expectFormat, offVersion, 2)
	set("suite 0", expectFormat, offSuite, 0)
	set("suite 2", expectFormat, offSuite, 2)
	set("header length 0", expectFormat, offHeaderLen, u16(0)...)
	set("header length without a tenant", expectFormat, offHeaderLen, u16(offTenant)...)
	set("header length one less", expectAuth, offHeaderLen, u16(threeHeader-1)...)
	set("header length one more", expectAuth, offHeaderLen, u16(threeHeader+1)...)
	set("header length one too long", expectFormat, offHeaderLen, u16(HeaderMaxBytes+1)...)
	set("header length of all ones", expectFormat, offHeaderLen, u16(1<<16-1)...)
	set("segment size 0", expectFormat, offSegment, u32(0)...)
	set("segment size 63", expectFormat, offSegment, u32(63)...)
	set("segment size 65", expectAuth, offSegment, u32(65)...)
	set("segment size one too large", expectFormat, offSegment, u32(1<<20+1)...)
	set("segment size of all ones", expectFormat, offSegment, u32(1<<32-1)...)
	m.bad("image ID changed", expectAuth, flip(offImage))
	m.bad("attempt ID changed", expectAuth, flip(offAttempt+15))
	m.bad("user-key ID changed", expectAuth, flip(offUserKey+3))
	set("length one less", expectAuth, offLength, u64(length-1)...)
	set("length one more", expectAuth, offLength, u64(length+1)...)
	set("length 0", expectAuth, offLength, u64(0)...)
	set("length one too long", expectFormat, offLength, u64(lengthMax+1)...)
	set("length of all ones", expectFormat, offLength, u64(1<<64-1)...)
	set("too many segments", expectFormat, offLength, u64(lengthMax)...)
	m.bad("wrapping nonce changed", expectAuth, flip(offWrapped))
	m.bad("wrapped data key changed", expectAuth, flip(offWrapped+nonceBytes))
	m.bad("tag of the wrapped data key changed", expectAuth, flip(offSalt-1))
	m.bad("salt changed", expectAuth, flip(offSalt))
	m.bad("commitment changed at its start", expectAuth, flip(offCommitment))
	m.bad("commitment changed at its end", expectAuth, flip(offTenant-1))
	set("another tenant", expectAuth, offTenant, 'A')
	set("tenant that is not UTF-8", expectFormat, offTenant+4, 0xe4)
	set("stream header length 39", expectAuth, threeHeader, 39)
	m.bad("stream salt changed", expectAuth, flip(threeHeader+1))
	m.bad("nonce prefix changed", expectAuth, flip(threeStream-1))
	m.file("another user's key", expectAuth, otherVectorKey, m.three(), nil)
}

func (m *vectorMaker) changedBodies() {
	m.bad("first segment changed", expectAuth, flip(threeStream))
	m.bad("tag of the first segment changed", expectAuth, flip(threeHeader+testSegment-1))
	m.bad("second segment changed", expectAuth, flip(threeHeader+testSegment))
	m.bad("tag of the second segment changed", expectAuth, flip(threeHeader+2*testSegment-1))
	m.bad("last segment changed", expectAuth, flip(threeHeader+2*testSegment))
	m.bad("last byte changed", expectAuth, flip(threeBytes-1))
	for _, at := range []int{
		0, 1, 8, 11, 12, offTenant, threeHeader - 1, threeHeader, threeHeader + 1, threeStream - 1, threeStream,
		threeHeader + testSegment - 1, threeHeader + testSegment, threeHeader + testSegment + 1,
		threeHeader + 2*testSegment, threeBytes - 1,
	} {
		m.bad(fmt.Sprintf("cut at byte %d", at), expectAuth, func(b []byte) []byte { return b[:at] })
	}
	m.bad("a zero more", expectAuth, func(b []byte) []byte { return append(b, 0) })
	m.bad("the last segment twice", expectAuth, func(b []byte) []byte {
		return append(b, b[threeHeader+2*testSegment:]...)
	})
	m.bad("two files", expectAuth, func(b []byte) []byte { return append(b, b...) })
	m.bad("without the second segment", expectAuth, func(b []byte) []byte {
		return slices.Delete(b, threeHeader+testSegment, threeHeader+2*testSegment)
	})
	m.bad("last two segments exchanged", expectAuth, func(b []byte) []byte {
		second, last := b[threeHeader+testSegment:threeHeader+2*testSegment], b[threeHeader+2*testSegment:]
		return slices.Concat(b[:threeHeader+testSegment], last, second)
	})
	f, plain := testFields(firstPlain+2*fullPlain, testSegment), testPlain(firstPlain+2*fullPlain)
	other := encryptWith(m.t, vectorKey, f, plain, len(plain), &counter{next: 0x77})
	m.bad("another file's body", expectAuth, func(b []byte) []byte {
		return slices.Concat(b[:threeHeader], other[threeHeader:])
	})
	m.bad("another file's stream header", expectAuth, func(b []byte) []byte {
		copy(b[threeHeader:threeStream], other[threeHeader:])
		return b
	})
	m.bad("another file's last segment", expectAuth, func(b []byte) []byte {
		copy(b[threeHeader+2*testSegment:], other[threeHeader+2*testSegment:])
		return b
	})
	m.bad("another file's wrapped data key, salt and commitment", expectAuth, func(b []byte) []byte {
		copy(b[offWrapped:offTenant], other[offWrapped:offTenant])
		return b
	})
}

// forgedFiles are made by somebody who has the user's key: each part opens, and they do not belong together.
func (m *vectorMaker) forgedFiles() {
	m.file("commitment to another data key", expectAuth, vectorKey, m.forge(func(h *Header, _ *forgery) {
		h.commitment = [commitmentBytes]byte(bytes.Repeat([]byte{1}, commitmentBytes))
	}), nil)
	for _, x := range []struct {
		field  string
		change func(*Header)
	}{
		{"image", func(h *Header) { h.Image[0]++ }},
		{"attempt", func(h *Header) { h.Attempt[0]++ }},
		{"tenant", func(h *Header) { h.Tenant = "mallory" }},
		{"user-key ID", func(h *Header) { h.UserKey++ }},
		{"length", func(h *Header) { h.Length-- }},
	} {
		m.file("data key wrapped for another "+x.field, expectAuth, vectorKey,
			m.forge(func(h *Header, _ *forgery) { x.change(h) }), nil)
	}
	m.file("last segment not sealed as the last", expectAuth, vectorKey,
		m.forge(func(_ *Header, f *forgery) { f.last[2] = false }), nil)
	m.file("second segment sealed as the last", expectAuth, vectorKey,
		m.forge(func(_ *Header, f *forgery) { f.last[1] = true }), nil)
	m.file("segments numbered from 1", expectAuth, vectorKey,
		m.forge(func(_ *Header, f *forgery) { f.number = [3]int64{1, 2, 3} }), nil)
	m.file("header that is not the body's associated data", expectAuth, vectorKey,
		m.forge(func(_ *Header, f *forgery) { f.noHeader = true }), nil)
}

// forgery is how the segments of a file are sealed.
type forgery struct {
	number   [3]int64
	last     [3]bool
	noHeader bool // the stream key is derived without the header
}

// forge makes the file three, with a change of the header that has its data key already, and of how its
// segments are sealed.
func (m *vectorMaker) forge(change func(*Header, *forgery)) []byte {
	random := &counter{}
	plain := testPlain(firstPlain + 2*fullPlain)
	h, dataKey, err := sealHeader(testFields(len(plain), testSegment), vectorKey, random)
	if err != nil {
		m.t.Fatal(err)
	}
	f := &forgery{number: [3]int64{0, 1, 2}, last: [3]bool{2: true}}
	change(h, f)
	header := h.Marshal()
	stream := make([]byte, StreamHeaderBytes)
	stream[0] = StreamHeaderBytes
	random.Read(stream[1:])
	bound := header
	if f.noHeader {
		bound = nil
	}
	var prefix [prefixBytes]byte
	aead, err := openStream(dataKey, bound, stream, &prefix)
	if err != nil {
		m.t.Fatal(err)
	}
	file := slices.Concat(header, stream)
	for k, part := range [][]byte{
		plain[:firstPlain], plain[firstPlain : firstPlain+fullPlain], plain[firstPlain+fullPlain:],
	} {
		var nonce [nonceBytes]byte
		setNonce(&nonce, &prefix, f.number[k], f.last[k])
		file = aead.Seal(file, nonce[:], part, nil)
	}
	return file
}

func (m *vectorMaker) userKeys() {
	master := must[*MasterKey](m.t)(newMasterKey(testKey(0x80)))
	other := must[*MasterKey](m.t)(newMasterKey(testKey(0x81)))
	add := func(name, expect string, by *MasterKey, tenant string, id uint32, wrapped []byte) {
		x := userKeyVector{
			Name: name, Expect: expect, MasterKey: hex.EncodeToString(by.key.b()[:]), MasterID: by.ID(),
			Tenant: tenant, KeyID: id, Wrapped: hex.EncodeToString(wrapped),
		}
		if expect == expectOK {
			x.UserKey = hex.EncodeToString(vectorKey.b()[:])
		}
		m.v.UserKeys = append(m.v.UserKeys, x)
	}
	for _, x := range []struct {
		tenant string
		id     uint32
	}{{"alice", 7}, {"a", 0}, {strings.Repeat("ä", tenantMaxBytes/2), 1<<32 - 1}} {
		wrapped := must[[]byte](m.t)(master.wrapUserKey(x.tenant, x.id, vectorKey, &counter{}))
		add(fmt.Sprintf("of a tenant of %d bytes", len(x.tenant)), expectOK, master, x.tenant, x.id, wrapped)
	}
	good := must[[]byte](m.t)(master.wrapUserKey("alice", 7, vectorKey, &counter{}))
	changed := func(at int) []byte { return flip(at)(bytes.Clone(good)) }
	add("version 0", expectFormat, master, "alice", 7, changed(0))
	add("one byte less", expectFormat, master, "alice", 7, good[:len(good)-1])
	add("one byte more", expectFormat, master, "alice", 7, append(bytes.Clone(good), 0))
	add("no bytes", expectFormat, master, "alice", 7, nil)
	add("another master key's ID", expectMaster, master, "alice", 7, changed(1))
	add("another master key", expectMaster, other, "alice", 7, good)
	add("nonce changed", expectAuth, master, "alice", 7, changed(1+masterIDBytes))
	add("key changed", expectAuth, master, "alice", 7, changed(1+masterIDBytes+nonceBytes))
	add("tag changed", expectAuth, master, "alice", 7, changed(len(good)-1))
	add("another tenant", expectAuth, master, "alicf", 7, good)
	add("another key ID", expectAuth, master, "alice", 8, good)
}

func (m *vectorMaker) checks() {
	for i, size := range []int{0, 1, 16383, 16384, 16385, 32768, 100_000} {
		image := [16]byte{15: byte(i)}
		c := must[*Check](m.t)(NewCheck(vectorKey, image))
		c.Write(patterned(size))
		sum := c.Sum()
		m.v.Checks = append(m.v.Checks, checkVector{
			UserKey: hex.EncodeToString(vectorKey.b()[:]), Image: hex.EncodeToString(image[:]), Bytes: size,
			Check: hex.EncodeToString(sum[:]),
		})
	}
}

func (m *vectorMaker) digests() {
	s := must[*DigestSealer](m.t)(NewDigestSealer(vectorKey))
	add := func(name, expect string, k Key, sealed [SealedDigestBytes]byte, digest [sha256.Size]byte) {
		x := digestVector{
			Name: name, Expect: expect, UserKey: hex.EncodeToString(k.b()[:]), Sealed: hex.EncodeToString(sealed[:]),
		}
		if expect == expectOK {
			x.Digest = hex.EncodeToString(digest[:])
		}
		m.v.Digests = append(m.v.Digests, x)
	}
	empty := sha256.Sum256(nil)
	sealed := s.Seal(empty)
	add("of nothing", expectOK, vectorKey, sealed, empty)
	add("of zeros", expectOK, vectorKey, s.Seal([32]byte{}), [32]byte{})
	for _, x := range []struct {
		name string
		at   int
	}{{"IV changed", 0}, {"digest changed", sivBytes}, {"last byte changed", SealedDigestBytes - 1}} {
		bad := sealed
		bad[x.at] ^= 1
		add(x.name, expectAuth, vectorKey, bad, empty)
	}
	add("another user's key", expectAuth, otherVectorKey, sealed, empty)
}
