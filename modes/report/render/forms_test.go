package render

import (
	"bytes"
	"encoding/csv"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"imgcluster/cluster/printable"
	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// compute writes records, reads them back and computes the report.
func compute(t testing.TB, recs ...runlog.Record) *report.Report {
	t.Helper()
	return report.Compute(logtest.Log(t, recs...), report.DefaultLimits())
}

func text(t testing.TB, r *report.Report, opts TextOptions) string {
	t.Helper()
	var b strings.Builder
	if err := (Reports{r}).WriteText(&b, opts); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestIncompleteInAllForms has every form of the report name what is missing.
func TestIncompleteInAllForms(t *testing.T) {
	recs := slices.DeleteFunc(logtest.Whole(30), func(r runlog.Record) bool {
		_, back := r.(runlog.Readback)
		_, end := r.(runlog.End)
		return back || end
	})
	a, b := named(t, "a.jsonl", recs), named(t, "b.jsonl", logtest.Whole(30))
	l := logtest.Log(t, recs...)
	b.Compare(logtest.Log(t, logtest.Whole(30)...), l, "a.jsonl")
	const want = "no image read back, no end record"
	for form, out := range map[string][]byte{
		"text":     []byte(text(t, a, TextOptions{})),
		"JSON":     written(t, Reports{a}.WriteJSON),
		"CSV":      written(t, Reports{a}.WriteCSV),
		"Markdown": written(t, Reports{a}.WriteMarkdown),
		"HTML":     written(t, Reports{a}.WriteHTML),
	} {
		if flat := strings.Join(strings.Fields(string(out)), " "); !strings.Contains(flat, "INCOMPLETE: "+want) {
			t.Errorf("%s does not say that it is incomplete: %s", form, flat)
		}
	}
	for form, out := range map[string][]byte{
		"text":     []byte(text(t, b, TextOptions{})),
		"JSON":     written(t, Reports{b}.WriteJSON),
		"Markdown": written(t, Reports{b}.WriteMarkdown),
		"HTML":     written(t, Reports{b}.WriteHTML),
	} {
		if flat := strings.Join(strings.Fields(string(out)), " "); !strings.Contains(flat, want) {
			t.Errorf("%s compares with an incomplete run and does not say so", form)
		}
	}
	if got := (Reports{a, b}).table().rows; got[0][1] != "incomplete" || got[1][1] != "passed" {
		t.Errorf("%v", got)
	}
}

// TestReadInPieces reads through readers that give one byte at a time, or data together with the end.
func TestReadInPieces(t *testing.T) {
	log := logtest.Encode(t, logtest.Failing()...)
	want := text(t, report.Compute(logtest.Read(t, string(log)), report.DefaultLimits()), TextOptions{})
	one, err := runlog.Read(iotest.OneByteReader(bytes.NewReader(log)))
	if err != nil {
		t.Fatal(err)
	}
	end, err := runlog.Read(iotest.DataErrReader(bytes.NewReader(log)))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*runlog.Log{one, end} {
		if got := text(t, report.Compute(l, report.DefaultLimits()), TextOptions{}); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// FuzzRead feeds anything to Read. What it takes must give a report in text of at most 80 columns
// without control characters, and in valid JSON.
func FuzzRead(f *testing.F) {
	for _, records := range logtest.Runs {
		if log := logtest.Encode(f, records()...); len(log) < 2_000 {
			f.Add(log)
		}
	}
	f.Add(logtest.Encode(f, logtest.EveryType()...))
	f.Add([]byte(logtest.Gzip(f, logtest.RunLine+logtest.UploadLine)))
	f.Add([]byte("\xef\xbb\xbf" + logtest.RunLine + `{"type":"cleaned","images":null}` + "\n" +
		`{"type":"node","id":1,"up":null}`))
	evil := evilRecords()
	f.Add(logtest.Encode(f, evil[0], evil[1], evil[len(evil)-2]))
	const least = `{"type":"upload","ok":true,"owner":1,"latency_s":5e-324}` + "\n"
	f.Add([]byte(least + `{"type":"upload","ok":true,"owner":1,"latency_s":1}` + "\n"))
	f.Add([]byte(least + `{"type":"upload","ok":true,"owner":1}` + "\n"))
	f.Add([]byte(`{"type":"upload","ok":true,"owner":4294967295,"bytes":1099511627776,"latency_s":1e9,` +
		`"start_s":1e9,"class":"\u0000\n世","sent_bytes":1e12}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := runlog.Read(bytes.NewReader(log))
		if err != nil {
			var e *runlog.ReadError
			if !errors.As(err, &e) || e.Hint() == "" || e.Line < 1 {
				t.Fatalf("%#v is not a whole ReadError", err)
			}
			return
		}
		r := report.Compute(l, report.DefaultLimits())
		var js bytes.Buffer
		if err := (Reports{r}).WriteJSON(&js); err != nil || !json.Valid(js.Bytes()) {
			t.Fatalf("%v: %s", err, js.Bytes())
		}
		all := Reports{r}
		rows, err := csv.NewReader(bytes.NewReader(written(t, all.WriteCSV))).ReadAll()
		if err != nil || len(rows) < 2 {
			t.Fatalf("%d rows of CSV, %v", len(rows), err)
		}
		expectSelfContained(t, written(t, all.WriteHTML))
		written(t, all.WriteMarkdown)
		for line := range strings.Lines(text(t, r, TextOptions{})) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > widthMax || printable.Text("x"+line+"x") != "x"+line+"x" {
				t.Fatalf("bad line %q", line)
			}
		}
	})
}

// TestReportWriteErrors checks that a report that could not be written says so.
func TestReportWriteErrors(t *testing.T) {
	r := compute(t, logtest.Even(3)...)
	broken := errors.New("broken pipe")
	pr, pw := io.Pipe()
	pr.CloseWithError(broken)
	if err := (Reports{r}).WriteText(pw, TextOptions{}); !errors.Is(err, broken) {
		t.Errorf("text: %v", err)
	}
	if err := (Reports{r}).WriteJSON(pw); !errors.Is(err, broken) {
		t.Errorf("JSON: %v", err)
	}
}

func TestPercentFloor(t *testing.T) {
	for _, c := range []struct {
		part, whole int
		want        string
	}{
		{0, 0, "0.00"},
		{1500, 1500, "100.00"},
		{999_999, 1_000_000, "99.99"},
		{29, 100, "29.00"},
		{1, 3, "33.33"},
	} {
		if got := percentFloor(c.part, c.whole); got != c.want {
			t.Errorf("%d of %d: %s, want %s", c.part, c.whole, got, c.want)
		}
	}
}
