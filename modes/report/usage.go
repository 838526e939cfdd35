package report

import (
	"bytes"
	"encoding/json"
	"errors"
	"slices"
	"strings"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Usage is what one process used while uploads ran. A figure that the samples do not have is 0.
type Usage struct {
	// by the name of the figure, its summary: a counter of bytes as bytes a second, cpu_s as cores
	Of map[string]float64 `json:"-"`

	CPUPercent  float64 `json:"-"` // of all CPUs of its host; 0 when their number is not known
	LinkPercent float64 `json:"-"` // of the host's link, in the busier direction; 0 when not known
	DownS       float64 `json:"-"` // seconds between samples in which it was not up
}

// Client is what the load driver used, and whether it limited the run.
type Client struct {
	Usage
	SourcePercent float64 `json:"source_percent"` // of its workers' time, spent making images
	MemoryWaited  string  `json:"memory_waited"`  // how long uploads waited for its memory; empty: not for long
	Limited       string  `json:"limited"`        // how it limited the run; empty when it did not
}

// When the client counts as the limit.
const (
	clientCPUPercentMax    = 85.0
	clientSourcePercentMax = 50.0
	clientLateMaxS         = 1.0
)

// MarshalJSON puts the usage among the other fields, every figure by its key.
func (n NodeShare) MarshalJSON() ([]byte, error) {
	type plain NodeShare
	return n.among(plain(n), sample.Nodes)
}

// MarshalJSON puts the usage among the other fields, every figure by its key: also the nodes' figures, which
// are 0.
func (c Client) MarshalJSON() ([]byte, error) {
	type plain Client
	return c.among(plain(c), sample.Processes)
}

// among returns the JSON object of v with the usage in these figures.
func (u *Usage) among(v any, figures sample.Figures) ([]byte, error) {
	fields := map[string]float64{
		"cpu_percent":  u.CPUPercent,
		"link_percent": u.LinkPercent,
		"down_s":       u.DownS,
	}
	for _, f := range figures {
		if f.Report.Key != "" {
			fields[f.Report.Key] = u.Of[f.Name]
		}
	}
	var object bytes.Buffer
	enc := json.NewEncoder(&object)
	enc.SetEscapeHTML(false) // it is for the encoder that called
	err := enc.Encode(v)
	usage, more := json.Marshal(fields)
	if err := errors.Join(err, more); err != nil {
		return nil, err
	}
	before := bytes.TrimSuffix(object.Bytes(), []byte("}\n"))
	return slices.Concat(before, []byte{','}, usage[1:]), nil
}

// usage computes what each process used in the time from fromS on, by node or clientID. A process without
// samples has none.
func (l log) usage(fromS float64) map[int]*Usage {
	type process struct {
		last      observation
		summaries []summary
		downS     float64
	}
	processes := map[int]*process{}
	for o := range l.observations() {
		p := processes[o.node]
		if p == nil {
			p = &process{last: o}
			for _, f := range o.figures {
				p.summaries = append(p.summaries, summary{figure: f})
			}
			processes[o.node] = p
		}
		over := step{seconds: o.atS - p.last.atS, measured: o.atS >= fromS, up: o.up && p.last.up}
		if over.measured && !p.last.up {
			p.downS += over.seconds
		}
		if o.up {
			for i := range p.summaries {
				p.summaries[i].add(p.last.values[i], o.values[i], over)
			}
		}
		p.last = o
	}
	usage := map[int]*Usage{}
	for node, p := range processes {
		u := &Usage{Of: map[string]float64{}, DownS: p.downS}
		for i := range p.summaries {
			u.Of[p.summaries[i].figure.Name] = p.summaries[i].result()
		}
		u.shareOf(l.Run.Hosts.Node(node))
		usage[node] = u
	}
	return usage
}

// shareOf sets the shares of the host that the process used.
func (u *Usage) shareOf(host runlog.Host) {
	traffic := max(u.Of["net_rx_bytes"], u.Of["net_tx_bytes"])
	u.CPUPercent = 100 * ratio(u.Of["cpu_s"], float64(host.CPUs))
	u.LinkPercent = 100 * ratio(traffic, float64(host.LinkBytesPS))
}

// client returns the Client with this usage.
func (l log) client(u *Usage) *Client {
	c := &Client{Usage: *u}
	c.SourcePercent = min(100, 100*ratio(u.Of["source_s"], float64(l.Run.Concurrency)))
	for _, e := range l.Events {
		if e.Kind == runlog.EventMemory {
			c.MemoryWaited = e.Detail
		}
	}
	return c
}

// limits says how the client limited the run; it is empty when it did not.
func (c *Client) limits(run *runlog.Run, reached float64) string {
	switch {
	case c.SourcePercent >= clientSourcePercentMax:
		return "its workers spent " + term.Percent(c.SourcePercent) + " of their time making images"
	case c.CPUPercent >= clientCPUPercentMax:
		return "it used " + term.Percent(c.CPUPercent) + " of its machine's CPUs"
	case run.Rate > 0 && c.Of["late_s"] > clientLateMaxS && reached < run.UploadRate()*rateReachedMin:
		late := "it fell " + term.Seconds(c.Of["late_s"]) + " s behind the schedule"
		if c.MemoryWaited != "" {
			late += ": " + c.MemoryWaited
		}
		return late
	}
	return ""
}

// rateReachedMin is the share of an open loop's rate from which it counts as reached.
const rateReachedMin = 0.95

// Words returns how busy the client was.
func (c *Client) Words() string {
	parts := []string{term.Digits3(c.Of["cpu_s"]) + " cores"}
	add := func(known bool, s string) {
		if known {
			parts = append(parts, s)
		}
	}
	add(c.CPUPercent > 0, term.Percent(c.CPUPercent)+" of its machine's CPUs")
	add(c.SourcePercent > 0, term.Percent(c.SourcePercent)+" of its workers' time making images")
	add(c.Of["in_flight"] > 0, term.Digits3(c.Of["in_flight"])+" operations at once")
	add(c.Of["late_s"] > 0, "at most "+term.Seconds(c.Of["late_s"])+" s behind its schedule")
	add(c.LinkPercent > 0, term.Percent(c.LinkPercent)+" of its link")
	return "busy with " + strings.Join(parts, ", ")
}
