package modes

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/printable"
	"imgcluster/config"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// Rates between which a run's time is estimated, in bytes of images a second: a gigabit network, and
// local disks of two cores.
const (
	slowBytesPerSecond = 40e6
	fastBytesPerSecond = 500e6
)

// takes is what a run takes, as far as that is known before it. Of a run of a duration without a rate
// the most is told.
type takes struct {
	Uploads  int64   `json:"uploads"`
	Bytes    int64   `json:"bytes"`      // of the images
	Sent     int64   `json:"sent_bytes"` // by the client
	Stored   int64   `json:"stored_bytes"`
	PerNode  int64   `json:"stored_bytes_per_node"`
	Log      int64   `json:"log_bytes"`
	AtMost   bool    `json:"at_most"`
	LeastS   float64 `json:"least_s"` // of time
	MostS    float64 `json:"most_s"`
	copies   int
	faults   int
	readBack bool
}

// logLineBytes is what a record takes in the log, about.
const logLineBytes = 400

// samplesMax bounds the images that are looked at to know the size of the average one.
const samplesMax = 10_000

// takes estimates a run.
func (o *stressOptions) takes(cfg *config.Config, run *load.Options) takes {
	t := takes{Uploads: run.Run.Count, copies: cfg.Cluster.Replicas, faults: run.Run.Faults, readBack: o.verify || o.chaos}
	average := o.bytes(run.Source, samplesMax) / samplesMax
	seconds := o.duration.Seconds()
	switch {
	case o.count > 0:
		t.Bytes = o.bytes(run.Source, o.count)
	case o.rate > 0:
		t.Uploads = int64(o.rate * seconds)
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
	if o.delivery == string(client.Broadcast) {
		t.Sent *= min(nodes, 3) // the nodes of a shard
	}
	t.Stored = t.Bytes * int64(min(t.copies, len(cfg.Cluster.Nodes)))
	t.PerNode = t.Stored / nodes
	t.LeastS, t.MostS = float64(t.Bytes)/fastBytesPerSecond, float64(t.Bytes)/slowBytesPerSecond
	if seconds > 0 {
		t.LeastS, t.MostS = seconds, seconds
	} else if o.rate > 0 {
		t.LeastS = max(t.LeastS, float64(t.Uploads)/o.rate)
		t.MostS = max(t.MostS, t.LeastS)
	}
	records := float64(t.Uploads)/(1-float64(o.mix)/100) + t.MostS*float64(nodes+1)
	t.Log = int64(records * logLineBytes)
	return t
}

// bytes is the size of the first n images.
func (o *stressOptions) bytes(source load.Source, n int64) int64 {
	if files, ok := source.(*load.Files); ok {
		return files.Bytes(n)
	}
	if n <= samplesMax {
		return o.spec.Summary(int(n)).Bytes
	}
	return int64(float64(o.spec.Summary(samplesMax).Bytes) / samplesMax * float64(n))
}

// write tells people.
func (t takes) write(w io.Writer) {
	about, images := "", t.Bytes
	if t.AtMost {
		about = "at most "
	}
	fmt.Fprintf(w, "%s%s, %s, %s each on average\n", about, term.Plural(t.Uploads, "image"), term.Bytes(images), term.Bytes(images/max(t.Uploads, 1)))
	fmt.Fprintf(w, "  network  %s%s sent by this machine\n", about, term.Bytes(t.Sent))
	fmt.Fprintf(w, "  disk     %s%s on each node, for %s of each image\n", about, term.Bytes(t.PerNode), term.Plural(t.copies, "copy"))
	fmt.Fprintf(w, "  log      %s%s\n", about, term.Bytes(t.Log))
	if t.faults > 0 {
		fmt.Fprintf(w, "  chaos    %s, for each of which uploads may wait some seconds\n", term.Plural(t.faults, "fault"))
	}
	if t.readBack {
		fmt.Fprintf(w, "  reading  %s%s, every image once\n", about, term.Bytes(t.Bytes))
	}
	fmt.Fprintln(w, "  memory   up to 256 MiB here, 512 MiB on each node")
	least, most := roughly(t.LeastS), roughly(t.MostS)
	if least == most {
		fmt.Fprintf(w, "  time     %s\n", least)
		return
	}
	fmt.Fprintf(w, "  time     %s to %s\n", least, most)
}

// roughly is rounded so that nobody takes it for exact.
func roughly(seconds float64) string {
	d := time.Duration(seconds * float64(time.Second))
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", max(1, int(d.Seconds())))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}

// mayAsk refuses a run that has to ask and cannot.
func (e *env) mayAsk(o stressOptions) error {
	if o.asks() && !o.yes && !term.Is(fileOf(e.in)) {
		return usagef("add --yes to start it without a terminal", "the extreme profile asks before it starts")
	}
	return nil
}

// asks tells whether the run is one that nobody should start by mistake.
func (o stressOptions) asks() bool { return o.profile == "extreme" && o.images == "" }

// confirm shows what an extreme run will take, and asks. --quiet does not turn it off where a question
// follows.
func (e *env) confirm(o stressOptions, t takes) error {
	if !o.asks() || o.yes && e.quiet {
		return nil
	}
	t.write(e.err)
	if o.yes {
		return nil
	}
	return e.ask("Start?", errDeclined)
}

// ask returns declined unless the user says yes.
func (e *env) ask(question string, declined error) error {
	fmt.Fprintf(e.err, "%s [y/N] ", printable.Text(question))
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return declined
	}
	return nil
}

// dryRun prints what the run takes and what the look at the cluster found.
func (e *env) dryRun(t takes, checks []check) error {
	if e.json {
		doc := struct {
			Plan      takes   `json:"plan"`
			Preflight []check `json:"preflight"`
		}{t, checks}
		if err := e.printJSON(doc); err != nil {
			return err
		}
		return refusal(checks, true)
	}
	t.write(e.out)
	writeChecks(e.out, checks, e.color(e.out))
	return refusal(checks, true)
}
