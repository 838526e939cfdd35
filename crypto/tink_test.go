package crypto

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	aead "github.com/tink-crypto/tink-go/v2/aead/subtle"
	streaming "github.com/tink-crypto/tink-go/v2/streamingaead/subtle"
	"github.com/tink-crypto/tink-go/v2/subtle"
)

// tinkStream is Tink's primitive for the body under h.
func tinkStream(t *testing.T, h *Header, dataKey Key) *streaming.AESGCMHKDF {
	t.Helper()
	return must[*streaming.AESGCMHKDF](t)(
		streaming.NewAESGCMHKDF(dataKey.b()[:], "SHA256", keyBytes, h.SegmentSize, 0))
}

func eachTinkSize(t *testing.T, f func(t *testing.T, segment, length int)) {
	for _, segment := range []int{testSegment, 4096, SegmentSizeDefault} {
		lengths := edges(segment)
		if segment == SegmentSizeDefault {
			lengths = []int{0, segment - tagBytes - StreamHeaderBytes, segment}
		}
		for _, length := range lengths {
			t.Run(fmt.Sprintf("segment %d length %d", segment, length),
				func(t *testing.T) { f(t, segment, length) })
		}
	}
}

func TestTinkReadsOurs(t *testing.T) {
	eachTinkSize(t, func(t *testing.T, segment, length int) {
		k, plain := testKey(1), testPlain(length)
		file := encrypt(t, k, testFields(length, segment), plain)
		h := must[*Header](t)(ParseHeader(file))
		n := headerBytes(h.Tenant)
		s := tinkStream(t, h, must[Key](t)(h.openHeader(k)))
		r := must[io.Reader](t)(s.NewDecryptingReader(bytes.NewReader(file[n:]), file[:n]))
		if got := must[[]byte](t)(io.ReadAll(r)); !bytes.Equal(got, plain) {
			t.Errorf("Tink reads %d other bytes", len(got))
		}
	})
}

func TestWeReadTinks(t *testing.T) {
	eachTinkSize(t, func(t *testing.T, segment, length int) {
		k, plain := testKey(1), testPlain(length)
		h, dataKey, err := sealHeader(testFields(length, segment), k, &counter{})
		if err != nil {
			t.Fatal(err)
		}
		file := bytes.NewBuffer(h.Marshal())
		w := must[io.WriteCloser](t)(tinkStream(t, h, dataKey).NewEncryptingWriter(file, h.Marshal()))
		must[int](t)(w.Write(plain))
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		checkFile(t, file.Bytes(), plain, k, 1<<16)
	})
}

// tinkUnwrap opens a wrapped key with Tink's HKDF and AES-GCM.
func tinkUnwrap(t *testing.T, k Key, salt []byte, info string, wrapped, ad []byte) []byte {
	t.Helper()
	wrapping := must[[]byte](t)(subtle.ComputeHKDF("SHA256", k.b()[:], salt, []byte(info), keyBytes))
	a := must[*aead.AESGCM](t)(aead.NewAESGCM(wrapping))
	return must[[]byte](t)(a.Decrypt(wrapped, ad))
}

func TestTinkUnwrapsOurKeys(t *testing.T) {
	h, dataKey, err := sealHeader(testFields(5, 0), testKey(1), &counter{})
	if err != nil {
		t.Fatal(err)
	}
	b := h.Marshal() // by the numbers of FORMAT.md
	ad := append(append([]byte("imgcluster v1 data key wrap"), b[:60]...), "alice"...)
	got := tinkUnwrap(t, testKey(1), b[120:152], "imgcluster v1 data key wrap", b[60:120], ad)
	if !bytes.Equal(got, dataKey.b()[:]) {
		t.Error("Tink unwraps another data key")
	}
	want := must[[]byte](t)(
		subtle.ComputeHKDF("SHA256", dataKey.b()[:], b[120:152], []byte("imgcluster v1 key commitment"), 32))
	if !bytes.Equal(b[152:184], want) {
		t.Error("Tink derives another commitment")
	}
	m, u := must[*MasterKey](t)(newMasterKey(testKey(3))), testKey(4)
	wrapped := must[[]byte](t)(m.WrapUserKey("alice", 7, u))
	ad = append(append([]byte("imgcluster v1 user key wrap"), wrapped[:9]...), "\x00\x00\x00\x07alice"...)
	got = tinkUnwrap(t, testKey(3), nil, "imgcluster v1 user key wrap", wrapped[9:], ad)
	if !bytes.Equal(got, u.b()[:]) {
		t.Error("Tink unwraps another user key")
	}
}
