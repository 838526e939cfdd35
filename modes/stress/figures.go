package stress

import (
	"slices"
	"time"

	"imgcluster/modes/runlog"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Figures are the figures of a run at one moment. Times on the run's clock are in seconds.
type Figures struct {
	Run     runlog.Run
	Done    int64   // uploads that ended, those before an interruption included
	Now     float64 // on the run's clock, by the last record
	Clock   float64 // on the run's clock, by the machine's clock after the uploads
	Uploads int64   // that ended since the run began or was resumed
	Failed  int64
	Retried int64
	Reads   int64
	Unread  int64         // reads that failed
	Waiting int64         // uploads that wait for memory
	Part    float64       // of the run that is done, 1 at most
	Rest    time.Duration // until its end, 0 when that is not known
	Recent  Rate
	Average Rate
	Seconds []Rate // of each whole second, the newest last
	Latency Quantiles
	Service Quantiles
	Nodes   []NodeFigures
	Client  Sampled[runlog.ClientSample]
	Events  []string
	Stage   StageFigures // its What is empty while uploads are made
	Faults  string       // the state of a chaos run, in words
}

// Rate is what is done in a second.
type Rate struct{ Uploads, Bytes float64 }

// Quantiles are times in seconds, 0 when Count is.
type Quantiles struct {
	Count         int64
	P50, P99, Max float64
}

// NodeFigures are the figures of one node of the run.
type NodeFigures struct {
	ID      int
	Uploads int64 // whose owner it is
	Sampled[runlog.NodeSample]
}

// Sampled is the last sample and the one before it.
type Sampled[S any] struct{ Last, Before S }

func (s *Sampled[S]) add(x S) {
	s.Before = s.Last
	s.Last = x
}

// StageFigures are the figures of a stage that follows the uploads, such as reading all images back.
type StageFigures struct {
	What        string // is done with the images
	Done, Total int64
	Part        float64
	Rest        time.Duration // 0 when that is not known
}

// Figures returns the figures of this moment.
func (f *Tally) Figures() Figures {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := Figures{
		Run:     f.run,
		Done:    f.done,
		Now:     f.now,
		Clock:   f.clock(),
		Uploads: f.uploads,
		Failed:  f.failed,
		Retried: f.retried,
		Reads:   f.reads,
		Unread:  f.unread,
		Waiting: f.Waiting.Load(),
		Recent:  f.rate(),
		Average: f.average(),
		Latency: quantiles(f.latency),
		Service: quantiles(f.service),
		Nodes:   slices.Clone(f.nodes),
		Client:  f.client,
		Events:  slices.Clone(f.events),
	}
	g.Part, g.Rest = f.progress()
	for _, s := range f.seconds[:min(len(f.seconds), max(int(f.now)-f.first, 0))] {
		g.Seconds = append(g.Seconds, Rate{float64(s.uploads), float64(s.bytes)})
	}
	if s := &f.after; s.what != "" {
		g.Stage = StageFigures{What: s.what, Done: s.done, Total: s.total}
		g.Stage.Part, g.Stage.Rest = s.progress()
	}
	if f.faults != nil {
		g.Faults = f.faults()
	}
	return g
}

func quantiles(h *hdrhistogram.Histogram) Quantiles {
	seconds := func(us int64) float64 { return float64(us) / 1e6 }
	return Quantiles{
		Count: h.TotalCount(),
		P50:   seconds(h.ValueAtQuantile(50)),
		P99:   seconds(h.ValueAtQuantile(99)),
		Max:   seconds(h.Max()),
	}
}
