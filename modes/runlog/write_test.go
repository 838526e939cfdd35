package runlog_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"math"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/iotest"
	"unicode/utf8"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// TestWriteFields holds the field names and their order, which readers in other languages rely on. Those of
// samples are in the golden file of TestLogFormat.
func TestWriteFields(t *testing.T) {
	for _, c := range []struct {
		rec  runlog.Record
		want string
	}{
		{
			logtest.EvenRun(1500),
			`{"type":"run","schema":1,"started":"2026-01-02T15:04:05Z","profile":"extreme","nodes":[1,2,3],` +
				`"count":1500,"concurrency":8,"delivery":"broadcast","replicas":2,` +
				`"plan":{"verify":false,"chaos":false,"cleanup":false}}`,
		},
		{
			runlog.Upload{
				Seq:       1,
				Name:      "stress_image_1.png",
				Class:     "medium",
				Bytes:     9013320,
				StartS:    0.012,
				LatencyS:  0.143,
				OK:        true,
				Owner:     2,
				Replicas:  []int{2, 3},
				Attempts:  1,
				SentBytes: 27039960,
			},
			`{"type":"upload","seq":1,"name":"stress_image_1.png","class":"medium","bytes":9013320,` +
				`"start_s":0.012,"latency_s":0.143,"ok":true,"owner":2,"replicas":[2,3],"attempts":1,` +
				`"sent_bytes":27039960}`,
		},
		{
			runlog.Upload{
				Seq:      2,
				Name:     "stress_image_2.png",
				Class:    "large",
				Bytes:    14013320,
				StartS:   0.1 + 0.2,
				LatencyS: 5,
				Error:    "no quorum",
				Attempts: 3,
			},
			`{"type":"upload","seq":2,"name":"stress_image_2.png","class":"large","bytes":14013320,` +
				`"start_s":0.3,"latency_s":5,"ok":false,"error":"no quorum","attempts":3,"sent_bytes":0}`,
		},
		{
			runlog.Event{TS: 12.3, Kind: runlog.EventNodeDown, Node: 2},
			`{"type":"event","t_s":12.3,"kind":"node_down","node":2}`,
		},
		{
			runlog.Readback{Images: 9, Matched: 5, Mismatched: 1, Missing: 1, Unread: 2, Bytes: 77, ElapsedS: 1.5},
			`{"type":"readback","images":9,"matched":5,"mismatched":1,"missing":1,"unread":2,"bytes":77,` +
				`"elapsed_s":1.5}`,
		},
		{
			runlog.Cleaned{Images: 7, Bytes: 70, Missing: 1, Failed: 1, WonBack: 140},
			`{"type":"cleaned","images":7,"bytes":70,"missing":1,"failed":1,"won_back_bytes":140}`,
		},
		{runlog.Plan{Verify: true}, `{"type":"plan","verify":true,"chaos":false,"cleanup":false}`},
		{&runlog.End{ElapsedS: 38.2}, `{"type":"end","elapsed_s":38.2}`},
	} {
		if got := string(logtest.Encode(t, c.rec)); got != c.want+"\n" {
			t.Errorf("got  %swant %s", got, c.want)
		}
	}
}

func TestWriteRefusesAbsurdRecords(t *testing.T) {
	var buf bytes.Buffer
	w := runlog.NewWriter(&buf)
	for _, rec := range []runlog.Record{
		runlog.Upload{Bytes: -1},
		runlog.Upload{LatencyS: -0.1},
		runlog.Upload{LatencyS: math.NaN()},
		runlog.Upload{StartS: math.Inf(1)},
		runlog.Upload{Attempts: -1},
		runlog.Upload{SentBytes: runlog.BytesMax + 1},
		runlog.Upload{Owner: -2},
		runlog.Upload{Seq: -1},
		runlog.NodeSample{},
		runlog.NodeSample{ID: 1, Node: sample.Node{RSSBytes: -1}},
		runlog.ClientSample{Client: sample.Client{CPUS: -1}},
		runlog.Event{Node: -1},
		runlog.Readback{Images: -1},
		runlog.Readback{Matched: runlog.CountMax + 1},
		runlog.Cleaned{Images: -1},
		runlog.Cleaned{Failed: runlog.CountMax + 1},
		runlog.Run{Faults: -1},
		runlog.End{ElapsedS: -1},
		runlog.Run{Count: -1},
		runlog.Run{Nodes: []int{0}},
		runlog.Run{Schema: runlog.Schema + 1},
	} {
		if err := w.Write(rec); !errors.Is(err, runlog.ErrRange) {
			t.Errorf("%+v: %v, want %v", rec, err, runlog.ErrRange)
		}
	}
	for _, rec := range []runlog.Record{
		runlog.Run{Nodes: make([]int, runlog.NodesMax+1)},
		runlog.Upload{Name: strings.Repeat("n", runlog.LineBytesMax)},
	} {
		if err := w.Write(rec); err == nil {
			t.Errorf("%T that Read would refuse was written", rec)
		}
	}
	if err := w.Write(runlog.End{ElapsedS: 1}); err != nil {
		t.Errorf("a good record after bad ones: %v", err)
	}
	if err := w.Close(); !errors.Is(err, runlog.ErrRange) {
		t.Errorf("Close returned %v, want the first refusal", err)
	}
	if got := buf.String(); got != `{"type":"end","elapsed_s":1}`+"\n" {
		t.Errorf("written: %q", got)
	}
	if err := w.Write(runlog.End{}); !errors.Is(err, os.ErrClosed) {
		t.Errorf("after Close: %v", err)
	}
}

func TestWriteCutsErrors(t *testing.T) {
	long := "x" + strings.Repeat("é", runlog.ErrorBytesMax)
	var u runlog.Upload
	if err := json.Unmarshal(logtest.Encode(t, runlog.Upload{Error: long}), &u); err != nil {
		t.Fatal(err)
	}
	if len(u.Error) != runlog.ErrorBytesMax-1 || !utf8.ValidString(u.Error) ||
		!strings.HasPrefix(long, u.Error) {
		t.Errorf("%d bytes kept: %q", len(u.Error), u.Error)
	}
}

// TestWriteErrorSticks fails the underlying writer once: nothing may be written behind the hole.
func TestWriteErrorSticks(t *testing.T) {
	disk := &failingOnce{err: errors.New("no space left on device")}
	w := runlog.NewWriter(disk)
	if err := w.Write(runlog.End{}); err != nil {
		t.Fatalf("buffered: %v", err)
	}
	for name, got := range map[string]error{
		"Flush":       w.Flush(),
		"Write":       w.Write(runlog.End{}),
		"Flush again": w.Flush(),
		"Close":       w.Close(),
	} {
		if !errors.Is(got, disk.err) {
			t.Errorf("%s: %v, want %v", name, got, disk.err)
		}
	}
	if disk.after > 0 {
		t.Errorf("%d writes after the failed one", disk.after)
	}
}

type failingOnce struct {
	err    error
	failed bool
	after  int
}

func (f *failingOnce) Write(p []byte) (int, error) {
	if f.failed {
		f.after++
		return len(p), nil
	}
	f.failed = true
	return 0, f.err
}

func TestWriteConcurrently(t *testing.T) {
	const writers, each = 8, 500
	var buf bytes.Buffer
	w := runlog.NewWriter(&buf)
	var wg sync.WaitGroup
	for g := range writers {
		wg.Go(func() {
			for i := range each {
				if err := w.Write(logtest.EvenUpload(int64(g*each + i + 1))); err != nil {
					t.Error(err)
				}
				if i%100 == 0 {
					if err := w.Flush(); err != nil {
						t.Error(err)
					}
				}
			}
		})
	}
	wg.Wait()
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	l, err := runlog.Read(&buf)
	if err != nil || len(l.Uploads) != writers*each {
		t.Errorf("%d uploads read back, %d written, %v", len(l.Uploads), writers*each, err)
	}
}

func TestReadError(t *testing.T) {
	broken := errors.New("broken pipe")
	if _, err := runlog.Read(iotest.ErrReader(broken)); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
}
