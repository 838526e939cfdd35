package crypto

import (
	"bytes"
	"encoding/binary"
	"math"
	"strings"
	"testing"
)

func TestHeaderFieldsAtTheirLimits(t *testing.T) {
	for name, change := range map[string]func(*HeaderFields){
		"no tenant":            func(f *HeaderFields) { f.Tenant = "" },
		"long tenant":          func(f *HeaderFields) { f.Tenant = strings.Repeat("a", tenantMaxBytes+1) },
		"tenant not UTF-8":     func(f *HeaderFields) { f.Tenant = "a\xff" },
		"negative length":      func(f *HeaderFields) { f.Length = -1 },
		"length over the most": func(f *HeaderFields) { f.Length = lengthMax + 1 },
		"too many segments":    func(f *HeaderFields) { f.Length, f.SegmentSize = lengthMax, segmentSizeMin },
		"tiny segments":        func(f *HeaderFields) { f.SegmentSize = segmentSizeMin - 1 },
		"huge segments":        func(f *HeaderFields) { f.SegmentSize = SegmentSizeDefault + 1 },
		"negative segments":    func(f *HeaderFields) { f.SegmentSize = -1 },
	} {
		t.Run(name, func(t *testing.T) {
			f := testFields(3, testSegment)
			change(&f)
			var out bytes.Buffer
			_, err := NewEncryptWriter(&out, testKey(1), f)
			wantKind(t, err, ErrInvalid)
			if out.Len() != 0 {
				t.Error("something was written")
			}
		})
	}
	for _, f := range []HeaderFields{
		{
			Tenant: strings.Repeat("ä", tenantMaxBytes/2), Attempt: [16]byte{0: 0xff, 15: 0xee},
			UserKey: math.MaxUint32, Length: lengthMax,
		},
		{Tenant: "a", SegmentSize: segmentSizeMin},
	} {
		h, _, err := sealHeader(f, testKey(1), &counter{})
		if err != nil {
			t.Fatal(err)
		}
		b := h.Marshal()
		back := must[*Header](t)(ParseHeader(b))
		if *back != *h || len(b) != headerBytes(f.Tenant) || len(b) > HeaderMaxBytes {
			t.Errorf("%+v came back as %+v in %d bytes", h, back, len(b))
		}
	}
}

func TestHeaderSizes(t *testing.T) {
	// The numbers that FORMAT.md tells.
	if offSalt != 120 || offCommitment != 152 || offTenant != 184 || HeaderMaxBytes != 312 ||
		PrefixMaxBytes != 352 {
		t.Error("the header's layout is not what FORMAT.md says")
	}
	if headerBytes("alice") != 189 {
		t.Error("headerBytes is wrong")
	}
}

func TestParseHeaderRefuses(t *testing.T) {
	good := encrypt(t, testKey(1), testFields(3, 0), []byte("abc"))
	set := func(off int, b ...byte) []byte {
		c := bytes.Clone(good)
		copy(c[off:], b)
		return c
	}
	be16 := func(v int) []byte { return binary.BigEndian.AppendUint16(nil, uint16(v)) }
	for name, c := range map[string]struct {
		prefix []byte
		kind   error
	}{
		"empty":              {nil, ErrAuth},
		"half the magic":     {good[:4], ErrAuth},
		"no length yet":      {good[:fixedBytes-1], ErrAuth},
		"cut header":         {good[:offTenant], ErrAuth},
		"a PNG":              {[]byte("\x89PNG\r\n\x1a\n----------------------"), ErrFormat},
		"one other byte":     {[]byte("x"), ErrFormat},
		"later version":      {set(offVersion, 2), ErrFormat},
		"other suite":        {set(offSuite, 2), ErrFormat},
		"no room for tenant": {set(offHeaderLen, be16(offTenant)...), ErrFormat},
		"long header":        {set(offHeaderLen, be16(HeaderMaxBytes+1)...), ErrFormat},
		"longest header":     {set(offHeaderLen, 0xff, 0xff), ErrFormat},
		"no segments":        {set(offSegment, 0, 0, 0, 0), ErrFormat},
		"huge segments":      {set(offSegment, 0xff, 0xff, 0xff, 0xff), ErrFormat},
		"negative length":    {set(offLength, 0xff), ErrFormat},
		"wrapping length":    {set(offLength, 0x80, 0, 0, 0, 0, 0, 0, 1), ErrFormat},
		"tenant not UTF-8":   {set(offTenant, 0xff), ErrFormat},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := ParseHeader(c.prefix)
			wantKind(t, err, c.kind)
			_, err = Open(c.prefix, testKey(1))
			wantKind(t, err, c.kind)
			_, err = verify(c.prefix, testKey(1))
			wantKind(t, err, c.kind)
		})
	}
}

func TestMatches(t *testing.T) {
	f := testFields(3, 0)
	h := must[*Opened](t)(Open(encrypt(t, testKey(1), f, []byte("abc")), testKey(1))).Header()
	if err := h.Matches(f.Image, f.Attempt, f.Tenant, f.Length); err != nil {
		t.Error(err)
	}
	wantKind(t, h.Matches([16]byte{9}, f.Attempt, f.Tenant, f.Length), ErrAuth)
	wantKind(t, h.Matches(f.Image, f.Attempt, "bob", f.Length), ErrAuth)
	wantKind(t, h.Matches(f.Image, [16]byte{9}, f.Tenant, f.Length), ErrAuth)
	wantKind(t, h.Matches(f.Image, f.Attempt, f.Tenant, f.Length+1), ErrAuth)
}

// Who has the user's key can wrap a data key, but not make the file open under two.
func TestCommitmentIsChecked(t *testing.T) {
	k := testKey(1)
	a, _, err := sealHeader(testFields(3, 0), k, &counter{})
	if err != nil {
		t.Fatal(err)
	}
	// Another data key, properly wrapped under the same salt, in place of the committed one.
	gcm, err := deriveGCM(k, a.salt[:], infoDataKeyWrap)
	if err != nil {
		t.Fatal(err)
	}
	if err := wrap(a.wrapped[:], gcm, testKey(77), a.wrapAD(), &counter{}); err != nil {
		t.Fatal(err)
	}
	_, err = Open(append(a.Marshal(), make([]byte, StreamHeaderBytes)...), k)
	wantKind(t, err, ErrAuth)
	if !strings.Contains(err.Error(), "commitment") {
		t.Errorf("refused for another reason: %v", err)
	}
}
