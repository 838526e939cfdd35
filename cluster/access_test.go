package cluster_test

import (
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// TestRemovedUser removes a user with images, while others' stay and an upload of the user is on its way: the
// images are gone at once on every node, the files and old values after that, and the name can be used again,
// with another key.
func TestRemovedUser(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	cl := c.Client(t, client.Broadcast)
	bodies := map[string][]byte{}
	for i := range 30 {
		name := fmt.Sprintf("%d.png", i)
		bodies[name] = clustertest.Image(uint64(i), 5000+i)
		for _, user := range []string{"alice", "alicia"} {
			c.Put(t, c.IDs()[i%3], user, name, bodies[name], nil)
		}
	}
	before := keyID(t, c, "alice")
	body := clustertest.Image(99, 200_000)
	conn := c.Dial(t, 1)
	path := clustertest.Path("alice", "late.png")
	conn.Send(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n\r\n", path, len(body)),
		body[:100_000])
	clustertest.Poll(t, "the upload is on its way", func() bool { return c.Status(1).Nodes[0].Uploads > 0 })

	left, err := cl.RemoveUser(t.Context(), "alice")
	if err != nil {
		t.Fatal(err)
	}
	if len(left.Nodes) != 3 || len(left.Shards) != c.Config.Cluster.DataShards {
		t.Errorf("left to do: %+v", left)
	}
	for _, id := range c.IDs() {
		clustertest.Poll(t, fmt.Sprintf("node %d refuses the images", id), func() bool {
			return c.Do(http.MethodGet, id, clustertest.Path("alice", "1.png"), nil, nil).Status == http.StatusNotFound
		})
		if list := c.List(t, id, "alice"); len(list) > 0 {
			t.Errorf("node %d lists %d images of the removed user", id, len(list))
		}
	}
	conn.Send(body[100_000:])
	if r := conn.Answer(); r.Status == http.StatusCreated {
		t.Errorf("the upload that was on its way was stored: %s", r.Body)
	}
	awaitRemovals(t, cl)
	c.ExpectSettled(t)
	for name := range bodies {
		for _, id := range c.IDs() {
			clustertest.ExpectProblem(t, c.Do(http.MethodGet, id, clustertest.Path("alice", name), nil, nil),
				image.KindNotFound)
		}
		c.ExpectImage(t, "alicia", name, bodies[name], c.IDs()...)
	}

	c.Put(t, 2, "alice", "1.png", bodies["2.png"], nil)
	c.ExpectImage(t, "alice", "1.png", bodies["2.png"], c.IDs()...)
	if after := keyID(t, c, "alice"); after <= before {
		t.Errorf("the new user's key has the ID %d, the removed one's had %d", after, before)
	}
	c.ExpectEqualCatalogs(t)
	c.ExpectNoPlaintext(t)
	c.ExpectUniqueKeys(t)
}

func awaitRemovals(t *testing.T, cl *client.Client) {
	t.Helper()
	clustertest.Poll(t, "removals are complete", func() bool {
		page, err := cl.UserPage(t.Context(), "")
		return err == nil && len(page.Removals) == 0
	})
}

func keyID(t *testing.T, c *clustertest.Cluster, user string) uint32 {
	t.Helper()
	id, err := c.Node(1).UserKeyID(t.Context(), user)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// TestRemovalGoesOn kills nodes in the middle of a user's removal, and leaves one down: the others go on
// where those ended, the removal says whose disk is left, and ends when that node is back.
func TestRemovalGoesOn(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	cl := c.Client(t, client.Broadcast)
	body := clustertest.Image(1, 1000)
	for i := range 60 {
		c.Put(t, c.IDs()[i%3], "alice", fmt.Sprintf("%d.png", i), body, nil)
	}
	c.Put(t, 1, "bob", "stays.png", body, nil)
	c.Kill(3)
	if _, err := cl.RemoveUser(t.Context(), "alice"); err != nil {
		t.Fatal(err)
	}
	c.Kill(1)
	c.Start(1)
	c.WaitReady(1, 2)
	clustertest.Poll(t, "only node 3 to be left", func() bool {
		page, err := cl.UserPage(t.Context(), "")
		return err == nil && len(page.Removals) == 1 && len(page.Removals[0].Shards) == 0 &&
			slices.Equal(page.Removals[0].Nodes, []image.NodeID{3})
	})
	if _, err := cl.AddUser(t.Context(), "alice"); err != nil { // its name is free
		t.Error(err)
	}
	c.Put(t, 1, "alice", "new.png", body, nil)
	c.Start(3)
	c.WaitReady(c.IDs()...)
	awaitRemovals(t, cl)
	c.ExpectImage(t, "alice", "new.png", body, c.IDs()...)
	c.ExpectImage(t, "bob", "stays.png", body, c.IDs()...)
	c.ExpectSettled(t)
	if list := c.List(t, 3, "alice"); len(list) != 1 {
		t.Errorf("%d images of alice", len(list))
	}
}

// keyed sends requests with an access key and no certificate.
type keyed struct {
	c    *clustertest.Cluster
	tls  *tls.Config
	http *http.Client
}

func newKeyed(t *testing.T, c *clustertest.Cluster) keyed {
	t.Helper()
	roots := c.HTTP.Transport.(*http.Transport).TLSClientConfig.RootCAs
	secure := &tls.Config{RootCAs: roots}
	k := keyed{c, secure, &http.Client{Transport: &http.Transport{TLSClientConfig: secure}}}
	t.Cleanup(k.http.CloseIdleConnections)
	return k
}

func (k keyed) do(
	authorization, method string, id image.NodeID, path string, body []byte,
) clustertest.Response {
	return k.send(authorization, method, id, path, bytes.NewReader(body), len(body))
}

func (k keyed) send(
	authorization, method string, id image.NodeID, path string, body io.Reader, size int,
) clustertest.Response {
	req, err := http.NewRequest(method, k.c.URL(id, path), body)
	if err != nil {
		return clustertest.Response{Err: err}
	}
	req.ContentLength = int64(size)
	if authorization != "" {
		req.Header.Set("Authorization", authorization)
	}
	resp, err := k.http.Do(req)
	if err != nil {
		return clustertest.Response{Err: err}
	}
	return clustertest.ReadResponse(resp)
}

func bearer(k wire.NewKey) string { return "Bearer " + k.ID + "." + k.Secret }

func basic(k wire.NewKey) string {
	return "Basic " + base64.StdEncoding.EncodeToString([]byte(k.ID+":"+k.Secret))
}

// TestAccessKeys uses a cluster that asks for access keys, of four nodes so that requests are forwarded: with
// keys that are good, as soon as they are made and on every node, and with those that are not.
func TestAccessKeys(t *testing.T) {
	t.Parallel()
	var logged lockedBuffer
	encoder := zapcore.NewJSONEncoder(zap.NewProductionEncoderConfig())
	core := zapcore.NewCore(encoder, zapcore.AddSync(&logged), zap.DebugLevel)
	c := clustertest.Start(t, clustertest.Options{Nodes: 4, Secured: true, Log: core})
	admin := c.Client(t, client.Broadcast)
	k := newKeyed(t, c)
	k.http.Transport = loadOpenAPI(t).Transport(t, k.http.Transport)
	var secrets []string
	add := func(user string, role image.Role, expires time.Time) wire.NewKey {
		t.Helper()
		made, err := admin.AddAccessKey(t.Context(), wire.KeyRequest{User: user, Role: role, Expires: expires})
		if err != nil {
			t.Fatal(err)
		}
		secrets = append(secrets, made.Secret)
		return made
	}
	body := clustertest.Image(7, 70_000)
	put := func(authorization string, id image.NodeID, user, name string) int {
		return k.do(authorization, http.MethodPut, id, clustertest.Path(user, name), body).Status
	}
	never := time.Time{}
	for i, id := range c.IDs() { // at once, on the node that may not have applied it yet
		for _, as := range []func(wire.NewKey) string{bearer, basic} {
			key := add("alice", image.RoleWrite, never)
			if status := put(as(key), id, "alice", fmt.Sprintf("%d.png", i)); status != http.StatusCreated {
				t.Errorf("node %d, upload with a new key: %d", id, status)
			}
		}
	}
	read, write := add("alice", image.RoleRead, never), add("alice", image.RoleWrite, never)
	bob, metrics, root := add("bob", image.RoleWrite, never), add("", image.RoleMetrics, never),
		add("", image.RoleAdmin, never)
	for _, id := range c.IDs() {
		path := clustertest.Path("alice", "0.png")
		for key, want := range map[string]int{bearer(read): 200, bearer(write): 200, basic(root): 200} {
			if r := k.do(key, http.MethodGet, id, path, nil); r.Status != want || !bytes.Equal(r.Body, body) {
				t.Errorf("node %d: %d", id, r.Status)
			}
		}
		for _, other := range []wire.NewKey{bob, metrics} {
			there := k.do(bearer(other), http.MethodGet, id, path, nil)
			not := k.do(bearer(other), http.MethodGet, id, clustertest.Path("alice", "9.png"), nil)
			clustertest.ExpectProblem(t, there, image.KindForbidden)
			clustertest.ExpectProblem(t, not, image.KindForbidden)
		}
		clustertest.ExpectProblem(t, k.do(bearer(read), http.MethodDelete, id, path, nil), image.KindForbidden)
		clustertest.ExpectProblem(t, k.do(bearer(read), http.MethodPut, id, path, body), image.KindForbidden)
		if status := put(bearer(root), id, "made by an administrator", "a.png"); status != http.StatusCreated {
			t.Errorf("node %d: an administrator's first image of a user: %d", id, status)
		}
		if r := k.do(bearer(metrics), http.MethodGet, id, "/metrics", nil); r.Status != 200 {
			t.Errorf("node %d: /metrics with its key: %d", id, r.Status)
		}
		whole := k.do(bearer(root), http.MethodGet, id, "/v1/cluster", nil)
		part := k.do(bearer(bob), http.MethodGet, id, "/v1/cluster", nil)
		if !bytes.Contains(whole.Body, []byte(`"rss_bytes":`)) || bytes.Contains(whole.Body, []byte("limited")) ||
			!bytes.Contains(part.Body, []byte(`"limited":true`)) || !bytes.Contains(part.Body, []byte(`"shards":[{`)) {
			t.Errorf("node %d: /v1/cluster\n%s\n%s", id, whole.Body, part.Body)
		}
		clustertest.ExpectProblem(t, k.do("", http.MethodGet, id, "/v1/cluster", nil), image.KindUnauthorized)
	}
	t.Run("client", func(t *testing.T) { testKeyedClient(t, k, write, body) })
	t.Run("curl", func(t *testing.T) { testCurl(t, c, write, body) })
	t.Run("bad keys", func(t *testing.T) { testBadKeys(t, k, read, bob) })
	t.Run("counted", func(t *testing.T) {
		foreign, err := crypto.CreateMasterKey(filepath.Join(t.TempDir(), "master.key"))
		if err != nil {
			t.Fatal(err)
		}
		removed := add("alice", image.RoleRead, never)
		expired := add("alice", image.RoleRead, time.Now().Add(time.Second))
		if err := admin.RemoveAccessKey(t.Context(), removed.ID); err != nil {
			t.Fatal(err)
		}
		testRefusedAreCounted(t, k, foreign, root, read, removed, expired)
	})
	t.Run("expired", func(t *testing.T) {
		short := add("alice", image.RoleRead, time.Now().Add(1500*time.Millisecond))
		path := clustertest.Path("alice", "0.png")
		if r := k.do(bearer(short), http.MethodGet, 1, path, nil); r.Status != http.StatusOK {
			t.Errorf("before its end: %d %s", r.Status, r.Body)
		}
		for _, id := range c.IDs() {
			poll.Until(t, refusedMax, "the key to expire", func() bool {
				r := k.do(bearer(short), http.MethodGet, id, path, nil)
				return r.Status == http.StatusUnauthorized && strings.Contains(r.Problem.Detail, "expired") &&
					r.Problem.Hint != ""
			})
		}
	})
	t.Run("removed", func(t *testing.T) { testRemovedKey(t, k, admin, write, read, body) })
	t.Run("a node that was down", func(t *testing.T) {
		c.Stop(2)
		late := add("alice", image.RoleRead, never)
		if err := admin.RemoveAccessKey(t.Context(), bob.ID); err != nil {
			t.Fatal(err)
		}
		c.Start(2)
		path := clustertest.Path("alice", "0.png")
		clustertest.Poll(t, "node 2 to take the new key", func() bool {
			r := k.do(bearer(late), http.MethodGet, 2, path, nil)
			if r.Status == http.StatusUnauthorized {
				t.Fatalf("a good key is refused at the start: %s", r.Body)
			}
			return r.Status == http.StatusOK
		})
		clustertest.ExpectProblem(t, k.do(bearer(bob), http.MethodGet, 2, "/v1/cluster", nil),
			image.KindUnauthorized)
	})

	c.Stop(c.IDs()...)
	text := logged.String()
	if !strings.Contains(text, read.ID) {
		t.Error("the logs do not say that a key was added")
	}
	for _, secret := range secrets {
		if strings.Contains(text, secret) {
			t.Error("a secret is in the logs")
		}
		for _, id := range c.IDs() {
			if file := fileWith(t, c.Config.DataDir(id), secret); file != "" {
				t.Errorf("a secret is in %s", file)
			}
		}
	}
}

// testKeyedClient uploads and reads with the Go client, which has a key and no certificate.
func testKeyedClient(t *testing.T, k keyed, key wire.NewKey, body []byte) {
	o := client.Options{Delivery: client.Broadcast, TLS: k.tls}
	for _, n := range k.c.Config.Cluster.Nodes {
		o.Nodes = append(o.Nodes, client.Node{ID: n.ID, Addr: n.APIAddr()})
	}
	var err error
	if o.Key, err = access.NewCredentials(key.ID, key.Secret); err != nil {
		t.Fatal(err)
	}
	cl, err := client.New(o)
	if err != nil {
		t.Fatal(err)
	}
	defer cl.Close()
	up := uploadOf("client.png", body)
	res, err := cl.Put(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	if info, err := cl.Head(t.Context(), "alice", "client.png"); err != nil || info.Bytes != int64(len(body)) {
		t.Errorf("%+v, %v", info, err)
	}
	count := 0
	for got, err := range cl.AccessKeys(t.Context(), "bob") { // it sees those of its user
		if count++; err != nil || got.User != "alice" {
			t.Errorf("%+v, %v", got, err)
		}
	}
	if count == 0 {
		t.Error("it does not see its user's keys")
	}
	if _, err := cl.Head(t.Context(), "bob", "a.png"); image.KindOf(err) != image.KindForbidden {
		t.Errorf("another's image: %v", err)
	}
	if _, err := cl.UserPage(t.Context(), ""); image.KindOf(err) != image.KindForbidden {
		t.Errorf("the users: %v", err)
	}
}

// testCurl uploads and reads as a user does who has no program of this one's.
func testCurl(t *testing.T, c *clustertest.Cluster, key wire.NewKey, body []byte) {
	curl, err := exec.LookPath("curl")
	if err != nil {
		t.Skip("there is no curl")
	}
	dir := t.TempDir()
	file, back := filepath.Join(dir, "a.png"), filepath.Join(dir, "b.png")
	if err := os.WriteFile(file, body, 0o600); err != nil {
		t.Fatal(err)
	}
	url := c.URL(3, clustertest.Path("alice", "curl.png"))
	for _, args := range [][]string{{"-T", file, url}, {"-o", back, url}} {
		args = append([]string{"-ksSf", "-u", key.ID + ":" + key.Secret}, args...)
		if out, err := exec.CommandContext(t.Context(), curl, args...).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	if got, err := os.ReadFile(back); err != nil || !bytes.Equal(got, body) {
		t.Errorf("%d bytes come back, %v", len(got), err)
	}
}

// testBadKeys: what is no good key is answered with 401 and a next step, and changes nothing.
func testBadKeys(t *testing.T, k keyed, read, bob wire.NewKey) {
	mixed := bob
	mixed.ID = read.ID
	madeUp := read
	madeUp.ID = "ICAAAAAAAAAAAAAAAAAA"
	for what, authorization := range map[string]string{
		"none":             "",
		"another's secret": bearer(mixed),
		"made up":          bearer(madeUp),
		"no dot":           "Bearer " + read.ID + read.Secret,
		"ID alone":         "Bearer " + read.ID + ".",
		"other scheme":     "Digest " + read.ID + "." + read.Secret,
		"basic, no base64": "Basic ,,,,",
		"long":             "Bearer " + strings.Repeat("A", 5000),
	} {
		for _, id := range k.c.IDs() {
			for _, method := range []string{http.MethodGet, http.MethodPut, http.MethodDelete} {
				r := k.do(authorization, method, id, clustertest.Path("alice", "0.png"), []byte("other bytes"))
				if r.Status != http.StatusUnauthorized || r.Problem.Hint == "" ||
					len(r.Header["Www-Authenticate"]) != 2 || bytes.Contains(r.Body, []byte(read.Secret)) {
					t.Errorf("%s: %s of node %d: %d %s %v", what, method, id, r.Status, r.Body, r.Err)
				}
			}
		}
	}
	if r := k.do(bearer(read), http.MethodGet, 1, clustertest.Path("alice", "0.png"), nil); r.Status != 200 {
		t.Errorf("the image: %d", r.Status)
	}
}

// refusedMax is how long it may take until a node refuses a key that has just been removed or has expired.
const refusedMax = 20 * time.Second

// testRefusedAreCounted: /metrics counts what is refused for its credentials by the reason, and has no other
// label than these, whatever comes.
func testRefusedAreCounted(
	t *testing.T, k keyed, foreign *crypto.MasterKey, root, read, removed, expired wire.NewKey,
) {
	const id = 2
	path := clustertest.Path("alice", "0.png")
	counts := func() map[string]int {
		text := string(k.do(bearer(root), http.MethodGet, id, "/metrics", nil).Body)
		by := map[string]int{}
		for _, m := range regexp.MustCompile(`(?m)^imgcluster_requests_refused_total\{(.*)\} (\d+)$`).
			FindAllStringSubmatch(text, -1) {
			by[m[1]], _ = strconv.Atoi(m[2])
		}
		return by
	}
	secret, madeUp := read, read
	secret.Secret = root.Secret
	madeUp.ID = "ICAAAAAAAAAAAAAAAAAA"
	poll.Until(t, refusedMax, "the node to have applied the removal", func() bool {
		return k.do(bearer(removed), http.MethodGet, id, path, nil).Status == http.StatusUnauthorized
	})
	poll.Until(t, refusedMax, "the key to expire", func() bool {
		return k.do(bearer(expired), http.MethodGet, id, path, nil).Status == http.StatusUnauthorized
	})
	before := counts()
	want := map[string]int{}
	for n, x := range []struct {
		reason        access.Reason
		authorization string
		method, path  string
		status        int
	}{
		{access.ReasonNone, "", http.MethodGet, path, 401},
		{access.ReasonMalformed, `Bearer a",reason="made up`, http.MethodGet, path, 401},
		{access.ReasonMalformed, "Basic ,,", http.MethodPut, path, 401},
		{access.ReasonUnknown, bearer(madeUp), http.MethodGet, "/v1/cluster", 401},
		{access.ReasonRemoved, bearer(removed), http.MethodGet, path, 401},
		{access.ReasonSecret, bearer(secret), http.MethodDelete, path, 401},
		{access.ReasonExpired, bearer(expired), http.MethodGet, path, 401},
		{access.ReasonRole, bearer(read), http.MethodPut, path, 403},
		{access.ReasonRole, bearer(read), http.MethodGet, "/metrics", 403},
	} {
		for range n + 1 {
			if r := k.do(x.authorization, x.method, id, x.path, nil); r.Status != x.status {
				t.Errorf("%s: %d %s", x.reason, r.Status, r.Body)
			}
		}
		want[fmt.Sprintf("reason=%q", string(x.reason))] += n + 1
	}
	// The administrator of another cluster of the same name, and everything that is no refusal.
	a, err := access.NewAuthority(foreign, k.c.Config.Cluster.Name)
	if err != nil {
		t.Fatal(err)
	}
	roots := k.tls.RootCAs
	secure := access.Client(roots, a.Admin())
	other := keyed{k.c, secure, &http.Client{Transport: &http.Transport{TLSClientConfig: secure}}}
	defer other.http.CloseIdleConnections()
	r := other.do("", http.MethodGet, id, "/v1/cluster", nil)
	clustertest.ExpectProblem(t, r, image.KindUnauthorized)
	if !strings.Contains(r.Problem.Detail, "with this master key") ||
		!strings.Contains(r.Problem.Hint, "the same master key") {
		t.Errorf("who has another master key is told %s", r.Body)
	}
	want[fmt.Sprintf("reason=%q", string(access.ReasonCertificate))]++
	if r := other.do(bearer(read), http.MethodGet, id, path, nil); r.Status != http.StatusOK {
		t.Errorf("a good key beside such a certificate: %d %s", r.Status, r.Body)
	}
	for _, p := range []string{"/livez", "/readyz", "/nothing", clustertest.Path("alice", "none.png")} {
		k.do(bearer(read), http.MethodGet, id, p, nil)
	}
	after := counts()
	for label := range after {
		after[label] -= before[label]
	}
	if !maps.Equal(after, want) || len(want) != len(access.Reasons) {
		t.Errorf("counted %v, want %v", after, want)
	}
}

// testRemovedKey: every node refuses a removed key as soon as it has applied the removal. An upload that was
// let in before goes on to its end.
func testRemovedKey(t *testing.T, k keyed, admin *client.Client, write, read wire.NewKey, body []byte) {
	path := clustertest.Path("alice", "0.png")
	reader, writer := io.Pipe()
	begun := make(chan clustertest.Response)
	go func() {
		begun <- k.send(bearer(write), http.MethodPut, 1, clustertest.Path("alice", "begun.png"), reader, len(body))
	}()
	most := len(body) - 1000 // an upload counts as begun once limits.first_bytes have come
	writer.Write(body[:most])
	clustertest.Poll(t, "the upload is on its way", func() bool {
		return slices.ContainsFunc(k.c.Status(1).Nodes, func(n wire.NodeStatus) bool { return n.Uploads > 0 })
	})
	for _, key := range []wire.NewKey{write, read} {
		for _, id := range k.c.IDs() { // each node knows it
			if r := k.do(bearer(key), http.MethodGet, id, path, nil); r.Status != http.StatusOK {
				t.Fatalf("node %d: %d %s", id, r.Status, r.Body)
			}
		}
		if err := admin.RemoveAccessKey(t.Context(), key.ID); err != nil {
			t.Fatal(err)
		}
		for _, id := range k.c.IDs() {
			poll.Until(t, 3*time.Second, fmt.Sprintf("node %d refuses the removed key", id), func() bool {
				return k.do(bearer(key), http.MethodGet, id, path, nil).Status == http.StatusUnauthorized
			})
			clustertest.ExpectProblem(t, k.do(bearer(key), http.MethodGet, id, path, nil), image.KindUnauthorized)
		}
	}
	writer.Write(body[most:])
	writer.Close()
	if r := <-begun; r.Status != http.StatusCreated {
		t.Errorf("the upload that was let in before: %d %s", r.Status, r.Body)
	}
	if err := admin.RemoveAccessKey(t.Context(), read.ID); image.KindOf(err) != image.KindNotFound {
		t.Errorf("removed again: %v", err)
	}
}

// fileWith returns a file under dir that has a text, empty when none has.
func fileWith(t *testing.T, dir, text string) (found string) {
	t.Helper()
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if bytes.Contains(b, []byte(text)) {
			found = path
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// lockedBuffer is a log in memory.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}
