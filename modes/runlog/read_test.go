package runlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"

	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

var update = flag.Bool("update", false, "write the golden file")

func TestReadRefuses(t *testing.T) {
	const run, upload = logtest.RunLine, logtest.UploadLine
	bad := runlog.ErrBadLine
	up := func(old, changed string) string {
		s := strings.Replace(upload, old, changed, 1)
		if s == upload {
			t.Fatalf("%q is not in the line", old)
		}
		return run + s
	}
	long := strings.Repeat("x", runlog.LineBytesMax)
	whole := logtest.Gzip(t, run+upload)
	cutPacked := whole[:len(whole)/2]
	for _, c := range []struct {
		name, log string
		want      error
		line      int
		says      string
	}{
		{"empty", "", runlog.ErrNotALog, 1, "empty"},
		{"blank lines", "\n \n", runlog.ErrNotALog, 3, "empty"},
		{"prose", "Hello\nworld\n", runlog.ErrNotALog, 1, "not a JSON object"},
		{"picture", "\x89PNG\r\n\x1a\n\x00\x00", runlog.ErrNotALog, 1, "not a JSON object"},
		{"array", "[1,2]\n" + run, runlog.ErrNotALog, 1, "not a JSON object"},
		{"no type", "{\"a\":1}\n", runlog.ErrNotALog, 1, "without type"},
		{"type is no string", "{\"type\":1}\n", runlog.ErrNotALog, 1, "type is number, want a string"},
		{
			"another program's log", strings.Repeat(`{"type":"http"}`+"\n", 3), runlog.ErrNotALog, 4,
			"no record of a run",
		},
		{"cut first line", run[:40], runlog.ErrNotALog, 1, "not a JSON object"},
		{"long first line", long, runlog.ErrNotALog, 1, "longer than"},
		{"long line", run + long, bad, 2, "longer than"},
		{"malformed in the middle", run + upload[:50] + "\n" + upload, bad, 2, "not a JSON object"},
		{"two lines in one", run + strings.TrimSpace(upload) + upload, bad, 2, "not a JSON object"},
		{"no type in the middle", run + "{}\n", bad, 2, "without type"},
		{"NaN", up("0.143", "NaN"), bad, 2, "not a JSON object"},
		{"negative bytes", up("9013320", "-9013320"), bad, 2, "bytes is -9.01332e+06, out of range"},
		{"negative latency", up("0.143", "-0.1"), bad, 2, "latency_s is -0.1, out of range"},
		{"negative start", up("0.012", "-1"), bad, 2, "start_s"},
		{"infinite latency", up("0.143", "1e999"), bad, 2, "latency_s is 1e999, out of range"},
		{"huge bytes", up("9013320", "99999999999999999999"), bad, 2, "bytes is 1e+20"},
		{"half a byte", up("9013320", "1.5"), bad, 2, "bytes is 1.5, want a whole number"},
		{"bytes as text", up("9013320", `"9 MB"`), bad, 2, "bytes is string, want a number"},
		{"ok as number", up("true", "1"), bad, 2, "ok is number, want true or false"},
		{"class as list", up(`"medium"`, `[]`), bad, 2, "class is array, want a string"},
		{"node sample of no node", run + `{"type":"node","rss_bytes":1}`, bad, 2, "id is 0"},
		{"negative memory", run + `{"type":"node","id":1,"rss_bytes":-1}`, bad, 2, "rss_bytes is -1"},
		{"negative disk", run + `{"type":"node","id":1,"disk_free_bytes":-1}`, bad, 2, "disk_free_bytes"},
		{"negative client memory", run + `{"type":"client","rss_bytes":-1}`, bad, 2, "rss_bytes"},
		{"negative event", run + `{"type":"event","t_s":-1}`, bad, 2, "t_s is -1"},
		{"negative read", run + `{"type":"read","bytes":-1}`, bad, 2, "bytes is -1"},
		{"read too long ago", run + `{"type":"read","latency_s":2e9}`, bad, 2, "latency_s is 2e+09"},
		{"read scheduled before the run", run + `{"type":"read","scheduled_s":-3}`, bad, 2, "scheduled_s is -3"},
		{
			"upload scheduled as text", up(`"seq":1`, `"seq":1,"scheduled_s":"now"`), bad, 2,
			"scheduled_s is string, want a number",
		},
		{"first node below zero", up(`"seq":1`, `"seq":1,"first_node":-1`), bad, 2, "first_node is -1"},
		{"warm-up as number", up(`"seq":1`, `"seq":1,"warmup":1`), bad, 2, "warmup is number, want true or false"},
		{"busy disk below zero", run + `{"type":"node","id":1,"disk_busy_s":-1}`, bad, 2, "disk_busy_s is -1"},
		{
			"disk counter below zero", run + `{"type":"node","id":1,"disk_written_bytes":-1}`, bad, 2,
			"disk_written_bytes is -1",
		},
		{"half an owned image", run + `{"type":"node","id":1,"owned_images":0.5}`, bad, 2, "owned_images is 0.5"},
		{"client late below zero", run + `{"type":"client","late_s":-1}`, bad, 2, "late_s is -1"},
		{"client in flight below zero", run + `{"type":"client","in_flight":-1}`, bad, 2, "in_flight is -1"},
		{"negative rate", `{"type":"run","rate":-1}`, bad, 1, "rate is -1"},
		{"more reads than all", `{"type":"run","read_percent":101}`, bad, 1, "read_percent is 101"},
		{"negative cores", `{"type":"run","machines":{"client":{"cpus":-4}}}`, bad, 1, "machines: cpus is -4"},
		{
			"negative link", `{"type":"run","machines":{"nodes":[{"id":1,"link_bytes_per_s":-4}]}}`, bad, 1,
			"machines: link_bytes_per_s is -4",
		},
		{"negative end", run + `{"type":"end","elapsed_s":-1}`, bad, 2, "elapsed_s is -1"},
		{"node zero in the run", `{"type":"run","nodes":[0]}`, bad, 1, "nodes is 0"},
		{"negative count", `{"type":"run","count":-1}`, bad, 1, "count is -1"},
		{"nodes as text", `{"type":"run","nodes":"three"}`, bad, 1, "nodes is string"},
		{
			"too many nodes", `{"type":"run","nodes":[1` + strings.Repeat(",1", runlog.NodesMax) + `]}`, bad, 1,
			"more than 1024",
		},
		{"too many owners", manyOwners(), bad, runlog.NodesMax - 1, "more than 1024 different nodes"},
		{"two runs", run + upload + run + upload, runlog.ErrSeveralRuns, 3, "another one begins here"},
		{
			"the end of a run and another one", upload + run + upload, runlog.ErrSeveralRuns, 2,
			"another one begins here",
		},
		{"UTF-16", "\xff\xfe{\x00\"\x00", runlog.ErrEncoding, 1, "UTF-16"},
		{"UTF-16, the other way round", "\xfe\xff\x00{\x00\"", runlog.ErrEncoding, 1, "UTF-16"},
		{"UTF-16 without a mark", "{\x00\"\x00t\x00", runlog.ErrEncoding, 1, "UTF-16"},
		{"UTF-16 in gzip", logtest.Gzip(t, "\xff\xfe{\x00"), runlog.ErrEncoding, 1, "UTF-16"},
		{"gzip, truncated", cutPacked, runlog.ErrCompressed, 1, "truncated or damaged: unexpected EOF"},
		{"gzip without its checksum", whole[:len(whole)-5], runlog.ErrCompressed, 3, "truncated or damaged"},
		{
			"gzip, damaged checksum", whole[:len(whole)-8] + "\x00\x00\x00\x00" + whole[len(whole)-4:],
			runlog.ErrCompressed, 3, "invalid checksum",
		},
		{"gzip, nothing but its mark", "\x1f\x8b", runlog.ErrCompressed, 1, "truncated or damaged"},
		{"prose in gzip", logtest.Gzip(t, "Hello\n"), runlog.ErrNotALog, 1, "not a JSON object"},
		{"negative deleted", run + `{"type":"cleaned","images":-1}`, bad, 2, "images is -1"},
		{"plan as text", run + `{"type":"plan","verify":"yes"}`, bad, 2, "verify is string"},
		{"newer schema", strings.Replace(run, `"schema":1`, `"schema":2`, 1), runlog.ErrNewerSchema, 1, "schema 2"},
		{
			"newer schema, other fields", `{"type":"run","schema":3,"nodes":{"a":1}}`, runlog.ErrNewerSchema, 1,
			"schema 3",
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := runlog.Read(strings.NewReader(c.log))
			var e *runlog.ReadError
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

// TestUnpackedMax stops at the limit: what is more is no log that was read by half.
func TestUnpackedMax(t *testing.T) {
	text := strings.Repeat("x", 1000)
	for left, want := range map[int64]error{1000: nil, 999: runlog.ErrCompressed, 10: runlog.ErrCompressed} {
		got, err := io.ReadAll(runlog.NewGunzip(strings.NewReader(logtest.Gzip(t, text)), left))
		if !errors.Is(err, want) || int64(len(got)) != min(1000, left) {
			t.Errorf("limit %d: %d bytes, %v", left, len(got), err)
		}
	}
}

// manyOwners is a log of one node too many: three in the run, the others as owners.
func manyOwners() string {
	var b strings.Builder
	b.WriteString(logtest.RunLine)
	for id := 4; id <= runlog.NodesMax+1; id++ {
		fmt.Fprintf(&b, `{"type":"upload","ok":true,"owner":%d}`+"\n", id)
	}
	return b.String()
}

// TestLogFormat holds a log of every type, byte for byte.
// Remake it with: go test ./modes/runlog -run TestLogFormat -update
func TestLogFormat(t *testing.T) {
	const path = "testdata/log.jsonl"
	got := logtest.Encode(t, logtest.EveryType()...)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if want, err := os.ReadFile(path); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%s is not as kept, %v:\n%s", path, err, got)
	}
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
		l, err := runlog.Read(bytes.NewReader(whole[:n]))
		if n < firstLine {
			if !errors.Is(err, runlog.ErrNotALog) {
				t.Fatalf("cut at %d: %v, want %v", n, err, runlog.ErrNotALog)
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
		if len(l.Uploads) != uploads || l.Cut != cutOff {
			t.Fatalf("cut at %d: %d uploads, truncated: %v; want %d and %v", n, len(l.Uploads), l.Cut, uploads, cutOff)
		}
	}
}
