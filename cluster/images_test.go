package cluster_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"imgcluster/cluster"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// segment is the largest segment a file may have, for images of several segments.
const segment = crypto.SegmentSizeDefault

// firstSegment is the plaintext in the first segment of the files that a node writes: beside it
// there are the stream's header and the tag.
const firstSegment = cluster.SegmentBytes - crypto.StreamHeaderBytes - 16

// TestServing is what a cluster does while nothing fails, and what it refuses.
func TestServing(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) {
		cfg.Timeouts.Header = time.Second
		cfg.Timeouts.BodyIdle = 2 * time.Second
		cfg.Local.HostNames = "images.example, Alias.example"
	}})
	checkTraffic(t, c)
	t.Run("PutAndGet", func(t *testing.T) { testPutAndGet(t, c) })
	t.Run("Names", func(t *testing.T) { testNames(t, c) })
	t.Run("Range", func(t *testing.T) { testRange(t, c) })
	t.Run("Conditions", func(t *testing.T) { testConditions(t, c) })
	t.Run("OneOfManyReplaces", func(t *testing.T) { testOneOfManyReplaces(t, c) })
	t.Run("MediaTypes", func(t *testing.T) { testMediaTypes(t, c) })
	t.Run("Hosts", func(t *testing.T) { testHosts(t, c) })
	t.Run("FetchedForRanges", func(t *testing.T) { testFetchedForRanges(t, c) })
	t.Run("Encrypted", func(t *testing.T) { testEncrypted(t, c) })
	t.Run("List", func(t *testing.T) { testList(t, c) })
	t.Run("ReplaceAndDelete", func(t *testing.T) { testReplaceAndDelete(t, c) })
	t.Run("ReplacedUnderReaders", func(t *testing.T) { testReplacedUnderReaders(t, c) })
	t.Run("DisconnectingReaders", func(t *testing.T) { testDisconnectingReaders(t, c) })
	t.Run("BadRequests", func(t *testing.T) { testBadRequests(t, c) })
	t.Run("BadBodies", func(t *testing.T) { testBadBodies(t, c) })
	t.Run("UploadIDs", func(t *testing.T) { testUploadIDs(t, c) })
	t.Run("Smuggling", func(t *testing.T) { testSmuggling(t, c) })
	t.Run("SlowClients", func(t *testing.T) { testSlowClients(t, c) })
	t.Run("Invariants", func(t *testing.T) {
		c.ExpectSettled(t)
		c.ExpectEqualCatalogs(t)
		c.ExpectNoPlaintext(t)
		c.ExpectUniqueKeys(t)
	})
}

func testPutAndGet(t *testing.T, c *clustertest.Cluster) {
	for i, size := range []int{
		1, 4096, firstSegment - 1, firstSegment, firstSegment + 1, segment - 1, segment, segment + 1, 3*segment + 7,
	} {
		body := clustertest.Image(uint64(i), size)
		name := fmt.Sprintf("broadcast-%d.png", size)
		up := uploadOf(name, body)
		up.Digest = new(digest(body))
		res, err := c.Client(t, client.Broadcast).Put(t.Context(), up)
		if err != nil {
			t.Fatal(err)
		}
		<-res.Done
		expectReceipt(t, res.Receipt, name, body)
		c.ExpectImage(t, "alice", name, body, c.IDs()...)

		at := c.IDs()[i%3]
		name = fmt.Sprintf("relay-%d.png", size)
		expectReceipt(t, c.Put(t, at, "alice", name, body, nil), name, body)
		c.ExpectImage(t, "alice", name, body, c.IDs()...)
	}
	c.ExpectSettled(t)
}

func expectReceipt(t *testing.T, r image.Receipt, name string, body []byte) {
	t.Helper()
	sum := digest(body).String()
	if r.User != "alice" || r.Name != name || r.Bytes != int64(len(body)) || r.SHA256 != "" && r.SHA256 != sum {
		t.Errorf("receipt %+v", r)
	}
	if len(r.Replicas) != 2 || !slices.Contains(r.Replicas, r.Owner) || r.Shard < 2 {
		t.Errorf("receipt %+v", r)
	}
}

func testNames(t *testing.T, c *clustertest.Cluster) {
	for i, name := range []string{
		"a b.png", "100%.png", "a#b?c&d=e+f;g.png", "%41.png", "Zürich/☃/日本.jpg", "a/b/c/d",
		"...", ".hidden", "a..b", "~tilde'\"<>|\\^`{}", "\u00e9", "e\u0301", strings.Repeat("n", 1024),
	} {
		user := "nämes & co"
		body := clustertest.Image(uint64(100+i), 100+i)
		c.Put(t, c.IDs()[i%3], user, name, body, nil)
		c.ExpectImage(t, user, name, body, c.IDs()[(i+1)%3])
		up := uploadOf(name, body)
		up.User = user
		res, err := c.Client(t, client.Broadcast).Put(t.Context(), up)
		if err != nil || res.Receipt.Name != name {
			t.Errorf("%q: %v, %+v", name, err, res.Receipt)
		}
	}
	if got := c.List(t, 1, "nämes & co"); len(got) != 13 {
		t.Errorf("%d of 13 names are listed", len(got))
	}
}

func testRange(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(7, 3*segment+100)
	rec := c.Put(t, 1, "alice", "range.png", body, nil)
	path := clustertest.Path("alice", "range.png")
	n := len(body)
	for _, id := range c.IDs() { // nodes with a copy, and one without
		for _, x := range []struct {
			header   string
			from, to int // [from, to)
		}{
			{"bytes=0-0", 0, 1},
			{fmt.Sprintf("bytes=%d-%d", firstSegment-1, firstSegment-1), firstSegment - 1, firstSegment},
			{fmt.Sprintf("bytes=%d-%d", firstSegment, firstSegment), firstSegment, firstSegment + 1},
			{fmt.Sprintf("bytes=%d-%d", firstSegment-1, firstSegment), firstSegment - 1, firstSegment + 1},
			{fmt.Sprintf("bytes=%d-%d", segment-300, segment+300), segment - 300, segment + 301},
			{fmt.Sprintf("bytes=%d-%d", segment-5, 2*segment+5), segment - 5, 2*segment + 6},
			{"bytes=-10", n - 10, n},
			{fmt.Sprintf("bytes=%d-", n-1), n - 1, n},
			{fmt.Sprintf("bytes=5-%d", n+1000), 5, n},
			{fmt.Sprintf("bytes=-%d", n+1000), 0, n},
		} {
			r := c.Do(http.MethodGet, id, path, nil, http.Header{"Range": {x.header}})
			if r.Status != http.StatusPartialContent || !bytes.Equal(r.Body, body[x.from:x.to]) {
				t.Errorf("node %d, %s: status %d, %d bytes, %v", id, x.header, r.Status, len(r.Body), r.Err)
			}
			if want := fmt.Sprintf("bytes %d-%d/%d", x.from, x.to-1, n); r.Header.Get("Content-Range") != want {
				t.Errorf("node %d, %s: Content-Range %q", id, x.header, r.Header.Get("Content-Range"))
			}
		}
		behind := http.Header{"Range": {fmt.Sprintf("bytes=%d-", n)}}
		r := c.Do(http.MethodGet, id, path, nil, behind)
		clustertest.ExpectProblem(t, r, image.KindRange)
		if r.Header.Get("Content-Range") != fmt.Sprintf("bytes */%d", n) || r.Header.Get("ETag") != "" {
			t.Errorf("node %d, behind the end: %v", id, r.Header)
		}
		expectRanges(t, c, id, body)
	}
	if len(rec.Replicas) != 2 {
		t.Errorf("receipt %+v: every node has a copy, nothing was read over the network", rec)
	}
}

func testConditions(t *testing.T, c *clustertest.Cluster) {
	path := clustertest.Path("alice", "conditions.png")
	body := clustertest.Image(8, 5000)
	rec := c.Put(t, 1, "alice", "conditions.png", body, http.Header{"If-None-Match": {"*"}})
	for _, id := range c.IDs() {
		head := c.Do(http.MethodHead, id, path, nil, nil)
		tag := head.Header.Get("ETag")
		if head.Status != http.StatusOK || len(head.Body) != 0 || tag != `"`+rec.SHA256+`"` ||
			head.Header.Get("Content-Length") != "5000" || head.Header.Get("Content-Type") != "image/png" {
			t.Errorf("HEAD: status %d, %v", head.Status, head.Header)
		}
		same := c.Do(http.MethodGet, id, path, nil, http.Header{"If-None-Match": {tag}})
		if same.Status != http.StatusNotModified || len(same.Body) != 0 {
			t.Errorf("If-None-Match with the image's tag: status %d, %d bytes", same.Status, len(same.Body))
		}
		other := c.Do(http.MethodGet, id, path, nil, http.Header{"If-None-Match": {`"other"`}})
		if other.Status != http.StatusOK || !bytes.Equal(other.Body, body) {
			t.Errorf("If-None-Match with another tag: status %d", other.Status)
		}
		second := bytes.NewReader(clustertest.Image(9, 6000))
		taken := c.Do(http.MethodPut, id, path, second, http.Header{"If-None-Match": {"*"}})
		clustertest.ExpectProblem(t, taken, image.KindExists)
	}
	c.ExpectImage(t, "alice", "conditions.png", body, c.IDs()...)
	c.ExpectSettled(t)
	testChangesOnConditions(t, c, path, `"`+rec.SHA256+`"`)
}

// testChangesOnConditions changes an image that has a tag through each node in turn, by relay.
func testChangesOnConditions(t *testing.T, c *clustertest.Cluster, path, tag string) {
	change := func(i int, method string, header ...string) clustertest.Response {
		h := http.Header{}
		for i := 0; i < len(header); i += 2 {
			h.Add(header[i], header[i+1])
		}
		var body []byte
		if method == http.MethodPut {
			body = clustertest.Image(uint64(300+i), 5000+i)
		}
		return c.DoAgain(t, method, c.IDs()[i%3], path, body, h)
	}
	for i := range 6 {
		method := []string{http.MethodPut, http.MethodDelete}[i%2]
		for _, header := range [][]string{
			{"If-Match", `"other"`},
			{"If-Match", "W/" + tag},
			{"If-Match", `"a"`, "If-Match", `"b"`},
			{"If-Unmodified-Since", "Sat, 01 Jan 2000 00:00:00 GMT"},
			{"If-Unmodified-Since", "Tue, 01 Jan 2199 00:00:00 GMT"},
		} {
			clustertest.ExpectProblem(t, change(i, method, header...), image.KindChanged)
		}
		for _, header := range [][]string{
			{"If-None-Match", "*"},
			{"If-None-Match", tag},
			{"If-None-Match", `"a", W/` + tag},
			{"If-Match", tag, "If-None-Match", tag},
		} {
			clustertest.ExpectProblem(t, change(i, method, header...), image.KindExists)
		}
	}
	for i, header := range [][]string{
		{"If-Match", tag},
		{"If-Match", `"other", TAG`},
		{"If-Match", "*"},
		{"If-None-Match", tag},
		{"If-Unmodified-Since", "x", "If-Match", "TAG"},
	} {
		now := c.DoAgain(t, http.MethodHead, 1, path, nil, nil).Header.Get("ETag")
		for j := range header {
			header[j] = strings.ReplaceAll(header[j], "TAG", now)
		}
		clustertest.Receipt(t, change(i, http.MethodPut, header...))
	}
	if r := change(1, http.MethodDelete, "If-None-Match", tag); r.Status != http.StatusNoContent {
		t.Errorf("delete of another than %s: status %d, %s", tag, r.Status, r.Body)
	}
	clustertest.ExpectProblem(t, change(2, http.MethodDelete, "If-Match", "*"), image.KindNotFound)
	clustertest.ExpectProblem(t, change(0, http.MethodPut, "If-Match", "*"), image.KindChanged)
	c.ExpectSettled(t)
}

// testOneOfManyReplaces has many clients replace the same version at once: one may, and no other's bytes
// are ever there.
func testOneOfManyReplaces(t *testing.T, c *clustertest.Cluster) {
	path := clustertest.Path("alice", "raced.png")
	rec := c.Put(t, 1, "alice", "raced.png", clustertest.Image(400, 3000), nil)
	const clients = 9
	answers := make([]clustertest.Response, clients)
	var wg sync.WaitGroup
	for i := range clients {
		wg.Go(func() {
			body := clustertest.Image(uint64(401+i), 3001+i)
			answers[i] = c.DoAgain(t, http.MethodPut, c.IDs()[i%3], path, body, http.Header{
				"If-Match":        {`"` + rec.SHA256 + `"`},
				"Idempotency-Key": {image.NewID().String()},
			})
		})
	}
	wg.Wait()
	winner := -1
	for i, r := range answers {
		if r.Status != http.StatusCreated {
			clustertest.ExpectProblem(t, r, image.KindChanged)
			continue
		}
		if winner >= 0 {
			t.Errorf("clients %d and %d have replaced the same version", winner, i)
		}
		winner = i
	}
	if winner < 0 {
		t.Fatal("nobody has replaced it")
	}
	won := clustertest.Image(uint64(401+winner), 3001+winner)
	c.ExpectImage(t, "alice", "raced.png", won, c.IDs()...)
	c.ExpectSettled(t)
}

// testMediaTypes stores images under types and names, and asks every node for theirs.
func testMediaTypes(t *testing.T, c *clustertest.Cluster) {
	for i, x := range []struct{ name, given, want string }{
		{"types/a.heic", "", "image/heic"},
		{"types/a.NEF", "", "image/x-nikon-nef"},
		{"types/a.html", "", "application/octet-stream"},
		{"types/a.jpg", "image/jxl", "image/jxl"},
		{"types/b.jpg", "application/x-www-form-urlencoded", "image/jpeg"},
		{"types/c.jpg", `text/html; charset="utf-8"`, `text/html; charset="utf-8"`},
	} {
		header := http.Header{}
		if x.given != "" {
			header.Set("Content-Type", x.given)
		}
		c.Put(t, c.IDs()[i%3], "typist", x.name, clustertest.Image(uint64(500+i), 2000), header)
		for _, id := range c.IDs() {
			for _, method := range []string{http.MethodGet, http.MethodHead} {
				r := c.DoAgain(t, method, id, clustertest.Path("typist", x.name), nil, nil)
				if got := r.Header.Get("Content-Type"); r.Status != http.StatusOK || got != x.want {
					t.Errorf("%s of %s through node %d: status %d, %q, want %q", method, x.name, id, r.Status, got, x.want)
				}
			}
			list, err := c.Client(t, client.Relay).List(t.Context(), "typist", wire.ListQuery{Prefix: x.name})
			if err != nil || len(list.Images) != 1 || list.Images[0].Type != x.want {
				t.Errorf("%s is listed as %+v, %v", x.name, list.Images, err)
			}
		}
	}
}

// testHosts stores an image under names of the nodes and under others.
func testHosts(t *testing.T, c *clustertest.Cluster) {
	own, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	for host, want := range map[string]int{
		"localhost": 201, "[::1]:80": 201, own: 201, strings.ToUpper(own) + ".:80": 201,
		"images.example": 201, "alias.example:8001": 201, "ALIAS.example.": 201,
		"evil.example": 403, "images.example.evil.example": 403, "example": 403, ",": 403,
	} {
		url := c.URL(1, clustertest.Path("hosts", "a.png"))
		req, err := http.NewRequest(http.MethodPut, url, bytes.NewReader(clustertest.Image(1, 100)))
		if err != nil {
			t.Fatal(err)
		}
		req.Host = host
		resp, err := c.HTTP.Do(req)
		if err != nil {
			t.Fatal(err)
		}
		if r := clustertest.ReadResponse(resp); r.Status != want {
			t.Errorf("%s: status %d, %s", host, r.Status, r.Body)
		}
	}
}

// testFetchedForRanges counts what the nodes with the copies send for ranges of an image through the one
// without: the segments that the ranges are in, and the file's header.
func testFetchedForRanges(t *testing.T, c *clustertest.Cluster) {
	const segments = 20
	body := clustertest.Image(600, segments*cluster.SegmentBytes)
	rec := c.Put(t, 1, "alice", "segments.png", body, nil)
	reader := c.Others(rec.Replicas...)[0]
	path := clustertest.Path("alice", "segments.png")
	sent := func() (sum int64) {
		for _, id := range rec.Replicas {
			m := c.Do(http.MethodGet, id, "/metrics", nil, nil)
			_, after, _ := strings.Cut(string(m.Body), "\nimgcluster_sent_bytes_total ")
			text, _, _ := strings.Cut(after, "\n")
			n, err := strconv.ParseFloat(text, 64)
			if err != nil {
				t.Fatal(err)
			}
			sum += int64(n)
		}
		return sum
	}
	// Each part of one byte is in one segment. The header is looked for once, that of a file's size never.
	parts := func(n int) int64 { return int64(n)*cluster.SegmentBytes + crypto.PrefixMaxBytes }
	for _, x := range []struct {
		ranges string
		status int
		most   int64
	}{
		{"0-0", 206, parts(1)},
		{fmt.Sprintf("%d-%d", len(body)/2, len(body)/2), 206, parts(1)},
		{strings.Repeat("0-0,", 8), 206, parts(8)},
		{fmt.Sprintf("0-0,%d-%d,-1", len(body)/2, len(body)/2), 206, parts(3)},
		{fmt.Sprintf("%d-%d", cluster.SegmentBytes, 3*cluster.SegmentBytes), 206, parts(3)},
		{strings.Repeat("0-0,", 3900), 200, parts(segments + 1)},
		{strings.Repeat("0-,", 8), 200, parts(segments + 1)},
		{fmt.Sprintf("%d-", 2*len(body)), 416, 0},
	} {
		for _, form := range []string{"", "?form=encrypted"} {
			before := sent()
			r := c.Do(http.MethodGet, reader, path+form, nil, http.Header{"Range": {"bytes=" + x.ranges}})
			if form == "" && r.Status != x.status || r.Err != nil {
				t.Errorf("%.40s%s: status %d, %v, %s", x.ranges, form, r.Status, r.Err, r.Problem.Detail)
			}
			if got := sent() - before; got > x.most {
				t.Errorf("%.40s%s: %d bytes between nodes, at most %d are needed", x.ranges, form, got, x.most)
			}
		}
	}
}

func testEncrypted(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(10, segment+5000)
	rec := c.Put(t, 1, "alice", "encrypted.png", body, nil)
	path := clustertest.Path("alice", "encrypted.png")
	tags := map[string]image.NodeID{}
	for _, id := range c.IDs() {
		r := c.Do(http.MethodGet, id, path+"?form=encrypted", nil, nil)
		if r.Status != http.StatusOK || r.Err != nil {
			t.Fatalf("node %d: status %d, %v", id, r.Status, r.Err)
		}
		h, err := crypto.ParseHeader(r.Body)
		if err != nil || h.Length != int64(len(body)) || h.Tenant != "alice" || h.FileLen() != int64(len(r.Body)) {
			t.Errorf("node %d: header %+v, %v", id, h, err)
		}
		if bytes.Contains(r.Body, []byte(clustertest.Marker)) {
			t.Errorf("node %d: plaintext in the encrypted form", id)
		}
		// A copy has a tag of its own: a download that continues at another node must not mix two.
		if slices.Contains(rec.Replicas, id) {
			tags[r.Header.Get("ETag")] = id
		}
		part := c.Do(http.MethodGet, id, path+"?form=encrypted", nil, http.Header{"Range": {"bytes=100-199"}})
		sameCopy := part.Header.Get("ETag") == r.Header.Get("ETag")
		if part.Status != http.StatusPartialContent || sameCopy && !bytes.Equal(part.Body, r.Body[100:200]) {
			t.Errorf("node %d: a range of the encrypted form: status %d", id, part.Status)
		}
	}
	if len(tags) != 2 {
		t.Errorf("tags %v of two different copies", tags)
	}
	clustertest.ExpectProblem(t, c.Do(http.MethodGet, 1, path+"?form=xml", nil, nil), image.KindInvalid)
}

func testList(t *testing.T, c *clustertest.Cluster) {
	var names []string
	for i := range 12 {
		name := fmt.Sprintf("%s/%02d.png", []string{"a", "b"}[i%2], i)
		names = append(names, name)
		c.Put(t, c.IDs()[i%3], "lister", name, clustertest.Image(uint64(i), 100), nil)
	}
	slices.Sort(names)
	cl := c.Client(t, client.Relay)
	for _, x := range []struct {
		o    wire.ListQuery
		want []string
		next bool
	}{
		{wire.ListQuery{}, names, false},
		{wire.ListQuery{Limit: 12}, names, false},
		{wire.ListQuery{Limit: 5}, names[:5], true},
		{wire.ListQuery{Limit: 5, After: names[4]}, names[5:10], true},
		{wire.ListQuery{Limit: 5, After: names[9]}, names[10:], false},
		{wire.ListQuery{Prefix: "b/"}, names[6:], false},
		{wire.ListQuery{Prefix: "b/", After: "a/04.png"}, names[6:], false},
		{wire.ListQuery{Prefix: "b/", After: names[7], Limit: 2}, names[8:10], true},
		{wire.ListQuery{Prefix: "c"}, nil, false},
		{wire.ListQuery{After: names[11]}, nil, false},
	} {
		l, err := cl.List(t.Context(), "lister", x.o)
		var got []string
		for _, i := range l.Images {
			got = append(got, i.Name)
		}
		if err != nil || !slices.Equal(got, x.want) || (l.Next != "") != x.next {
			t.Errorf("%+v: %v, next %q, %v", x.o, got, l.Next, err)
		}
	}
	r := c.Do(http.MethodGet, 2, "/v1/images/nobody", nil, nil)
	if r.Status != http.StatusOK || string(bytes.TrimSpace(r.Body)) != `{"images":[]}` {
		t.Errorf("a user without images: status %d, %s", r.Status, r.Body)
	}
	for _, limit := range []string{"0", "-1", "x", "1e9", "99999999999999999999"} {
		r := c.Do(http.MethodGet, 2, "/v1/images/lister?limit="+limit, nil, nil)
		clustertest.ExpectProblem(t, r, image.KindInvalid)
	}
}

// testReplacedUnderReaders reads a name through every node while it is replaced: each answer is one
// whole version, never an error, though the files of the old one are removed.
func testReplacedUnderReaders(t *testing.T, c *clustertest.Cluster) {
	const versions = 8
	var bodies [versions][]byte
	for i := range bodies {
		bodies[i] = clustertest.Image(uint64(200+i), 2000+i)
	}
	path := clustertest.Path("alice", "replaced.png")
	c.Put(t, 1, "alice", "replaced.png", bodies[0], nil)
	ctx, stop := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	for _, id := range c.IDs() {
		wg.Go(func() {
			for ctx.Err() == nil {
				r := c.Do(http.MethodGet, id, path, nil, nil)
				i := len(r.Body) - 2000
				if r.Status != http.StatusOK || i < 0 || i >= versions || !bytes.Equal(r.Body, bodies[i]) {
					t.Errorf("node %d: status %d, %v, %d bytes, %s", id, r.Status, r.Err, len(r.Body), r.Problem.Detail)
					return
				}
			}
		})
	}
	for i := 1; i < versions; i++ {
		c.Put(t, c.IDs()[i%3], "alice", "replaced.png", bodies[i], nil)
	}
	stop()
	wg.Wait()
}

// testDisconnectingReaders closes connections in the middle of answers, of one range and of several, while
// the node writes.
func testDisconnectingReaders(t *testing.T, c *clustertest.Cluster) {
	body := clustertest.Image(30, 3*segment)
	c.Put(t, 1, "alice", "leave.png", body, nil)
	for i := range 12 {
		ranges := fmt.Sprintf("bytes=0-%d,10-%d", 2*segment, 3*segment-1)
		if i%3 == 0 {
			ranges = fmt.Sprintf("bytes=1-%d", 3*segment-1)
		}
		conn := c.Dial(t, c.IDs()[i%3])
		path := clustertest.Path("alice", "leave.png")
		conn.Send("GET " + path + " HTTP/1.1\r\nHost: localhost\r\nRange: " + ranges + "\r\n\r\n")
		if _, err := io.ReadFull(conn, make([]byte, 1000+50_000*i)); err != nil {
			t.Error(err)
		}
		conn.Close()
	}
	c.ExpectImage(t, "alice", "leave.png", body, c.IDs()...)
}

func testReplaceAndDelete(t *testing.T, c *clustertest.Cluster) {
	path := clustertest.Path("alice", "replace.png")
	first := http.Header{"Idempotency-Key": {image.NewID().String()}}
	old := c.Put(t, 1, "alice", "replace.png", clustertest.Image(20, 3000), first)
	body := clustertest.Image(21, 4000)
	rec := c.Put(t, 2, "alice", "replace.png", body, nil)
	if rec.Version <= old.Version {
		t.Errorf("version %d after %d", rec.Version, old.Version)
	}
	c.ExpectImage(t, "alice", "replace.png", body, c.IDs()...)
	c.ExpectSettled(t) // the old one's files are removed
	key := http.Header{"Idempotency-Key": {image.NewID().String()}}
	for _, id := range c.IDs() { // the same delete, as often as it is sent
		r := c.DoAgain(t, http.MethodDelete, id, path, nil, key)
		if r.Status != http.StatusNoContent || len(r.Body) != 0 {
			t.Errorf("delete: status %d, %s", r.Status, r.Body)
		}
	}
	for _, id := range c.IDs() {
		for _, method := range []string{http.MethodGet, http.MethodDelete} {
			clustertest.ExpectProblem(t, c.Do(method, id, path, nil, nil), image.KindNotFound)
		}
	}
	c.Put(t, 2, "alice", "replace.png", body, nil)
	if r := c.DoAgain(t, http.MethodDelete, 1, path, nil, key); r.Status != http.StatusNoContent {
		t.Errorf("delete again: status %d, %s", r.Status, r.Body)
	}
	c.ExpectImage(t, "alice", "replace.png", body, c.IDs()...) // it was another one that was deleted
	earlier := http.Header{"If-Match": {`"` + old.SHA256 + `"`}}
	if r := c.Do(http.MethodDelete, 3, path, nil, earlier); r.Status != http.StatusPreconditionFailed {
		t.Errorf("delete of the version before: status %d, %s", r.Status, r.Body)
	}
	c.ExpectImage(t, "alice", "replace.png", body, c.IDs()...)
	tag := c.Do(http.MethodHead, 3, path, nil, nil).Header.Get("ETag")
	current := http.Header{"If-Match": {tag}}
	if r := c.Do(http.MethodDelete, 3, path, nil, current); r.Status != http.StatusNoContent {
		t.Errorf("delete of %s: status %d, %s", tag, r.Status, r.Body)
	}
	clustertest.ExpectProblem(t, c.Do(http.MethodGet, 1, path, nil, nil), image.KindNotFound)
	c.ExpectSettled(t)
}
