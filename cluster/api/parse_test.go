package api

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// expectInvalid expects an error that the client must correct, with a hint.
func expectInvalid(t *testing.T, what string, err error) {
	t.Helper()
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Detail == "" || e.Hint() == "" {
		t.Errorf("%q: %v is no refusal with a hint", what, err)
	}
}

func FuzzPutHeaders(f *testing.F) {
	f.Add("1,2,3", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:",
		"0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2", "*", "image/png", int64(10))
	f.Add("2", "", `"0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2"`, `"a", W/"b"`, `image/x; a="b"`, int64(0))
	f.Add("2,3,", "sha-256=::", "x", `"tag"`, "text", int64(-1))
	h := New(Options{Logger: zap.NewNop(), ID: 2, ImageBytes: 1000})
	f.Fuzz(func(t *testing.T, broadcast, sum, id, tags, media string, size int64) {
		r := &http.Request{Method: http.MethodPut, ContentLength: size, Header: http.Header{
			"Imgcluster-Broadcast": {broadcast}, "Content-Digest": {sum}, "Idempotency-Key": {id},
			"If-None-Match": {tags}, "If-Match": {tags},
			"Content-Type": {media},
		}}
		cond, err := conditionsOf(r)
		req := image.Request{}
		if err == nil {
			req, err = h.parsePut(r)
		}
		if err != nil {
			var e *image.Error
			if !errors.As(err, &e) || e.Kind.Status() < 400 || e.Kind.Status() >= 500 || e.Hint() == "" {
				t.Fatalf("%v is no refusal with a hint", err)
			}
			return
		}
		if req.Size < 0 || req.Size > 1000 || req.ID == (image.ID{}) || len(cond.Match) == 0 ||
			!slices.Equal(cond.Match, cond.NoneMatch) {
			t.Fatalf("%+v, %+v", req, cond)
		}
		for _, tag := range cond.Match {
			if again, err := wire.ParseConditions(http.Header{"If-Match": {tag}}); err != nil ||
				!slices.Equal(again.Match, image.Tags{tag}) {
				t.Fatalf("%q of %q is %q, %v", tag, tags, again.Match, err)
			}
		}
		if (broadcast != "") != slices.Contains(req.Broadcast, 2) || len(req.Broadcast) > 16 {
			t.Fatalf("broadcast %q gives %v", broadcast, req.Broadcast)
		}
		if req.Digest == nil ||
			!strings.Contains(sum, base64.StdEncoding.EncodeToString(req.Digest[:])[:40]) {
			t.Fatalf("digest %q gives %v", sum, req.Digest)
		}
		if len(req.Type) > image.TypeBytesMax ||
			req.Type != "" &&
				(!strings.Contains(req.Type, "/") ||
					strings.ContainsFunc(req.Type, func(r rune) bool { return r < ' ' || r > '~' })) {
			t.Fatalf("type %q gives %q", media, req.Type)
		}
	})
}

// TestProblemDocument fixes what a client sees of an error, byte for byte.
func TestProblemDocument(t *testing.T) {
	h := New(Options{Logger: zap.NewNop(), ID: 2})
	w := httptest.NewRecorder()
	h.fail(w, httptest.NewRequest(http.MethodGet, "/", nil),
		image.Errorf(image.KindNoQuorum, "shard %d has no leader", 3).WithHint("wait").WithRetry(1500*1e6))
	const want = `{"type":"urn:imgcluster:problem:no-quorum","title":"no quorum","status":503,` +
		`"detail":"shard 3 has no leader","code":"no-quorum","hint":"wait","retry_after_s":2}` + "\n"
	if got := w.Body.String(); got != want || w.Code != 503 || w.Header().Get("Retry-After") != "2" ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %v %s", w.Code, w.Header(), got)
	}
}
