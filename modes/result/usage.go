package result

import "imgcluster/modes/term"

// Usage is what one process used while uploads ran, on average unless it says otherwise. A figure
// that the samples do not tell is 0.
type Usage struct {
	PeakRSSBytes     int64   `json:"peak_rss_bytes"`
	CPUCores         float64 `json:"cpu_cores"`
	CPUPercent       float64 `json:"cpu_percent"` // of all CPUs of its machine; 0 when their number is not known
	NetRxBytesPerS   float64 `json:"net_rx_bytes_per_s"`
	NetTxBytesPerS   float64 `json:"net_tx_bytes_per_s"`
	LinkPercent      float64 `json:"link_percent"` // of the machine's link, in the busier direction; 0 when not known
	DiskReadPerS     float64 `json:"disk_read_bytes_per_s"`
	DiskWrittenPerS  float64 `json:"disk_written_bytes_per_s"`
	DiskBusyPercent  float64 `json:"disk_busy_percent"` // of the time
	DiskFreeBytes    int64   `json:"disk_free_bytes"`   // the least
	StagingPeakBytes int64   `json:"staging_peak_bytes"`
	DownS            float64 `json:"down_s"` // seconds between samples in which it was not up
}

// Client says what the load driver used, and so whether it was what limited.
type Client struct {
	Usage
	InFlight      float64 `json:"in_flight"`      // uploads and reads at once
	LateMaxS      float64 `json:"late_max_s"`     // of an open loop: how far behind its schedule it was
	SourcePercent float64 `json:"source_percent"` // of its workers' time, spent making images
	MemoryWaited  string  `json:"memory_waited"`  // how uploads waited for its memory; empty when they did not for long
	Limited       string  `json:"limited"`        // how it limited the run; empty when it did not
}

// When the client counts as what limited.
const (
	clientCPUPercentMax    = 85.0
	clientSourcePercentMax = 50.0
	clientLateMaxS         = 1.0
)

// counter adds up how much a counter grew, over what time. Where it fell, its process began anew.
type counter struct{ grown, time float64 }

func (c *counter) add(before, after, time float64) {
	if before != notTold && after >= before {
		c.grown += after - before
		c.time += time
	}
}

// rate is the growth a second; 0 when the samples are too close together to tell.
func (c *counter) rate() float64 {
	if c.time < rateSecondsMin {
		return 0
	}
	return c.grown / c.time
}

// nodeUsage works out what each node used from the samples of the measured time.
func (l *Log) nodeUsage(from float64) map[uint32]*Usage {
	type counters struct {
		last                                nodeSample
		cpu, rx, tx, dread, dwritten, busyS counter
		Usage
	}
	at := map[uint32]*counters{}
	for _, s := range l.nodes {
		c := at[s.id]
		if c == nil {
			c = &counters{last: s}
			at[s.id] = c
		}
		time := s.t - c.last.t
		switch {
		case s.t < from:
		case s.up && c.last.up:
			c.cpu.add(c.last.cpu, s.cpu, time)
			c.rx.add(float64(c.last.rx), float64(s.rx), time)
			c.tx.add(float64(c.last.tx), float64(s.tx), time)
			c.dread.add(float64(c.last.dread), float64(s.dread), time)
			c.dwritten.add(float64(c.last.dwritten), float64(s.dwritten), time)
			c.busyS.add(c.last.diskBusy, s.diskBusy, time)
		case !c.last.up:
			c.DownS += time
		}
		if s.up {
			c.PeakRSSBytes = max(c.PeakRSSBytes, s.rss)
			c.StagingPeakBytes = max(c.StagingPeakBytes, s.staging)
			if s.free > 0 && (c.DiskFreeBytes == 0 || s.free < c.DiskFreeBytes) {
				c.DiskFreeBytes = s.free
			}
		}
		c.last = s
	}
	usage := map[uint32]*Usage{}
	for id, c := range at {
		u := &c.Usage
		u.CPUCores, u.NetRxBytesPerS, u.NetTxBytesPerS = c.cpu.rate(), c.rx.rate(), c.tx.rate()
		u.DiskReadPerS, u.DiskWrittenPerS, u.DiskBusyPercent = c.dread.rate(), c.dwritten.rate(), min(100, 100*c.busyS.rate())
		u.shareOf(l.Run.Machines.node(int(id)))
		usage[id] = u
	}
	return usage
}

// shareOf fills in what the machine's size makes of the figures.
func (u *Usage) shareOf(m Machine) {
	u.CPUPercent = 100 * ratio(u.CPUCores, float64(m.CPUs))
	u.LinkPercent = 100 * ratio(max(u.NetRxBytesPerS, u.NetTxBytesPerS), float64(m.LinkBytesPS))
}

// node returns the machine of that node, the zero Machine when the log does not tell.
func (m *Machines) node(id int) Machine {
	for _, one := range m.Nodes {
		if one.ID == id {
			return one
		}
	}
	return Machine{}
}

// clientUsage works out what the client used; nil without a sample.
func (l *Log) clientUsage(from float64) *Client {
	if len(l.client) == 0 {
		return nil
	}
	c, last := &Client{}, l.client[0]
	var cpu, source, sent, read counter
	var flight, flightTime float64
	for _, s := range l.client {
		if s.t >= from {
			time := s.t - last.t
			cpu.add(last.cpu, s.cpu, time)
			source.add(last.source, s.source, time)
			sent.add(float64(last.sent), float64(s.sent), time)
			read.add(float64(last.read), float64(s.read), time)
			if last.flight != notTold {
				flight += float64(last.flight) * time
				flightTime += time
			}
			c.LateMaxS = max(c.LateMaxS, s.late)
		}
		c.PeakRSSBytes = max(c.PeakRSSBytes, s.rss)
		last = s
	}
	c.CPUCores, c.NetTxBytesPerS, c.NetRxBytesPerS = cpu.rate(), sent.rate(), read.rate()
	c.InFlight = ratio(flight, flightTime)
	c.SourcePercent = min(100, 100*ratio(source.rate(), float64(l.Run.Concurrency)))
	c.shareOf(l.Run.Machines.Client)
	for _, e := range l.events {
		if l.kinds.list[e.kind] == EventMemory {
			c.MemoryWaited = l.details.list[e.detail]
		}
	}
	return c
}

// limits says in which way the client was what limited, empty when it was not.
func (c *Client) limits(run *Run, reached float64) string {
	switch {
	case c.SourcePercent >= clientSourcePercentMax:
		return "its workers spent " + term.Percent(c.SourcePercent) + " of their time making images"
	case c.CPUPercent >= clientCPUPercentMax:
		return "it used " + term.Percent(c.CPUPercent) + " of its machine's CPUs"
	case run.Rate > 0 && c.LateMaxS > clientLateMaxS && reached < run.wanted()*rateReachedMin:
		late := "it fell " + term.Seconds(c.LateMaxS) + " s behind the schedule"
		if c.MemoryWaited != "" {
			late += ": " + c.MemoryWaited
		}
		return late
	}
	return ""
}

// wanted is how many uploads a second an open loop was to make; 0 for a closed one.
func (r *Run) wanted() float64 { return r.Rate * (1 - r.ReadPercent/100) }

// rateReachedMin is the share of an open loop's rate from which it counts as reached.
const rateReachedMin = 0.95

// percent returns v as a percentage of at most three digits.
