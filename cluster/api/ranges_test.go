package api

import (
	"bytes"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"testing"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

func TestParseRange(t *testing.T) {
	const size = 100
	huge := strings.Repeat("9", 400)
	for header, want := range map[string][]byteRange{
		"bytes=0-0":          {{0, 1}},
		"bytes=0-":           {{0, 100}},
		"bytes=99-":          {{99, 1}},
		"bytes=10-19":        {{10, 10}},
		"bytes=007-8":        {{7, 2}},
		"bytes=10-1000":      {{10, 90}},
		"bytes=10-" + huge:   {{10, 90}},
		"bytes=-1":           {{99, 1}},
		"bytes=-100":         {{0, 100}},
		"bytes=-101":         {{0, 100}},
		"bytes=-" + huge:     {{0, 100}},
		"BYTES=0-0":          {{0, 1}},
		"bytes= 0-0 , 5-6":   {{0, 1}, {5, 2}},
		"bytes=,0-0,,\t5-6,": {{0, 1}, {5, 2}},
		"bytes=5-6,0-0":      {{5, 2}, {0, 1}},
		"bytes=0-0,100-,-0":  {{0, 1}},
		"bytes=0-49,50-99":   {{0, 50}, {50, 50}},
		"bytes=0-0,0-0":      {{0, 1}, {0, 1}},
		"bytes=0-" + "0,1-1": {{0, 1}, {1, 1}},
	} {
		if got, err := parseRange(header, size); err != nil || !slices.Equal(got, want) {
			t.Errorf("%.80s: %v, %v", header, got, err)
		}
	}
	for _, header := range []string{
		"", "bytes", "bytes=", "bytes=,", "lines=0-0", "items=0-0", "bytes 0-0", "bytes=0", "bytes=-",
		"bytes=a-b", "bytes=0-b", "bytes=0x0-1", "bytes=+0-1",
		"bytes=5-4", "bytes=--5", "bytes=1-2-3", "bytes=0 - 1", "bytes=0-0;1-1", "bytes=0-0,x", "bytes=٣-4",
		"bytes=" + huge + "-" + huge[1:],
		"bytes=0-50,50-99", "bytes=0-,0-", // more than all
		"bytes=" + strings.Repeat("0-0,", rangesMax+1), "bytes=" + strings.Repeat("200-,", rangesMax+1),
		"bytes=" + strings.Repeat("0-0,", 4900),
	} {
		if got, err := parseRange(header, size); err != nil || got != nil {
			t.Errorf("%.80s: %v, %v", header, got, err)
		}
	}
	for _, header := range []string{
		"bytes=100-", "bytes=100-200", "bytes=-0", "bytes=100-,-0", "bytes=" + huge + "-",
		"bytes=" + huge + "-" + huge,
	} {
		got, err := parseRange(header, size)
		if image.KindOf(err) != image.KindRange || got != nil {
			t.Errorf("%.80s: %v, %v", header, got, err)
		}
	}
	if got, err := parseRange("bytes="+strings.Repeat("0-0,", rangesMax), size); err != nil ||
		len(got) != rangesMax {
		t.Errorf("%d ranges: %v, %v", rangesMax, got, err)
	}
}

func FuzzParseRange(f *testing.F) {
	for _, seed := range []string{
		"bytes=0-0", "bytes=-5,3-", "bytes=9-1", "x=1-2", "bytes=99999999999999999999-",
	} {
		f.Add(seed, int64(10))
	}
	f.Fuzz(func(t *testing.T, header string, size int64) {
		if size < 0 || size > 1<<40 {
			return
		}
		ranges, err := parseRange(header, size)
		if err != nil && (image.KindOf(err) != image.KindRange || ranges != nil) {
			t.Fatalf("%q: %v, %v", header, ranges, err)
		}
		again := make([]string, len(ranges))
		sum := int64(0)
		for i, b := range ranges {
			if b.off < 0 || b.n < 1 || b.off+b.n > size {
				t.Fatalf("%q of %d: %v", header, size, ranges)
			}
			sum += b.n
			again[i] = strconv.FormatInt(b.off, 10) + "-" + strconv.FormatInt(b.off+b.n-1, 10)
		}
		if sum > size || len(ranges) > rangesMax {
			t.Fatalf("%q of %d: %v", header, size, ranges)
		}
		if same, err := parseRange("bytes="+strings.Join(again, ","), size); err != nil ||
			!slices.Equal(same, ranges) {
			t.Fatalf("%q became %v", header, same)
		}
	})
}

// newCounting is content of which every byte is its place modulo 251.
func newCounting(size int) *flaky {
	f := newFlaky(int64(size), int64(size), nil)
	all := make([]byte, size)
	for i := range all {
		all[i] = byte(i % 251)
	}
	f.all = bytes.NewReader(all)
	f.Section(0, int64(size))
	f.asked = nil
	return f
}

// TestRangesAreFetchedAlone compares answers byte for byte, and that of the content nothing else was
// asked for.
func TestRangesAreFetchedAlone(t *testing.T) {
	const size = 1000
	all, _ := io.ReadAll(newCounting(size))
	whole := []byteRange{{0, size}}
	for _, x := range []struct {
		header string
		want   []byteRange
	}{
		{"", whole},
		{"bytes=0-0", []byteRange{{0, 1}}},
		{"bytes=100-299", []byteRange{{100, 200}}},
		{"bytes=5-9,0-0,-10", []byteRange{{5, 5}, {0, 1}, {990, 10}}},
		{"bytes=0-0,2000-", []byteRange{{0, 1}}},
		{"lines=0-0", whole},
		{"bytes=" + strings.Repeat("0-0,", 9), whole},
		{"bytes=" + strings.Repeat("0-0,", 4900), whole},
		{"bytes=" + strings.Repeat("0-,", 8), whole},
	} {
		c := newCounting(size)
		_, srv := serve(t, &shelf{rec: image.Record{Name: "a.png"}, contents: []wire.Content{c}})
		resp, body, err := get(t, srv, "Range", x.header)
		if err != nil || resp.ContentLength != int64(len(body)) ||
			resp.Header.Get("Accept-Ranges") != "bytes" {
			t.Fatalf("%.40s: %v, %+v", x.header, err, resp)
		}
		if !slices.Equal(c.asked, x.want) {
			t.Errorf("%.40s: asked for %v, want %v", x.header, c.asked, x.want)
		}
		got := map[string][]byte{resp.Header.Get("Content-Range"): body}
		if len(x.want) > 1 {
			got = parts(t, resp, body)
		}
		if (resp.StatusCode == http.StatusOK) != slices.Equal(x.want, whole) || len(got) != len(x.want) {
			t.Errorf("%.40s: %s, %d parts", x.header, resp.Status, len(got))
		}
		for _, b := range x.want {
			key := b.contentRange(size)
			if resp.StatusCode == http.StatusOK {
				key = ""
			}
			if !bytes.Equal(got[key], all[b.off:b.off+b.n]) {
				t.Errorf("%.40s: %d other bytes at %d", x.header, len(got[key]), b.off)
			}
		}
	}
}

// parts reads a multipart/byteranges answer.
func parts(t *testing.T, resp *http.Response, body []byte) map[string][]byte {
	t.Helper()
	media, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if err != nil || media != "multipart/byteranges" || resp.Header.Get("Content-Range") != "" {
		t.Fatalf("%v, %v", err, resp.Header)
	}
	got := map[string][]byte{}
	for r := multipart.NewReader(bytes.NewReader(body), params["boundary"]); ; {
		p, err := r.NextPart()
		if err == io.EOF {
			return got
		}
		if err != nil || p.Header.Get("Content-Type") != "image/png" {
			t.Fatal(err, p)
		}
		if got[p.Header.Get("Content-Range")], err = io.ReadAll(p); err != nil {
			t.Fatal(err)
		}
	}
}

// TestHeadersOfImages: the headers by which a browser treats each kind of image.
func TestHeadersOfImages(t *testing.T) {
	for _, x := range []struct{ name, given, media, disposition string }{
		{"a.png", "", "image/png", ""},
		{"a.JPG", "", "image/jpeg", ""},
		{"folder/a.heic", "", "image/heic", ""},
		{"a.svg", "", "image/svg+xml", `attachment; filename="a.svg"`},
		{"a.html", "", "application/octet-stream", `attachment; filename="a.html"`},
		{"a", "", "application/octet-stream", `attachment; filename="a"`},
		{"a.png", "text/html", "text/html", `attachment; filename="a.png"`},
		{"a.html", "image/png", "image/png", ""},
		{
			"a.png", "image/svg+xml; charset=utf-8", "image/svg+xml; charset=utf-8",
			`attachment; filename="a.png"`,
		},
		{"a", "Image/JPEG;q=1", "Image/JPEG;q=1", ""},
		{
			`x/ä "b".txt`, "", "application/octet-stream",
			`attachment; filename="_ _b_.txt"; filename*=UTF-8''%C3%A4%20%22b%22.txt`,
		},
	} {
		rec := image.Record{Name: x.name, Type: x.given}
		_, srv := serve(t, &shelf{rec: rec, contents: []wire.Content{newFlaky(10, 10, nil)}})
		for _, header := range [][]string{nil, {"Range", "bytes=0-0"}} {
			resp, _, err := get(t, srv, header...)
			if err != nil {
				t.Fatal(err)
			}
			for key, want := range map[string]string{
				"Content-Type": x.media, "Content-Disposition": x.disposition,
				"X-Content-Type-Options":  "nosniff",
				"Content-Security-Policy": "sandbox; default-src 'none'",
				"Cache-Control":           "private, no-cache",
			} {
				if got := resp.Header.Get(key); got != want {
					t.Errorf("%s as %q: %s is %q, want %q", x.name, x.given, key, got, want)
				}
			}
		}
	}
}

func TestParseType(t *testing.T) {
	for value, want := range map[string]string{
		"image/jpeg":                        "image/jpeg",
		" image/heic ":                      "image/heic",
		`image/x; a="b;c"`:                  `image/x; a="b;c"`,
		"Text/HTML;charset=utf-8":           "Text/HTML;charset=utf-8",
		"application/x-www-form-urlencoded": "",
		"application/x-www-form-urlencoded; charset=utf-8": "",
		"application/octet-stream":                         "application/octet-stream",
		"x/" + strings.Repeat("y", image.TypeBytesMax-2):   "x/" + strings.Repeat("y", image.TypeBytesMax-2),
	} {
		if got, err := parseType(http.Header{"Content-Type": {value}}); err != nil || got != want {
			t.Errorf("%q: %q, %v", value, got, err)
		}
	}
	if got, err := parseType(http.Header{}); err != nil || got != "" {
		t.Errorf("none: %q, %v", got, err)
	}
	for _, values := range [][]string{
		{""},
		{"image"},
		{"image/"},
		{"/jpeg"},
		{"image/jpeg/x"},
		{"image jpeg"},
		{"image/jpeg, image/png"},
		{"image/jpeg", "image/png"},
		{"image/jpeg; a"},
		{"image/jpeg; a=\"b"},
		{"image/j\u00e4g"},
		{"image/x; a=\"\xff\""},
		{"image/x; a=\"\x01\""},
		{"x/" + strings.Repeat("y", image.TypeBytesMax-1)},
	} {
		_, err := parseType(http.Header{"Content-Type": values})
		expectInvalid(t, strings.Join(values, " | "), err)
	}
	_, err := parseType(http.Header{"Content-Type": {"multipart/form-data; boundary=x"}})
	if image.KindOf(err) != image.KindMedia {
		t.Errorf("a form: %v", err)
	}
}

func FuzzAttachment(f *testing.F) {
	for _, seed := range []string{"a.png", `a"b\c`, "ä/☃", "a\u202eb", "%41"} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, name string) {
		if image.CheckName(name) != nil {
			return
		}
		v := attachment(name)
		media, params, err := mime.ParseMediaType(v)
		base := name[strings.LastIndex(name, "/")+1:]
		// Of a name that occurs twice, Go's parser may take either.
		if err != nil && !strings.Contains(v, "filename*") ||
			err == nil && (media != "attachment" || params["filename"] != base) {
			t.Fatalf("%q: %q: %q, %v", name, v, params, err)
		}
		if strings.ContainsFunc(v, func(r rune) bool { return r < ' ' || r > '~' }) ||
			strings.Count(v, `"`) != 2 {
			t.Fatalf("%q: %q", name, v)
		}
		if _, ext, ok := strings.Cut(v, "filename*=UTF-8''"); ok {
			if got := unescape(ext); got != base {
				t.Fatalf("%q: %q is %q", name, ext, got)
			}
		}
	})
}

func unescape(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' {
			var c byte
			fmt.Sscanf(s[i+1:i+3], "%02X", &c)
			b.WriteByte(c)
			i += 2
			continue
		}
		b.WriteByte(s[i])
	}
	return b.String()
}
