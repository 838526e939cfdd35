package cluster_test

import (
	"bytes"
	"cmp"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"testing"

	"imgcluster/cluster/clustertest"
)

// statusLine is the first line of an answer.
var statusLine = regexp.MustCompile(`(?m)^HTTP/1\.[01] (\d{3})`)

// testSmuggling sends what parsers have disagreed about, and names and fields that are meant to reach what
// the sender did not ask for. Nothing changes, and the node goes on.
func testSmuggling(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(70, 3000)
	c.Put(t, 1, "victim", "a.png", body, nil)
	host := c.Addr(1)
	const victim = "/v1/images/victim/a.png"
	head := func(line string, fields ...string) string {
		return line + " HTTP/1.1\r\nHost: " + host + "\r\n" + strings.Join(append(fields, "\r\n"), "\r\n")
	}
	inner := head("DELETE " + victim)
	length := fmt.Sprintf("Content-Length: %d", len(inner))
	longer := fmt.Sprintf("Content-Length: %d", len(inner)+5)
	none := "DELETE /v1/images/eve/none.png"
	chunked := "Transfer-Encoding: chunked"
	for _, x := range []struct {
		what, text string
		status     string // of all answers; empty: of no importance
	}{
		// One request for one parser, two for another.
		{"length and chunks", head(none, longer, chunked) + "0\r\n\r\n" + inner, "404"},
		{"length and chunks of what is done", head("GET /livez", longer, chunked) + "0\r\n\r\n" + inner, ""},
		{"chunks and length", head(none, chunked, longer) + "0\r\n\r\n" + inner, "404"},
		{"chunks alone", head(none, chunked) + "0\r\n\r\n" + inner, "404"},
		{"upload with both", head("PUT /v1/images/eve/x.png", chunked, length) + "0\r\n\r\n" + inner, "411"},
		{"two lengths", head(none, "Content-Length: 0", length) + inner, "400"},
		{"list of lengths", head(none, "Content-Length: 0, 5") + inner, "400"},
		{"signed length", head(none, "Content-Length: +0") + inner, "400"},
		{"negative length", head(none, "Content-Length: -1") + inner, "400"},
		{"hexadecimal length", head(none, "Content-Length: 0x0") + inner, "400"},
		{"length beyond 64 bits", head(none, "Content-Length: 18446744073709551616") + inner, "400"},
		{"length in a body", head(none, length) + inner, "404"},
		{"other coding", head(none, "Transfer-Encoding: xchunked") + "0\r\n\r\n" + inner, "501"},
		{"identity", head(none, "Transfer-Encoding: identity", length) + inner, "501"},
		{"two codings", head(none, "Transfer-Encoding: gzip, chunked") + "0\r\n\r\n" + inner, "501"},
		{"chunked twice", head(none, chunked, chunked) + "0\r\n\r\n" + inner, "501"},
		{"space before the colon", head(none, "Transfer-Encoding : chunked") + "0\r\n\r\n" + inner, "400"},
		{"vertical tab", head(none, "Transfer-Encoding: \x0bchunked") + "0\r\n\r\n" + inner, "400"},
		{"folded", head(none, "Transfer-Encoding:\r\n chunked", length) + inner, ""},
		{"folded host", "DELETE " + victim + " HTTP/1.1\r\nHost: " + host + "\r\n X: y\r\n\r\n", "400"},
		{"hexadecimal chunk", head(none, chunked) + "0x0\r\n\r\n" + inner, ""},
		{"negative chunk", head(none, chunked) + "-1\r\n\r\n" + inner, ""},
		{"large chunk", head(none, chunked) + "fffffffffffffffff\r\n\r\n" + inner, ""},
		{"chunk extension", head(none, chunked) + "0;a=\"\r\n\r\n" + inner, ""},
		{"chunk without its end", head(none, chunked) + "1\r\nAA0\r\n\r\n" + inner, ""},
		{"chunks that end by LF", head(none, chunked) + "0\n\n" + inner, ""},
		{
			"trailer of a length",
			head(none, chunked, "Trailer: Content-Length") + "0\r\nContent-Length: 9\r\n\r\n" + inner, "400",
		},
		{"trailer", head(none, chunked, "Trailer: If-Match") + "0\r\nIf-Match: \"x\"\r\n\r\n" + inner, "404"},
		{"NUL in a field", head("DELETE "+victim, "X: a\x00b"), "400"},
		{"CR in a field", head("DELETE "+victim, "X: a\rb"), "400"},
		{"field without a colon", head("DELETE "+victim, "X"), "400"},
		{"space first", "DELETE " + victim + " HTTP/1.1\r\n Host: " + host + "\r\n\r\n", "400"},

		// Whom it is for.
		{"no host", "DELETE " + victim + " HTTP/1.1\r\n\r\n", "400"},
		{"two hosts", head("DELETE "+victim, "Host: "+host), "400"},
		{"other host", "DELETE " + victim + " HTTP/1.1\r\nHost: evil.example\r\n\r\n", "403"},
		{"host with a user", "DELETE " + victim + " HTTP/1.1\r\nHost: a@" + host + "\r\n\r\n", "4.."},
		{"host with a path", "DELETE " + victim + " HTTP/1.1\r\nHost: " + host + "/x\r\n\r\n", "4.."},
		{"absolute form, other host", head("DELETE http://evil.example" + victim), "403"},
		{"absolute form, a path in it", head("DELETE http://" + host + "/v1/images/eve/none.png"), "404"},
		{"authority form", head("CONNECT " + host), "4.."},
		{"asterisk form", head("DELETE *"), "4.."},
		{"no slash", head("DELETE v1/images/victim/a.png"), "400"},
		{"HTTP/0.9", "DELETE " + victim + "\r\n\r\n", "400"},
		{"HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "4.."},
		{"HTTP/9", "DELETE " + victim + " HTTP/9.9\r\nHost: " + host + "\r\n\r\n", "505"},
		{"a method of its own", head("DELETE\x00 " + victim), "400"},

		// Paths that are meant to leave eve's images.
		{"dots", head("DELETE /v1/images/eve/../victim/a.png"), "400"},
		{"escaped dots", head("DELETE /v1/images/eve/%2e%2e/victim/a.png"), "400"},
		{"escaped slashes", head("DELETE /v1/images/eve/..%2fvictim%2fa.png"), "400"},
		{"escaped twice", head("DELETE /v1/images/eve/%252e%252e/victim/a.png"), "404"},
		{"overlong dots", head("DELETE /v1/images/eve/%c0%ae%c0%ae/victim/a.png"), "400"},
		{"backslashes", head(`DELETE /v1/images/eve\..\victim\a.png`), "4.."},
		{"NUL", head("DELETE /v1/images/victim/a.png%00"), "400"},
		{"two slashes first", head("DELETE //v1/images/victim/a.png"), "404"},
		{"two slashes", head("DELETE /v1/images//victim/a.png"), "400"},
		{"dots before", head("DELETE /x/../v1/images/victim/a.png"), "404"},
		{"a slash in the user", head("DELETE /v1/images/victim%2fa.png"), "4.."},
		{"a fragment", head("DELETE /v1/images/victim/a.png#x"), ""},
		{"parameters", head("DELETE /v1/images/victim;x/a.png"), "404"},
		{"half an escape", head("DELETE /v1/images/victim/a.png%"), "400"},
		{"a long path", head("DELETE /v1/images/victim/" + strings.Repeat("a", 1<<20)), "4.."},
		{"many fields", head("DELETE "+victim, strings.Repeat("X: y\r\n", 100_000)), "431"},

		// Fields of proxies, and of nodes.
		{"another method", head("GET /v1/images/eve/none.png", "X-HTTP-Method-Override: DELETE"), "404"},
		{"another path", head(none, "X-Original-URL: "+victim, "X-Rewrite-URL: "+victim), "404"},
		{"another host", head(none, "X-Forwarded-Host: evil.example", "Forwarded: for=127.0.0.1"), "404"},
		{"another address", head(none, "X-Forwarded-For: 127.0.0.1", "X-Real-IP: 127.0.0.1"), "404"},
		{"of a node", head("POST /internal/v1/join", "Imgcluster-Forwarded: 2", "Content-Length: 2") + "{}", "404"},
		{
			"condition that is for one hop", head("DELETE "+victim, `If-Match: "none"`, "Connection: If-Match"), "400",
		},
		{
			"digest that is for one hop",
			head("PUT /v1/images/eve/x.png", "Connection: close, Content-Digest", "Content-Length: 1") + "x", "400",
		},
		{"upgrade", head(none, "Connection: Upgrade", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"), "404"},
		{"websocket", head(none, "Connection: Upgrade", "Upgrade: websocket"), "404"},
		{"expectation", head("DELETE "+victim, "Expect: the-unexpected", "Content-Length: 1") + "x", "417"},
		{"continue", head(none, "Expect: 100-continue", "Content-Length: 5") + inner, "404"},
	} {
		t.Run(x.what, func(t *testing.T) {
			conn := c.Dial(t, 1)
			go conn.Send(x.text, head("GET /livez", "Connection: close")) // where the connection stays usable
			answers, err := io.ReadAll(conn)
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Error("the connection stays open")
			}
			answers = bytes.TrimSuffix(answers, []byte("ok\n"))
			if i := bytes.LastIndex(answers, []byte("HTTP/1.1 200 OK")); i >= 0 {
				answers = answers[:i]
			}
			lines := statusLine.FindAllSubmatch(answers, -1)
			for _, line := range lines {
				if want := cmp.Or(x.status, "[1-4].."); !regexp.MustCompile("^" + want + "$").Match(line[1]) {
					t.Errorf("answered with %s, want %s: %.300s", line[1], x.status, answers)
				}
			}
			if len(lines) == 0 && x.status != "" && err == nil {
				t.Errorf("no answer, want %s", x.status)
			}
			r := c.Do(http.MethodGet, 1, victim, nil, nil)
			if r.Status != http.StatusOK || !bytes.Equal(r.Body, body) {
				t.Fatalf("the victim's image: %d %.200s", r.Status, r.Body)
			}
		})
	}
	if l := c.List(t, 1, "eve"); len(l) != 0 {
		t.Errorf("eve has %v", l)
	}
	c.Do(http.MethodDelete, 1, victim, nil, nil)
	c.ExpectSettled(t)
}
