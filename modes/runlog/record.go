// Package runlog is the log of a stress run, in JSON lines: its records, what writes them (Writer) and what reads
// them back (Read), and what was planned and is not in the log (Log.Missing). The load driver writes, the report
// and a resumed run read; nothing is known here of how uploads are made or judged.
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

// Bounds on what a log may say. A number outside is an error that names the line, because figures
// computed from it would be nonsense; the sums of recordsMax such numbers still fit an int64.
const (
	bytesMax      = 1 << 40           // of one image, and of what was sent for it
	sampleMax     = sample.BytesMax   // bytes in a node's counters
	secondsMax    = sample.SecondsMax // a time or a duration, 31 years
	countMax      = sample.CountMax   // a sequence number or a planned count
	attemptsMax   = 1 << 20
	rateMax       = 1e6  // uploads/s asked for
	NodesMax      = 1024 // different nodes in one log
	nodeIDMax     = math.MaxUint32
	SettingsMax   = 1024
	leftOutMax    = 32
	errorBytesMax = 512 // of an error's text; Write cuts what is longer
	lineBytesMax  = 1 << 20
)

// Delivery is how the client hands an image to the cluster.
const (
	DeliveryBroadcast = "broadcast"
	DeliveryRelay     = "relay"
)

// The kinds of events that a report acts on; others are read, and listed as information. Down, Kill, Pause and
// Stop are faults.
const (
	EventNodeDown = "node_down" // a node was seen to stop answering
	EventNodeUp   = "node_up"
	EventKill     = "node_killed"    // by SIGKILL, on purpose
	EventStop     = "node_stopped"   // told to end, to be started again
	EventRestart  = "node_restarted" // has a new process after Kill or Stop
	EventPause    = "node_paused"    // by SIGSTOP, on purpose
	EventResume   = "node_continued"
	EventHealed   = "node_healed"   // is back, and no image lacks a copy any more
	EventUnhealed = "node_unhealed" // is back, but images still lack copies
	EventLost     = "node_lost"     // cannot be brought back; no more faults are made
	EventHeld     = "load_held"     // no upload begins until the cluster is over a fault
	EventReleased = "load_released"
	EventResumed  = "resumed"       // the run was interrupted before, and goes on from here
	EventCleaning = "cleaning"      // from here on its images are deleted
	EventMemory   = "memory_waited" // in the end: uploads waited for the client's memory, so long in all

	EventImageMismatched = "image_mismatched" // was read back with other bytes; Detail begins with its name
	EventImageMissing    = "image_missing"    // is not there though its upload was acknowledged
	EventImageUnread     = "image_unread"     // could not be read
)

// How the uploads of an open loop arrive.
const (
	ArrivalsConstant = "constant"
	ArrivalsPoisson  = "poisson"
)

// Record is one line of the log: a Run, Plan, Upload, ReadOp, NodeSample, ClientSample, Event, Readback, Cleaned or End.
type Record interface {
	// typed returns the line's type and the record as it is written, or why it cannot be.
	typed() (string, any, error)
}

// Run opens a log, which has one: what was asked for. MinPixels and
// MaxPixels are 0 when they were left at the defaults, Images is empty when the images were
// generated.
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
	Images      string    `json:"images,omitempty"`   // where the images were read from
	Demo        bool      `json:"demo,omitempty"`     // its cluster is gone after it
	LeftOut     []string  `json:"left_out,omitempty"` // what was there and not sent, and why
	Faults      int       `json:"faults,omitempty"`   // planned, which Seed decides
	Version     string    `json:"version,omitempty"`  // of the program that ran

	// uploads/s of an open loop; 0: a closed loop of Concurrency
	Rate float64 `json:"rate,omitempty"`
	// of an open loop: ArrivalsConstant or ArrivalsPoisson
	Arrivals    string   `json:"arrivals,omitempty"`
	DurationS   float64  `json:"duration_s,omitempty"`   // the run ends after that long; Count is 0 then
	WarmupS     float64  `json:"warmup_s,omitempty"`     // uploads that began before it are Warmup
	ReadPercent float64  `json:"read_percent,omitempty"` // of all operations, those that read
	Users       int      `json:"users,omitempty"`        // whose images they became; 0 means 1
	Machines    Machines `json:"machines,omitzero"`

	// Settings are the cluster's by their key in the configuration, as text.
	Settings map[string]string `json:"settings,omitempty"`
}

// Plan is what a run is to do beside its uploads. As a record of its own, in a run that goes on, it adds to
// what was planned before.
type Plan struct {
	Verify  bool `json:"verify"`  // read every acknowledged image back and compare, which Chaos does too
	Chaos   bool `json:"chaos"`   // make Run.Faults faults
	Cleanup bool `json:"cleanup"` // delete the images
}

// UploadRate is how many uploads a second an open loop was to make; 0 for a closed one.
func (r *Run) UploadRate() float64 { return r.Rate * (1 - r.ReadPercent/100) }

// Machines are where the run took place.
type Machines struct {
	Client Machine   `json:"client"`
	Nodes  []Machine `json:"nodes"`
}

// Machine is what a process of the run has to itself or shares with others. What is not known is 0.
type Machine struct {
	ID          int    `json:"id,omitempty"` // of the node; 0 for the client
	Host        string `json:"host,omitempty"`
	CPUs        int    `json:"cpus"`
	MemoryBytes int64  `json:"memory_bytes"`
	LinkBytesPS int64  `json:"link_bytes_per_s,omitempty"` // of its network link, each way
	Version     string `json:"version,omitempty"`
}

// Node returns the machine of that node, the client's for 0; the zero Machine when the log does not say.
func (m *Machines) Node(id int) Machine {
	if id == 0 {
		return m.Client
	}
	for _, one := range m.Nodes {
		if one.ID == id {
			return one
		}
	}
	return Machine{}
}

// Upload is one finished upload, whatever the outcome. Times are seconds since Run.Started; Bytes
// is the image's size, SentBytes what left the client for it: to all nodes, in all attempts.
// FirstChoice reports whether the owner was the first node in the hash's rank; nil when unknown.
type Upload struct {
	Seq int64 `json:"seq"` // from 1, one per image; the last record of a Seq counts
	// of the upload, by which its image is told from others of its name
	ID          string  `json:"id,omitempty"`
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
	FirstChoice *bool   `json:"first_choice,omitempty"`
	// of the image's shard, the first node in the hash's rank; 0 when unknown
	FirstNode int `json:"first_node,omitempty"`

	User       string   `json:"user,omitempty"`        // when the run has more than one
	ScheduledS *float64 `json:"scheduled_s,omitempty"` // of an open loop: when the upload was due
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

// NodeSample is a node's figures at one moment; all of them are 0 when the node is not up.
type NodeSample struct {
	TS float64 `json:"t_s"`
	ID int     `json:"id"`
	Up bool    `json:"up"`
	sample.Node
}

// ClientSample is the load driver's own figures at one moment.
type ClientSample struct {
	TS float64 `json:"t_s"`
	sample.Client
}

// Event is something that happened at one moment; Node is 0 when it concerns no single one.
type Event struct {
	TS     float64 `json:"t_s"`
	Kind   string  `json:"kind"`
	Node   int     `json:"node,omitempty"`
	Detail string  `json:"detail,omitempty"`
}

// Readback says what became of the acknowledged images: each was read after the uploads, and its
// SHA-256 compared with that of what was sent. When the sum of the others is less than Images, the
// reading was stopped.
type Readback struct {
	Images     int64   `json:"images"` // acknowledged
	Matched    int64   `json:"matched"`
	Mismatched int64   `json:"mismatched"`
	Missing    int64   `json:"missing"`
	Unread     int64   `json:"unread"`
	Bytes      int64   `json:"bytes"` // read
	ElapsedS   float64 `json:"elapsed_s"`
}

// Wrong counts the images that are not as they were sent, or could not be read.
func (b *Readback) Wrong() int64 { return b.Mismatched + b.Missing + b.Unread }

// Cleaned says what became of the run's images when they were to be deleted.
type Cleaned struct {
	Images  int64 `json:"images"`         // deleted
	Bytes   int64 `json:"bytes"`          // of these
	Missing int64 `json:"missing"`        // deleted before, or replaced by others since
	Failed  int64 `json:"failed"`         // are still there
	WonBack int64 `json:"won_back_bytes"` // by which the files on all nodes became less
}

// End closes a log: the run came to its end, complete or drained after an interrupt.
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

// check returns why r cannot be a run.
func (r *Run) check() error {
	if len(r.Nodes) > NodesMax {
		return fmt.Errorf("nodes has %d entries, more than %d", len(r.Nodes), NodesMax)
	}
	errs := []error{
		within("schema", r.Schema, 0, Schema), within("count", r.Count, 0, countMax),
		within("concurrency", r.Concurrency, 0, attemptsMax), within("replicas", r.Replicas, 0, NodesMax),
		within("faults", r.Faults, 0, attemptsMax),
		within("rate", r.Rate, 0, rateMax), within("duration_s", r.DurationS, 0, secondsMax),
		within("warmup_s", r.WarmupS, 0, secondsMax),
		within("read_percent", r.ReadPercent, 0, 100), within("users", r.Users, 0, attemptsMax),
		within("min_pixels", r.MinPixels, 0, countMax), within("max_pixels", r.MaxPixels, 0, countMax),
	}
	if len(r.LeftOut) > leftOutMax {
		return fmt.Errorf("left_out has %d entries, more than %d", len(r.LeftOut), leftOutMax)
	}
	for _, id := range r.Nodes {
		errs = append(errs, within("nodes", id, 1, nodeIDMax))
	}
	return first(append(errs, r.Machines.check(), r.checkSettings())...)
}

func (m *Machines) check() error {
	if len(m.Nodes) > NodesMax {
		return fmt.Errorf("machines.nodes has %d entries, more than %d", len(m.Nodes), NodesMax)
	}
	for _, one := range append([]Machine{m.Client}, m.Nodes...) {
		if err := first(within("machines: id", one.ID, 0, nodeIDMax),
			within("machines: cpus", one.CPUs, 0, attemptsMax),
			within("machines: memory_bytes", one.MemoryBytes, 0, sampleMax),
			within("machines: link_bytes_per_s", one.LinkBytesPS, 0, sampleMax)); err != nil {
			return err
		}
	}
	return nil
}

func (r *Run) checkSettings() error {
	if len(r.Settings) > SettingsMax {
		return fmt.Errorf("settings has %d entries, more than %d", len(r.Settings), SettingsMax)
	}
	return nil
}

func (u Upload) typed() (string, any, error) {
	u.StartS, u.LatencyS = micros(u.StartS), micros(u.LatencyS)
	u.Error = cut(u.Error, errorBytesMax)
	return "upload", u, first(
		within("seq", u.Seq, 0, countMax), within("bytes", u.Bytes, 0, bytesMax),
		within("start_s", u.StartS, 0, secondsMax), within("latency_s", u.LatencyS, 0, secondsMax),
		within("owner", u.Owner, 0, nodeIDMax), within("attempts", u.Attempts, 0, attemptsMax),
		within("sent_bytes", u.SentBytes, 0, bytesMax), within("first_node", u.FirstNode, 0, nodeIDMax),
		within("scheduled_s", value(u.ScheduledS), 0, secondsMax))
}

func (o ReadOp) typed() (string, any, error) {
	o.StartS, o.LatencyS = micros(o.StartS), micros(o.LatencyS)
	o.Error = cut(o.Error, errorBytesMax)
	return "read", o, first(
		within("bytes", o.Bytes, 0, bytesMax), within("start_s", o.StartS, 0, secondsMax),
		within("latency_s", o.LatencyS, 0, secondsMax),
		within("scheduled_s", value(o.ScheduledS), 0, secondsMax))
}

func (s NodeSample) typed() (string, any, error) {
	s.TS, s.CPUS = micros(s.TS), micros(s.CPUS)
	return "node", s, first(
		within("t_s", s.TS, 0, secondsMax), within("id", s.ID, 1, nodeIDMax),
		sample.Nodes.Check(sample.Nodes.Values(s.Node)))
}

func (s ClientSample) typed() (string, any, error) {
	s.TS, s.CPUS = micros(s.TS), micros(s.CPUS)
	return "client", s, first(
		within("t_s", s.TS, 0, secondsMax), sample.Clients.Check(sample.Clients.Values(s.Client)))
}

func (e Event) typed() (string, any, error) {
	e.TS = micros(e.TS)
	e.Detail = cut(e.Detail, errorBytesMax)
	return "event", e, first(within("t_s", e.TS, 0, secondsMax), within("node", e.Node, 0, nodeIDMax))
}

func (b Readback) typed() (string, any, error) {
	b.ElapsedS = micros(b.ElapsedS)
	return "readback", b, first(
		within("images", b.Images, 0, countMax), within("matched", b.Matched, 0, countMax),
		within("mismatched", b.Mismatched, 0, countMax),
		within("missing", b.Missing, 0, countMax), within("unread", b.Unread, 0, countMax),
		within("bytes", b.Bytes, 0, sampleMax),
		within("elapsed_s", b.ElapsedS, 0, secondsMax))
}

func (c Cleaned) typed() (string, any, error) {
	return "cleaned", c, first(
		within("images", c.Images, 0, countMax), within("bytes", c.Bytes, 0, sampleMax),
		within("missing", c.Missing, 0, countMax),
		within("failed", c.Failed, 0, countMax), within("won_back_bytes", c.WonBack, 0, sampleMax))
}

func (p Plan) typed() (string, any, error) { return "plan", p, nil }

func (e End) typed() (string, any, error) {
	e.ElapsedS = micros(e.ElapsedS)
	return "end", e, within("elapsed_s", e.ElapsedS, 0, secondsMax)
}

// errRange is wrapped by every error about a number that cannot be.
var errRange = sample.ErrRange

// within returns an error unless lo <= v <= hi; NaN is never within.
func within[T int | int64 | float64](field string, v, lo, hi T) error {
	if v >= lo && v <= hi {
		return nil
	}
	return fmt.Errorf("%s is %v, %w: %v to %v is possible", field, v, errRange, lo, hi)
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
