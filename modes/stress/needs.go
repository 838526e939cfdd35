package stress

import (
	"fmt"
	"time"

	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
)

// Rates between which a run's time is estimated, in bytes of images a second: a gigabit network, and
// local disks of two cores.
const (
	slowBytesPerSecond = 40e6
	fastBytesPerSecond = 500e6
)

// Needs is what a run takes, as far as that is known before it. For a duration without a rate it is the
// most that the run can take.
type Needs struct {
	Uploads  int64   `json:"uploads"`
	Bytes    int64   `json:"bytes"`      // of the images
	Sent     int64   `json:"sent_bytes"` // by the client
	Stored   int64   `json:"stored_bytes"`
	PerNode  int64   `json:"stored_bytes_per_node"`
	Log      int64   `json:"log_bytes"`
	AtMost   bool    `json:"at_most"`
	LeastS   float64 `json:"least_s"` // duration
	MostS    float64 `json:"most_s"`
	Copies   int     `json:"-"`
	Faults   int     `json:"-"`
	ReadBack bool    `json:"-"` // all images are read back
}

// logLineBytes is about the size of a record in the log.
const logLineBytes = 400

// samplesMax is the number of images from which the average size is taken, at most.
const samplesMax = 10_000

// needs estimates what a run takes.
func (o *Options) needs(cfg *config.Config, run *load.Options) Needs {
	n := Needs{
		Uploads:  run.Run.Count,
		Copies:   cfg.Cluster.Replicas,
		Faults:   run.Run.Faults,
		ReadBack: o.Verify || o.Chaos,
	}
	average := o.bytes(run.Source, samplesMax) / samplesMax
	seconds := o.Duration.Seconds()
	switch {
	case o.Count > 0:
		n.Bytes = o.bytes(run.Source, o.Count)
	case o.Rate > 0:
		n.Uploads = int64(o.Rate * seconds)
		n.Bytes = n.Uploads * average
	default:
		n.AtMost = true
		n.Bytes = int64(fastBytesPerSecond * seconds)
		n.Uploads = n.Bytes / max(average, 1)
	}
	if run.Resume != nil && n.Uploads > 0 {
		left := max(n.Uploads-int64(len(run.Resume.Done)), 0)
		n.Bytes = n.Bytes / n.Uploads * left
		n.Uploads = left
	}
	nodes := int64(len(cfg.Cluster.Nodes))
	delivery := o.Delivery
	if delivery == runlog.DeliveryAuto { // at most
		delivery = runlog.DeliveryBroadcast
	}
	n.Sent = n.Bytes * int64(runlog.Receivers(delivery, int(nodes), n.Copies))
	n.Stored = n.Bytes * min(int64(n.Copies), nodes)
	n.PerNode = n.Stored / nodes
	n.LeastS = float64(n.Bytes) / fastBytesPerSecond
	n.MostS = float64(n.Bytes) / slowBytesPerSecond
	if seconds > 0 {
		n.LeastS = seconds
		n.MostS = seconds
	} else if o.Rate > 0 {
		n.LeastS = max(n.LeastS, float64(n.Uploads)/o.Rate)
		n.MostS = max(n.MostS, n.LeastS)
	}
	records := float64(n.Uploads)/(1-o.ReadPercent/100) + n.MostS*float64(nodes+1)
	n.Log = int64(records * logLineBytes)
	return n
}

// Disk returns how many bytes must be free on a file system that so many nodes share.
func (n Needs) Disk(cfg *config.Config, nodes int) int64 {
	reserve := int64(cfg.Limits.DiskFreeBytes) + largestImages*int64(cfg.Limits.ImageBytes)
	return int64(float64(n.PerNode)*diskMargin)*int64(nodes) + reserve
}

// bytes returns the size of the first n images.
func (o *Options) bytes(source load.Source, n int64) int64 {
	if files, ok := source.(*load.Files); ok {
		return files.Bytes(n)
	}
	if n <= samplesMax {
		return o.Spec.Summary(int(n)).Bytes
	}
	return int64(float64(o.Spec.Summary(samplesMax).Bytes) / samplesMax * float64(n))
}

// Roughly returns a time rounded to seconds or minutes.
func Roughly(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", max(1, int(d.Seconds())))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}
