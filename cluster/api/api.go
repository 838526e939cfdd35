// Package api is a node's HTTP side: it turns requests into calls of the interfaces below, and
// results and errors into responses. It bounds what a client can make the node hold or wait for.
package api

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"log"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/thumbnail"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// Images is what clients ask for. Errors are *image.Error; others are
// answered as internal.
type Images interface {
	// Put takes an upload to its record. body fails in bounded time when the client is gone.
	Put(ctx context.Context, req image.Request, body io.Reader) (*image.Record, error)
	// Announce returns the nodes that an upload is to be sent to, the owner first, none of without.
	Announce(ctx context.Context, req image.Request, without []image.NodeID) ([]image.NodeID, error)
	// Record returns the newest record of a name.
	Record(ctx context.Context, user, name string) (*image.Record, error)
	// List returns up to limit images whose names start with prefix and come after `after`.
	List(ctx context.Context, user, prefix, after string, limit int) (wire.List, error)
	// Delete removes a name's image. Called again with the same id it does nothing more and returns the same.
	Delete(ctx context.Context, id image.ID, user, name string, cond image.Conditions) error
	// Open returns the image's plaintext, only what was authenticated.
	Open(ctx context.Context, rec *image.Record) wire.Content
	// OpenEncrypted returns one copy's file as it is stored, and which copy it is.
	OpenEncrypted(ctx context.Context, rec *image.Record) (wire.Content, image.Copy, error)
}

// Node is what the node reports of itself.
type Node interface {
	// Ready returns why the node cannot serve all images, nil when it can.
	Ready() error
	// Await is Ready for one image, or for all of a user's when name is empty. It waits for as long
	// as an election takes: a client need not notice one.
	Await(ctx context.Context, user, name string) error
	Cluster() wire.ClusterStatus
	Info() wire.NodeInfo
	// Route reports whether this node holds the shard of a name, and if not a node that does, 0 when none is
	// up.
	Route(user, name string) (holder image.NodeID, here bool)
	// Members lists the members with all changes made before.
	Members(ctx context.Context) ([]wire.Member, error)
	ChangeMember(ctx context.Context, c wire.MemberChange) error
	// Verify reads this node's copies, or a sample of that share of them, calls report after each one,
	// and ends with report's error. fix replaces what is bad.
	Verify(ctx context.Context, sample float64, fix bool,
		report func(wire.VerifyLine) error) (wire.VerifySummary, error)
	WriteMetrics(w io.Writer)
	// WriteBackup writes a backup of the catalog, sealed.
	WriteBackup(ctx context.Context, w io.Writer) error
}

// Peers is what other nodes ask for. from is the node that asks, by its certificate.
type Peers interface {
	// Hello compares what the nodes must agree on and answers with this node's side.
	Hello(ctx context.Context, from image.NodeID, theirs []byte) (ours []byte, err error)
	// Join takes in a node that starts with an empty data directory and answers with the membership.
	Join(ctx context.Context, from image.NodeID, theirs []byte) (members []byte, err error)
	// Group answers who is in a shard's Raft group.
	Group(ctx context.Context, from image.NodeID, query []byte) (answer []byte, err error)
	Status() wire.NodeStatus
	// Messages returns what this node has to say to another one from now on, until release is called.
	Messages(to image.NodeID) (messages <-chan []byte, release func())
	// OpenCopy opens this node's file of a copy.
	OpenCopy(f image.FileID) (wire.Content, error)
	// Suspect has the node look at its copy of an image.
	Suspect(user, name string) error
	// ListShards is Images.List of some shards, which this node must hold.
	ListShards(ctx context.Context, shards []uint64, user, prefix, after string, limit int) (wire.List, error)
	// OpenShard returns what writes the state of a shard, and reports whether it may lack the newest changes.
	OpenShard(ctx context.Context, shard uint64) (write func(io.Writer) error, behind bool, err error)
	// OldCopies counts the copies under older keys in some shards, which this node must hold.
	OldCopies(ctx context.Context, q wire.OldCopiesQuery) (wire.OldCopies, error)
}

// Keys are the master key and the users' keys.
type Keys interface {
	MasterKey(ctx context.Context) (wire.MasterKey, error)
	ChangeMasterKey(ctx context.Context, c wire.MasterKeyChange) error
	// RotateUserKey gives a user a newer key for new images.
	RotateUserKey(ctx context.Context, user string) (wire.UserKey, error)
	// Rewrap begins to encrypt all copies of a user's images that are under older keys again, under the newest
	// one.
	Rewrap(ctx context.Context, user string) (wire.Rewrap, error)
	// RewrapState returns how far that is; the error is KindNotFound when it was never begun.
	RewrapState(ctx context.Context, user string) (wire.Rewrap, error)
	// UserKeys returns up to limit wrapped keys of users that come after the place `after`.
	UserKeys(ctx context.Context, after string, limit int) (wire.UserKeyList, error)
}

// Options bounds and wires a Handler. All fields are needed.
type Options struct {
	ID         image.NodeID
	Images     Images
	Node       Node
	Peers      Peers
	Accounts   Accounts
	Keys       Keys
	Sessions   Sessions
	Watch      Watch
	Thumbnails *thumbnail.Maker
	Runs       Runs         // nil: there are none
	UI         http.Handler // the pages under wire.UIPath
	// Ended is called for each image that was to be taken, and for each one or part of one that was sent.
	Ended       func(trace.Op, *trace.Request, Outcome)
	Logger      *zap.Logger
	Level       zap.AtomicLevel   // of Logger
	Tracer      trace.Tracer      // of what is asked of images; nil: there is none
	Forward     http.RoundTripper // to other nodes, by wire.NodeHost
	ImageBytes  int64             // largest body
	ListPage    int               // largest page of a list
	BodyIdle    time.Duration     // a body that does not move for this long is given up
	BodyRate    int64             // bytes a second that a body must move at; 0: any
	BodyGrace   time.Duration     // that it may fall behind by
	BusyRate    int64             // bytes a second that a body must move at while others wait for its place
	BusyGrace   time.Duration     // that it may fall behind by
	Reads       int               // images sent to clients at once
	KeyReads    int               // of these, to one access key or address
	Uploads     int               // bodies taken at once, and as many forwarded to nodes that hold their shards
	KeyUploads  int               // of these, of one access key or address
	FirstBytes  int64             // of a body that must have come before it is taken
	UploadBytes int64             // of all bodies that are taken at once, and of those forwarded
	Streams     int               // status streams at once to one address
	StatusEvery time.Duration     // period of the status stream
	// Authenticate returns who sends a request: the zero Principal when it has no credentials, and the error
	// KindUnauthorized when it has some that are not good.
	Authenticate func(r *http.Request) (access.Principal, error)
	// HostAllowed reports whether a name, in lower case, is one that this node is reached by.
	HostAllowed func(host string) bool
}

// Outcome is what became of an upload or a read.
type Outcome struct {
	User, Name string
	Bytes      int64
	Err        error
}

// Handler serves the HTTP API.
type Handler struct {
	Options
	mux      *http.ServeMux                  // of clients
	peers    *http.ServeMux                  // of other nodes
	rx, tx   atomic.Int64                    // body bytes
	refused  map[access.Reason]*atomic.Int64 // requests, by why
	errorLog *log.Logger
	changed  atomic.Pointer[chan struct{}] // closed when the status has changed in more than its figures
	shutdown context.Context               // ends when the node is shutting down
	cancel   context.CancelFunc

	lists, shardLists        *gate
	reads, uploads, forwards *gate
	watchers, thumbnails     *gate
	reports, backups         *gate

	streamsMu sync.Mutex
	streams   map[netip.Prefix]int // status streams by address
}

// New returns the handler of a node's API address.
func New(o Options) *Handler {
	h := &Handler{
		Options: o, mux: http.NewServeMux(), peers: http.NewServeMux(), streams: map[netip.Prefix]int{},
		refused: map[access.Reason]*atomic.Int64{},
	}
	for _, reason := range access.Reasons {
		h.refused[reason] = new(atomic.Int64)
	}
	h.lists = newGate(bounds{what: "lists", all: listsMax, perKey: listsMax / 2, wait: listWait})
	h.shardLists = newGate(bounds{
		what: "lists for other nodes", all: listsMax, perKey: listsMax, wait: listWait,
	})
	h.watchers = newGate(bounds{what: "event streams", all: eventsMax, perKey: eventsMax / 2, wait: 0})
	h.reports = newGate(bounds{what: "reports", all: reportsMax, perKey: reportsMax, wait: reportWait})
	h.backups = newGate(bounds{what: "backups", all: 1, perKey: 1, wait: 0})
	h.thumbnails = newGate(bounds{
		what: "thumbnails", all: thumbnailsMax, perKey: keyThumbnailsMax, wait: thumbnailWait,
	})
	h.reads = newGate(bounds{
		what: "reads", all: o.Reads, allSetting: " (limits.reads)", wait: readWait,
		perKey: o.KeyReads, keySetting: " (limits.key_reads)",
	})
	uploads := bounds{
		what: "uploads", all: o.Uploads, allSetting: " (limits.uploads)", wait: uploadWait,
		perKey: o.KeyUploads, keySetting: " (limits.key_uploads)",
		bytesMax: o.UploadBytes, bytesSetting: " (limits.upload_bytes)",
	}
	h.uploads = newGate(uploads)
	uploads.what = "uploads for other nodes"
	h.forwards = newGate(uploads)
	h.Notify()
	h.errorLog = zap.NewStdLog(o.Logger.Named("forward"))
	h.shutdown, h.cancel = context.WithCancel(context.Background())
	h.addRoutes(h.mux, func(one route) bool { return one.who != nodes })
	h.addRoutes(h.peers, func(one route) bool { return one.who == nodes })
	return h
}

// Notify sends the node's status to the peers now, not only at the next StatusEvery.
func (h *Handler) Notify() {
	next := make(chan struct{})
	if old := h.changed.Swap(&next); old != nil {
		close(*old)
	}
}

// Shutdown ends the status streams, by which the peers see that this node is shutting down. Other requests
// go on.
func (h *Handler) Shutdown() { h.cancel() }

// Traffic returns the body bytes received and sent so far.
func (h *Handler) Traffic() (rx, tx int64) { return h.rx.Load(), h.tx.Load() }

// Refused returns how many requests of clients were refused for their credentials so far, for this reason.
func (h *Handler) Refused(reason access.Reason) int64 { return h.refused[reason].Load() }

func (h *Handler) countRefused(err error) {
	var reason access.Reason
	if errors.As(err, &reason) {
		h.refused[reason].Add(1)
	}
}

// ServeHTTP implements http.Handler: it serves clients. What only nodes may say of a request counts for
// nothing here.
func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	wire.StripNode(r.Header)
	h.withPace(w, r, func(w http.ResponseWriter, r *http.Request) {
		if err := h.checkBrowser(r); err != nil {
			h.fail(w, r, err)
			return
		}
		if err := checkFraming(w, r); err != nil {
			h.fail(w, r, err)
			return
		}
		h.serveOn(h.mux, w, r)
	})
}

// ForPeers returns the handler that serves the other nodes, on connections of mutual TLS: what they ask each
// other, and the requests that they relay and forward. A client's request was authorised by the node that
// forwards it, which is taken at its word: it holds the master key.
func (h *Handler) ForPeers() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		from, ok := image.NodeID(0), r.TLS != nil
		if ok {
			from, ok = access.PeerOf(*r.TLS)
		}
		if !ok {
			h.fail(w, r, image.Errorf(image.KindForbidden, "only the cluster's nodes get through here").
				WithHint("use a node's api_port"))
			return
		}
		r = r.WithContext(access.With(r.Context(), access.Principal{Node: from}))
		h.withPace(w, r, func(w http.ResponseWriter, r *http.Request) { h.serveOn(h.peers, w, r) })
	})
}

// How long reads and uploads wait for others to end. An upload that is assigned to this node and does not
// begin goes to another node after a while.
const (
	readWait   = 5 * time.Second
	uploadWait = time.Second
)

// withPace holds the bodies of a request and its answer to their pace.
func (h *Handler) withPace(w http.ResponseWriter, r *http.Request, serve http.HandlerFunc) {
	w.Header().Set(wire.NodeField, strconv.Itoa(int(h.ID)))
	request := trace.New(wire.RequestID(r.Header))
	r = r.WithContext(trace.With(r.Context(), request))
	r.Header.Set(wire.RequestField, request.ID) // as it is passed on
	w.Header().Set(wire.RequestField, request.ID)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	answer := h.paced(w, r)
	connlimit.Moves(r.Context(), answer)
	w = answer
	h.extend(w)
	if r.Body != nil && r.Body != http.NoBody { // net/http waits for it, whether there is a use for it or not
		http.NewResponseController(w).SetReadDeadline(time.Now().Add(h.BodyIdle))
		body := h.body(w, r)
		connlimit.Moves(r.Context(), body)
		r.Body = body
	}
	serve(w, r)
}

// ui serves the pages of the dashboard. They hold nothing secret: what they show, they ask the API for.
func (h *Handler) ui(w http.ResponseWriter, r *http.Request) { h.UI.ServeHTTP(w, r) }

// extend gives the client BodyIdle from now to take what is written. Every request and every part of
// an answer that had to be waited for does so, for a deadline outlasts the request that set it.
func (h *Handler) extend(w http.ResponseWriter) {
	// An error means that w is not a real connection, which needs no deadline.
	http.NewResponseController(w).SetWriteDeadline(time.Now().Add(h.BodyIdle))
}

// fail answers with err as application/problem+json. The part of the body that the handler did not
// read is read after that, within bounds: else a client that is still sending would see a reset
// connection in place of the answer.
func (h *Handler) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil && !errors.As(err, new(*image.Error)) {
		panic(http.ErrAbortHandler) // the client left; to return would be a success without a body
	}
	p, text := wire.Problem(w.Header(), err)
	trace.From(r.Context()).Fail(string(p.Code))
	if mode := r.Header.Get("Sec-Fetch-Mode"); mode != "" && mode != "navigate" {
		// A browser would ask for a name and a password by itself; the page has a form for the key.
		w.Header()["Www-Authenticate"] = slices.DeleteFunc(w.Header()["Www-Authenticate"],
			func(s string) bool { return strings.HasPrefix(s, "Basic") })
	}
	if p.Status >= 500 && p.Status != http.StatusServiceUnavailable {
		h.Logger.Error("request failed", zap.String("method", r.Method), zap.String("path", r.URL.Path),
			trace.From(r.Context()).Field(), zap.Error(err))
	}
	rest := replyEarly(w, r)
	h.extend(w)
	w.WriteHeader(p.Status)
	w.Write(text)
	switch p.Code {
	case image.KindTooSlow:
	case image.KindUnauthorized, image.KindForbidden, image.KindOverload:
		if rest != nil {
			rest.endBy(time.Now().Add(refusedRead))
		}
		fallthrough
	default:
		h.drain(w, r, rest)
	}
}

// replyEarly lets the answer go out before all of the body came, and returns that body; nil when all came.
func replyEarly(w http.ResponseWriter, r *http.Request) *body {
	rest, ok := r.Body.(*body)
	if !ok || rest.ended.Load() {
		return nil
	}
	w.Header().Set("Connection", "close")
	http.NewResponseController(w).EnableFullDuplex()
	return rest
}

// drain sends the answer and reads on to the end of a body of up to twice the image limit. A client that
// waits for 100 Continue has sent nothing, and does not get one.
func (h *Handler) drain(w http.ResponseWriter, r *http.Request, rest *body) {
	if rest == nil || http.NewResponseController(w).Flush() != nil {
		return
	}
	if r.Header.Get("Expect") != "" && !rest.asked.Load() || r.ContentLength > 2*h.ImageBytes {
		return
	}
	io.Copy(io.Discard, io.LimitReader(rest, 2*h.ImageBytes))
}

func (h *Handler) writeJSON(w http.ResponseWriter, status int, v any) {
	h.extend(w)
	w.Header().Set("Content-Type", wire.DocumentType)
	w.WriteHeader(status)
	json.NewEncoder(w).Encode(v)
}

// cluster sends the cluster's state. Loads and the figures of machines are for administrators.
func (h *Handler) cluster(w http.ResponseWriter, r *http.Request) {
	s := h.Node.Cluster()
	if !access.From(r.Context()).Admin() {
		s = s.Outline()
	}
	h.writeJSON(w, http.StatusOK, s)
}

func (h *Handler) node(w http.ResponseWriter, _ *http.Request) {
	h.writeJSON(w, http.StatusOK, h.Node.Info())
}

func (h *Handler) livez(w http.ResponseWriter, _ *http.Request) {
	io.WriteString(w, "ok\n")
}

// readyz says why the node is not ready to who has a key: the reason may name files. With `maintenance` it is
// whether the node may be stopped now.
func (h *Handler) readyz(w http.ResponseWriter, r *http.Request) {
	err := h.Node.Ready()
	if _, asked := r.URL.Query()["maintenance"]; err == nil && asked {
		err = h.mayStop()
	}
	if err == nil {
		io.WriteString(w, "ok\n")
		return
	}
	if p, refused := h.Authenticate(r); refused != nil || !holders.allows(p, "") {
		err = image.Errorf(image.KindOf(err), "node %d does not serve all images now", h.ID).
			WithHint("ask with an access key for the reason, or look into the node's log")
	}
	h.fail(w, r, err)
}

// mayStop returns why this node should not be stopped now, nil when it may be.
func (h *Handler) mayStop() error {
	for _, n := range h.Node.Cluster().Nodes {
		if n.ID == h.ID && n.KeepUp != "" {
			return image.Errorf(image.KindNoQuorum, "node %d should not be stopped now: %s", h.ID, n.KeepUp).
				WithHint("wait until the other nodes are up and have all copies; see imgcluster status").
				WithRetry(time.Second)
		}
	}
	return nil
}

func (h *Handler) metrics(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
	h.Node.WriteMetrics(w)
}
