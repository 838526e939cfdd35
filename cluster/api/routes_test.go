package api

import (
	"context"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/watch"
	"imgcluster/cluster/wire"
)

// touched is a node of which nothing can be asked without that being counted.
type touched struct{ calls atomic.Int64 }

var errTouched = image.Errorf(image.KindInternal, "touched")

func (n *touched) touch() error { n.calls.Add(1); return errTouched }

func (n *touched) Put(context.Context, image.Request, io.Reader) (*image.Record, error) {
	return nil, n.touch()
}

func (n *touched) Announce(context.Context, image.Request, []image.NodeID) ([]image.NodeID, error) {
	return nil, n.touch()
}

func (n *touched) Record(context.Context, string, string) (*image.Record, error) {
	return nil, n.touch()
}

func (n *touched) List(context.Context, string, string, string, int) (wire.List, error) {
	return wire.List{}, n.touch()
}

func (n *touched) Delete(context.Context, image.ID, string, string, image.Conditions) error {
	return n.touch()
}

func (n *touched) Open(context.Context, *image.Record) wire.Content { panic(n.touch()) }

func (n *touched) OpenEncrypted(context.Context, *image.Record) (wire.Content, image.Copy, error) {
	return nil, image.Copy{}, n.touch()
}

func (n *touched) Ready() error                                { return nil }
func (n *touched) Await(context.Context, string, string) error { return n.touch() }
func (n *touched) Cluster() wire.ClusterStatus                 { n.touch(); return wire.ClusterStatus{} }
func (n *touched) Info() wire.NodeInfo                         { n.touch(); return wire.NodeInfo{} }
func (n *touched) Route(string, string) (image.NodeID, bool)   { n.touch(); return 0, true }

func (n *touched) Members(context.Context) ([]wire.Member, error)        { return nil, n.touch() }
func (n *touched) ChangeMember(context.Context, wire.MemberChange) error { return n.touch() }
func (n *touched) WriteMetrics(io.Writer)                                { n.touch() }
func (n *touched) WriteBackup(context.Context, io.Writer) error          { return n.touch() }

func (n *touched) OpenShard(context.Context, uint64) (func(io.Writer) error, bool, error) {
	return nil, false, n.touch()
}

func (n *touched) Hello(context.Context, image.NodeID, []byte) ([]byte, error) { return nil, n.touch() }

func (n *touched) Join(context.Context, image.NodeID, []byte) ([]byte, error) { return nil, n.touch() }

func (n *touched) Group(context.Context, image.NodeID, []byte) ([]byte, error) { return nil, n.touch() }

func (n *touched) Status() wire.NodeStatus { n.touch(); return wire.NodeStatus{} }

func (n *touched) Messages(image.NodeID) (<-chan []byte, func()) { return nil, func() { n.touch() } }

func (n *touched) OpenCopy(image.FileID) (wire.Content, error)           { return nil, n.touch() }
func (n *touched) Suspect(string, string) error                          { return n.touch() }
func (n *touched) RemoveAccessKey(context.Context, string, string) error { return n.touch() }
func (n *touched) AddUser(context.Context, string) (wire.User, error)    { return wire.User{}, n.touch() }

func (n *touched) RemoveUser(context.Context, string) (r wire.Removal, e error) { return r, n.touch() }

func (n *touched) Verify(
	context.Context, float64, bool, func(wire.VerifyLine) error,
) (wire.VerifySummary, error) {
	return wire.VerifySummary{}, n.touch()
}

func (n *touched) ListShards(
	context.Context, []uint64, string, string, string, int,
) (wire.List, error) {
	return wire.List{}, n.touch()
}

func (n *touched) AccessKeys(context.Context, string, string, int) (wire.KeyList, error) {
	return wire.KeyList{}, n.touch()
}

func (n *touched) AddAccessKey(context.Context, wire.KeyRequest) (wire.NewKey, error) {
	return wire.NewKey{}, n.touch()
}

func (n *touched) Users(context.Context, string, int) (wire.UserList, error) {
	return wire.UserList{}, n.touch()
}

func (n *touched) MasterKey(context.Context) (wire.MasterKey, error) {
	return wire.MasterKey{}, n.touch()
}

func (n *touched) ChangeMasterKey(context.Context, wire.MasterKeyChange) error { return n.touch() }

func (n *touched) RotateUserKey(context.Context, string) (wire.UserKey, error) {
	return wire.UserKey{}, n.touch()
}

func (n *touched) Rewrap(context.Context, string) (wire.Rewrap, error) {
	return wire.Rewrap{}, n.touch()
}

func (n *touched) RewrapState(context.Context, string) (wire.Rewrap, error) {
	return wire.Rewrap{}, n.touch()
}

func (n *touched) OldCopies(context.Context, wire.OldCopiesQuery) (wire.OldCopies, error) {
	return nil, n.touch()
}

func (n *touched) UserKeys(context.Context, string, int) (wire.UserKeyList, error) {
	return wire.UserKeyList{}, n.touch()
}

func (n *touched) Watch(bool, string) *watch.Watcher { n.touch(); return &watch.Watcher{} }
func (n *touched) Leave(*watch.Watcher)              { n.touch() }
func (n *touched) History() wire.History             { n.touch(); return wire.History{} }

func (n *touched) Report(context.Context, io.Reader) ([]byte, error) { return nil, n.touch() }

func (n *touched) Start(string) error { return n.touch() }
func (n *touched) State() wire.Run    { n.touch(); return wire.Run{} }
func (n *touched) Page() []byte       { n.touch(); return []byte("page") }
func (n *touched) ScriptHash() string { return "sha256-x" }

func (n *touched) NewSession(
	context.Context, string, string, time.Time,
) (*http.Cookie, access.Principal, error) {
	return nil, access.Principal{}, n.touch()
}

// unreadBody is a body that must not be read.
type unreadBody struct{ read atomic.Bool }

func (b *unreadBody) Read([]byte) (int, error) { b.read.Store(true); return 0, io.EOF }

// keyID is the ID of all keys, and of the thing that a path names.
const keyID = "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2"

// senders are all kinds of senders, by what the table in DESIGN calls them.
var senders = map[string]access.Principal{
	"stranger":     {},
	"read":         {Key: keyID, User: "alice", Role: image.RoleRead},
	"write":        {Key: keyID, User: "alice", Role: image.RoleWrite},
	"metrics":      {Key: keyID, Role: image.RoleMetrics},
	"metrics of":   {Key: keyID, User: "alice", Role: image.RoleMetrics},
	"admin":        {Key: keyID, Role: image.RoleAdmin},
	"admin of":     {Key: keyID, User: "bob", Role: image.RoleAdmin},
	"other read":   {Key: keyID, User: "bob", Role: image.RoleRead},
	"other write":  {Key: keyID, User: "bob", Role: image.RoleWrite},
	"no role":      {Key: keyID, User: "alice"},
	"unknown role": {Key: keyID, User: "alice", Role: "root"},
	"node":         {Node: 2},
	"certificate":  access.Administrator,
}

// allowed says who may use each route, apart from the table that is tested.
var allowed = map[string][]string{
	"GET /livez":           clients,
	"GET /readyz":          clients,
	"GET /metrics":         {"metrics", "metrics of", "admin", "admin of", "certificate"},
	"GET /v1/cluster":      keyHolders,
	"GET /v1/events":       keyHolders,
	"GET /v1/session":      keyHolders,
	"POST /v1/session":     clients,
	"DELETE /v1/session":   clients,
	"GET /ui/":             clients,
	"GET /v1/openapi.yaml": clients,
	"GET /v1/history":      administrators,
	"POST /v1/report":      administrators,
	"GET /v1/runs":         administrators,
	"POST /v1/runs":        administrators,
	"GET /v1/runs/report":  administrators,
	"GET /v1/backup":       administrators,
	"GET /v1/log-level":    administrators,
	"PUT /v1/log-level":    administrators,

	"GET /v1/node":     administrators,
	"GET /v1/members":  administrators,
	"POST /v1/members": administrators,
	"POST /v1/verify":  administrators,

	"GET /v1/keys":            append([]string{"read", "write", "other read", "other write"}, administrators...),
	"POST /v1/keys":           administrators,
	"DELETE /v1/keys/{id}":    append([]string{"read", "write", "other read", "other write"}, administrators...),
	"GET /v1/users":           administrators,
	"POST /v1/users":          administrators,
	"DELETE /v1/users/{user}": administrators,

	"GET /v1/master-key":        administrators,
	"POST /v1/master-key":       administrators,
	"GET /v1/user-keys":         administrators,
	"POST /v1/users/{user}/key": administrators,

	"POST /v1/users/{user}/rewrap": administrators,
	"GET /v1/users/{user}/rewrap":  administrators,

	"GET /v1/images/{user}":              append([]string{"read", "write", "node"}, administrators...),
	"GET /v1/images/{user}/{name...}":    append([]string{"read", "write", "node"}, administrators...),
	"PUT /v1/images/{user}/{name...}":    append([]string{"write", "node"}, administrators...),
	"POST /v1/images/{user}/{name...}":   append([]string{"write", "node"}, administrators...),
	"DELETE /v1/images/{user}/{name...}": append([]string{"write", "node"}, administrators...),
	"POST /internal/v1/hello":            {"node"},
	"POST /internal/v1/join":             {"node"},
	"POST /internal/v1/group":            {"node"},
	"POST /internal/v1/suspect":          {"node"},
	"GET /internal/v1/status":            {"node"},
	"GET /internal/v1/copies/{file}":     {"node"},
	"GET /internal/v1/images":            {"node"},
	"GET /internal/v1/old-copies":        {"node"},
	"GET /internal/v1/shards/{shard}":    {"node"},
}

var administrators = []string{"admin", "admin of", "certificate"}

// keyHolders are those whose role says anything.
var keyHolders = append(
	[]string{"read", "write", "metrics", "metrics of", "other read", "other write"}, administrators...)

// clients are all senders but nodes, who have a port of their own.
var clients = slices.DeleteFunc(slices.Collect(maps.Keys(senders)),
	func(sender string) bool { return sender == "node" })

func guarded(who *access.Principal) (*Handler, *touched) {
	n := &touched{}
	return New(Options{
		ID: 1, Images: n, Node: n, Peers: n, Accounts: n, Keys: n, Watch: n, Runs: n, Sessions: n,
		UI:    http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}),
		Ended: func(trace.Op, *trace.Request, Outcome) {}, Logger: zap.NewNop(),
		Level: zap.NewAtomicLevel(), ImageBytes: 1 << 20,
		ListPage: 10, BodyIdle: time.Second, Reads: 1, KeyReads: 1, Uploads: 1, KeyUploads: 1, Streams: 1,
		StatusEvery:  time.Hour,
		HostAllowed:  func(string) bool { return true },
		Authenticate: func(*http.Request) (access.Principal, error) { return *who, nil },
	}), n
}

// sample is a path of a route, about the images of alice.
var sample = strings.NewReplacer("{user}", "alice", "{name...}", "a/b.png", "{id}", keyID,
	"{file}", keyID+"-2-a0000000000000000000000000000001", "{shard}", "2")

// serveOrAbort serves a request, which may end without an answer when its time is over.
func serveOrAbort(h *Handler, w http.ResponseWriter, r *http.Request) {
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			panic(p)
		}
	}()
	if r.TLS != nil {
		h.ForPeers().ServeHTTP(w, r)
		return
	}
	h.ServeHTTP(w, r)
}

// TestRoutes walks every route with every sender, on the sender's port: who may not use it is refused with
// 401 or 403, or 404 where there is no such route on this port, before anything is asked of the node, a slot
// is taken or the body is read, and the others get through.
func TestRoutes(t *testing.T) {
	var who access.Principal
	h, node := guarded(&who)
	h.reads.enter(t.Context(), "", 0, nil) // none is left: a refusal that took one would wait
	h.shutdown, h.cancel = context.WithCancel(t.Context())
	h.cancel() // status streams end
	seen := map[string]bool{}
	for _, one := range routes {
		key := one.method + " " + one.path
		may, known := allowed[key]
		if !known || seen[key] {
			t.Errorf("%s is not among the routes whose senders are known, or is there twice", key)
			continue
		}
		seen[key] = true
		methods := []string{one.method}
		if one.method == http.MethodGet {
			methods = append(methods, http.MethodHead)
		}
		for _, method := range methods {
			for name, p := range senders {
				who = p
				node.calls.Store(0)
				body := &unreadBody{}
				r := httptest.NewRequest(method, sample.Replace(one.path), body)
				r.Header.Set("Expect", "100-continue") // else net/http reads what is left
				r.ContentLength = 10
				w := httptest.NewRecorder()
				begun := time.Now()
				if p.Node != 0 {
					r.TLS = nodeState(t, p.Node)
				}
				ctx, cancel := context.WithTimeout(r.Context(), 50*time.Millisecond)
				serveOrAbort(h, w, r.WithContext(ctx))
				cancel()
				refused := w.Code == http.StatusUnauthorized || w.Code == http.StatusForbidden ||
					w.Code == http.StatusNotFound
				if refused == slices.Contains(may, name) {
					t.Errorf("%s %s by %s: %d %s", method, one.path, name, w.Code, w.Body)
				}
				if !refused {
					continue
				}
				if node.calls.Load() > 0 || body.read.Load() || time.Since(begun) > readWait/2 {
					t.Errorf("%s %s by %s: the refusal asked %d things of the node and took %v", method, one.path, name,
						node.calls.Load(), time.Since(begun))
				}
				stranger := p == access.Principal{}
				if challenged := len(w.Header()["Www-Authenticate"]) == 2; challenged != stranger ||
					stranger != (w.Code == http.StatusUnauthorized) {
					t.Errorf("%s %s by %s: %d, %v", method, one.path, name, w.Code, w.Header())
				}
			}
		}
	}
	for key := range allowed {
		if !seen[key] {
			t.Errorf("there is no route %s", key)
		}
	}
}

// TestNoOtherRoutes: what is no route, or is no method of one, tells a stranger nothing, not even that.
func TestNoOtherRoutes(t *testing.T) {
	var who access.Principal
	h, node := guarded(&who)
	paths := []string{
		"/", "/v1", "/v1/", "/v1/images", "/v1/images/", "/v1/images//a", "/v1/images/alice/../bob/a",
		"/v1/images/%zz", "/internal", "/internal/", "/internal/v1/", "/v1/keys/", "/v1/keys/a/b", "/debug/pprof/",
		"/v1/users/alice/x", "/V1/CLUSTER", "/v1/cluster/", "//v1/cluster", "/metrics/", "/livez/..",
	}
	for _, one := range routes {
		paths = append(paths, sample.Replace(one.path))
	}
	for _, path := range paths {
		for _, method := range []string{
			"GET", "HEAD", "PUT", "POST", "DELETE", "OPTIONS", "PATCH", "TRACE", "CONNECT", "get", "BREW",
		} {
			may := allowed[method+" "+path]
			if method == http.MethodHead {
				may = allowed["GET "+path]
			}
			if slices.Contains(may, "stranger") {
				continue
			}
			r := httptest.NewRequest("GET", "/", nil)
			r.Method, r.URL.Path, r.URL.RawPath = method, path, ""
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != http.StatusUnauthorized || node.calls.Load() > 0 || w.Header().Get("Allow") != "" {
				t.Errorf("%s %s by a stranger: %d %s", method, path, w.Code, w.Body)
			}
		}
	}
	who = senders["metrics"]
	for path, want := range map[string]int{
		"/v1/nothing": 404, "/v1/images/alice/../b": 400, "/v1/images/": 400,
	} {
		w := httptest.NewRecorder()
		r := httptest.NewRequest("GET", "/", nil)
		r.URL.Path, r.URL.RawPath = path, path
		if h.ServeHTTP(w, r); w.Code != want {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
}

// TestOthersImages: what a key may not reach is answered the same whether it is there or not. The sender and
// the path alone decide: nothing is looked up, so that the time says nothing either.
func TestOthersImages(t *testing.T) {
	who := senders["read"]
	h, node := guarded(&who)
	answers := map[string]int{}
	for _, path := range []string{"bob/there.png", "bob/nothere.png", "nobody/there.png"} {
		for _, method := range []string{"GET", "HEAD", "PUT", "DELETE"} {
			r := httptest.NewRequest(method, wire.ImagesPath+path, nil)
			r.Header.Set("If-Match", "*")
			r.Header.Set(wire.RequestField, "the-same")
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			answers[strings.ReplaceAll(w.Body.String(), path, "PATH")]++
			if w.Code != http.StatusForbidden {
				t.Errorf("%s %s: %d", method, path, w.Code)
			}
		}
	}
	if node.calls.Load() > 0 || len(answers) != 4 {
		t.Errorf("%d things were asked of the node, and there were %d answers to 4 methods: %v",
			node.calls.Load(), len(answers), answers)
	}
}

// TestCredentialsThatAreNotGood: an error of the authentication is the answer, on every route but those for
// anyone, whose probes need none.
func TestCredentialsThatAreNotGood(t *testing.T) {
	var who access.Principal
	h, node := guarded(&who)
	h.Authenticate = func(*http.Request) (access.Principal, error) {
		return access.Administrator, image.Errorf(image.KindUnauthorized, "expired").WithHint("renew it")
	}
	for _, one := range routes {
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(one.method, sample.Replace(one.path), nil))
		if want := one.who == anyone; (w.Code != http.StatusUnauthorized) != want ||
			!want && (w.Code != http.StatusUnauthorized || !strings.Contains(w.Body.String(), "renew it")) {
			t.Errorf("%s %s: %d %s", one.method, one.path, w.Code, w.Body)
		}
	}
	if node.calls.Load() > 0 {
		t.Errorf("%d things were asked of the node", node.calls.Load())
	}
}

// TestRemovedKeys: a key that reads can remove itself alone, and one that writes those of its user.
func TestRemovedKeys(t *testing.T) {
	var who access.Principal
	h, _ := guarded(&who)
	asked := &askedFor{}
	h.Accounts = asked
	for _, x := range []struct {
		sender, id, of string
		want           int
	}{
		{"read", keyID, "alice", 204},
		{"read", "OTHER", "", 403},
		{"write", "OTHER", "alice", 204},
		{"admin", "OTHER", "", 204},
		{"admin of", "OTHER", "", 204},
		{"metrics of", keyID, "", 403},
	} {
		who = senders[x.sender]
		*asked = askedFor{}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("DELETE", wire.KeysPath+"/"+x.id, nil))
		if w.Code != x.want || x.want == 204 && (asked.id != x.id || asked.of != x.of) {
			t.Errorf("%s removes %s: %d, %+v", x.sender, x.id, w.Code, asked)
		}
	}
	for sender, of := range map[string]string{"read": "alice", "other write": "bob", "admin": "carol"} {
		who = senders[sender]
		w := httptest.NewRecorder()
		if h.ServeHTTP(w, httptest.NewRequest("GET", wire.KeysPath+"?user=carol", nil)); asked.of != of {
			t.Errorf("%s lists the keys of %q: %d", sender, asked.of, w.Code)
		}
	}
}

// askedFor keeps what it was asked for last.
type askedFor struct {
	Accounts
	id, of string
}

func (a *askedFor) RemoveAccessKey(_ context.Context, id, of string) error {
	a.id, a.of = id, of
	return nil
}

func (a *askedFor) AccessKeys(_ context.Context, of, _ string, _ int) (wire.KeyList, error) {
	a.of = of
	return wire.KeyList{}, nil
}

// unready is a node whose disk has failed.
type unready struct{ *touched }

func (unready) Ready() error {
	return image.Errorf(image.KindAborted, "sync /srv/data/ab.img: input/output error").WithHint("look at /srv")
}

// TestUnready: a stranger learns that a node is not ready, and not why.
func TestUnready(t *testing.T) {
	var who access.Principal
	h, node := guarded(&who)
	h.Node = unready{node}
	for name, p := range senders {
		if p.Node != 0 {
			continue
		}
		who = p
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, wire.ReadyPath, nil))
		tells, known := strings.Contains(w.Body.String(), "/srv"), slices.Contains(allowed["GET /v1/cluster"], name)
		if w.Code != http.StatusServiceUnavailable || tells != known || !strings.Contains(w.Body.String(), "hint") {
			t.Errorf("%s: %d %s", name, w.Code, w.Body)
		}
	}
}
