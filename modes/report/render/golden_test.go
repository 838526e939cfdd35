package render

import (
	"bytes"
	"flag"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// Remake the golden files with: go test ./modes/report/render -run TestGolden -update
var update = flag.Bool("update", false, "write the golden files")

func TestGolden(t *testing.T) {
	for name, records := range logtest.Runs {
		t.Run(name, func(t *testing.T) {
			r := compute(t, records()...)
			expectGolden(t, name+".txt", []byte(text(t, r, TextOptions{})))
			expectGolden(t, name+".json", written(t, Reports{r}.WriteJSON))
		})
	}
	for name, reports := range map[string]Reports{
		"mixed":    {compute(t, logtest.Mixed()...)},
		"compared": {compared(t)},
		"several":  {named(t, "a.jsonl", logtest.Killed()), named(t, "b.jsonl", logtest.Idle())},
	} {
		expectGolden(t, name+".csv", written(t, reports.WriteCSV))
		expectGolden(t, name+".md", written(t, reports.WriteMarkdown))
	}
	expectGolden(t, "compared.txt", []byte(text(t, compared(t), TextOptions{})))
	expectGolden(t, "compared.json", written(t, Reports{compared(t)}.WriteJSON))
	color := text(t, compute(t, logtest.Failing()...), TextOptions{Color: true, Width: 72})
	expectGolden(t, "color.txt", []byte(color))
}

func named(t testing.TB, name string, recs []runlog.Record) *report.Report {
	r := compute(t, recs...)
	r.Log = name
	return r
}

// compared is the report of a run beside one of the same that was a quarter slower, with more at once.
func compared(t testing.TB) *report.Report {
	t.Helper()
	this := logtest.Log(t, logtest.Even(300)...)
	other := logtest.Log(t, logtest.Slower()...)
	r := report.Compute(this, report.DefaultLimits())
	r.Log = "this.jsonl"
	r.Compare(this, other, "other.jsonl")
	return r
}

func written(t testing.TB, write func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func expectGolden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, want) {
		t.Errorf("%s is not as kept; look at the difference, then run with -update\ngot:\n%s\nwant:\n%s",
			path, got, want)
	}
}

func TestTextWidth(t *testing.T) {
	for name, records := range logtest.Runs {
		r := compute(t, records()...)
		for _, asked := range []int{0, 1, 72, 76, 80, 500} {
			most := min(max(asked, widthMin), widthMax)
			if asked == 0 {
				most = widthMax
			}
			for line := range strings.Lines(text(t, r, TextOptions{Width: asked})) {
				if n := utf8.RuneCountInString(strings.TrimSuffix(line, "\n")); n > most {
					t.Errorf("%s at width %d: %d columns: %s", name, asked, n, line)
				}
				if strings.ContainsRune(line, '\x1b') {
					t.Errorf("%s: an escape in %q", name, line)
				}
			}
		}
	}
}
