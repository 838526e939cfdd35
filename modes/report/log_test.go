package report

import (
	"fmt"
	"strings"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// TestReadKeeps holds what Read takes from a log that other hands have touched.
func TestReadKeeps(t *testing.T) {
	const run, upload = logtest.RunLine, logtest.UploadLine
	failedLine := strings.ReplaceAll(upload, `"ok":true`, `"ok":false,"error":"disk full"`)
	second := strings.ReplaceAll(upload, `"seq":1`, `"seq":2`)
	for _, c := range []struct {
		name, log            string
		attempted, succeeded int
		note                 string
	}{
		{"whole", run + upload + second + `{"type":"end","elapsed_s":4}`, 2, 2, ""},
		{"no end", run + upload + second, 2, 2, "no end record"},
		{"cut last line", run + upload + second[:100], 1, 1, "truncated"},
		{"zeros at the end", run + upload + "\x00\x00\x00", 1, 1, "truncated"},
		{"last line whole but for its end", run + strings.TrimSpace(upload), 1, 1, ""},
		{
			"unknown field", run + strings.Replace(upload, `"seq"`, `"new":{"a":[1,"}",{"\"":2}],"b":null},"seq"`, 1),
			1, 1, "",
		},
		{"unknown type", run + `{"type":"weather","seq":"x","bytes":-4}` + "\n" + upload, 1, 1, ""},
		{
			"type last, spaces", run + ` { "seq" : 1 , "ok" : true , "owner" : 1 , "type" : "upload" } ` + "\r\n\n", 1,
			1, "",
		},
		{"no run", upload + second, 2, 2, "no run record"},
		{"seq twice", run + upload + failedLine, 1, 0, "recorded more than once"},
		{"seq twice, better later", run + failedLine + second + upload, 2, 2, "1 upload recorded more than once"},
		{"no seq", run + strings.Repeat(strings.Replace(upload, `"seq":1,`, "", 1), 3), 3, 3, ""},
		{
			"without an outcome", run + upload + strings.Replace(second, `"ok":true`, `"ok":null`, 1), 1, 1,
			"1 record lacks its outcome or kind",
		},
		{"byte order mark", "\xef\xbb\xbf" + run + upload, 1, 1, ""},
		{"carriage returns", strings.ReplaceAll(run+upload+second, "\n", "\r\n"), 2, 2, ""},
		{"gzip", logtest.Gzip(t, run+upload+second), 2, 2, ""},
		{"gzip in two parts", logtest.Gzip(t, run+upload) + logtest.Gzip(t, second), 2, 2, ""},
		{"gzip with a byte order mark", logtest.Gzip(t, "\xef\xbb\xbf"+run+upload), 1, 1, ""},
		{"uploads missing", run + upload, 1, 1, "1 of 2 planned uploads"},
		{
			"owner from outside", run + strings.Replace(upload, `"owner":2`, `"owner":9`, 1), 1, 1,
			"1 upload on nodes that are not in the run record: 9",
		},
		{
			"nulls",
			run + `{"type":"upload","seq":null,"class":null,"bytes":null,"latency_s":null,` +
				`"ok":true,"owner":null,"first_choice":null}`,
			1, 1, "without an owner",
		},
		{"exponents", run + strings.Replace(upload, "9013320", "9.01332e6", 1), 1, 1, ""},
		{"event of no kind", run + upload + `{"type":"event"}`, 1, 1, ""},
		{"unknown event", run + upload + `{"type":"event","t_s":1,"kind":"full moon"}`, 1, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Compute(logtest.Read(t, c.log), DefaultLimits())
			if r.Attempted != c.attempted || r.Succeeded != c.succeeded {
				t.Errorf("%d attempted, %d succeeded; want %d and %d", r.Attempted, r.Succeeded, c.attempted, c.succeeded)
			}
			if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, c.note) {
				t.Errorf("notes %q, want %q among them", notes, c.note)
			}
		})
	}
}

// TestReadBoundsNames gives every upload a class and an error of its own.
func TestReadBoundsNames(t *testing.T) {
	recs := logtest.Mutate(logtest.Even(1000), func(u *runlog.Upload) {
		u.Class = fmt.Sprint("class ", u.Seq)
		u.OK, u.Error = false, fmt.Sprint("error ", u.Seq)
	})
	r := compute(t, recs...)
	if len(r.Classes) != runlog.NamesMax+1 || len(r.Failures) != runlog.NamesMax+1 {
		t.Fatalf("%d classes, %d failures; want %d of each", len(r.Classes), len(r.Failures), runlog.NamesMax+1)
	}
	if f := r.Failures[0]; f.Error != runlog.OtherName || f.Uploads != 1000-runlog.NamesMax {
		t.Errorf("the rest is %+v", f)
	}
}
