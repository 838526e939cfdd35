package report

import (
	"strings"

	"imgcluster/modes/runlog"
	"imgcluster/modes/term"
)

// Usage is what one process used while uploads ran, on average unless it says otherwise. A figure
// that the samples do not tell is 0.
type Usage struct {
	PeakRSSBytes int64   `json:"peak_rss_bytes"`
	CPUCores     float64 `json:"cpu_cores"`
	// of all CPUs of its machine; 0 when their number is not known
	CPUPercent     float64 `json:"cpu_percent"`
	NetRxBytesPerS float64 `json:"net_rx_bytes_per_s"`
	NetTxBytesPerS float64 `json:"net_tx_bytes_per_s"`
	// of the machine's link, in the busier direction; 0 when not known
	LinkPercent      float64 `json:"link_percent"`
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
	// how uploads waited for its memory; empty when they did not for long
	MemoryWaited string `json:"memory_waited"`
	Limited      string `json:"limited"` // how it limited the run; empty when it did not
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
	if before != runlog.NotTold && after >= before {
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
func (l log) nodeUsage(from float64) map[int]*Usage {
	type counters struct {
		last                                runlog.NodeSample
		cpu, rx, tx, dread, dwritten, busyS counter
		Usage
	}
	at := map[int]*counters{}
	for _, s := range l.Nodes {
		c := at[s.ID]
		if c == nil {
			c = &counters{last: s}
			at[s.ID] = c
		}
		time := s.TS - c.last.TS
		switch {
		case s.TS < from:
		case s.Up && c.last.Up:
			c.cpu.add(c.last.CPUS, s.CPUS, time)
			c.rx.add(float64(c.last.NetRxBytes), float64(s.NetRxBytes), time)
			c.tx.add(float64(c.last.NetTxBytes), float64(s.NetTxBytes), time)
			c.dread.add(float64(c.last.DiskReadBytes), float64(s.DiskReadBytes), time)
			c.dwritten.add(float64(c.last.DiskWrittenBytes), float64(s.DiskWrittenBytes), time)
			c.busyS.add(c.last.DiskBusyS, s.DiskBusyS, time)
		case !c.last.Up:
			c.DownS += time
		}
		if s.Up {
			c.PeakRSSBytes = max(c.PeakRSSBytes, s.RSSBytes)
			c.StagingPeakBytes = max(c.StagingPeakBytes, s.StagingBytes)
			if s.DiskFreeBytes > 0 && (c.DiskFreeBytes == 0 || s.DiskFreeBytes < c.DiskFreeBytes) {
				c.DiskFreeBytes = s.DiskFreeBytes
			}
		}
		c.last = s
	}
	usage := map[int]*Usage{}
	for id, c := range at {
		u := &c.Usage
		u.CPUCores, u.NetRxBytesPerS, u.NetTxBytesPerS = c.cpu.rate(), c.rx.rate(), c.tx.rate()
		u.DiskReadPerS, u.DiskWrittenPerS, u.DiskBusyPercent = c.dread.rate(), c.dwritten.rate(),
			min(100, 100*c.busyS.rate())
		u.shareOf(l.Run.Machines.Node(int(id)))
		usage[id] = u
	}
	return usage
}

// shareOf fills in what the machine's size makes of the figures.
func (u *Usage) shareOf(m runlog.Machine) {
	u.CPUPercent = 100 * ratio(u.CPUCores, float64(m.CPUs))
	u.LinkPercent = 100 * ratio(max(u.NetRxBytesPerS, u.NetTxBytesPerS), float64(m.LinkBytesPS))
}

// clientUsage works out what the client used; nil without a sample.
func (l log) clientUsage(from float64) *Client {
	if len(l.Client) == 0 {
		return nil
	}
	c, last := &Client{}, l.Client[0]
	var cpu, source, sent, read counter
	var flight, flightTime float64
	for _, s := range l.Client {
		if s.TS >= from {
			time := s.TS - last.TS
			cpu.add(last.CPUS, s.CPUS, time)
			source.add(last.SourceS, s.SourceS, time)
			sent.add(float64(last.SentBytes), float64(s.SentBytes), time)
			read.add(float64(last.ReadBytes), float64(s.ReadBytes), time)
			if last.InFlight != runlog.NotTold {
				flight += float64(last.InFlight) * time
				flightTime += time
			}
			c.LateMaxS = max(c.LateMaxS, s.LateS)
		}
		c.PeakRSSBytes = max(c.PeakRSSBytes, s.RSSBytes)
		last = s
	}
	c.CPUCores, c.NetTxBytesPerS, c.NetRxBytesPerS = cpu.rate(), sent.rate(), read.rate()
	c.InFlight = ratio(flight, flightTime)
	c.SourcePercent = min(100, 100*ratio(source.rate(), float64(l.Run.Concurrency)))
	c.shareOf(l.Run.Machines.Client)
	for _, e := range l.Events {
		if e.Kind == runlog.EventMemory {
			c.MemoryWaited = e.Detail
		}
	}
	return c
}

// limits says in which way the client was what limited, empty when it was not.
func (c *Client) limits(run *runlog.Run, reached float64) string {
	switch {
	case c.SourcePercent >= clientSourcePercentMax:
		return "its workers spent " + term.Percent(c.SourcePercent) + " of their time making images"
	case c.CPUPercent >= clientCPUPercentMax:
		return "it used " + term.Percent(c.CPUPercent) + " of its machine's CPUs"
	case run.Rate > 0 && c.LateMaxS > clientLateMaxS && reached < run.UploadRate()*rateReachedMin:
		late := "it fell " + term.Seconds(c.LateMaxS) + " s behind the schedule"
		if c.MemoryWaited != "" {
			late += ": " + c.MemoryWaited
		}
		return late
	}
	return ""
}

// rateReachedMin is the share of an open loop's rate from which it counts as reached.
const rateReachedMin = 0.95

// Words says how busy the client was.
func (c *Client) Words() string {
	parts := []string{term.Digits3(c.CPUCores) + " cores"}
	add := func(known bool, s string) {
		if known {
			parts = append(parts, s)
		}
	}
	add(c.CPUPercent > 0, term.Percent(c.CPUPercent)+" of its machine's CPUs")
	add(c.SourcePercent > 0, term.Percent(c.SourcePercent)+" of its workers' time making images")
	add(c.InFlight > 0, term.Digits3(c.InFlight)+" operations at once")
	add(c.LateMaxS > 0, "at most "+term.Seconds(c.LateMaxS)+" s behind its schedule")
	add(c.LinkPercent > 0, term.Percent(c.LinkPercent)+" of its link")
	return "busy with " + strings.Join(parts, ", ")
}
