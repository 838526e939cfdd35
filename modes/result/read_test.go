package result

import (
	"bytes"
	"compress/gzip"
	"encoding/csv"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"imgcluster/cluster/printable"
)

const (
	runLine    = `{"type":"run","schema":1,"started":"2026-01-02T15:04:05Z","profile":"quick","nodes":[1,2,3],"count":2,"concurrency":8,"delivery":"broadcast","replicas":2}` + "\n"
	uploadLine = `{"type":"upload","seq":1,"name":"a.png","class":"medium","bytes":9013320,"start_s":0.012,"latency_s":0.143,"ok":true,"owner":2,"replicas":[2,3],"attempts":1,"sent_bytes":27039960}` + "\n"
)

// TestReadKeeps holds what Read takes from a log that other hands have touched.
func TestReadKeeps(t *testing.T) {
	failedLine := strings.ReplaceAll(uploadLine, `"ok":true`, `"ok":false,"error":"disk full"`)
	second := strings.ReplaceAll(uploadLine, `"seq":1`, `"seq":2`)
	for _, c := range []struct {
		name, log            string
		attempted, succeeded int
		note                 string
	}{
		{"whole", runLine + uploadLine + second + `{"type":"end","elapsed_s":4}`, 2, 2, ""},
		{"no end", runLine + uploadLine + second, 2, 2, "no end record"},
		{"cut last line", runLine + uploadLine + second[:100], 1, 1, "cut off"},
		{"zeros at the end", runLine + uploadLine + "\x00\x00\x00", 1, 1, "cut off"},
		{"last line whole but for its end", runLine + strings.TrimSpace(uploadLine), 1, 1, ""},
		{"unknown field", runLine + strings.Replace(uploadLine, `"seq"`, `"new":{"a":[1,"}",{"\"":2}],"b":null},"seq"`, 1), 1, 1, ""},
		{"unknown type", runLine + `{"type":"weather","seq":"x","bytes":-4}` + "\n" + uploadLine, 1, 1, ""},
		{"type last, spaces", runLine + ` { "seq" : 1 , "ok" : true , "owner" : 1 , "type" : "upload" } ` + "\r\n\n", 1, 1, ""},
		{"no run", uploadLine + second, 2, 2, "no run record"},
		{"seq twice", runLine + uploadLine + failedLine, 1, 0, "recorded more than once"},
		{"seq twice, better later", runLine + failedLine + second + uploadLine, 2, 2, "1 upload recorded more than once"},
		{"no seq", runLine + strings.Repeat(strings.Replace(uploadLine, `"seq":1,`, "", 1), 3), 3, 3, ""},
		{"without an outcome", runLine + uploadLine + strings.Replace(second, `"ok":true`, `"ok":null`, 1), 1, 1, "1 record lacks its outcome or kind"},
		{"byte order mark", "\xef\xbb\xbf" + runLine + uploadLine, 1, 1, ""},
		{"carriage returns", strings.ReplaceAll(runLine+uploadLine+second, "\n", "\r\n"), 2, 2, ""},
		{"gzip", packed(t, runLine+uploadLine+second), 2, 2, ""},
		{"gzip in two parts", packed(t, runLine+uploadLine) + packed(t, second), 2, 2, ""},
		{"gzip with a byte order mark", packed(t, "\xef\xbb\xbf"+runLine+uploadLine), 1, 1, ""},
		{"uploads missing", runLine + uploadLine, 1, 1, "1 of 2 planned uploads"},
		{"owner from outside", runLine + strings.Replace(uploadLine, `"owner":2`, `"owner":9`, 1), 1, 1, "1 upload on nodes that are not in the run record: 9"},
		{"nulls", runLine + `{"type":"upload","seq":null,"class":null,"bytes":null,"latency_s":null,"ok":true,"owner":null,"first_choice":null}`, 1, 1, "without an owner"},
		{"exponents", runLine + strings.Replace(uploadLine, "9013320", "9.01332e6", 1), 1, 1, ""},
		{"event of no kind", runLine + uploadLine + `{"type":"event"}`, 1, 1, ""},
		{"unknown event", runLine + uploadLine + `{"type":"event","t_s":1,"kind":"full moon"}`, 1, 1, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := Compute(read(t, c.log), DefaultLimits())
			if r.Attempted != c.attempted || r.Succeeded != c.succeeded {
				t.Errorf("%d attempted, %d succeeded; want %d and %d", r.Attempted, r.Succeeded, c.attempted, c.succeeded)
			}
			if notes := strings.Join(r.Notes, "\n"); !strings.Contains(notes, c.note) {
				t.Errorf("notes %q, want %q among them", notes, c.note)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	up := func(old, changed string) string {
		s := strings.Replace(uploadLine, old, changed, 1)
		if s == uploadLine {
			t.Fatalf("%q is not in the line", old)
		}
		return runLine + s
	}
	long := strings.Repeat("x", lineBytesMax)
	whole := packed(t, runLine+uploadLine)
	cutPacked := whole[:len(whole)/2]
	for _, c := range []struct {
		name, log string
		want      error
		line      int
		says      string
	}{
		{"empty", "", ErrNotALog, 1, "empty"},
		{"blank lines", "\n \n", ErrNotALog, 3, "empty"},
		{"prose", "Hello\nworld\n", ErrNotALog, 1, "not a JSON object"},
		{"picture", "\x89PNG\r\n\x1a\n\x00\x00", ErrNotALog, 1, "not a JSON object"},
		{"array", "[1,2]\n" + runLine, ErrNotALog, 1, "not a JSON object"},
		{"no type", "{\"a\":1}\n", ErrNotALog, 1, "without type"},
		{"type is no string", "{\"type\":1}\n", ErrNotALog, 1, "type is 1, want a string"},
		{"another program's log", strings.Repeat(`{"type":"http"}`+"\n", 3), ErrNotALog, 4, "no record of a run"},
		{"cut first line", runLine[:40], ErrNotALog, 1, "not a JSON object"},
		{"long first line", long, ErrNotALog, 1, "longer than"},
		{"long line", runLine + long, ErrBadLine, 2, "longer than"},
		{"malformed in the middle", runLine + uploadLine[:50] + "\n" + uploadLine, ErrBadLine, 2, "not a JSON object"},
		{"two lines in one", runLine + strings.TrimSpace(uploadLine) + uploadLine, ErrBadLine, 2, "not a JSON object"},
		{"no type in the middle", runLine + "{}\n", ErrBadLine, 2, "without type"},
		{"NaN", up("0.143", "NaN"), ErrBadLine, 2, "not a JSON object"},
		{"negative bytes", up("9013320", "-9013320"), ErrBadLine, 2, "bytes is -9.01332e+06, out of range"},
		{"negative latency", up("0.143", "-0.1"), ErrBadLine, 2, "latency_s is -0.1, out of range"},
		{"negative start", up("0.012", "-1"), ErrBadLine, 2, "start_s"},
		{"infinite latency", up("0.143", "1e999"), ErrBadLine, 2, "latency_s is +Inf, out of range"},
		{"huge bytes", up("9013320", "99999999999999999999"), ErrBadLine, 2, "bytes is 1e+20"},
		{"half a byte", up("9013320", "1.5"), ErrBadLine, 2, "bytes is 1.5, want a whole number"},
		{"bytes as text", up("9013320", `"9 MB"`), ErrBadLine, 2, `bytes is "9 MB", want a number`},
		{"ok as number", up("true", "1"), ErrBadLine, 2, "ok is 1, want true or false"},
		{"class as list", up(`"medium"`, `[]`), ErrBadLine, 2, "class is [], want a string"},
		{"node sample of no node", runLine + `{"type":"node","rss_bytes":1}`, ErrBadLine, 2, "id is 0"},
		{"negative memory", runLine + `{"type":"node","id":1,"rss_bytes":-1}`, ErrBadLine, 2, "rss_bytes is -1"},
		{"negative disk", runLine + `{"type":"node","id":1,"disk_free_bytes":-1}`, ErrBadLine, 2, "disk_free_bytes"},
		{"negative client memory", runLine + `{"type":"client","rss_bytes":-1}`, ErrBadLine, 2, "rss_bytes"},
		{"negative event", runLine + `{"type":"event","t_s":-1}`, ErrBadLine, 2, "t_s is -1"},
		{"negative read", runLine + `{"type":"read","bytes":-1}`, ErrBadLine, 2, "bytes is -1"},
		{"read too long ago", runLine + `{"type":"read","latency_s":2e9}`, ErrBadLine, 2, "latency_s is 2e+09"},
		{"read scheduled before the run", runLine + `{"type":"read","scheduled_s":-3}`, ErrBadLine, 2, "scheduled_s is -3"},
		{"upload scheduled as text", up(`"seq":1`, `"seq":1,"scheduled_s":"now"`), ErrBadLine, 2, `scheduled_s is "now", want a number`},
		{"first node below zero", up(`"seq":1`, `"seq":1,"first_node":-1`), ErrBadLine, 2, "first_node is -1"},
		{"warm-up as number", up(`"seq":1`, `"seq":1,"warmup":1`), ErrBadLine, 2, "warmup is 1, want true or false"},
		{"busy disk below zero", runLine + `{"type":"node","id":1,"disk_busy_s":-1}`, ErrBadLine, 2, "disk_busy_s is -1"},
		{"disk counter below zero", runLine + `{"type":"node","id":1,"disk_written_bytes":-1}`, ErrBadLine, 2, "disk_written_bytes is -1"},
		{"half an owned image", runLine + `{"type":"node","id":1,"owned_images":0.5}`, ErrBadLine, 2, "owned_images is 0.5"},
		{"client late below zero", runLine + `{"type":"client","late_s":-1}`, ErrBadLine, 2, "late_s is -1"},
		{"client in flight below zero", runLine + `{"type":"client","in_flight":-1}`, ErrBadLine, 2, "in_flight is -1"},
		{"negative rate", `{"type":"run","rate":-1}`, ErrBadLine, 1, "rate is -1"},
		{"more reads than all", `{"type":"run","read_percent":101}`, ErrBadLine, 1, "read_percent is 101"},
		{"negative cores", `{"type":"run","machines":{"client":{"cpus":-4}}}`, ErrBadLine, 1, "machines: cpus is -4"},
		{"negative link", `{"type":"run","machines":{"nodes":[{"id":1,"link_bytes_per_s":-4}]}}`, ErrBadLine, 1, "machines: link_bytes_per_s is -4"},
		{"negative end", runLine + `{"type":"end","elapsed_s":-1}`, ErrBadLine, 2, "elapsed_s is -1"},
		{"node zero in the run", `{"type":"run","nodes":[0]}`, ErrBadLine, 1, "nodes is 0"},
		{"negative count", `{"type":"run","count":-1}`, ErrBadLine, 1, "count is -1"},
		{"nodes as text", `{"type":"run","nodes":"three"}`, ErrBadLine, 1, "nodes is string"},
		{"too many nodes", `{"type":"run","nodes":[1` + strings.Repeat(",1", nodesMax) + `]}`, ErrBadLine, 1, "more than 1024"},
		{"too many owners", manyOwners(), ErrBadLine, nodesMax - 1, "more than 1024 different nodes"},
		{"two runs", runLine + uploadLine + runLine + uploadLine, ErrSeveralRuns, 3, "another one begins here"},
		{"the end of a run and another one", uploadLine + runLine + uploadLine, ErrSeveralRuns, 2, "another one begins here"},
		{"UTF-16", "\xff\xfe{\x00\"\x00", ErrEncoding, 1, "UTF-16"},
		{"UTF-16, the other way round", "\xfe\xff\x00{\x00\"", ErrEncoding, 1, "UTF-16"},
		{"UTF-16 without a mark", "{\x00\"\x00t\x00", ErrEncoding, 1, "UTF-16"},
		{"UTF-16 in gzip", packed(t, "\xff\xfe{\x00"), ErrEncoding, 1, "UTF-16"},
		{"gzip, cut off", cutPacked, ErrCompressed, 1, "cut off or damaged: unexpected EOF"},
		{"gzip without its checksum", whole[:len(whole)-5], ErrCompressed, 3, "cut off or damaged"},
		{"gzip, damaged checksum", whole[:len(whole)-8] + "\x00\x00\x00\x00" + whole[len(whole)-4:], ErrCompressed, 3, "invalid checksum"},
		{"gzip, nothing but its mark", "\x1f\x8b", ErrCompressed, 1, "cut off or damaged"},
		{"prose in gzip", packed(t, "Hello\n"), ErrNotALog, 1, "not a JSON object"},
		{"negative deleted", runLine + `{"type":"cleaned","images":-1}`, ErrBadLine, 2, "images is -1"},
		{"plan as text", runLine + `{"type":"plan","verify":"yes"}`, ErrBadLine, 2, "verify is string"},
		{"newer schema", strings.Replace(runLine, `"schema":1`, `"schema":2`, 1), ErrNewerSchema, 1, "schema 2"},
		{"newer schema, other fields", `{"type":"run","schema":3,"nodes":{"a":1}}`, ErrNewerSchema, 1, "schema 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Read(strings.NewReader(c.log))
			var e *ReadError
			if !errors.As(err, &e) || !errors.Is(err, c.want) {
				t.Fatalf("%v, want %v", err, c.want)
			}
			if e.Line != c.line || !strings.Contains(e.Detail, c.says) || e.Hint() == "" {
				t.Errorf("line %d: %s (hint: %s); want line %d and %q", e.Line, e.Detail, e.Hint(), c.line, c.says)
			}
			if want := fmt.Sprintf("line %d", c.line); !strings.Contains(err.Error(), want) {
				t.Errorf("%v does not name the %s", err, want)
			}
		})
	}
}

// packed is text in gzip.
func packed(t testing.TB, text string) string {
	t.Helper()
	var b bytes.Buffer
	w := gzip.NewWriter(&b)
	if _, err := w.Write([]byte(text)); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// TestUnpackedMax stops at the limit: what is more is no log that was read by half.
func TestUnpackedMax(t *testing.T) {
	text := strings.Repeat("x", 1000)
	for left, want := range map[int64]error{1000: nil, 999: ErrCompressed, 10: ErrCompressed} {
		got, err := io.ReadAll(&gunzip{packed: strings.NewReader(packed(t, text)), left: left})
		if !errors.Is(err, want) || int64(len(got)) != min(1000, left) {
			t.Errorf("limit %d: %d bytes, %v", left, len(got), err)
		}
	}
}

// manyOwners is a log of one node too many: three in the run, the others as owners.
func manyOwners() string {
	var b strings.Builder
	b.WriteString(runLine)
	for id := 4; id <= nodesMax+1; id++ {
		fmt.Fprintf(&b, `{"type":"upload","ok":true,"owner":%d}`+"\n", id)
	}
	return b.String()
}

// TestReadCutAnywhere cuts a log of every type at each byte. A cut in the first line leaves no log; any
// other cut leaves one, with all the uploads whose lines are whole.
func TestReadCutAnywhere(t *testing.T) {
	whole, err := os.ReadFile("testdata/log.jsonl")
	if err != nil {
		t.Fatal(err)
	}
	firstLine := bytes.IndexByte(whole, '\n')
	for n := range len(whole) + 1 {
		l, err := Read(bytes.NewReader(whole[:n]))
		if n < firstLine {
			if !errors.Is(err, ErrNotALog) {
				t.Fatalf("cut at %d: %v, want %v", n, err, ErrNotALog)
			}
			continue
		}
		if err != nil {
			t.Fatalf("cut at %d: %v", n, err)
		}
		uploads := 0
		for line := range bytes.Lines(whole[:n]) {
			if bytes.HasPrefix(line, []byte(`{"type":"upload"`)) && json.Valid(line) {
				uploads++
			}
		}
		cutOff := n > 0 && whole[n-1] != '\n' && !json.Valid(whole[bytes.LastIndexByte(whole[:n], '\n')+1:n])
		if r := Compute(l, DefaultLimits()); r.Attempted != uploads || slices.ContainsFunc(r.Notes, isCutNote) != cutOff {
			t.Fatalf("cut at %d: %d uploads, notes %q; want %d and cut off: %v", n, r.Attempted, r.Notes, uploads, cutOff)
		}
	}
}

func isCutNote(note string) bool { return strings.Contains(note, "cut off") }

// TestReadInPieces reads through readers that give one byte at a time, or data together with the end.
func TestReadInPieces(t *testing.T) {
	log := encode(t, failingRecords()...)
	want := text(t, Compute(read(t, string(log)), DefaultLimits()), TextOptions{})
	one, err := Read(iotest.OneByteReader(bytes.NewReader(log)))
	if err != nil {
		t.Fatal(err)
	}
	end, err := Read(iotest.DataErrReader(bytes.NewReader(log)))
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range []*Log{one, end} {
		if got := text(t, Compute(l, DefaultLimits()), TextOptions{}); got != want {
			t.Errorf("got\n%s\nwant\n%s", got, want)
		}
	}
}

// TestReadBoundsNames gives every upload a class and an error of its own.
func TestReadBoundsNames(t *testing.T) {
	recs := mutate(evenRecords(1000), func(u *Upload) {
		u.Class = fmt.Sprint("class ", u.Seq)
		u.OK, u.Error = false, fmt.Sprint("error ", u.Seq)
	})
	r := compute(t, recs...)
	if len(r.Classes) != namesMax+1 || len(r.Failures) != namesMax+1 {
		t.Fatalf("%d classes, %d failures; want %d of each", len(r.Classes), len(r.Failures), namesMax+1)
	}
	if f := r.Failures[0]; f.Error != otherName || f.Uploads != 1000-namesMax {
		t.Errorf("the rest is %+v", f)
	}
}

// FuzzRead feeds anything to Read. What it takes must give a report in text of at most 80 columns
// without control characters, and in valid JSON.
func FuzzRead(f *testing.F) {
	for _, records := range goldenRuns {
		if log := encode(f, records()...); len(log) < 2_000 {
			f.Add(log)
		}
	}
	f.Add(encode(f, recordsOfEveryType()...))
	f.Add([]byte(packed(f, runLine+uploadLine)))
	f.Add([]byte("\xef\xbb\xbf" + runLine + `{"type":"cleaned","images":null}` + "\n" + `{"type":"node","id":1,"up":null}`))
	evil := evilRecords()
	f.Add(encode(f, evil[0], evil[1], evil[len(evil)-2]))
	f.Add([]byte(`{"type":"upload","ok":true,"owner":1,"latency_s":5e-324}` + "\n" + `{"type":"upload","ok":true,"owner":1,"latency_s":1}` + "\n"))
	f.Add([]byte(`{"type":"upload","ok":true,"owner":1,"latency_s":5e-324}` + "\n" + `{"type":"upload","ok":true,"owner":1}` + "\n"))
	f.Add([]byte(`{"type":"upload","ok":true,"owner":4294967295,"bytes":1099511627776,"latency_s":1e9,"start_s":1e9,"class":"\u0000\n世","sent_bytes":1e12}`))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := Read(bytes.NewReader(log))
		if err != nil {
			var e *ReadError
			if !errors.As(err, &e) || e.Hint() == "" || e.Line < 1 {
				t.Fatalf("%#v is not a whole ReadError", err)
			}
			return
		}
		r := Compute(l, DefaultLimits())
		var js bytes.Buffer
		if err := r.WriteJSON(&js); err != nil || !json.Valid(js.Bytes()) {
			t.Fatalf("%v: %s", err, js.Bytes())
		}
		all := Reports{r}
		if rows, err := csv.NewReader(bytes.NewReader(written(t, all.WriteCSV))).ReadAll(); err != nil || len(rows) < 2 {
			t.Fatalf("%d rows of CSV, %v", len(rows), err)
		}
		selfContained(t, written(t, all.WriteHTML))
		written(t, all.WriteMarkdown)
		for line := range strings.Lines(text(t, r, TextOptions{})) {
			line = strings.TrimSuffix(line, "\n")
			if utf8.RuneCountInString(line) > widthMax || printable.Text("x"+line+"x") != "x"+line+"x" {
				t.Fatalf("bad line %q", line)
			}
		}
	})
}

// FuzzCursor compares the walk over an object's fields with encoding/json.
func FuzzCursor(f *testing.F) {
	f.Add([]byte(uploadLine))
	f.Add([]byte(` {"a" : [1,{"b":"]}\\\""}] , "":{"x":{}},"c":"\"","d":-1.5e-3 ,"e":null,"a":true}` + "\n"))
	f.Fuzz(func(t *testing.T, line []byte) {
		var want map[string]json.RawMessage
		if json.Unmarshal(line, &want) != nil || want == nil || !utf8.Valid(line) {
			return
		}
		c, ok := object(line)
		if !ok {
			t.Fatalf("%q is an object", line)
		}
		got := map[string]string{}
		for c.next() {
			if bytes.ContainsRune(c.key, '\\') {
				return // the walk does not read escaped keys, on purpose
			}
			got[string(c.key)] = string(c.value)
		}
		for k, v := range want {
			if got[k] != string(v) {
				t.Fatalf("%q is %q, want %q", k, got[k], v)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("%d fields, want %d", len(got), len(want))
		}
	})
}
