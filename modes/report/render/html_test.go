package render

import (
	"bytes"
	"fmt"
	"regexp"
	"strings"
	"testing"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// evilText is what a log may say to get a script into the page.
const evilText = `</script><script>evil=1</script><img src=x onerror=evil=1>" onmouseover="evil=1`

// evilRecords has it wherever a log has words.
func evilRecords() []runlog.Record {
	recs := logtest.Mutate(logtest.Even(60), func(u *runlog.Upload) {
		u.Class = evilText
		if u.Seq%10 == 0 {
			u.OK, u.Owner, u.Error = false, 0, evilText
		}
	})
	recs = append(recs,
		runlog.Event{TS: 1, Kind: evilText, Detail: evilText},
		runlog.Event{TS: 2, Kind: runlog.EventKill, Node: 2, Detail: evilText},
		runlog.ReadOp{StartS: 1, Error: evilText})
	return logtest.SetRun(recs, func(r *runlog.Run) {
		r.Profile, r.Delivery, r.Images, r.Version, r.Arrivals = evilText, evilText, evilText, evilText, evilText
		r.Hosts.Client = runlog.Host{Name: evilText, CPUs: 2}
		r.Settings = map[string]string{evilText: evilText}
	})
}

// What would make a browser ask for something that is not in the page: in a tag, which no word of a log
// can become, and in the style and the script.
var (
	elsewhereTag = regexp.MustCompile(`(?i)<(link|img|iframe|object|embed|base|script|a|form)\b` +
		`[^>]*\s(src|href|data|action)="?[^"d#]`)
	elsewhereFile = regexp.MustCompile(`(?i)@import|url\(|https?:|\bfetch\b|XMLHttpRequest|WebSocket|\bimport\b`)
)

func expectSelfContained(t testing.TB, page []byte) {
	t.Helper()
	if found := elsewhereTag.Find(page); found != nil {
		t.Fatalf("the page has %q", found)
	}
	if !bytes.HasPrefix(page, []byte("<!doctype html>")) ||
		!bytes.HasSuffix(bytes.TrimSpace(page), []byte("</html>")) {
		t.Fatalf("not a whole page: %.80s", page)
	}
}

func TestPageIsSelfContained(t *testing.T) {
	for _, name := range []string{"page/page.css", "page/page.js"} {
		if b, err := pageFiles.ReadFile(name); err != nil || elsewhereFile.Find(b) != nil {
			t.Errorf("%s has %q, %v", name, elsewhereFile.Find(b), err)
		}
	}
	for name, records := range logtest.Runs {
		r := compute(t, records()...)
		page := written(t, (Reports{r}).WriteHTML)
		expectSelfContained(t, page)
		if !strings.Contains(string(page), r.Verdict.Text) {
			t.Errorf("%s: no verdict", name)
		}
		for _, c := range r.Verdict.Checks {
			if !strings.Contains(string(page), `id="check-`+c.Name+`"`) {
				t.Errorf("%s: no check %s", name, c.Name)
			}
		}
	}
	page := string(written(t, Reports{named(t, evilText, evilRecords())}.WriteHTML))
	if strings.Contains(page, "<script>evil") || strings.Contains(page, "<img") ||
		strings.Contains(page, `" onmouseover="`) {
		t.Error("a log's words became a part of the page")
	}
}

// TestPageOfSeveral looks for the links from the table of all runs, and for what a wide table and paper need.
func TestPageOfSeveral(t *testing.T) {
	both := Reports{named(t, "a.jsonl", logtest.Killed()), named(t, "b.jsonl", logtest.Even(30))}
	page := string(written(t, both.WriteHTML))
	for _, want := range []string{
		`href="#run1-verdict">a.jsonl</a>`, `href="#run2-verdict">b.jsonl</a>`, `id="run2-verdict"`,
		`class="table" tabindex="0" role="region" aria-labelledby="runs"`, "no-repeat local", `"beforeprint"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page has no %s", want)
		}
	}
}

// TestMarkdownOrder wants what limited before the tables.
func TestMarkdownOrder(t *testing.T) {
	page := string(written(t, Reports{named(t, "a.jsonl", logtest.Mixed())}.WriteMarkdown))
	limited, figures := strings.Index(page, "Limited by"), strings.Index(page, "## Figures")
	if limited < 0 || limited > figures || strings.Count(page, "Limited by") != 1 {
		t.Errorf("what limited is at %d, the figures at %d", limited, figures)
	}
}

// pageBytesMax is what a page of any run stays below.
const pageBytesMax = 5_000_000

// TestPageStaysSmall makes the page of a run with as much of everything as a log may have that a page shows.
func TestPageStaysSmall(t *testing.T) {
	run := logtest.EvenRun(30_000)
	run.Nodes = nil
	for id := 1; id <= runlog.NodesMax; id++ {
		run.Nodes = append(run.Nodes, id)
		run.Hosts.Nodes = append(run.Hosts.Nodes, runlog.Host{
			ID:          id,
			Name:        fmt.Sprint("host", id),
			CPUs:        4,
			LinkBytesPS: 1e9,
		})
	}
	run.Settings = map[string]string{}
	for i := range runlog.SettingsMax {
		run.Settings[fmt.Sprint("setting.", i)] = strings.Repeat("v", 100)
	}
	recs := []runlog.Record{run}
	for seq := int64(1); seq <= 30_000; seq++ {
		u := logtest.EvenUpload(seq)
		u.Owner, u.Class = int(seq)%runlog.NodesMax+1, fmt.Sprint("class ", seq%300)
		if seq%7 == 0 {
			u.OK, u.Error = false, strings.Repeat(fmt.Sprint(seq%2100), 120)
		}
		recs = append(recs, u)
		if seq%60 == 0 {
			recs = append(recs, runlog.Event{
				TS:     float64(seq) / 25,
				Kind:   runlog.EventKill,
				Node:   int(seq)%runlog.NodesMax + 1,
				Detail: strings.Repeat("d", 500),
			})
		}
	}
	for i := range 300 {
		for id := 1; id <= runlog.NodesMax; id += 50 {
			recs = append(recs, runlog.NodeSample{
				TS: float64(4 * i),
				ID: id,
				Up: true,
				Node: sample.Node{
					RSSBytes:      int64(i*id) << 10,
					CPUS:          float64(i),
					NetRxBytes:    int64(i) * 1e6,
					DiskBusyS:     float64(i),
					DiskFreeBytes: 7e9,
				},
			})
		}
	}
	r := compute(t, recs...)
	if n := len(written(t, (Reports{r}).WriteHTML)); n > pageBytesMax {
		t.Errorf("%d bytes, more than %d", n, pageBytesMax)
	}
}

// TestGlyphsAreOfTheLog ties the kinds of events that charts show to those that a run logs.
func TestGlyphsAreOfTheLog(t *testing.T) {
	logged := []string{
		runlog.EventNodeDown, runlog.EventNodeUp, runlog.EventKill, runlog.EventStop, runlog.EventRestart,
		runlog.EventPause, runlog.EventResume, runlog.EventHealed, runlog.EventUnhealed, runlog.EventLost,
		runlog.EventResumed,
	}
	for _, kind := range logged {
		if _, ok := glyphs[kind]; !ok {
			t.Errorf("charts do not show the event %s", kind)
		}
	}
	if len(glyphs) != len(logged) {
		t.Errorf("charts show %d kinds of events, of which a run logs %d", len(glyphs), len(logged))
	}
	if seenDown != runlog.EventNodeDown || seenUp != runlog.EventNodeUp {
		t.Errorf("%s and %s are what a run logs of a node that it sees", runlog.EventNodeDown, runlog.EventNodeUp)
	}
	if held != runlog.EventHeld || released != runlog.EventReleased {
		t.Errorf("%s and %s are what a run logs of waiting", runlog.EventHeld, runlog.EventReleased)
	}
}
