package api

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// present has one image, and does with the conditions of changes what the catalog does.
type present struct {
	shelf
	changed bool
}

func (p *present) change(c image.Conditions) error {
	err := c.Check(&p.rec)
	p.changed = err == nil
	return err
}

func (p *present) Put(_ context.Context, req image.Request, body io.Reader) (*image.Record, error) {
	io.Copy(io.Discard, body)
	return &p.rec, p.change(req.If)
}

func (p *present) Delete(_ context.Context, _ image.ID, _, _ string, c image.Conditions) error {
	return p.change(c)
}

func (p *present) OpenEncrypted(context.Context, *image.Record) (wire.Content, image.Copy, error) {
	return newFlaky(10, 10, nil), image.Copy{Node: 1, Attempt: image.Attempt{1}}, nil
}

func (p *present) List(context.Context, string, string, string, int) (wire.List, error) {
	return wire.List{}, nil
}

// TestEveryConditionOfEveryMethod is the table of preconditions and digests: each is honoured or refused
// with a problem, and nothing changes then.
func TestEveryConditionOfEveryMethod(t *testing.T) {
	const old, future = "Sat, 01 Jan 2000 00:00:00 GMT", "Tue, 01 Jan 2199 00:00:00 GMT"
	id := image.NewID()
	rec := image.Record{User: "alice", Name: "a.png", ID: id, Bytes: 10, SHA256: &image.Digest{1}}
	tag := rec.ETag()
	encrypted := `"` + id.String() + `-encrypted-01000000000000000000000000000000"`
	const sum = "sha-256=:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=:"
	targets := []string{
		"GET image", "HEAD image", "PUT image", "DELETE image", "GET image?form=encrypted", "GET list",
		"HEAD list", "GET /v1/cluster", "POST /v1/verify",
	}
	for _, x := range []struct {
		header string
		want   string // a status for each target
	}{
		{"", "200 200 201 204 200 200 200 200 200"},
		{"If-Match: *", "200 200 201 204 200 200 200 200 200"},
		{"If-Match: " + tag, "200 200 201 204 412 412 412 412 412"},
		{"If-Match: \"" + id.String() + `"`, "200 200 201 204 412 412 412 412 412"},
		{"If-Match: " + encrypted, "412 412 412 412 200 412 412 412 412"},
		{`If-Match: "x", ` + tag + `, W/"y"`, "200 200 201 204 412 412 412 412 412"},
		{"If-Match: W/" + tag, "412 412 412 412 412 412 412 412 412"},
		{`If-Match: "x"`, "412 412 412 412 412 412 412 412 412"},
		{"If-Match: x", "400 400 400 400 400 400 400 400 400"},
		{"If-Match:", "400 400 400 400 400 400 400 400 400"},
		{"If-None-Match: *", "304 304 412 412 304 304 304 304 412"},
		{"If-None-Match: " + tag, "304 304 412 412 200 200 200 200 200"},
		{"If-None-Match: W/" + tag, "304 304 412 412 200 200 200 200 200"},
		{`If-None-Match: "x", ` + tag, "304 304 412 412 200 200 200 200 200"},
		{"If-None-Match: " + encrypted, "200 200 201 204 304 200 200 200 200"},
		{`If-None-Match: "x"`, "200 200 201 204 200 200 200 200 200"},
		{`If-None-Match: "x" "y"`, "400 400 400 400 400 400 400 400 400"},
		{"If-Modified-Since: " + old, "200 200 400 400 200 200 200 200 400"},
		{"If-Modified-Since: " + future, "200 200 400 400 200 200 200 200 400"},
		{"If-Modified-Since: soon", "200 200 400 400 200 200 200 200 400"},
		{"If-Modified-Since: " + future + "\nIf-None-Match: " + tag, "304 304 400 400 200 200 200 200 400"},
		{"If-Modified-Since: " + future + "\nIf-None-Match: \"x\"", "200 200 400 400 200 200 200 200 400"},
		{"If-Unmodified-Since: " + old, "412 412 412 412 412 412 412 412 412"},
		{"If-Unmodified-Since: " + future, "412 412 412 412 412 412 412 412 412"},
		{"If-Unmodified-Since: soon", "412 412 412 412 412 412 412 412 412"},
		{"If-Unmodified-Since: " + old + "\nIf-Match: " + tag, "200 200 201 204 412 412 412 412 412"},
		{"If-Range: " + tag, "200 200 400 400 200 200 200 200 400"},
		{"Range: bytes=1-2", "206 200 201 204 206 200 200 200 200"},
		{"Range: bytes=1-2\nIf-Range: " + tag, "206 200 400 400 200 200 200 200 400"},
		{"Range: bytes=1-2\nIf-Range: " + encrypted, "200 200 400 400 206 200 200 200 400"},
		{"Range: bytes=1-2\nIf-Range: W/" + tag, "200 200 400 400 200 200 200 200 400"},
		{"Range: bytes=1-2\nIf-Range: " + future, "200 200 400 400 200 200 200 200 400"},
		{"Range: bytes=1-2\nIf-Match: \"x\"", "412 412 412 412 412 412 412 412 412"},
		{"Range: bytes=1-2\nIf-None-Match: " + tag, "304 304 412 412 206 200 200 200 200"},
		{"Range: bytes=10-", "416 200 201 204 416 200 200 200 200"},
		{"Range: bytes=10-\nIf-Match: \"x\"", "412 412 412 412 412 412 412 412 412"},
		{"If: (<urn:uuid:1>)", "400 400 400 400 400 400 400 400 400"},
		{"If-Schedule-Tag-Match: \"x\"", "400 400 400 400 400 400 400 400 400"},
		{"Content-Digest: " + sum, "400 400 201 400 400 400 400 400 400"},
		{"Repr-Digest: " + sum, "400 400 201 400 400 400 400 400 400"},
		{"Content-Digest: sha-512=:AAAA:", "400 400 400 400 400 400 400 400 400"},
		{"Content-MD5: 1B2M2Y8AsgTpgAmY7PhCfg==", "400 400 400 400 400 400 400 400 400"},
		{
			"Digest: SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=",
			"400 400 400 400 400 400 400 400 400",
		},
	} {
		for i, want := range strings.Fields(x.want) {
			method, target, _ := strings.Cut(targets[i], " ")
			t.Run(targets[i]+" "+x.header, func(t *testing.T) {
				p := &present{shelf: shelf{rec: rec, contents: []wire.Content{newFlaky(10, 10, nil)}}}
				_, srv := serveOn(t, p, reporting{})
				target = strings.NewReplacer("image", "/v1/images/alice/a.png", "list",
					"/v1/images/alice").Replace(target)
				var body io.Reader
				if method == http.MethodPut {
					body = strings.NewReader("0123456789")
				}
				req, err := http.NewRequest(method, srv.URL+target, body)
				if err != nil {
					t.Fatal(err)
				}
				for line := range strings.SplitSeq(x.header, "\n") {
					if key, value, ok := strings.Cut(line, ":"); ok {
						req.Header.Add(key, strings.TrimSpace(value))
					}
				}
				expectCondition(t, srv, req, want)
				changed := want[0] == '2' && (method == http.MethodPut || method == http.MethodDelete)
				if p.changed != changed {
					t.Errorf("changed: %v", p.changed)
				}
			})
		}
	}
}

// reporting is a ready node that has nothing to say.
type reporting struct{ readyNode }

func (reporting) Cluster() wire.ClusterStatus { return wire.ClusterStatus{} }

func (reporting) Verify(context.Context, float64, bool, func(wire.VerifyLine) error) (
	wire.VerifySummary, error,
) {
	return wire.VerifySummary{}, nil
}

// expectCondition checks the answer's status and form.
func expectCondition(t *testing.T, srv *httptest.Server, req *http.Request, want string) {
	t.Helper()
	resp, err := srv.Client().Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err = errors.Join(err, resp.Body.Close()); err != nil || !strings.HasPrefix(resp.Status, want) {
		t.Errorf("status %s, want %s: %v", resp.Status, want, err)
	}
	if resp.StatusCode >= 400 {
		expectErrorHeaders(t, resp.Header, "Content-Range")
		head := req.Method == http.MethodHead
		if !head &&
			(!strings.Contains(string(body), `"code":"`) || !strings.Contains(string(body), `"hint":"`)) ||
			head && len(body) > 0 {
			t.Errorf("the error says %q", body)
		}
		if (resp.StatusCode == 416) != (resp.Header.Get("Content-Range") == "bytes */10") {
			t.Errorf("Content-Range %q", resp.Header.Get("Content-Range"))
		}
	}
	if resp.Header.Get("Last-Modified") != "" {
		t.Errorf("Last-Modified %q", resp.Header.Get("Last-Modified"))
	}
	isImage := strings.HasSuffix(req.URL.Path, "a.png") && isRead(req.Method) && resp.StatusCode < 400
	if isImage != (resp.Header.Get("ETag") != "") && req.Method != http.MethodPut {
		t.Errorf("ETag %q", resp.Header.Get("ETag"))
	}
}

func TestUnknownHostsAndSites(t *testing.T) {
	for _, x := range []struct {
		host, header, value string
		changes             int // status of what changes something; of reads, too, at another host
	}{
		{"127.0.0.1:8001", "", "", 204},
		{"[::1]:8001", "", "", 204},
		{"::1", "", "", 204},
		{"[::1]", "", "", 204},
		{"10.1.2.3", "", "", 204},
		{"localhost", "", "", 204},
		{"LocalHost.:99", "", "", 204},
		{"x:8001", "", "", 204},
		{"X.", "", "", 204},
		{"evil.example:8001", "", "", 403},
		{"x.evil.example", "", "", 403},
		{"localhost.evil.example", "", "", 403},
		{"127.0.0.1.nip.io:8001", "", "", 403},
		{"evil.localhost", "", "", 403},
		{"127.1", "", "", 403},
		{"x:8001", "Origin", "http://x:8001", 204},
		{"x:8001", "Origin", "https://x:8001", 204},
		{"x:8001", "Origin", "http://x:8002", 403},
		{"x:8001", "Origin", "http://evil.example", 403},
		{"x:8001", "Origin", "null", 403},
		{"x:8001", "Origin", "x:8001", 403},
		{"x", "Sec-Fetch-Site", "same-origin", 204},
		{"x", "Sec-Fetch-Site", "none", 204},
		{"x", "Sec-Fetch-Site", "same-site", 403},
		{"x", "Sec-Fetch-Site", "cross-site", 403},
		{"x", "Sec-Fetch-Site", "new-in-2030", 403},
		{"evil.example", "Origin", "http://evil.example", 403}, // rebound
	} {
		good := x.changes != http.StatusForbidden
		reads := func(status int) int {
			if host, _, _ := strings.Cut(strings.ToLower(x.host), ":"); !good && host != "x" {
				return http.StatusForbidden
			}
			return status
		}
		for method, want := range map[string]int{
			http.MethodGet: reads(200), http.MethodHead: reads(200), http.MethodOptions: reads(204),
			http.MethodDelete: x.changes,
			http.MethodPut:    map[bool]int{true: 201, false: 403}[good],
			http.MethodPost:   map[bool]int{true: 200, false: 403}[good],
		} {
			p := &present{shelf: shelf{
				rec: image.Record{Bytes: 10}, contents: []wire.Content{newFlaky(10, 10, nil)},
			}}
			h, _ := serveOn(t, p, reporting{})
			path := "/v1/images/alice/a.png"
			if method == http.MethodPost {
				path = "/v1/verify"
			}
			r := httptest.NewRequest(method, path, strings.NewReader("x"))
			if r.Host = x.host; x.header != "" {
				r.Header.Set(x.header, x.value)
			}
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != want || p.changed && want == 403 {
				t.Errorf("%s for %s, %s: %s: status %d, want %d, changed %v", method, x.host, x.header,
					x.value, w.Code, want, p.changed)
			}
			if w.Code == 403 {
				expectErrorHeaders(t, w.Header(), "Connection") // the body has not been read
				if !strings.Contains(w.Body.String(), `"code":"forbidden"`) ||
					!strings.Contains(w.Body.String(), `"hint":"`) {
					t.Errorf("%s", w.Body)
				}
			}
		}
	}
}

func TestBodiesAreCalledJSON(t *testing.T) {
	for _, media := range []string{
		"", "text/plain", "text/plain;application/json", "application/x-www-form-urlencoded",
		"multipart/form-data; boundary=x", "application/jsonp", "x",
	} {
		for _, path := range []string{"/v1/members", "/internal/v1/hello", "/internal/v1/join"} {
			h, _ := serveOn(t, nil, readyNode{})
			r := httptest.NewRequest(http.MethodPost, "http://x"+path,
				strings.NewReader(`{"op":"drain","id":1}`))
			r.Header.Set("Content-Type", media)
			w := httptest.NewRecorder()
			if r.TLS = nodeState(t, 2); strings.HasPrefix(path, wire.InternalPath) {
				h.ForPeers().ServeHTTP(w, r)
			} else {
				h.ServeHTTP(w, r)
			}
			if w.Code != http.StatusUnsupportedMediaType ||
				!strings.Contains(w.Body.String(), "application/json") {
				t.Errorf("%s as %q: %d, %s", path, media, w.Code, w.Body)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	h, _ := serveOn(t, nil, nil) // which are not asked
	for path, want := range map[string]string{
		"/v1/images/alice/a/b.png": "PUT, POST, GET, HEAD, DELETE, OPTIONS",
		"/v1/images/alice":         "GET, HEAD, OPTIONS",
		"/v1/cluster":              "GET, HEAD, OPTIONS",
		"/v1/members":              "GET, HEAD, POST, OPTIONS",
		"/v1/verify":               "POST, OPTIONS",
		"/livez":                   "GET, HEAD, OPTIONS",
		"/nothing":                 "OPTIONS",
		"/":                        "OPTIONS",
		"//a/../b":                 "OPTIONS",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodOptions, "http://x/", nil)
		r.URL = &url.URL{Path: path}
		r.Header.Set("Origin", "http://evil.example")
		r.Header.Set("Access-Control-Request-Method", "PUT")
		h.ServeHTTP(w, r)
		if w.Code != http.StatusNoContent || w.Header().Get("Allow") != want || w.Body.Len() > 0 {
			t.Errorf("%s: %d, Allow %q, %q", path, w.Code, w.Header().Get("Allow"), w.Body)
		}
		for k := range w.Header() {
			if strings.HasPrefix(k, "Access-Control") {
				t.Errorf("%s: %s", path, k)
			}
		}
	}
}

// TestUncleanPaths are answered as errors are, not redirected.
func TestUncleanPaths(t *testing.T) {
	h, _ := serveOn(t, nil, nil)
	for _, path := range []string{
		"//v1/cluster", "/v1//cluster", "/v1/../v1/cluster", "/./livez", "/v1/<script>/..", "",
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodGet, "http://x/", nil)
		r.URL = &url.URL{Path: path}
		h.ServeHTTP(w, r)
		if w.Code != http.StatusNotFound {
			t.Errorf("%s: %d", path, w.Code)
		}
		expectErrorHeaders(t, w.Header(), "Connection") // the body has not been read
	}
}
