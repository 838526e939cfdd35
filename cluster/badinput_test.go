package cluster_test

import (
	"bytes"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/wire"
)

// testBadRequests sends headers and paths that must be refused before anything is stored.
func testBadRequests(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(40, 3000)
	good := clustertest.Path("bad", "a.png")
	h := func(kv ...string) http.Header { return http.Header{kv[0]: kv[1:]} }
	for _, x := range []struct {
		what, method, path string
		header             http.Header
		kind               image.Kind
	}{
		{"malformed upload ID", "PUT", good, h("Idempotency-Key", "1"), image.KindInvalid},
		{
			"zero upload ID", "PUT", good,
			h("Idempotency-Key", "00000000-0000-0000-0000-000000000000"), image.KindInvalid,
		},
		{"long upload ID", "PUT", good, h("Idempotency-Key", strings.Repeat("1", 4000)), image.KindInvalid},
		{"words in the broadcast", "PUT", good, h("Imgcluster-Broadcast", "one,two"), image.KindInvalid},
		{"broadcast without this node", "PUT", good, h("Imgcluster-Broadcast", "2,3"), image.KindInvalid},
		{"a node twice in the broadcast", "PUT", good, h("Imgcluster-Broadcast", "1,2,2"), image.KindInvalid},
		{"node 0 in the broadcast", "PUT", good, h("Imgcluster-Broadcast", "1,0"), image.KindInvalid},
		{"empty place in the broadcast", "PUT", good, h("Imgcluster-Broadcast", "1,,2"), image.KindInvalid},
		{"node ID too large", "PUT", good, h("Imgcluster-Broadcast", "1,4294967296"), image.KindInvalid},
		{"too few nodes in the broadcast", "PUT", good, h("Imgcluster-Broadcast", "1"), image.KindMisplaced},
		{"unknown nodes in the broadcast", "PUT", good, h("Imgcluster-Broadcast", "1,8,9"), image.KindMisplaced},
		{"digest without base64", "PUT", good, h("Content-Digest", "sha-256=:%%%:"), image.KindInvalid},
		{"digest of the wrong length", "PUT", good, h("Content-Digest", "sha-256=:AAAA:"), image.KindInvalid},
		{
			"digest without colons", "PUT", good,
			h("Content-Digest", strings.ReplaceAll(contentDigest(body), ":", "")), image.KindInvalid,
		},
		{"no digest in the header", "PUT", good, h("Content-Digest", "nonsense"), image.KindInvalid},
		{"wrong digest", "PUT", good, h("Content-Digest", contentDigest([]byte("other"))), image.KindDigest},
		{
			"a second, wrong digest", "PUT", good,
			h("Content-Digest", "sha-512=:AAAA:", contentDigest([]byte("other"))), image.KindDigest,
		},
		{"digest that is not understood", "PUT", good, h("Content-Digest", "sha-512=:AAAA:"), image.KindInvalid},
		{
			"wrong digest of the representation", "PUT", good,
			h("Repr-Digest", contentDigest([]byte("other"))), image.KindDigest,
		},
		{"MD5", "PUT", good, h("Content-Md5", "1B2M2Y8AsgTpgAmY7PhCfg=="), image.KindInvalid},
		{
			"digest of RFC 3230", "PUT", good,
			h("Digest", "SHA-256=47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU="), image.KindInvalid,
		},
		{"digest with DELETE", "DELETE", good, h("Content-Digest", contentDigest(nil)), image.KindInvalid},
		{"If-Match without an image", "PUT", good, h("If-Match", `"tag"`), image.KindChanged},
		{"any image, and there is none", "PUT", good, h("If-Match", "*"), image.KindChanged},
		{"If-Match without quotes", "DELETE", good, h("If-Match", "tag"), image.KindInvalid},
		{"If-None-Match without quotes", "PUT", good, h("If-None-Match", "tag"), image.KindInvalid},
		{"too many tags", "DELETE", good, h("If-Match", strings.Repeat(`"tag",`, 65)), image.KindInvalid},
		{
			"If-Unmodified-Since with PUT", "PUT", good,
			h("If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"), image.KindChanged,
		},
		{
			"If-Modified-Since with PUT", "PUT", good,
			h("If-Modified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"), image.KindInvalid,
		},
		{"If-Range with PUT", "PUT", good, h("If-Range", `"tag"`), image.KindInvalid},
		{"a condition of WebDAV", "PUT", good, h("If", "(<urn:uuid:1>)"), image.KindInvalid},
		{"Content-Type that is none", "PUT", good, h("Content-Type", "image"), image.KindInvalid},
		{"long Content-Type", "PUT", good, h("Content-Type", "image/"+strings.Repeat("x", 255)), image.KindInvalid},
		{"a form", "PUT", good, h("Content-Type", "multipart/form-data; boundary=x"), image.KindMedia},
		{"compressed", "PUT", good, h("Content-Encoding", "gzip"), image.KindMedia},
		{"of a page of another site", "PUT", good, h("Origin", "http://evil.example"), image.KindForbidden},
		{
			"of a page of another site, by the browser", "PUT", good,
			h("Sec-Fetch-Site", "cross-site"), image.KindForbidden,
		},
		{
			"drain by a page of another site", "POST", "/v1/members",
			h("Origin", "http://evil.example", "Content-Type", "text/plain"), image.KindForbidden,
		},
		{"drain by a form", "POST", "/v1/members", h("Content-Type", "text/plain"), image.KindMedia},
		{"a part of an image", "PUT", good, h("Content-Range", "bytes 0-2999/6000"), image.KindInvalid},
		{"no length", "PUT", good, h("Content-Length", "-1"), image.KindLengthRequired},
		{"control character", "PUT", "/v1/images/bad/a%0Ab.png", nil, image.KindInvalid},
		{"NUL", "PUT", "/v1/images/bad/a%00b.png", nil, image.KindInvalid},
		{"C1 control character", "PUT", "/v1/images/bad/a%C2%85b.png", nil, image.KindInvalid},
		{"no UTF-8", "PUT", "/v1/images/bad/%FF.png", nil, image.KindInvalid},
		{"escaped ..", "PUT", "/v1/images/bad/%2e%2e/a.png", nil, image.KindInvalid},
		{"escaped .. in a part", "PUT", "/v1/images/bad/x%2F..%2Fa.png", nil, image.KindInvalid},
		{"empty part", "PUT", "/v1/images/bad/x//a.png", nil, image.KindInvalid},
		{"slash at the end", "PUT", "/v1/images/bad/x/", nil, image.KindInvalid},
		{"no image name", "PUT", "/v1/images/bad/", nil, image.KindInvalid},
		{"no user name", "PUT", "/v1/images//a.png", nil, image.KindInvalid},
		{"slash in the user's name", "PUT", "/v1/images/b%2Fad/a.png", nil, image.KindInvalid},
		{"user ..", "PUT", "/v1/images/%2E%2E/a.png", nil, image.KindInvalid},
		{"long user name", "PUT", "/v1/images/" + strings.Repeat("u", 129) + "/a.png", nil, image.KindInvalid},
		{"long image name", "PUT", "/v1/images/bad/" + strings.Repeat("n", 1025), nil, image.KindInvalid},
		{"unknown method for an image", "PATCH", good, nil, image.KindMethod},
		{"announced without a length", "POST", good, nil, image.KindInvalid},
		{"announced with no length", "POST", good + "?bytes=none", nil, image.KindInvalid},
		{"announced as empty", "POST", good + "?bytes=0", nil, image.KindInvalid},
		{"announced as negative", "POST", good + "?bytes=-1", nil, image.KindInvalid},
		{"announced as too large", "POST", good + "?bytes=9223372036854775807", nil, image.KindTooLarge},
		{"announced with bytes", "POST", good + "?bytes=3000", nil, image.KindInvalid},
		{"announced without no nodes", "POST", good + "?bytes=3000&without=x", nil, image.KindInvalid},
		{"announced without all nodes", "POST", good + "?bytes=3000&without=1,2,3", nil, image.KindNoQuorum},
		{
			"announced to replace what there is not", "POST", good + "?bytes=3000",
			h("If-Match", "*"), image.KindChanged,
		},
		{
			"announced under a malformed ID", "POST", good + "?bytes=3000",
			h("Idempotency-Key", "1"), image.KindInvalid,
		},
		{
			"announced with a digest", "POST", good + "?bytes=3000",
			h("Content-Digest", contentDigest(body)), image.KindInvalid,
		},
		{"PUT of a list", "PUT", "/v1/images/bad", nil, image.KindMethod},
		{"POST of the state", "POST", "/v1/cluster", nil, image.KindMethod},
		{"DELETE of a probe", "DELETE", "/livez", nil, image.KindMethod},
		{"unknown path", "GET", "/v2/images", nil, image.KindNotFound},
		{"no path", "GET", "/", nil, image.KindNotFound},
		{"no image of that name", "GET", clustertest.Path("bad", "none.png"), nil, image.KindNotFound},
		{"no copy of that ID", "GET", "/internal/v1/copies/x", nil, image.KindInvalid},
		{
			"no attempt", "GET", "/internal/v1/copies/0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2-2",
			nil, image.KindInvalid,
		},
		{
			"no such copy", "GET",
			"/internal/v1/copies/0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2-2-a0000000000000000000000000000001",
			nil, image.KindNotFound,
		},
	} {
		t.Run(x.what, func(t *testing.T) {
			var r clustertest.Response
			switch {
			case strings.HasPrefix(x.path, wire.InternalPath):
				r = c.DoAs(t, 2, x.method, 1, x.path, nil, x.header)
			case x.method == http.MethodPut, x.what == "announced with bytes":
				r = c.Do(x.method, 1, x.path, bytes.NewReader(body), x.header)
			default:
				r = c.Do(x.method, 1, x.path, nil, x.header)
			}
			clustertest.ExpectProblem(t, r, x.kind)
			if allow := r.Header.Get("Allow"); (x.kind == image.KindMethod) != (allow != "") {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
	expectNothingLeft(t, c)
}

// expectNothingLeft expects that no refused upload of the user "bad" left anything anywhere.
func expectNothingLeft(t *testing.T, c *clustertest.Cluster) {
	t.Helper()
	for _, id := range c.IDs() {
		if l := c.List(t, id, "bad"); len(l) != 0 {
			t.Errorf("node %d lists %+v", id, l)
		}
	}
	c.ExpectSettled(t)
}

// head returns the header of an upload as it is on the wire, with more lines.
func head(path string, length int, more ...string) string {
	return fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n%s\r\n",
		path, length, strings.Join(more, ""))
}

func testBadBodies(t *testing.T, c *clustertest.Cluster) {
	path := clustertest.Path("bad", "body.png")
	body := clustertest.Image(41, 300_000)
	limit := int(c.Config.Limits.ImageBytes)
	for _, id := range c.IDs() { // the owner, the replica and a node that only relays
		t.Run(fmt.Sprintf("node %d", id), func(t *testing.T) {
			t.Run("empty", func(t *testing.T) {
				clustertest.ExpectProblem(t, c.Do(http.MethodPut, id, path, nil, nil), image.KindInvalid)
			})
			t.Run("wrong digest", func(t *testing.T) {
				wrong := http.Header{"Content-Digest": {contentDigest(body[1:])}}
				r := c.Do(http.MethodPut, id, path, bytes.NewReader(body), wrong)
				clustertest.ExpectProblem(t, r, image.KindDigest)
			})
			t.Run("cut", func(t *testing.T) {
				conn := c.Dial(t, id)
				conn.Send(head(path, len(body)), body[:len(body)/2])
				conn.Close()
			})
			t.Run("shorter than declared", func(t *testing.T) {
				conn := c.Dial(t, id)
				conn.Send(head(path, len(body)), body[:len(body)-1])
				conn.Conn.(interface{ CloseWrite() error }).CloseWrite()
				clustertest.ExpectProblem(t, conn.Answer(), image.KindIncomplete)
			})
			// The bytes beyond Content-Length are the next request by the rules of HTTP/1.1. The
			// digest shows that they were meant to be the image's.
			t.Run("longer than declared", func(t *testing.T) {
				conn := c.Dial(t, id)
				conn.Send(head(path, len(body)-9, "Content-Digest: "+contentDigest(body)+"\r\n"), body)
				clustertest.ExpectProblem(t, conn.Answer(), image.KindDigest)
				if r := conn.Answer(); r.Status != http.StatusBadRequest && r.Err == nil {
					t.Errorf("the rest was taken as a request: %d", r.Status)
				}
			})
			t.Run("too large", func(t *testing.T) {
				r := c.Do(http.MethodPut, id, path, bytes.NewReader(clustertest.Image(42, limit+1)), nil)
				clustertest.ExpectProblem(t, r, image.KindTooLarge)
			})
			t.Run("too large, asked first", func(t *testing.T) {
				conn := c.Dial(t, id)
				conn.Send(head(path, 1<<40, "Expect: 100-continue\r\n"))
				clustertest.ExpectProblem(t, conn.Answer(), image.KindTooLarge)
			})
		})
	}
	t.Run("raw ..", func(t *testing.T) { // a client's library would clean the path
		for _, path := range []string{
			"/v1/images/bad/../x.png", "/v1/images/bad/a/../../x",
			"/v1/images/../../etc/passwd", "/v1/images/bad/./x",
		} {
			conn := c.Dial(t, 1)
			conn.Send(head(path, 4), "body")
			clustertest.ExpectProblem(t, conn.Answer(), image.KindInvalid)
		}
	})
	t.Run("two lengths", func(t *testing.T) {
		conn := c.Dial(t, 1)
		conn.Send(head(path, 4, "Content-Length: 5\r\n"), "body")
		if r := conn.Answer(); r.Status != http.StatusBadRequest {
			t.Errorf("status %d, %v", r.Status, r.Err)
		}
	})
	expectNothingLeft(t, c)
	// After a cut the same upload ID may be sent again at once.
	id := image.NewID()
	key := http.Header{"Idempotency-Key": {id.String()}}
	path = clustertest.Path("again", "cut.png")
	conn := c.Dial(t, 1)
	conn.Send(head(path, len(body), "Idempotency-Key: "+id.String()+"\r\n"), body[:len(body)/2])
	clustertest.Poll(t, "the upload is on its way", func() bool { return c.Status(1).Nodes[0].Uploads > 0 })
	conn.Close()
	clustertest.Poll(t, "the second attempt", func() bool {
		r := c.Do(http.MethodPut, 1, path, bytes.NewReader(body), key)
		if k := r.Problem.Code; k != "" && !k.Temporary() && k != image.KindIncomplete {
			t.Fatalf("an upload that was cut is refused for good: %s", r.Body)
		}
		return r.Status == http.StatusCreated
	})
	c.ExpectImage(t, "again", "cut.png", body, c.IDs()...)
	c.ExpectSettled(t)
}

// testUploadIDs uses upload IDs twice.
func testUploadIDs(t *testing.T, c *clustertest.Cluster) {
	a := clustertest.Image(50, 5000)
	b := clustertest.Image(51, 5000)
	shorter := a[:4000]
	key := http.Header{"Idempotency-Key": {image.NewID().String()}}
	first := c.Put(t, 1, "alice", "once.png", a, key)
	shardOf := func(user, name string) int { return placement.Shard(user, name, c.Config.Cluster.DataShards) }
	used := map[int]bool{shardOf("alice", "once.png"): true}
	var others [][2]string
	for _, id := range c.IDs() {
		put := func(user, name string, body []byte) clustertest.Response {
			return c.Do(http.MethodPut, id, clustertest.Path(user, name), bytes.NewReader(body), key)
		}
		var r clustertest.Response
		clustertest.Poll(t, "the first upload's answer", func() bool { // this node may be busy with one before
			r = put("alice", "once.png", a)
			return r.Problem.Code != image.KindConflict
		})
		again := clustertest.Receipt(t, r)
		if again.Version != first.Version || again.Owner != first.Owner {
			t.Errorf("node %d: receipt %+v of the second attempt, %+v of the first", id, again, first)
		}
		clustertest.ExpectProblem(t, put("alice", "once.png", b), image.KindConflict)
		clustertest.ExpectProblem(t, put("alice", "once.png", shorter), image.KindConflict)
		for i := range 8 { // names of other shards, too, which do not have the upload ID
			for _, user := range []string{"alice", "mallory"} {
				name := fmt.Sprintf("twice-%d-%d.png", id, i)
				if shard := shardOf(user, name); used[shard] {
					clustertest.ExpectProblem(t, put(user, name, b), image.KindConflict)
				} else {
					used[shard] = true
					// A node may still be busy with the upload before.
					clustertest.Poll(t, "the ID in another shard",
						func() bool { return put(user, name, b).Status/100 == 2 })
					others = append(others, [2]string{user, name})
				}
			}
		}
	}
	if len(used) != c.Config.Cluster.DataShards {
		t.Errorf("the ID was used in %d shards", len(used))
	}
	c.ExpectImage(t, "alice", "once.png", a, c.IDs()...)
	for i, x := range others {
		c.ExpectImage(t, x[0], x[1], b, c.IDs()...)
		if i%2 == 0 {
			c.Do(http.MethodDelete, 1, clustertest.Path(x[0], x[1]), nil, nil)
		}
	}
	for i, x := range others { // the files of the deleted ones are gone, the others' are not
		if i%2 == 1 {
			c.ExpectImage(t, x[0], x[1], b, c.IDs()...)
		}
	}
	c.ExpectImage(t, "alice", "once.png", a, c.IDs()...)
	c.ExpectSettled(t)
}

// testSlowClients leaves requests unfinished: the node ends them in bounded time, and keeps nothing of them.
func testSlowClients(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(60, 300_000)
	began := time.Now()
	silent := c.Dial(t, 1)
	header := c.Dial(t, 1)
	half := c.Dial(t, 2)
	broadcast := c.Dial(t, 3)
	header.Send("PUT " + clustertest.Path("bad", "slow.png") + " HTTP/1.1\r\nHost: localhost\r\nX: ")
	half.Send(head(clustertest.Path("bad", "slow.png"), len(body)), body[:100_000])
	toAll := head(clustertest.Path("bad", "slow2.png"), len(body), "Imgcluster-Broadcast: 1,2,3\r\n")
	broadcast.Send(toAll, body[:100_000])
	for _, conn := range []*clustertest.Conn{half, broadcast} {
		clustertest.ExpectProblem(t, conn.Answer(), image.KindTooSlow)
	}
	for what, conn := range map[string]*clustertest.Conn{
		"no header": silent, "half a header": header, "half a body": half,
	} {
		if !conn.Ended() {
			t.Errorf("%s: the connection does not end", what)
		}
	}
	if took := time.Since(began); took > pauseMax {
		t.Errorf("the requests ended only after %v", took)
	}
	expectNothingLeft(t, c)
}
