package api

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// users is a node that keeps whose images are asked for.
type users struct {
	*touched
	read, written []string
}

func (n *users) Put(_ context.Context, q image.Request, _ io.Reader) (*image.Record, error) {
	n.written = append(n.written, q.User)
	return nil, n.touch()
}

func (n *users) Announce(_ context.Context, q image.Request, _ []image.NodeID) ([]image.NodeID, error) {
	n.written = append(n.written, q.User)
	return nil, n.touch()
}

func (n *users) Record(_ context.Context, user, _ string) (*image.Record, error) {
	n.read = append(n.read, user)
	return nil, n.touch()
}

func (n *users) List(_ context.Context, user, _, _ string, _ int) (wire.List, error) {
	n.read = append(n.read, user)
	return wire.List{}, n.touch()
}

func (n *users) Delete(_ context.Context, _ image.ID, user, _ string, _ image.Conditions) error {
	n.written = append(n.written, user)
	return n.touch()
}

func (n *users) Await(context.Context, string, string) error { return nil }

// FuzzRequest sends any request, as every kind of client: none has the node do what its role does not allow,
// none is answered with less than an answer, and a refusal is a document with a hint.
func FuzzRequest(f *testing.F) {
	names := slices.Sorted(maps.Keys(senders))
	for i, one := range routes {
		f.Add(byte(i), []byte(one.method+" "+sample.Replace(one.path)+" HTTP/1.1\r\nHost: a\r\n\r\n"))
	}
	for i, text := range []string{
		"GET /v1/images/alice?prefix=a&after=b&limit=3 HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/images/alice/../bob/a.png HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/images/alice%2fa.png HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET //v1/keys HTTP/1.1\r\nHost: a\r\n\r\n",
		"GET /v1/images/alice/%2e%2e/bob?form=encrypted HTTP/1.1\r\nHost: a\r\nRange: bytes=1-2,5-\r\n\r\n",
		"GET http://other/v1/cluster HTTP/1.1\r\nHost: a\r\n\r\n",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
		"TRACE /v1/keys HTTP/1.0\r\nX-Forwarded-For: 127.0.0.1\r\n\r\n",
		"CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n",
		"PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nImgcluster-Relayed: 1\r\n" +
			"Imgcluster-Broadcast: 1,2,3\r\nIdempotency-Key: " + keyID + "\r\nIf-None-Match: *\r\n\r\nabc",
		"PUT /v1/images/alice/a.png HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
		"POST /v1/keys HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 31\r\n\r\n" +
			`{"user":"alice","role":"write"}`,
		"POST /v1/users HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 16\r\n\r\n" +
			`{"name":"alice"}`,
		"POST /v1/members HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nContent-Length: 21\r\n\r\n" +
			`{"op":"drain","id":2}`,
		"POST /v1/verify?sample=0.5&repair=true HTTP/1.1\r\nHost: a\r\n\r\n",
		"DELETE /v1/images/alice/a.png HTTP/1.1\r\nHost: a\r\nOrigin: http://b\r\n" +
			"Sec-Fetch-Site: cross-site\r\n\r\n",
	} {
		f.Add(byte(i), []byte(text))
	}
	var who access.Principal
	h, node := guarded(&who)
	h.cancel() // streams end
	n := &users{touched: node}
	h.Images, h.Node, h.Peers, h.Accounts = n, n, n, n
	f.Fuzz(func(t *testing.T, sender byte, text []byte) {
		r, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(text)))
		if err != nil {
			return
		}
		r.RemoteAddr = "127.0.0.1:1"
		name := names[int(sender)%len(names)]
		if who = senders[name]; who.Node != 0 {
			return // is not a client
		}
		node.calls.Store(0)
		n.read, n.written = nil, nil
		w := httptest.NewRecorder()
		serveOrAbort(h, w, r)

		others := func(user string) bool { return user != who.User }
		if !who.Admin() && (slices.ContainsFunc(n.read, others) || slices.ContainsFunc(n.written, others) ||
			len(n.written) > 0 && who.Role != image.RoleWrite || len(n.read) > 0 && !who.Role.OfUser()) {
			t.Fatalf("%s reads images of %q and changes those of %q", name, n.read, n.written)
		}
		if (who == access.Principal{}) && node.calls.Load() > 0 {
			t.Fatalf("a stranger has the node do something: %q", text)
		}
		open := slices.Contains([]string{wire.LivePath, wire.ReadyPath, wire.SessionPath, "/"}, r.URL.Path) ||
			strings.HasPrefix(r.URL.Path+"/", wire.UIPath)
		switch refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden; {
		case w.Code < 200 || w.Code > 599:
			t.Fatalf("status %d", w.Code)
		case (who == access.Principal{}) && !refused && !open:
			t.Fatalf("a stranger is answered with %d: %q", w.Code, text)
		case w.Code == http.StatusInternalServerError && node.calls.Load() == 0:
			t.Fatalf("the handler failed by itself: %s", w.Body)
		case w.Code >= 400:
			var p image.Problem
			if json.Unmarshal(w.Body.Bytes(), &p) != nil || p.Status != w.Code || p.Code == "" ||
				cmp.Or(p.Hint, "-") == "-" && w.Code < 500 {
				t.Fatalf("%d with %s", w.Code, w.Body)
			}
		}
		if strings.ContainsAny(w.Header().Get("Location"), "/") {
			t.Fatalf("%q is sent elsewhere: %s", text, w.Header().Get("Location"))
		}
	})
}
