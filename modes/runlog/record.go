// Package runlog is the log of a stress run, in JSON lines: its records, their Writer and reader (Read), and
// what was planned and is not in the log (Log.Missing). The load driver writes it, the report and a resumed
// run read it; how uploads are made or judged is not known here.
package runlog

import (
	"fmt"
	"math"
	"strings"
	"time"
	"unicode/utf8"

	"imgcluster/cluster/sample"
)

// Schema is the version of the log that this package writes, and the newest that it reads.
const Schema = 1

// Bounds on the numbers of a log. One outside is an error that names the line, because figures computed from
// it would be nonsense; the sums of recordsMax such numbers still fit an int64.
const (
	bytesMax      = 1 << 40           // of one image, and of what was sent for it
	sampleMax     = sample.BytesMax   // bytes in a node's counters
	secondsMax    = sample.SecondsMax // a time or a duration, 31 years
	countMax      = sample.CountMax   // a sequence number or a planned count
	attemptsMax   = 1 << 20
	rateMax       = 1e6  // uploads/s asked for
	NodesMax      = 1024 // nodes in one log
	nodeIDMax     = math.MaxUint32
	SettingsMax   = 1024
	leftOutMax    = 32
	errorBytesMax = 512 // of an error's text; Write cuts what is longer
	lineBytesMax  = 1 << 20
)

// Delivery is how the client hands an image to the cluster. With DeliveryAuto each upload has its own.
const (
	DeliveryBroadcast = "broadcast"
	DeliveryAnnounce  = "announce"
	DeliveryRelay     = "relay"
	DeliveryAuto      = "auto"
)

// BroadcastNodesMax is the number of nodes that a broadcast reaches: those of one shard.
const BroadcastNodesMax = 3

// Receivers returns how many nodes get an image from the client by a delivery, 0 when that is unknown.
func Receivers(delivery string, nodes, replicas int) int {
	switch delivery {
	case DeliveryBroadcast:
		return min(nodes, BroadcastNodesMax)
	case DeliveryAnnounce:
		return min(nodes, replicas)
	case DeliveryRelay:
		return 1
	}
	return 0
}

// The kinds of events that a report acts on; it lists others as information. NodeDown, Kill, Pause and Stop
// are faults.
const (
	EventNodeDown = "node_down" // was seen to stop answering
	EventNodeUp   = "node_up"
	EventKill     = "node_killed"    // by SIGKILL, on purpose
	EventStop     = "node_stopped"   // by a request to shut down, on purpose
	EventRestart  = "node_restarted" // has a new process after Kill or Stop
	EventPause    = "node_paused"    // by SIGSTOP, on purpose
	EventResume   = "node_continued" // after a Pause
	EventHealed   = "node_healed"    // is up again, and no image lacks a copy
	EventUnhealed = "node_unhealed"  // is up again, but images still lack copies
	EventLost     = "node_lost"      // cannot be started again; no more faults are made
	EventHeld     = "load_held"      // no upload starts until the cluster recovered from a fault
	EventReleased = "load_released"
	EventResumed  = "resumed"       // the run had been interrupted, and continues
	EventCleaning = "cleaning"      // the deletion of the run's images began
	EventDelivery = "delivery"      // which one DeliveryAuto has chosen, and by which figures
	EventMemory   = "memory_waited" // at the end: how long uploads waited for the client's memory

	EventImageMismatched = "image_mismatched" // was read back with other bytes; Detail begins with its name
	EventImageMissing    = "image_missing"    // is not in the cluster though its upload was acknowledged
	EventImageUnread     = "image_unread"     // could not be read
)

// The arrivals of an open loop.
const (
	ArrivalsConstant = "constant"
	ArrivalsPoisson  = "poisson"
)

// Record is one line of the log: a Run, Plan, Upload, ReadOp, NodeSample, ClientSample, Event, Readback,
// Cleaned or End.
type Record interface {
	// typed returns the line's type and the record as it is written, or why it cannot be written.
	typed() (string, any, error)
}

// Run is the first record of a log, which has one: what was asked for. MinPixels and MaxPixels are 0 when
// they were left at the defaults.
type Run struct {
	Schema      int       `json:"schema"` // set by Write when 0
	Started     time.Time `json:"started"`
	Profile     string    `json:"profile"`
	Nodes       []int     `json:"nodes"`
	Count       int64     `json:"count"` // uploads planned
	Concurrency int       `json:"concurrency"`
	Delivery    string    `json:"delivery"`
	Replicas    int       `json:"replicas"`
	Plan        Plan      `json:"plan"` // beside the uploads
	Seed        uint64    `json:"seed,omitempty"`
	MinPixels   int       `json:"min_pixels,omitempty"`
	MaxPixels   int       `json:"max_pixels,omitempty"`
	Images      string    `json:"images,omitempty"`   // where the images were read from; empty: generated
	Demo        bool      `json:"demo,omitempty"`     // its cluster was removed after it
	LeftOut     []string  `json:"left_out,omitempty"` // files among Images that were not sent, and why
	Faults      int       `json:"faults,omitempty"`   // planned, which Seed decides
	Version     string    `json:"version,omitempty"`  // of the program that ran

	// uploads/s of an open loop; 0: a closed loop of Concurrency
	Rate float64 `json:"rate,omitempty"`
	// of an open loop: ArrivalsConstant or ArrivalsPoisson
	Arrivals    string  `json:"arrivals,omitempty"`
	DurationS   float64 `json:"duration_s,omitempty"`   // when the run ends; Count is 0 then
	WarmupS     float64 `json:"warmup_s,omitempty"`     // operations that start before it are Warmup
	ReadPercent float64 `json:"read_percent,omitempty"` // share of the operations that read
	Users       int     `json:"users,omitempty"`        // among whom the images are spread; 0 means 1
	Hosts       Hosts   `json:"machines,omitzero"`

	// Settings are the cluster's by their key in the configuration, as text.
	Settings map[string]string `json:"settings,omitempty"`
}

// Plan is what a run is to do beside its uploads. As a record of its own, in a resumed run, it adds to what
// was planned before.
type Plan struct {
	Verify  bool `json:"verify"`  // read every acknowledged image back and compare, which Chaos does too
	Chaos   bool `json:"chaos"`   // make Run.Faults faults
	Cleanup bool `json:"cleanup"` // delete the images
}

// UploadRate returns how many uploads a second an open loop was to make; 0 for a closed one.
func (r *Run) UploadRate() float64 { return r.Rate * (1 - r.ReadPercent/100) }

// Hosts are those on which the run took place.
type Hosts struct {
	Client Host   `json:"client"`
	Nodes  []Host `json:"nodes"`
}

// Host is the host of one process of the run, which others may share. What is not known is 0.
type Host struct {
	ID          int    `json:"id,omitempty"` // of the node; 0 for the client
	Name        string `json:"host,omitempty"`
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"`
	LinkBytesPS int64  `json:"link_bytes_per_s,omitempty"` // of its network link, each way
	Version     string `json:"version,omitempty"`
}

// Node returns the host of that node, the client's for 0; the zero Host when the log does not say.
func (h *Hosts) Node(id int) Host {
	if id == 0 {
		return h.Client
	}
	for _, host := range h.Nodes {
		if host.ID == id {
			return host
		}
	}
	return Host{}
}

// Upload is one finished upload, whatever the outcome. Times are seconds since Run.Started; Bytes is the
// image's size, SentBytes what the client sent for it: to all nodes, in all attempts. FirstChoice reports
// whether the owner was the first node in the hash's rank; nil when unknown.
type Upload struct {
	Seq         int64   `json:"seq"`          // from 1, one per image; the last record of a Seq counts
	ID          string  `json:"id,omitempty"` // of the upload: it tells its image from others of its name
	Name        string  `json:"name"`
	Class       string  `json:"class"`
	Bytes       int64   `json:"bytes"`
	StartS      float64 `json:"start_s"`
	LatencyS    float64 `json:"latency_s"`
	OK          bool    `json:"ok"`
	Error       string  `json:"error,omitempty"`
	Owner       int     `json:"owner,omitempty"`
	Replicas    []int   `json:"replicas,omitempty"`
	Attempts    int     `json:"attempts"`
	SentBytes   int64   `json:"sent_bytes"`
	AgainBytes  int64   `json:"again_bytes,omitempty"` // of SentBytes, for nodes that took an announced upload over
	Delivery    string  `json:"delivery,omitempty"`    // with DeliveryAuto
	FirstChoice *bool   `json:"first_choice,omitempty"`
	FirstNode   int     `json:"first_node,omitempty"` // first in the hash's rank; 0 when unknown

	User       string   `json:"user,omitempty"`        // when the run has more than one
	ScheduledS *float64 `json:"scheduled_s,omitempty"` // when the upload was due, in an open loop
	Warmup     bool     `json:"warmup,omitempty"`      // takes no part in the figures
}

// ReadOp is one finished read of an image that the run stored, whatever the outcome.
type ReadOp struct {
	Name       string   `json:"name"`
	User       string   `json:"user,omitempty"` // when the run has more than one
	Bytes      int64    `json:"bytes"`          // read
	StartS     float64  `json:"start_s"`
	LatencyS   float64  `json:"latency_s"` // to the last byte
	OK         bool     `json:"ok"`
	Error      string   `json:"error,omitempty"`
	ScheduledS *float64 `json:"scheduled_s,omitempty"`
	Warmup     bool     `json:"warmup,omitempty"`
}

// NodeSample has a node's figures at one time; all of them are 0 when the node is not up.
type NodeSample struct {
	TS float64 `json:"t_s"`
	ID int     `json:"id"`
	Up bool    `json:"up"`
	sample.Node
}

// ClientSample has the load driver's own figures at one time.
type ClientSample struct {
	TS float64 `json:"t_s"`
	sample.Client
}

// Event is something that happened at one time; Node is 0 when it concerns no single one.
type Event struct {
	TS     float64 `json:"t_s"`
	Kind   string  `json:"kind"`
	Node   int     `json:"node,omitempty"`
	Detail string  `json:"detail,omitempty"`
}

// Readback counts the acknowledged images by what was read back: each is read after the uploads, and its
// SHA-256 compared with that of what was sent. When the sum of the others is less than Images, the reading
// was stopped.
type Readback struct {
	Images     int64   `json:"images"` // acknowledged
	Matched    int64   `json:"matched"`
	Mismatched int64   `json:"mismatched"`
	Missing    int64   `json:"missing"`
	Unread     int64   `json:"unread"`
	Bytes      int64   `json:"bytes"` // read
	ElapsedS   float64 `json:"elapsed_s"`
}

// Wrong returns the number of images that differ from what was sent, or could not be read.
func (b *Readback) Wrong() int64 { return b.Mismatched + b.Missing + b.Unread }

// Cleaned counts the run's images by the outcome of their deletion.
type Cleaned struct {
	Images  int64 `json:"images"`         // deleted
	Bytes   int64 `json:"bytes"`          // of these
	Missing int64 `json:"missing"`        // deleted before, or replaced by others since
	Failed  int64 `json:"failed"`         // still stored
	WonBack int64 `json:"won_back_bytes"` // freed on all nodes
}

// End is the last record of a log: the run ended, complete or drained after an interrupt.
type End struct {
	ElapsedS float64 `json:"elapsed_s"`
}

func (r Run) typed() (string, any, error) {
	if r.Schema == 0 {
		r.Schema = Schema
	}
	if r.Nodes == nil {
		r.Nodes = []int{}
	}
	return "run", r, r.check()
}

// check returns an error when a number of r is out of its bounds.
func (r *Run) check() error {
	errs := []error{
		atMost("nodes", len(r.Nodes), NodesMax),
		within("schema", r.Schema, 0, Schema),
		within("count", r.Count, 0, countMax),
		within("concurrency", r.Concurrency, 0, attemptsMax),
		within("replicas", r.Replicas, 0, NodesMax),
		within("faults", r.Faults, 0, attemptsMax),
		within("rate", r.Rate, 0, rateMax),
		within("duration_s", r.DurationS, 0, secondsMax),
		within("warmup_s", r.WarmupS, 0, secondsMax),
		within("read_percent", r.ReadPercent, 0, 100),
		within("users", r.Users, 0, attemptsMax),
		within("min_pixels", r.MinPixels, 0, countMax),
		within("max_pixels", r.MaxPixels, 0, countMax),
		atMost("left_out", len(r.LeftOut), leftOutMax),
		atMost("machines.nodes", len(r.Hosts.Nodes), NodesMax),
		atMost("settings", len(r.Settings), SettingsMax),
	}
	for _, id := range r.Nodes {
		errs = append(errs, within("nodes", id, 1, nodeIDMax))
	}
	for _, host := range append([]Host{r.Hosts.Client}, r.Hosts.Nodes...) {
		errs = append(errs,
			within("machines: id", host.ID, 0, nodeIDMax),
			within("machines: cpus", host.CPUs, 0, attemptsMax),
			within("machines: memory_bytes", host.MemoryBytes, 0, sampleMax),
			within("machines: link_bytes_per_s", host.LinkBytesPS, 0, sampleMax))
	}
	return first(errs...)
}

// atMost returns an error when a list is longer than most.
func atMost(field string, n, most int) error {
	if n <= most {
		return nil
	}
	return fmt.Errorf("%s has %d entries, more than %d", field, n, most)
}

func (u Upload) typed() (string, any, error) {
	u.StartS = micros(u.StartS)
	u.LatencyS = micros(u.LatencyS)
	u.Error = cut(u.Error, errorBytesMax)
	return "upload", u, first(
		within("seq", u.Seq, 0, countMax),
		within("bytes", u.Bytes, 0, bytesMax),
		within("start_s", u.StartS, 0, secondsMax),
		within("latency_s", u.LatencyS, 0, secondsMax),
		within("owner", u.Owner, 0, nodeIDMax),
		within("attempts", u.Attempts, 0, attemptsMax),
		within("sent_bytes", u.SentBytes, 0, bytesMax),
		within("again_bytes", u.AgainBytes, 0, bytesMax),
		within("first_node", u.FirstNode, 0, nodeIDMax),
		within("scheduled_s", value(u.ScheduledS), 0, secondsMax))
}

func (o ReadOp) typed() (string, any, error) {
	o.StartS = micros(o.StartS)
	o.LatencyS = micros(o.LatencyS)
	o.Error = cut(o.Error, errorBytesMax)
	return "read", o, first(
		within("bytes", o.Bytes, 0, bytesMax),
		within("start_s", o.StartS, 0, secondsMax),
		within("latency_s", o.LatencyS, 0, secondsMax),
		within("scheduled_s", value(o.ScheduledS), 0, secondsMax))
}

func (s NodeSample) typed() (string, any, error) {
	s.TS = micros(s.TS)
	s.CPUS = micros(s.CPUS)
	return "node", s, first(
		within("t_s", s.TS, 0, secondsMax),
		within("id", s.ID, 1, nodeIDMax),
		sample.Nodes.Check(sample.Nodes.Values(s.Node)))
}

func (s ClientSample) typed() (string, any, error) {
	s.TS = micros(s.TS)
	s.CPUS = micros(s.CPUS)
	return "client", s, first(
		within("t_s", s.TS, 0, secondsMax),
		sample.Clients.Check(sample.Clients.Values(s.Client)))
}

func (e Event) typed() (string, any, error) {
	e.TS = micros(e.TS)
	e.Detail = cut(e.Detail, errorBytesMax)
	return "event", e, first(within("t_s", e.TS, 0, secondsMax), within("node", e.Node, 0, nodeIDMax))
}

func (b Readback) typed() (string, any, error) {
	b.ElapsedS = micros(b.ElapsedS)
	return "readback", b, first(
		within("images", b.Images, 0, countMax),
		within("matched", b.Matched, 0, countMax),
		within("mismatched", b.Mismatched, 0, countMax),
		within("missing", b.Missing, 0, countMax),
		within("unread", b.Unread, 0, countMax),
		within("bytes", b.Bytes, 0, sampleMax),
		within("elapsed_s", b.ElapsedS, 0, secondsMax))
}

func (c Cleaned) typed() (string, any, error) {
	return "cleaned", c, first(
		within("images", c.Images, 0, countMax),
		within("bytes", c.Bytes, 0, sampleMax),
		within("missing", c.Missing, 0, countMax),
		within("failed", c.Failed, 0, countMax),
		within("won_back_bytes", c.WonBack, 0, sampleMax))
}

func (p Plan) typed() (string, any, error) { return "plan", p, nil }

func (e End) typed() (string, any, error) {
	e.ElapsedS = micros(e.ElapsedS)
	return "end", e, within("elapsed_s", e.ElapsedS, 0, secondsMax)
}

// errRange is wrapped by every error about a number out of its bounds.
var errRange = sample.ErrRange

// within returns an error unless low <= v <= high; NaN is never within.
func within[T int | int64 | float64](field string, v, low, high T) error {
	if v >= low && v <= high {
		return nil
	}
	return fmt.Errorf("%s is %v, %w: %v to %v is possible", field, v, errRange, low, high)
}

// value returns what p points to, 0 for nil.
func value(p *float64) float64 {
	if p == nil {
		return 0
	}
	return *p
}

func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

// micros rounds seconds to microseconds, which keeps lines short.
func micros(s float64) float64 { return math.Round(s*1e6) / 1e6 }

// cut shortens s to at most n bytes of valid UTF-8.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return strings.Clone(s[:n])
}
