package cluster_test

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	goimage "image"
	"image/png"
	"net/http"
	"slices"
	"strings"
	"testing"

	"imgcluster/cluster/api"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/apicheck"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// traffic sends requests that are checked against the reference of the API, with their answers.
type traffic struct {
	t      *testing.T
	c      *clustertest.Cluster
	d      *apicheck.Document
	sender keyed // without a certificate
}

func loadOpenAPI(t *testing.T) *apicheck.Document {
	t.Helper()
	d, err := apicheck.Load(api.OpenAPI)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

// checkTraffic has what c.HTTP sends checked.
func checkTraffic(t *testing.T, c *clustertest.Cluster) *traffic {
	t.Helper()
	d := loadOpenAPI(t)
	c.HTTP.Transport = d.Transport(t, c.HTTP.Transport)
	return &traffic{t: t, c: c, d: d}
}

// headerOf makes a header of pairs of field and value.
func headerOf(pairs ...string) http.Header {
	h := http.Header{}
	for pair := range slices.Chunk(pairs, 2) {
		h.Set(pair[0], pair[1])
	}
	return h
}

// ask sends a request as the administrator, and expects the status.
func (x *traffic) ask(want int, method, path, body string, fields ...string) clustertest.Response {
	x.t.Helper()
	r := x.c.Do(method, 1, path, strings.NewReader(body), headerOf(fields...))
	x.expect(want, r, method, path)
	return r
}

// as is ask without the administrator's certificate.
func (x *traffic) as(want int, authorization, method, path, body string) clustertest.Response {
	x.t.Helper()
	r := x.sender.do(authorization, method, 1, path, []byte(body))
	x.expect(want, r, method, path)
	return r
}

func (x *traffic) expect(want int, r clustertest.Response, method, path string) {
	x.t.Helper()
	if r.Status != want || r.Err != nil && method != http.MethodHead { // whose problems have no body
		x.t.Errorf("%s %.100s: %d %.300s %v, want %d", method, path, r.Status, r.Body, r.Err, want)
	}
}

// document is ask with a document in JSON.
func (x *traffic) document(want int, method, path, body string) clustertest.Response {
	x.t.Helper()
	return x.ask(want, method, path, body, "Content-Type", wire.DocumentType)
}

// TestOpenAPI asks a cluster for everything that the reference of the API has, and for much that is refused:
// whatever is asked and answered must be in it as it is.
func TestOpenAPI(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	c := clustertest.Start(t, clustertest.Options{Secured: true, Change: func(c *config.Config) {
		c.Limits.ImageBytes = 1 << 20
	}})
	sender := newKeyed(t, c)
	x := checkTraffic(t, c)
	x.sender = sender
	x.sender.http.Transport = x.d.Transport(t, sender.http.Transport)
	x.uploads()
	x.reads()
	x.lists()
	x.accounts()
	x.keys()
	x.cluster()
	x.administration()
	x.events()
	x.rotation()
	x.withoutQuorum()
	for path, item := range x.d.Doc().Paths.Map() {
		for method, op := range item.Operations() {
			ofRuns := slices.Contains(op.Tags, "runs") // the nodes of tests have none: TestOpenAPIRuns
			if !ofRuns && !slices.ContainsFunc([]int{200, 201, 202, 204}, func(status int) bool {
				return x.d.Answered(op.OperationID, status)
			}) {
				t.Errorf("%s %s was never answered as it was asked for", method, path)
			}
		}
	}
}

const (
	someID  = "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2"
	otherID = "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a3"
)

func (x *traffic) uploads() {
	const path = "/v1/images/alice/holiday/a.png"
	var picture bytes.Buffer
	if err := png.Encode(&picture, goimage.NewGray(goimage.Rect(0, 0, 300, 200))); err != nil {
		x.t.Fatal(err)
	}
	bytes := picture.String()
	x.ask(201, "PUT", path, bytes, wire.UploadField, someID)
	x.ask(201, "PUT", path, bytes, wire.UploadField, someID, wire.RequestField, "again")
	x.ask(409, "PUT", path, "other bytes", wire.UploadField, someID)
	x.ask(400, "PUT", path, bytes, wire.UploadField, "no UUID")
	x.ask(412, "PUT", path, bytes, "If-None-Match", "*")
	x.ask(412, "PUT", path, bytes, "If-Match", `"x"`)
	x.ask(400, "PUT", path, bytes, "If-Match", `x`)
	x.ask(400, "PUT", path, bytes, "If-Modified-Since", "Sat, 28 Nov 2026 13:00:00 GMT")
	x.ask(400, "PUT", path, "wrong", "Content-Digest", contentDigest(picture.Bytes()))
	x.ask(400, "PUT", path, bytes, "Content-Md5", "x")
	x.ask(415, "PUT", path, bytes, "Content-Encoding", "gzip")
	x.ask(415, "PUT", path, bytes, "Content-Type", "multipart/form-data; boundary=x")
	x.ask(400, "PUT", path, bytes, "Content-Type", "x")
	x.ask(411, "PUT", path, bytes, "Content-Length", "-1")
	x.ask(413, "PUT", path, strings.Repeat("x", 1<<20+1))
	x.ask(400, "PUT", path, bytes, wire.BroadcastField, "2,3")
	x.ask(403, "PUT", path, bytes, "Origin", "https://example.com")
	x.ask(201, "PUT", "/v1/images/alice/notes.txt", "no picture",
		"Content-Digest", contentDigest([]byte("no picture")), "If-None-Match", "*",
		"Content-Type", "text/plain; charset=utf-8", "Want-Content-Digest", "sha-256=1")
	for _, bad := range []string{"alice/a//b", "alice/../b", "alice/%01", strings.Repeat("x", 129) + "/a"} {
		x.ask(400, "PUT", "/v1/images/"+bad, bytes)
	}
	x.broadcast()

	x.ask(200, "POST", path+"?bytes=1000", "", wire.UploadField, otherID)
	x.ask(200, "POST", path+"?bytes=1000&without=2", "")
	x.ask(400, "POST", path+"?bytes=0", "")
	x.ask(400, "POST", path+"?bytes=9", "body")
	x.ask(413, "POST", path+"?bytes=9000000", "")
	x.ask(412, "POST", path+"?bytes=1000", "", "If-None-Match", "*")
}

// broadcast sends one image to all nodes at once.
func (x *traffic) broadcast() {
	id := image.NewID().String()
	statuses := make(chan int)
	for node := range 3 {
		go func() {
			r := x.c.Do("PUT", image.NodeID(node+1), "/v1/images/alice/all.png", strings.NewReader("everywhere"),
				headerOf(wire.UploadField, id, wire.BroadcastField, "1,2,3"))
			statuses <- r.Status
		}()
	}
	got := []int{<-statuses, <-statuses, <-statuses}
	slices.Sort(got)
	if !slices.Equal(got, []int{200, 200, 201}) {
		x.t.Errorf("a broadcast was answered with %v", got)
	}
}

func (x *traffic) reads() {
	const path = "/v1/images/alice/holiday/a.png"
	tag := x.ask(200, "GET", path, "").Header.Get("Etag")
	x.ask(200, "GET", "/v1/images/alice/holiday%2Fa.png", "")
	x.ask(200, "GET", "/v1/images/alice/notes.txt", "") // is saved, not shown
	x.ask(200, "HEAD", path, "")
	x.ask(404, "HEAD", path+"x", "")
	x.ask(304, "HEAD", path, "", "If-None-Match", tag)
	x.ask(304, "GET", path, "", "If-None-Match", tag)
	x.ask(412, "GET", path, "", "If-Match", `"x"`)
	x.ask(412, "GET", path, "", "If-Unmodified-Since", "Sat, 28 Nov 2026 13:00:00 GMT")
	x.ask(206, "GET", path, "", "Range", "bytes=0-9")
	x.ask(206, "GET", path, "", "Range", "bytes=0-9,20-29", "If-Range", tag)
	x.ask(200, "GET", path, "", "Range", "bytes=0-9", "If-Range", `"x"`)
	x.ask(416, "GET", path, "", "Range", "bytes=900000-")
	for _, method := range []string{"GET", "HEAD"} {
		x.ask(200, method, path+"?form=encrypted", "")
		small := x.ask(200, method, path+"?form=thumbnail&size=100", "").Header.Get("Etag")
		x.ask(304, method, path+"?form=thumbnail&size=100", "", "If-None-Match", small)
	}
	x.ask(415, "GET", "/v1/images/alice/notes.txt?form=thumbnail", "")
	x.ask(400, "GET", path+"?form=other", "")
	x.ask(400, "GET", path+"?form=thumbnail&size=9999", "")
	x.ask(404, "GET", path+"x", "")
	x.ask(404, "GET", "/v1/images/nobody/a.png", "")
	x.ask(405, "PATCH", path, "")
	x.ask(204, "OPTIONS", path, "")
	x.ask(404, "GET", "/v1/nothing", "")
}

func (x *traffic) lists() {
	var page wire.List
	r := x.ask(200, "GET", "/v1/images/alice?limit=1", "")
	if err := json.Unmarshal(r.Body, &page); err != nil || page.Next == "" {
		x.t.Errorf("%s: %v", r.Body, err)
	}
	x.ask(200, "GET", "/v1/images/alice?after="+page.Next, "")
	x.ask(200, "GET", "/v1/images/alice?prefix=holiday/", "")
	x.ask(200, "GET", "/v1/images/nobody", "")
	x.ask(400, "GET", "/v1/images/alice?limit=x", "")
	x.ask(304, "GET", "/v1/images/alice", "", "If-None-Match", "*")
	x.ask(412, "GET", "/v1/images/alice", "", "If-Match", `"x"`)
	x.ask(204, "DELETE", "/v1/images/alice/all.png", "", wire.UploadField, otherID)
	x.ask(204, "DELETE", "/v1/images/alice/all.png", "", wire.UploadField, otherID)
	x.ask(404, "DELETE", "/v1/images/alice/all.png", "")
	x.ask(412, "DELETE", "/v1/images/alice/notes.txt", "", "If-Match", `"x"`)
}

// newKey makes an access key.
func (x *traffic) newKey(body string) (k wire.NewKey) {
	x.t.Helper()
	r := x.document(201, "POST", wire.KeysPath, body)
	if err := json.Unmarshal(r.Body, &k); err != nil {
		x.t.Error(err)
	}
	return k
}

func (x *traffic) accounts() {
	const path = "/v1/images/alice/holiday/a.png"
	write := x.newKey(`{"user":"alice","role":"write","expires":"2999-01-01T00:00:00Z"}`)
	read := x.newKey(`{"user":"bob","role":"read"}`)
	metrics := x.newKey(`{"role":"metrics"}`)
	for _, bad := range []string{
		`{"role":"root"}`, `{"role":"read"}`, `{"role":"admin","x":1}`, "{",
		`{"role":"admin","expires":"2000-01-01T00:00:00Z"}`,
	} {
		x.document(400, "POST", wire.KeysPath, bad)
	}
	x.ask(415, "POST", wire.KeysPath, "{}", "Content-Type", "text/plain")

	x.as(200, bearer(write), "GET", path, "")
	x.as(200, basic(write), "GET", "/v1/images/alice", "")
	x.as(200, bearer(write), "GET", wire.KeysPath, "")
	x.as(200, bearer(read), "GET", wire.ClusterPath, "")
	x.as(200, bearer(metrics), "GET", wire.MetricsPath, "")
	x.as(200, bearer(write), "GET", wire.SessionPath, "")
	x.as(200, "", "GET", wire.ReadyPath, "")
	for _, authorization := range []string{"", "Bearer x", "Bearer " + write.ID + ".x"} {
		x.as(401, authorization, "GET", path, "")
		x.as(401, authorization, "GET", wire.MembersPath, "")
		x.as(401, authorization, "GET", "/v1/nothing", "")
	}
	x.as(403, bearer(read), "GET", path, "")
	x.as(403, bearer(read), "PUT", "/v1/images/bob/a.png", "image")
	x.as(403, bearer(write), "GET", wire.MembersPath, "")
	x.as(403, bearer(read), "DELETE", wire.KeysPath+"/"+write.ID, "")
	x.as(404, bearer(write), "DELETE", wire.KeysPath+"/"+read.ID, "")

	login := func(want int, secret string) {
		body := fmt.Sprintf(`{"id":%q,"secret":%q}`, write.ID, secret)
		req, err := http.NewRequest("POST", x.c.URL(1, wire.SessionPath), strings.NewReader(body))
		if err != nil {
			x.t.Fatal(err)
		}
		req.Header.Set("Content-Type", wire.DocumentType)
		resp, err := x.sender.http.Do(req)
		if err != nil {
			x.t.Fatal(err)
		}
		x.expect(want, clustertest.ReadResponse(resp), "POST", wire.SessionPath)
	}
	login(201, write.Secret)
	login(401, read.Secret)
	x.as(204, "", "DELETE", wire.SessionPath, "")

	x.ask(200, "GET", wire.KeysPath+"?limit=1", "")
	x.ask(200, "GET", wire.KeysPath+"?user=alice", "")
	x.ask(200, "GET", wire.KeysPath+"?user=nobody", "")
	x.ask(200, "GET", wire.UsersPath+"?after=zzz", "")
	x.ask(204, "DELETE", wire.KeysPath+"/"+read.ID, "")
	x.ask(404, "DELETE", wire.KeysPath+"/"+read.ID, "")

	x.document(201, "POST", wire.UsersPath, `{"name":"carol"}`)
	x.document(400, "POST", wire.UsersPath, `{"name":"a/b"}`)
	x.ask(200, "GET", wire.UsersPath+"?limit=1", "")
	x.ask(202, "DELETE", wire.UsersPath+"/carol", "")
	x.ask(200, "GET", wire.UsersPath, "")
	x.ask(404, "DELETE", wire.UsersPath+"/nobody", "")
}

func (x *traffic) keys() {
	x.ask(404, "GET", wire.RewrapPath("alice"), "")
	x.ask(201, "POST", wire.UserKeyPath("alice"), "")
	x.ask(404, "POST", wire.UserKeyPath("nobody"), "")
	x.ask(202, "POST", wire.RewrapPath("alice"), "")
	x.ask(404, "POST", wire.RewrapPath("nobody"), "")
	x.ask(200, "GET", wire.RewrapPath("alice"), "")
	x.ask(200, "GET", wire.UserKeysPath+"?limit=1", "")
	x.ask(200, "GET", wire.UserKeysPath+"?after=zzz/1", "")
	x.ask(400, "GET", wire.UserKeysPath+"?after=x", "")
	x.ask(200, "GET", wire.MasterKeyPath, "")
	x.document(400, "POST", wire.MasterKeyPath, `{"op":"rotate"}`) // the nodes have no next one
	x.document(400, "POST", wire.MasterKeyPath, `{"op":"finish"}`) // it is not changing
	x.document(400, "POST", wire.MasterKeyPath, `{"op":"other"}`)
}

func (x *traffic) cluster() {
	for _, path := range []string{
		wire.LivePath, wire.ReadyPath, wire.MetricsPath, wire.ClusterPath, wire.NodePath, wire.MembersPath,
		wire.SessionPath, wire.LogPath, wire.OpenAPIPath, wire.HistoryPath, wire.RunsPath,
	} {
		x.ask(200, "GET", path, "")
		x.ask(200, "HEAD", path, "")
		x.ask(304, "GET", path, "", "If-None-Match", "*")
		x.ask(412, "GET", path, "", "If-Match", `"x"`)
		x.ask(400, "GET", path, "", "If-Something", "x")
	}
	clustertest.Poll(x.t, "the node may be stopped", func() bool {
		return x.c.Do("GET", 1, wire.ReadyPath+"?maintenance", nil, nil).Status == http.StatusOK
	})
	x.ask(404, "GET", wire.RunReport, "")
	x.document(404, "POST", wire.RunsPath, `{"profile":"quick"}`)
	x.ask(404, "POST", wire.ReportPath, "")
}

func (x *traffic) administration() {
	x.document(200, "POST", wire.MembersPath, `{"op":"drain","id":3}`)
	x.ask(200, "GET", wire.ClusterPath, "") // a node is draining
	x.document(200, "POST", wire.MembersPath, `{"op":"resume","id":3}`)
	x.document(404, "POST", wire.MembersPath, `{"op":"drain","id":9}`)
	x.document(400, "POST", wire.MembersPath, `{"op":"add","id":4,"api":"x","raft":"y"}`)
	x.document(400, "POST", wire.MembersPath, `{"op":"other","id":1}`)
	x.ask(200, "GET", wire.BackupPath, "")
	x.ask(200, "HEAD", wire.BackupPath, "")
	x.document(200, "PUT", wire.LogPath, `{"level":"info"}`)
	x.document(400, "PUT", wire.LogPath, `{"level":"other"}`)
	r := x.ask(200, "POST", wire.VerifyPath+"?sample=1&repair=false", "")
	for line := range bytes.Lines(r.Body) {
		if err := x.d.CheckJSON("VerifyLine", line); err != nil {
			x.t.Error(err)
		}
	}
	x.ask(400, "POST", wire.VerifyPath+"?sample=2", "")
	x.ask(400, "POST", wire.VerifyPath+"?repair=x", "")
}

// events reads a stream until it had every kind of event.
func (x *traffic) events() {
	resp, err := x.c.HTTP.Get(x.c.URL(1, wire.EventsPath+"?user=alice"))
	if err != nil {
		x.t.Fatal(err)
	}
	defer resp.Body.Close()
	x.ask(201, "PUT", "/v1/images/alice/new.png", "new")
	missing := map[string]string{
		wire.EventCluster: "ClusterStatus", wire.EventSample: "Sample", wire.EventImages: "ImagesChanged",
	}
	var schema, kind string
	for lines := bufio.NewScanner(resp.Body); len(missing) > 0; {
		if !lines.Scan() {
			x.t.Fatalf("the stream ends without %v: %v", missing, lines.Err())
		}
		if event, ok := strings.CutPrefix(lines.Text(), "event: "); ok {
			kind, schema = event, missing[event]
		}
		if data, ok := strings.CutPrefix(lines.Text(), "data: "); ok && schema != "" {
			if err := x.d.CheckJSON(schema, []byte(data)); err != nil {
				x.t.Error(err)
			}
			delete(missing, kind)
		}
	}
	x.ask(200, "GET", wire.HistoryPath, "") // which has that sample
}

// rotation begins a change of the master key.
func (x *traffic) rotation() {
	prepare(x.t, x.c)
	clustertest.Poll(x.t, "all nodes have the next key", func() bool {
		r := x.c.Do("POST", 1, wire.MasterKeyPath, strings.NewReader(`{"op":"rotate"}`),
			headerOf("Content-Type", wire.DocumentType))
		return r.Status == http.StatusOK
	})
	x.ask(200, "GET", wire.MasterKeyPath, "")
	x.c.Stop(2)
	x.c.Restart(1)
	x.ask(200, "GET", wire.MasterKeyPath, "") // of node 2 nothing is known
	x.ask(200, "GET", wire.MembersPath, "")
}

// withoutQuorum asks a node that is alone.
func (x *traffic) withoutQuorum() {
	x.c.Stop(3)
	clustertest.Poll(x.t, "the node is not ready", func() bool {
		return x.c.Do("GET", 1, wire.ReadyPath, nil, nil).Status == http.StatusServiceUnavailable
	})
	x.as(503, "", "GET", wire.ReadyPath, "")
	x.ask(503, "GET", wire.ReadyPath+"?maintenance", "")
	x.ask(200, "GET", wire.ClusterPath, "") // nodes are down
	x.ask(503, "GET", "/v1/images/alice/notes.txt", "")
	x.ask(503, "PUT", "/v1/images/alice/b.png", "image")
	x.ask(503, "DELETE", "/v1/images/alice/notes.txt", "")
	x.ask(503, "GET", "/v1/images/alice", "")
	x.ask(503, "GET", wire.UsersPath, "")
	x.document(503, "POST", wire.UsersPath, `{"name":"dave"}`)
	x.c.Stop(1)
	x.c.Start(1) // it has seen no other node
	x.ask(200, "GET", wire.ClusterPath, "")
	x.ask(503, "GET", wire.MembersPath, "")
}

// TestOpenAPIOfStartingNode asks a node of a new cluster that is alone.
func TestOpenAPIOfStartingNode(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a node")
	}
	c := clustertest.New(t, clustertest.Options{})
	x := checkTraffic(t, c)
	c.Start(1)
	x.ask(200, "GET", wire.ClusterPath, "")
	x.ask(200, "GET", wire.NodePath, "")
	x.ask(200, "GET", wire.HistoryPath, "")
	x.ask(200, "GET", wire.SessionPath, "")
	x.ask(503, "GET", wire.ReadyPath, "")
	x.ask(503, "GET", wire.MembersPath, "")
	x.ask(503, "GET", wire.UsersPath, "")
	x.ask(503, "GET", wire.MasterKeyPath, "")
	x.ask(503, "GET", "/v1/images/alice", "")
	x.document(400, "POST", wire.SessionPath, `{"id":"x","secret":"x"}`) // nobody is asked for a key
	x.ask(503, "PUT", "/v1/images/alice/a.png", "image")
}
