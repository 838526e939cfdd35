// Package watch keeps what a node saw of its cluster during the last hour, and tells who watches of every
// change: the dashboard, by server-sent events.
package watch

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strconv"
	"sync"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

const (
	// StatusEvery is how often watchers are told of the cluster's state.
	StatusEvery = time.Second
	// SampleEvery is how far the samples of the history are apart, and historyMax how many it has: an hour.
	SampleEvery = 10 * time.Second
	historyMax  = 360
	// queueMax is how many events wait for one watcher. A slower one is dropped, and has to come again.
	queueMax = 16
	// usersMax bounds the users whose images are said to have changed at once. Of more, nothing is said until
	// theirs change again.
	usersMax = 1000
)

// Hub is the history, and the list of those who watch. It is safe for concurrent use.
type Hub struct {
	cluster func() wire.ClusterStatus

	mu       sync.Mutex
	history  []wire.Sample // a ring
	next     int           // where the next sample goes
	last     wire.ClusterStatus
	lastAt   time.Time
	watchers map[*Watcher]bool
	changed  map[string]bool // users whose images have changed since the last tick
}

// New returns a Hub that has nothing to say before Run.
func New(cluster func() wire.ClusterStatus) *Hub {
	return &Hub{cluster: cluster, watchers: map[*Watcher]bool{}, changed: map[string]bool{}}
}

// Watcher is one who watches.
type Watcher struct {
	admin  bool
	user   string
	events chan []byte
}

// Events returns what to send, as text of an event stream. It is closed when the watcher was too slow.
func (w *Watcher) Events() <-chan []byte { return w.events }

// Watch begins to watch: an administrator sees all figures, others what wire.ClusterStatus.Outline leaves.
// user is whose images are watched too; it may be empty. End it by Leave.
func (h *Hub) Watch(admin bool, user string) *Watcher {
	w := &Watcher{admin: admin, user: user, events: make(chan []byte, queueMax)}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.watchers[w] = true
	return w
}

// Leave ends a watch.
func (h *Hub) Leave(w *Watcher) {
	h.mu.Lock()
	defer h.mu.Unlock()
	delete(h.watchers, w)
}

// Changed says that the images of a user have changed.
func (h *Hub) Changed(user string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(h.watchers) > 0 && len(h.changed) < usersMax {
		h.changed[user] = true
	}
}

// Run samples the cluster and tells watchers until ctx ends. Without watchers it does nothing between two
// samples.
func (h *Hub) Run(ctx context.Context) {
	ticker := time.NewTicker(StatusEvery)
	defer ticker.Stop()
	h.tick(time.Now())
	for {
		select {
		case <-ctx.Done():
			return
		case now := <-ticker.C:
			h.tick(now)
		}
	}
}

func (h *Hub) tick(now time.Time) {
	h.mu.Lock()
	due := now.Sub(h.lastAt) >= SampleEvery-StatusEvery/2
	watched := len(h.watchers) > 0
	h.mu.Unlock()
	if !due && !watched {
		return
	}
	s := h.cluster()
	h.mu.Lock()
	defer h.mu.Unlock()
	if watched {
		h.tell(func(w *Watcher) bool { return w.admin }, wire.EventCluster, s)
		h.tell(func(w *Watcher) bool { return !w.admin }, wire.EventCluster, s.Outline())
		for user := range h.changed {
			h.tell(func(w *Watcher) bool { return w.user == user }, wire.EventImages,
				wire.ImagesChanged{User: user})
		}
	}
	clear(h.changed)
	if due {
		sample := sampleOf(h.last, s, now.Sub(h.lastAt))
		sample.Time = now.Unix()
		h.add(sample)
		h.last, h.lastAt = s, now
		h.tell(func(w *Watcher) bool { return w.admin }, wire.EventSample, sample)
	}
}

// tell sends an event to some of the watchers. The caller holds mu.
func (h *Hub) tell(to func(*Watcher) bool, event string, document any) {
	var text []byte
	for w := range h.watchers {
		if !to(w) {
			continue
		}
		if text == nil {
			text = encode(event, document)
		}
		select {
		case w.events <- text:
		default:
			delete(h.watchers, w)
			close(w.events)
		}
	}
}

// encode returns an event as the text of an event stream (WHATWG HTML, 9.2.5). Its JSON has no line breaks.
func encode(event string, document any) []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "event: %s\ndata: ", event)
	json.NewEncoder(&b).Encode(document) // ends the line
	b.WriteByte('\n')
	return b.Bytes()
}

func (h *Hub) add(s wire.Sample) {
	if len(h.history) < historyMax {
		h.history = append(h.history, s)
		return
	}
	h.history[h.next] = s
	h.next = (h.next + 1) % historyMax
}

// History returns the samples of the last hour, oldest first.
func (h *Hub) History() wire.History {
	h.mu.Lock()
	defer h.mu.Unlock()
	all := wire.History{EveryS: SampleEvery.Seconds(), Samples: make([]wire.Sample, 0, len(h.history))}
	all.Samples = append(append(all.Samples, h.history[h.next:]...), h.history[:h.next]...)
	return all
}

// sampleOf returns the rates between two states that are so far apart; without a state before, all are 0.
func sampleOf(before, now wire.ClusterStatus, apart time.Duration) wire.Sample {
	s := wire.Sample{
		Images: now.Images, Bytes: now.Bytes, UnderReplicated: now.UnderReplicated, Ready: now.Ready,
	}
	was := map[image.NodeID]wire.NodeStatus{}
	for _, n := range before.Nodes {
		was[n.ID] = n
	}
	for _, n := range now.Nodes {
		x := wire.NodeSample{ID: n.ID, Up: n.State != wire.NodeDown, RSSBytes: n.RSSBytes}
		old, known := was[n.ID]
		rate := func(now, before float64) float64 {
			if !known || !x.Up || now < before { // it was started again meanwhile
				return 0
			}
			return short((now - before) / apart.Seconds())
		}
		x.CPU = rate(n.CPUS, old.CPUS)
		x.UploadsPerS = rate(float64(n.UploadsTotal), float64(old.UploadsTotal))
		x.UploadBytesPerS = rate(float64(n.UploadBytesTotal), float64(old.UploadBytesTotal))
		x.ReadsPerS = rate(float64(n.ReadsTotal), float64(old.ReadsTotal))
		x.ReadBytesPerS = rate(float64(n.ReadBytesTotal), float64(old.ReadBytesTotal))
		if x.UploadsPerS > 0 {
			x.UploadP50S, x.UploadP99S = short(n.UploadP50S), short(n.UploadP99S)
		}
		if x.ReadsPerS > 0 {
			x.ReadP50S, x.ReadP99S = short(n.ReadP50S), short(n.ReadP99S)
		}
		s.Nodes = append(s.Nodes, x)
	}
	return s
}

// short rounds to four digits: a history has thousands of figures.
func short(v float64) float64 {
	v, _ = strconv.ParseFloat(strconv.FormatFloat(v, 'g', 4, 64), 64) // never fails
	return v
}
