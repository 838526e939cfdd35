// Package client stores images on a cluster and reads, lists and deletes them, over HTTP. An upload goes at
// once to all nodes that may store it, and ends with the first receipt; all else goes to any node that
// answers:
//
//	c, err := client.New(client.Options{Nodes: []client.Node{{ID: 1, Addr: "10.40.45.206:8001"}}})
//	defer c.Close()
//	r, err := c.Put(ctx, client.Upload{User: "alice", Name: "a.png", Size: size, Body: open})
//	<-r.Done // nothing reads the image any more
//	obj, err := c.Get(ctx, "alice", "a.png", false)
//	defer obj.Body.Close()
//	for info, err := range c.All(ctx, "alice", "2026/") { ... }
//	err = c.Delete(ctx, "alice", "a.png", "")
//
// Sizes are in bytes. User and image names are as image.CheckUser and image.CheckName want them. Where the
// cluster uses TLS, [Options] needs TLS and an access key.
//
// # Errors
//
// A failure is an *image.Error: its kind, by image.KindOf, is what the node answered, image.HintOf says what
// to do, and Temporary of the kind whether the same may succeed later. Two have a mark too, for errors.Is:
// [ErrNobodyAnswers] and [ErrMistrusted]. When the context ends, its cause is in the error's chain.
//
// # Retries
//
// A request goes to each node in turn, and again, up to Options.Attempts times, when no node answers, or
// what they answer is temporary: a connection that breaks, no quorum, overload (408, 429, most of 5xx).
// Between two tries it waits up to BackoffMin, then twice as long and so on, up to BackoffMax, and at least
// what the node asks for by Retry-After, 30 s at most. A refusal, a full disk and a node that is not trusted
// are not tried again. An upload or a deletion is sent again under its ID, and so is done once. Methods that
// are about one node, and Cluster, do not try again: their comments say so.
//
// Connections are kept alive, 64 to each node; every wait and answer is bounded. Options.Waiting hears of a
// request that has no answer yet.
package client

import (
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/halfopen"
	"imgcluster/cluster/image"
)

// Node is one node: its ID in the cluster, and the address of its API, host:port.
type Node struct {
	ID   image.NodeID
	Addr string
}

// Delivery is the way in which an upload reaches the nodes that store it.
type Delivery string

// The deliveries.
const (
	// Broadcast sends to every node that holds the image's shard: whichever fails, the others have the bytes.
	Broadcast Delivery = "broadcast"
	// Announce asks one node which are to store the image, and sends to these alone. When one of them fails,
	// another one of them sends the bytes on; when all do, the client asks once more.
	Announce Delivery = "announce"
	// Relay sends to one node, which sends on to those that store the image.
	Relay Delivery = "relay"
	// Auto tries Announce and Broadcast with the first images, and goes on with Broadcast unless Announce is
	// clearly faster, as it is where the client's link is what limits. Until that is known it is Announce.
	Auto Delivery = "auto"
)

// Deliveries are all of them.
var Deliveries = []Delivery{Broadcast, Announce, Relay, Auto}

// Options are the client's settings; a zero value takes the default named at its field.
type Options struct {
	Nodes    []Node   // as config.Config has them, each once
	Delivery Delivery // Broadcast
	Attempts int      // 6: tries of one request before it fails, each over all nodes
	// 100 ms: the longest wait before the second try; doubles with each further one
	BackoffMin  time.Duration
	BackoffMax  time.Duration // 3 s: the longest wait between two tries
	DialTimeout time.Duration // 2 s
	// 60 s: from the end of an upload's body to its answer; also the longest stall in a body
	ResponseTimeout  time.Duration
	ReadTimeout      time.Duration // 10 s: from any other request to its answer
	ReadLimit        time.Duration // none: from the beginning of a read, with all its tries, to its answer
	StragglerTimeout time.Duration // 5 s: what the other nodes get to end an upload after the first receipt
	StartHint        string        // "start one with: imgcluster up"; the next step when no node answers
	// TLS has whom the client trusts and its own certificate, as access.Client makes it; nil: plain HTTP.
	TLS *tls.Config
	// Key is the access key that is sent with each request; zero: none. It is sent in clear to loopback
	// addresses alone.
	Key access.Credentials
	// Waiting is called while a request has no answer, every 5 s at most. It may be nil, and must not call
	// the client.
	Waiting func(Wait)
}

const (
	idleConnsMax     = 64                     // kept-alive connections for each node
	idleConnTimeout  = 60 * time.Second       // shorter than the node's own, so that the client closes first
	readBufferBytes  = 64 << 10               // of each connection
	answerBytesMax   = 64 << 10               // of a receipt or an error
	documentBytesMax = 16 << 20               // of a list or a status
	writePieceBytes  = 1 << 20                // of memory given to the kernel at once
	copyBufferBytes  = 256 << 10              // for bodies that are not in memory
	hedgeDelay       = 300 * time.Millisecond // before one more node is asked what one does not answer
	askAgainAfter    = 10 * time.Second       // without progress, before an upload is announced once more
	connectGrace     = 100 * time.Millisecond // for a stream without a connection when a receipt is there
)

// ErrNobodyAnswers is in the chain of the error of a request that reached no node. The error's kind
// is image.KindNoQuorum.
var ErrNobodyAnswers = errors.New("no node answers")

// Client speaks to one cluster. It is safe for concurrent use.
type Client struct {
	o         Options
	http      *http.Client
	allNodes  shardNodes
	shards    atomic.Pointer[shardMap] // nil: every node holds every shard
	stale     atomic.Bool              // a node answered that it does not hold a shard that shards has on it
	members   atomic.Pointer[[]Node]   // as a node listed them last; nil: not yet
	nextRelay atomic.Uint32            // the node that gets the next relayed upload
	announced atomic.Uint32            // the node that answered the last announcement; asked first
	auto      trial
	last      atomic.Uint32 // the node that answered last; asked first
	waitMu    sync.Mutex
	waited    time.Time       // the last call of Options.Waiting
	scheme    string          // of the nodes' addresses, with what follows it
	ctx       context.Context // ends with Close
	cancel    context.CancelFunc
}

// New returns a client of the given nodes. It connects to none of them yet. Without nodes, or with an unknown
// delivery, the error is of image.KindInvalid.
func New(o Options) (*Client, error) {
	if err := o.validate(); err != nil {
		return nil, err
	}
	o.setDefaults()
	c := &Client{o: o, allNodes: newShardNodes(o.Nodes), scheme: "http://"}
	if o.TLS != nil {
		c.scheme = "https://"
	}
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.http = &http.Client{
		Transport:     newTransport(o),
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	return c, nil
}

func newTransport(o Options) *http.Transport {
	dialer := halfopen.Dialer(o.DialTimeout, halfopen.Unanswered)
	dial := func(ctx context.Context, network, addr string) (net.Conn, error) {
		raw, err := dialer.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		return &patient{Conn: raw, stall: o.ResponseTimeout}, nil
	}
	return &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return conn{c}, nil
		},
		DialTLSContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := dial(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return handshake(ctx, c, addr, o)
		},
		MaxIdleConnsPerHost:   idleConnsMax,
		IdleConnTimeout:       idleConnTimeout,
		ResponseHeaderTimeout: o.ResponseTimeout,
		ReadBufferSize:        readBufferBytes, // bodies bypass the write buffer, see conn.ReadFrom
		DisableCompression:    true,
	}
}

// Close ends what is still under way and closes the kept-alive connections. A client that was
// closed sends nothing any more.
func (c *Client) Close() {
	c.cancel()
	c.http.CloseIdleConnections()
}

func (o *Options) validate() error {
	if len(o.Nodes) == 0 {
		return image.Errorf(image.KindInvalid, "the client has no nodes").
			WithHint("list the nodes as in the cluster's configuration")
	}
	if o.Delivery == "" {
		return nil
	}
	return o.Delivery.Check()
}

// Check returns an error, of image.KindInvalid, when there is no such delivery.
func (d Delivery) Check() error {
	if slices.Contains(Deliveries, d) {
		return nil
	}
	return image.Errorf(image.KindInvalid, "no delivery is named %q", d).
		WithHint("use broadcast, announce, relay or auto")
}

func (o *Options) setDefaults() {
	if o.Delivery == "" {
		o.Delivery = Broadcast
	}
	o.StartHint = cmp.Or(o.StartHint, "start one with: imgcluster up")
	setDefault(&o.Attempts, 6)
	setDefault(&o.BackoffMin, 100*time.Millisecond)
	setDefault(&o.BackoffMax, 3*time.Second)
	setDefault(&o.DialTimeout, 2*time.Second)
	setDefault(&o.ResponseTimeout, 60*time.Second)
	setDefault(&o.ReadTimeout, 10*time.Second)
	setDefault(&o.StragglerTimeout, 5*time.Second)
}

func setDefault[T int | time.Duration](v *T, def T) {
	if *v <= 0 {
		*v = def
	}
}
