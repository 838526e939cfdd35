package api

import (
	"encoding/base64"
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"testing"

	"go.uber.org/zap"

	"imgcluster/cluster/image"
)

func TestParsePath(t *testing.T) {
	for _, x := range []struct {
		rest, user, name string
		one              bool
	}{
		{"alice", "alice", "", false},
		{"alice/a.png", "alice", "a.png", true},
		{"alice/a/b/c.png", "alice", "a/b/c.png", true},
		{"al%20ice/a%2Fb.png", "al ice", "a/b.png", true},
		{"alice/100%25%23%3F.png", "alice", "100%#?.png", true},
		{"alice/a+b.png", "alice", "a+b.png", true},
		{"alice/...", "alice", "...", true},
		{"Z%C3%BCrich/%E2%98%83", "Zürich", "☃", true},
	} {
		user, name, one, err := parsePath(x.rest)
		if err != nil || user != x.user || name != x.name || one != x.one {
			t.Errorf("%s: %q %q %v %v", x.rest, user, name, one, err)
		}
	}
	for _, rest := range []string{
		"", "/", "/a.png", "alice/", "alice//a", "alice/../a", "alice/a/..", "alice/./a", "../a", "%2e%2E/a", "alice/%2e%2e/a",
		"alice/a%", "alice/%zz", "al%2Fice/a", "alice/a%00", "alice/%0a", "alice/%FF", "alice/%C2%85", "%7f/a",
		strings.Repeat("u", 129) + "/a", "alice/" + strings.Repeat("n", 1025),
	} {
		_, _, _, err := parsePath(rest)
		expectInvalid(t, rest, err)
	}
}

// expectInvalid checks that err is what a client is told of a mistake of its own.
func expectInvalid(t *testing.T, what string, err error) {
	t.Helper()
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Detail == "" || e.Hint() == "" {
		t.Errorf("%q: %v is no refusal with a hint", what, err)
	}
}

func FuzzImagePath(f *testing.F) {
	for _, seed := range []string{"alice/a.png", "a%2Fb/c", "alice/../b", "alice/%2e%2e/a", "x/%F0%9F%98%80", "%", "a/b%00"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		user, name, one, err := parsePath(rest)
		if err != nil {
			expectInvalid(t, rest, err)
			return
		}
		if image.CheckUser(user) != nil || one && image.CheckName(name) != nil || !one && name != "" {
			t.Fatalf("%q: %q %q", rest, user, name)
		}
		again := url.PathEscape(user)
		if one {
			again += "/" + url.PathEscape(name)
		}
		if user2, name2, one2, err := parsePath(again); err != nil || user2 != user || name2 != name || one2 != one {
			t.Fatalf("%q became %q: %q %q %v", rest, again, user2, name2, err)
		}
	})
}

func TestParseBroadcast(t *testing.T) {
	h := New(Options{Logger: zap.NewNop(), ID: 2})
	for header, want := range map[string][]image.NodeID{"": nil, "2": {2}, "1,2,3": {1, 2, 3}, " 3 , 2 ": {3, 2}, "4294967295,2": {4294967295, 2}} {
		if got, err := h.parseBroadcast(header); err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
	many := "2"
	for i := range broadcastMax {
		many += "," + strconv.Itoa(10+i)
	}
	for _, header := range []string{"1,3", "0,2", "2,2", "2,", ",2", "2,x", "-2,2", "2,4294967296", "2;3", many, strings.Repeat("2,", 8000)} {
		_, err := h.parseBroadcast(header)
		expectInvalid(t, header, err)
	}
}

func FuzzPutHeaders(f *testing.F) {
	f.Add("1,2,3", "sha-256=:47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=:", "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2", "*", "image/png", int64(10))
	f.Add("2", "", `"0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2"`, `"a", W/"b"`, `image/x; a="b"`, int64(0))
	f.Add("2,3,", "sha-256=::", "x", `"tag"`, "text", int64(-1))
	h := New(Options{Logger: zap.NewNop(), ID: 2, ImageBytes: 1000})
	f.Fuzz(func(t *testing.T, broadcast, sum, id, tags, media string, size int64) {
		r := &http.Request{Method: http.MethodPut, ContentLength: size, Header: http.Header{
			"Imgcluster-Broadcast": {broadcast}, "Content-Digest": {sum}, "Idempotency-Key": {id}, "If-None-Match": {tags}, "If-Match": {tags},
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
		if req.Size < 0 || req.Size > 1000 || req.ID == (image.ID{}) || len(cond.Match) == 0 || !slices.Equal(cond.Match, cond.NoneMatch) {
			t.Fatalf("%+v, %+v", req, cond)
		}
		for _, tag := range cond.Match {
			if again, err := parseTags(http.Header{"If-Match": {tag}}, "If-Match"); err != nil || !slices.Equal(again, image.Tags{tag}) {
				t.Fatalf("%q of %q is %q, %v", tag, tags, again, err)
			}
		}
		if (broadcast != "") != slices.Contains(req.Broadcast, 2) || len(req.Broadcast) > broadcastMax {
			t.Fatalf("broadcast %q gives %v", broadcast, req.Broadcast)
		}
		if req.Digest == nil || !strings.Contains(sum, base64.StdEncoding.EncodeToString(req.Digest[:])[:40]) {
			t.Fatalf("digest %q gives %v", sum, req.Digest)
		}
		if len(req.Type) > image.TypeBytesMax || req.Type != "" && (!strings.Contains(req.Type, "/") || strings.ContainsFunc(req.Type, func(r rune) bool { return r < ' ' || r > '~' })) {
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
	const want = `{"type":"urn:imgcluster:problem:no-quorum","title":"no quorum","status":503,"detail":"shard 3 has no leader",` +
		`"code":"no-quorum","hint":"wait","retry_after_s":2}` + "\n"
	if got := w.Body.String(); got != want || w.Code != 503 || w.Header().Get("Retry-After") != "2" ||
		w.Header().Get("Content-Type") != "application/problem+json" {
		t.Errorf("%d %v %s", w.Code, w.Header(), got)
	}
}
