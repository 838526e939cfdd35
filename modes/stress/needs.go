package stress

import (
	"fmt"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/config"
	"imgcluster/modes/stress/load"
)

// Rates between which a run's time is estimated, in bytes of images a second: a gigabit network, and
// local disks of two cores.
const (
	slowBytesPerSecond = 40e6
	fastBytesPerSecond = 500e6
)

// Needs is what a run takes, as far as that is known before it. Of a run of a duration without a rate
// the most is told.
type Needs struct {
	Uploads  int64   `json:"uploads"`
	Bytes    int64   `json:"bytes"`      // of the images
	Sent     int64   `json:"sent_bytes"` // by the client
	Stored   int64   `json:"stored_bytes"`
	PerNode  int64   `json:"stored_bytes_per_node"`
	Log      int64   `json:"log_bytes"`
	AtMost   bool    `json:"at_most"`
	LeastS   float64 `json:"least_s"` // of time
	MostS    float64 `json:"most_s"`
	Copies   int     `json:"-"`
	Faults   int     `json:"-"`
	ReadBack bool    `json:"-"` // all images are read back
}

// logLineBytes is what a record takes in the log, about.
const logLineBytes = 400

// samplesMax bounds the images that are looked at to know the size of the average one.
const samplesMax = 10_000

// needs estimates a run.
func (o *Options) needs(cfg *config.Config, run *load.Options) Needs {
	t := Needs{Uploads: run.Run.Count, Copies: cfg.Cluster.Replicas, Faults: run.Run.Faults, ReadBack: o.Verify || o.Chaos}
	average := o.bytes(run.Source, samplesMax) / samplesMax
	seconds := o.Duration.Seconds()
	switch {
	case o.Count > 0:
		t.Bytes = o.bytes(run.Source, o.Count)
	case o.Rate > 0:
		t.Uploads = int64(o.Rate * seconds)
		t.Bytes = t.Uploads * average
	default:
		t.AtMost = true
		t.Bytes = int64(fastBytesPerSecond * seconds)
		t.Uploads = t.Bytes / max(average, 1)
	}
	if run.Resume != nil && t.Uploads > 0 {
		left := max(t.Uploads-int64(len(run.Resume.Done)), 0)
		t.Bytes, t.Uploads = t.Bytes/t.Uploads*left, left
	}
	nodes := int64(len(cfg.Cluster.Nodes))
	t.Sent = t.Bytes
	if o.Delivery == string(client.Broadcast) {
		t.Sent *= min(nodes, 3) // the nodes of a shard
	}
	t.Stored = t.Bytes * int64(min(t.Copies, len(cfg.Cluster.Nodes)))
	t.PerNode = t.Stored / nodes
	t.LeastS, t.MostS = float64(t.Bytes)/fastBytesPerSecond, float64(t.Bytes)/slowBytesPerSecond
	if seconds > 0 {
		t.LeastS, t.MostS = seconds, seconds
	} else if o.Rate > 0 {
		t.LeastS = max(t.LeastS, float64(t.Uploads)/o.Rate)
		t.MostS = max(t.MostS, t.LeastS)
	}
	records := float64(t.Uploads)/(1-o.ReadPercent/100) + t.MostS*float64(nodes+1)
	t.Log = int64(records * logLineBytes)
	return t
}

// Disk returns how many bytes must be free on a file system that so many nodes share.
func (n Needs) Disk(cfg *config.Config, nodes int) int64 {
	reserve := int64(cfg.Limits.DiskFreeBytes) + largestImages*int64(cfg.Limits.ImageBytes)
	return int64(float64(n.PerNode)*diskMargin)*int64(nodes) + reserve
}

// bytes is the size of the first n images.
func (o *Options) bytes(source load.Source, n int64) int64 {
	if files, ok := source.(*load.Files); ok {
		return files.Bytes(n)
	}
	if n <= samplesMax {
		return o.Spec.Summary(int(n)).Bytes
	}
	return int64(float64(o.Spec.Summary(samplesMax).Bytes) / samplesMax * float64(n))
}

// Roughly is a time rounded so that nobody takes it for exact.
func Roughly(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", max(1, int(d.Seconds())))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}
