package sample

import "slices"

// Report says how the report of a run shows a figure, of which it has samples over time.
type Report struct {
	Summary  Summary // what the samples of a process come to in one number
	Key      string  // of that number in JSON and CSV; empty: it is not shown
	Scale    Scale   // in which the figure is drawn and written
	Chart    string  // title of its chart over time; empty: there is none
	Column   string  // head of its column in the table of what each process used; empty: there is none
	Compared string  // name of the highest node's when two runs are compared; empty: it is not compared
}

// Summary is how the samples of a figure become one number.
type Summary int

// The summaries. Those of the load and of counters are of the measured time, which comes after the warm-up;
// the highest and the lowest are of the whole run, since limits hold from its start.
const (
	NoSummary Summary = iota
	Rate              // growth of a counter per second
	BusyTime          // growth of a counter of seconds, in percent of the time
	Mean              // over time
	HighestMeasured
	Highest
	Lowest
)

// Scale is the unit in which a report shows a figure.
type Scale string

// The scales. BytesPerS, Cores and PercentOfTime are those of a counter's rate. Bytes are shown in kB, MB and
// so on as their number asks, short times in ms.
const (
	InMiB         Scale = "MiB"
	InBytes       Scale = "B"
	BytesPerS     Scale = "B/s"
	Cores         Scale = "cores"
	PercentOfTime Scale = "% of the time"
	InSeconds     Scale = "s"
	Operations    Scale = "operations"
)

// Factor returns by how much to multiply a value, in bytes or seconds, to have it in the scale.
func (s Scale) Factor() float64 {
	if s == InMiB {
		return 1.0 / (1 << 20)
	}
	return 1
}

// Processes are the figures of nodes and of clients, each once: the two have some in common, by their names.
var Processes = append(slices.Clone(Nodes), slices.DeleteFunc(slices.Clone(Clients), func(f Figure) bool {
	return slices.ContainsFunc(Nodes, func(node Figure) bool { return node.Name == f.Name })
})...)

// How reports show what nodes and clients both have.
var (
	memoryReport = Report{
		Summary:  Highest,
		Key:      "peak_rss_bytes",
		Scale:    InMiB,
		Chart:    "Memory",
		Column:   "memory",
		Compared: "node memory",
	}
	cpuReport = Report{
		Summary:  Rate,
		Key:      "cpu_cores",
		Scale:    Cores,
		Chart:    "CPU",
		Column:   "cores",
		Compared: "node CPU",
	}
	receivedReport = Report{
		Summary: Rate,
		Key:     "net_rx_bytes_per_s",
		Scale:   BytesPerS,
		Chart:   "Network, received",
		Column:  "in",
	}
	sentReport = Report{
		Summary: Rate,
		Key:     "net_tx_bytes_per_s",
		Scale:   BytesPerS,
		Chart:   "Network, sent",
		Column:  "out",
	}
)
