package modes

import (
	"encoding/csv"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"imgcluster/modes/report"
)

// TestReportMistakes gives report files and options that it cannot use. They are usage errors, before any
// work.
func TestReportMistakes(t *testing.T) {
	t.Chdir(badFolder(t))
	newer := strings.Replace(goodLog, `"schema":1`, `"schema":9`, 1)
	if err := os.WriteFile("newer.jsonl", []byte(newer), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct{ args, said string }{
		{"report good.jsonl --json --csv", "--json, --csv and --markdown at once"},
		{"report good.jsonl --html missing/report.html", "--html missing/report.html: no such file or directory"},
		{"report good.jsonl --html folder", "--html folder: it is a folder"},
		{"report broken.jsonl --html missing/report.html", "--html missing/report.html"},
		{"report good.jsonl --compare missing.jsonl", "--compare missing.jsonl: no such file or directory"},
		{"report good.jsonl --compare one.png", "one.png: not the log of a run: line 1"},
		{"report good.jsonl --compare newer.jsonl", "log of a newer version: line 1: schema 9"},
		{"report good.jsonl newer.jsonl", "newer.jsonl: log of a newer version"},
		{"report good.jsonl --max-stddev -1", "flag --max-stddev"},
		{"report good.jsonl --min-success 101", "is not in the range 0 to 100"},
		{"report good.jsonl --max-p99 5", "flag --max-p99"},
		{"report good.jsonl --max-node-memory lots", "flag --max-node-memory"},
		{"stress --html missing/report.html", "--html missing/report.html"},
		{"stress --compare missing.jsonl", "--compare missing.jsonl"},
		{"stress --min-throughput fast", "flag --min-throughput"},
	} {
		call(t, strings.Fields(test.args)...).expectRefused(t, exitUsage, test.said)
	}
	if left, err := filepath.Glob(".*-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestReportForms makes every form of the report, of one log and of two.
func TestReportForms(t *testing.T) {
	t.Chdir(badFolder(t))
	other := strings.Replace(goodLog, `"concurrency":1`, `"concurrency":4`, 1)
	must(t,
		os.WriteFile("other.jsonl", []byte(other), 0o600),
		os.WriteFile("strict.yaml", []byte("report:\n  max_p99: 50ms\n"), 0o600))
	for _, test := range []struct {
		args   string
		status int
		out    string
	}{
		{"report good.jsonl --csv", 0, "good.jsonl,run,,succeeded,1"},
		{"report good.jsonl --markdown", 0, "# good.jsonl"},
		{"report good.jsonl failed.jsonl", exitVerdict, "All runs"},
		{"report good.jsonl other.jsonl", 0, "== other.jsonl"},
		{"report good.jsonl failed.jsonl --json", exitVerdict, `"log": "failed.jsonl"`},
		{"report good.jsonl failed.jsonl --csv", exitVerdict, "failed.jsonl,run,,failed,1"},
		{"report good.jsonl failed.jsonl --markdown", exitVerdict, "## All runs"},
		{"report good.jsonl --compare other.jsonl", 0, "load: 1 at once, other: 4 at once"},
		{"report good.jsonl --compare failed.jsonl", 0, "Compared with failed.jsonl"},
		{"report good.jsonl --compare other.jsonl --json", 0, `"other": "other.jsonl"`},
		{"report good.jsonl --compare other.jsonl --csv", 0, "good.jsonl,comparison,success,figures.this,100"},
		{"report good.jsonl --compare other.jsonl --markdown", 0, "## Compared with other.jsonl"},
		{"report failed.jsonl --min-success 50", 0, "FAILED 1 OF 2 UPLOADS: AS MANY AS ALLOWED"},
		{"report failed.jsonl --set report.min_success=50", 0, "AS MANY AS ALLOWED"},
		{"report good.jsonl --max-p99 50ms", exitVerdict, "p99 over the limit"},
		{"report good.jsonl --config strict.yaml", exitVerdict, "p99 over the limit"},
		{"report good.jsonl --config strict.yaml --max-p99 1s", 0, "p99 0.100 s of at most 1 s"},
	} {
		e := call(t, strings.Fields(test.args)...)
		flat := strings.Join(strings.Fields(e.out), " ") // lines are broken anywhere
		if e.status != test.status || !strings.Contains(flat, test.out) || e.err != "" {
			t.Errorf("want status %d and %q of %v", test.status, test.out, e)
		}
		if strings.Contains(test.args, "--csv") {
			if rows, err := csv.NewReader(strings.NewReader(e.out)).ReadAll(); err != nil || len(rows) < 20 {
				t.Errorf("%s: %d rows, %v", test.args, len(rows), err)
			}
		}
	}
	e := call(t, "report", "good.jsonl", "--json", "--min-throughput", "0.5")
	if r := decode[report.Report](t, e.out); r.Limits.ThroughputPerS != 0.5 || r.Limits.NodeRSSBytes != 512<<20 {
		t.Errorf("%+v", r.Limits)
	}
}

// TestReportHTML replaces an HTML report only by a complete one.
func TestReportHTML(t *testing.T) {
	t.Chdir(badFolder(t))
	if err := os.WriteFile("report.html", []byte("before"), 0o600); err != nil {
		t.Fatal(err)
	}
	if e := call(t, "report", "broken.jsonl", "--html", "report.html"); e.status != exitUsage {
		t.Fatal(e)
	}
	if b, err := os.ReadFile("report.html"); err != nil || string(b) != "before" {
		t.Errorf("%q, %v", b, err)
	}
	e := call(t, "report", "failed.jsonl", "--html", "report.html")
	e.expectOut(t, exitVerdict, "Verdict: SYSTEM FAILED")
	html := string(read(t, "report.html"))
	if !strings.HasPrefix(html, "<!doctype html>") || !strings.Contains(html, "SYSTEM FAILED 1 OF 2 UPLOADS") {
		t.Errorf("%.200s", html)
	}
	if info, err := os.Stat("report.html"); err != nil || info.Mode().Perm() != 0o600 { // as before
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if left, err := filepath.Glob(".imgcluster-*"); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// TestLimitsByDefault compares the default settings with the default limits of package report.
func TestLimitsByDefault(t *testing.T) {
	t.Chdir(t.TempDir())
	e := env{}
	cfg, err := e.load()
	if err != nil {
		t.Fatal(err)
	}
	if got, want := limits(cfg.Report), report.DefaultLimits(); got != want {
		t.Errorf("%+v by the settings, %+v", got, want)
	}
}
