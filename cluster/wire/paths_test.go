package wire

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"imgcluster/cluster/image"
)

func TestParseImagePath(t *testing.T) {
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
		user, name, one, err := ParseImagePath(x.rest)
		if err != nil || user != x.user || name != x.name || one != x.one {
			t.Errorf("%s: %q %q %v %v", x.rest, user, name, one, err)
		}
	}
	for _, rest := range []string{
		"", "/", "/a.png", "alice/", "alice//a", "alice/../a", "alice/a/..", "alice/./a", "../a", "%2e%2E/a",
		"alice/%2e%2e/a",
		"alice/a%", "alice/%zz", "al%2Fice/a", "alice/a%00", "alice/%0a", "alice/%FF", "alice/%C2%85",
		"%7f/a",
		strings.Repeat("u", 129) + "/a", "alice/" + strings.Repeat("n", 1025),
	} {
		_, _, _, err := ParseImagePath(rest)
		expectInvalid(t, rest, err)
	}
}

// expectInvalid expects an error that the client must correct, with a hint.
func expectInvalid(t *testing.T, what string, err error) {
	t.Helper()
	var e *image.Error
	if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Detail == "" || e.Hint() == "" {
		t.Errorf("%q: %v is no refusal with a hint", what, err)
	}
}

func FuzzImagePath(f *testing.F) {
	for _, seed := range []string{
		"alice/a.png", "a%2Fb/c", "alice/../b", "alice/%2e%2e/a", "x/%F0%9F%98%80", "%", "a/b%00",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, rest string) {
		user, name, one, err := ParseImagePath(rest)
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
		if user2, name2, one2, err := ParseImagePath(again); err != nil || user2 != user || name2 != name ||
			one2 != one {
			t.Fatalf("%q became %q: %q %q %v", rest, again, user2, name2, err)
		}
	})
}

func TestPaths(t *testing.T) {
	for want, x := range map[string][2]string{
		"/v1/images/alice/a.png":                   {"alice", "a.png"},
		"/v1/images/al%20ice/a/100%25%23%3F+b.png": {"al ice", "a/100%#?+b.png"},
		"/v1/images/Z%C3%BCrich/%E2%98%83":         {"Zürich", "☃"},
	} {
		path := ImagePath(x[0], x[1])
		user, name, one, err := ParseImagePath(strings.TrimPrefix(path, ImagesPath))
		if path != want || err != nil || !one || user != x[0] || name != x[1] {
			t.Errorf("%s, not %s: %q %q %v %v", path, want, user, name, one, err)
		}
	}
	if user, _, one, err := ParseImagePath(strings.TrimPrefix(UserPath("al/ice "), ImagesPath)); err == nil ||
		one {
		t.Errorf("a user with a slash: %q %v %v", user, one, err)
	}
	mux := http.NewServeMux()
	file := image.FileID{Image: image.NewID(), Shard: 1<<64 - 1, Attempt: image.NewAttempt()}
	mux.HandleFunc(CopyPattern, func(w http.ResponseWriter, r *http.Request) {
		if got, err := ParseCopyPath(r); err != nil || got != file {
			t.Errorf("%s: %v %v", r.URL, got, err)
		}
		w.WriteHeader(http.StatusNoContent)
	})
	w := httptest.NewRecorder()
	mux.ServeHTTP(w, httptest.NewRequest(http.MethodGet, CopyPath(file), nil))
	if w.Code != http.StatusNoContent {
		t.Errorf("a copy's path has status %d", w.Code)
	}
	for _, bad := range []string{"x", file.Image.String(), file.String() + "0"} {
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.SetPathValue("file", bad)
		_, err := ParseCopyPath(r)
		expectInvalid(t, bad, err)
	}
}
