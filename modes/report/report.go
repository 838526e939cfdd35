// Package report computes a Report from the log of a run: its figures, the checks with their verdict, what
// limited the run, and how it compares with another one. It shows nothing; see modes/report/render.
package report

import "imgcluster/modes/runlog"

// Report is a run in figures, with a verdict. Fields that end in Percent go from 0 to 100 and are of the
// successful uploads, SuccessRate goes from 0 to 1; times are seconds, sizes bytes. A figure for which the
// log has no data is 0.
type Report struct {
	Attempted           int         `json:"attempted"`
	Succeeded           int         `json:"succeeded"`
	Failed              int         `json:"failed"`
	SuccessRate         float64     `json:"success_rate"`
	ElapsedS            float64     `json:"elapsed_s"`
	ThroughputPerS      float64     `json:"throughput_per_s"`       // successful uploads
	ThroughputBytesPerS float64     `json:"throughput_bytes_per_s"` // their images, each counted once
	Bytes               int64       `json:"bytes"`                  // of the images stored, each counted once
	SentBytes           int64       `json:"sent_bytes"`             // what left the client
	AgainBytes          int64       `json:"again_bytes"`            // of it, for nodes that took an upload over
	LatencyS            Latency     `json:"latency_s"`              // of successful uploads
	Nodes               []NodeShare `json:"nodes"`                  // by id
	Balance             Balance     `json:"balance"`                // over the nodes of the run
	Classes             []Class     `json:"classes"`                // from small to large
	Failures            []Failure   `json:"failures"`               // the most frequent first
	Run                 *runlog.Run `json:"run,omitempty"`          // nil when the log does not say
	Notes               []string    `json:"notes"`                  // what to know of the log
	Verdict             Verdict     `json:"verdict"`

	MeasuredS       float64          `json:"measured_s"`                  // ElapsedS without the warm-up
	Warmup          Warmup           `json:"warmup"`                      // operations that are left out
	ServiceLatencyS *Latency         `json:"service_latency_s,omitempty"` // from the start; nil in a closed loop
	Reads           *Reads           `json:"reads,omitempty"`             // nil without reads
	Client          *Client          `json:"client,omitempty"`            // nil without samples
	Bottleneck      *Bottleneck      `json:"bottleneck,omitempty"`        // nil in a run too short to tell
	Events          []Event          `json:"events"`                      // by time, the first eventsShown
	EventsLeftOut   int              `json:"events_left_out,omitempty"`
	Readback        *runlog.Readback `json:"readback,omitempty"`   // nil when no image was read back
	Limits          Limits           `json:"limits"`               // of the checks
	Comparison      *Comparison      `json:"comparison,omitempty"` // nil unless Compare was called
	Log             string           `json:"-"`                    // the name of the log, where it is shown
	Charts          Charts           `json:"-"`                    // for a page of HTML
}

// Warmup counts the operations of the warm-up, which the figures leave out.
type Warmup struct {
	Uploads int `json:"uploads"`
	Reads   int `json:"reads"`
	Failed  int `json:"failed"` // of both
}

// Reads has the figures of the reads beside the uploads.
type Reads struct {
	Attempted           int       `json:"attempted"`
	Succeeded           int       `json:"succeeded"`
	Failed              int       `json:"failed"`
	Bytes               int64     `json:"bytes"`
	ThroughputPerS      float64   `json:"throughput_per_s"`
	ThroughputBytesPerS float64   `json:"throughput_bytes_per_s"`
	LatencyS            Latency   `json:"latency_s"`
	ServiceLatencyS     *Latency  `json:"service_latency_s,omitempty"`
	Failures            []Failure `json:"failures"`
}

// Event is an event of the log.
type Event struct {
	TS     float64 `json:"t_s"`
	Kind   string  `json:"kind"`
	Node   int     `json:"node,omitempty"`
	Detail string  `json:"detail,omitempty"`
}

// eventsShown bounds the events that a report lists and marks in its charts.
const eventsShown = 200

// Latency has quantiles by nearest rank: each is the latency of some operation.
type Latency struct {
	Mean float64 `json:"mean"`
	P50  float64 `json:"p50"`
	P95  float64 `json:"p95"`
	P99  float64 `json:"p99"`
	Max  float64 `json:"max"`

	P90   float64 `json:"p90"`
	P999  float64 `json:"p999"`
	P9999 float64 `json:"p9999"`
}

func newLatency(sorted []float64) Latency {
	return Latency{
		Mean:  mean(sorted),
		P50:   quantile(sorted, 0.5),
		P90:   quantile(sorted, 0.9),
		P95:   quantile(sorted, 0.95),
		P99:   quantile(sorted, 0.99),
		P999:  quantile(sorted, 0.999),
		P9999: quantile(sorted, 0.9999),
		Max:   quantile(sorted, 1),
	}
}

// NodeShare is what one node owns of the successful uploads, and what it used. A node that is not in
// Run.Nodes but owns something is listed too.
type NodeShare struct {
	ID                int     `json:"id"`
	Uploads           int64   `json:"uploads"`
	Bytes             int64   `json:"bytes"`
	SharePercent      float64 `json:"share_percent"`
	BytesSharePercent float64 `json:"bytes_share_percent"`
	Usage
}

// Balance is how even the shares are. The standard deviations are those of the whole population of nodes in
// the run, in percentage points.
type Balance struct {
	ExpectedPercent    float64 `json:"expected_percent"`
	StddevPercent      float64 `json:"stddev_percent"`
	BytesStddevPercent float64 `json:"bytes_stddev_percent"`
	Grade              string  `json:"grade"`        // excellent, very good, good, poor; none without an owner
	ChiSquareP         float64 `json:"chi_square_p"` // of the counts, against equal chances

	Of    Allowance `json:"allowance"` // on which the grade depends
	Words string    `json:"words"`     // the grade, with the number of images when they are few
}

// Class has the figures of the successful uploads of one size class, and counts the failed ones.
type Class struct {
	Class    string       `json:"class"`
	Uploads  int64        `json:"uploads"`
	Failed   int64        `json:"failed"`
	Bytes    int64        `json:"bytes"`
	MinBytes int64        `json:"min_bytes"`
	MaxBytes int64        `json:"max_bytes"`
	LatencyS ClassLatency `json:"latency_s"`
}

// ClassLatency is the latency of a class.
type ClassLatency struct {
	Mean float64 `json:"mean"`
	P95  float64 `json:"p95"`
	P50  float64 `json:"p50"`
	P99  float64 `json:"p99"`
}

// Failure counts the uploads that failed for one reason.
type Failure struct {
	Error   string `json:"error"`
	Uploads int    `json:"uploads"`
}

// Verdict passes when no check failed, every attempted upload succeeded, at least one, and the log has
// evidence of all that was planned.
type Verdict struct {
	Passed     bool    `json:"passed"`
	Text       string  `json:"text"`
	Checks     []Check `json:"checks"`
	Incomplete string  `json:"incomplete,omitempty"` // what was planned and is not in the log
	failed     bool    // a check, or too many uploads
}
