package watch

import (
	"encoding/json"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

func TestQuantiles(t *testing.T) {
	var r Rates
	now := time.Now()
	for i := range 1000 {
		r.Add(10, time.Duration(i+1)*time.Millisecond)
	}
	p50, p99 := r.Quantiles(now)
	if math.Abs(p50/0.5-1) > 0.08 || math.Abs(p99/0.99-1) > 0.08 {
		t.Errorf("%v and %v of 1 to 1000 ms", p50, p99)
	}
	if count, bytes := r.Totals(); count != 1000 || bytes != 10_000 {
		t.Errorf("%d operations, %d bytes", count, bytes)
	}
	r.Add(1, time.Hour)
	if again, _ := r.Quantiles(now.Add(SampleEvery / 2)); again != p50 {
		t.Errorf("%v before the time is over, then %v", p50, again)
	}
	if p50, _ = r.Quantiles(now.Add(SampleEvery)); p50 < 200 { // the last bucket
		t.Errorf("%v of an hour", p50)
	}
	if p50, p99 = r.Quantiles(now.Add(2 * SampleEvery)); p50 != 0 || p99 != 0 {
		t.Errorf("%v and %v of nothing", p50, p99)
	}
}

// two returns a cluster of two nodes, of which one has done so much.
func two(done int64, up bool) wire.ClusterStatus {
	s := wire.ClusterStatus{Images: done, Ready: up, Nodes: make([]wire.NodeStatus, 2)}
	for i := range s.Nodes {
		s.Nodes[i] = wire.NodeStatus{ID: image.NodeID(i + 1), State: wire.NodeUp}
	}
	s.Nodes[0].UploadsTotal, s.Nodes[0].UploadBytesTotal = done, 1000*done
	s.Nodes[0].UploadP99S = 0.12345
	if !up {
		s.Nodes[1].State = wire.NodeDown
	}
	return s
}

func TestSamples(t *testing.T) {
	s := sampleOf(two(100, true), two(130, false), 10*time.Second)
	if x := s.Nodes[0]; x.UploadsPerS != 3 || x.UploadBytesPerS != 3000 || x.UploadP99S != 0.1235 {
		t.Errorf("%+v", x)
	}
	if x := s.Nodes[1]; x.Up || x.UploadsPerS != 0 {
		t.Errorf("a node that is down: %+v", x)
	}
	if x := sampleOf(two(100, true), two(5, true), time.Second).Nodes[0]; x.UploadsPerS != 0 {
		t.Errorf("of a node that was started again: %+v", x)
	}
	if x := sampleOf(wire.ClusterStatus{}, two(5, true), time.Hour).Nodes[0]; x.UploadsPerS != 0 {
		t.Errorf("the first sample: %+v", x)
	}
}

// events returns the events that wait for a watcher, by name.
func events(t *testing.T, w *Watcher) map[string]string {
	t.Helper()
	got := map[string]string{}
	for {
		select {
		case text, ok := <-w.Events():
			if !ok {
				t.Fatal("the watcher was dropped")
			}
			name, data, _ := strings.Cut(string(text), "\ndata: ")
			data, end, _ := strings.Cut(data, "\n")
			if end != "\n" || !json.Valid([]byte(data)) {
				t.Fatalf("%q", text)
			}
			got[strings.TrimPrefix(name, "event: ")] = data
		default:
			return got
		}
	}
}

// TestHub: everybody is told of the cluster's state, of images only who watches that user's, of samples only
// administrators; the history has an hour; who is slow is dropped.
func TestHub(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		asked := 0
		h := New(func() wire.ClusterStatus { asked++; return two(int64(asked), true) })
		go h.Run(t.Context())
		time.Sleep(10*SampleEvery + SampleEvery/2)
		synctest.Wait()
		if asked != 11 {
			t.Errorf("asked %d times in 10 samples with nobody watching", asked)
		}
		admin, alice, slow := h.Watch(true, ""), h.Watch(false, "alice"), h.Watch(false, "")
		h.Changed("alice")
		h.Changed("bob")
		time.Sleep(SampleEvery)
		toAdmin, toAlice := events(t, admin), events(t, alice)
		if toAlice[wire.EventImages] != `{"user":"alice"}` || toAdmin[wire.EventImages] != "" {
			t.Errorf("of alice's images: %q and %q", toAlice[wire.EventImages], toAdmin[wire.EventImages])
		}
		if toAdmin[wire.EventSample] == "" || toAlice[wire.EventSample] != "" {
			t.Error("samples are for administrators")
		}
		if !strings.Contains(toAlice[wire.EventCluster], `"limited":true`) ||
			strings.Contains(toAdmin[wire.EventCluster], `"limited":true`) {
			t.Error("an outline is for who is no administrator")
		}
		h.Leave(alice)
		for range 3 * queueMax {
			time.Sleep(StatusEvery)
			events(t, admin)
		}
		waiting := 0
		for range slow.Events() { // it is closed
			waiting++
		}
		synctest.Wait()
		h.mu.Lock()
		left := len(h.watchers)
		h.mu.Unlock()
		if waiting != queueMax || left != 1 {
			t.Errorf("%d events waited for a watcher, and %d watchers are left", waiting, left)
		}
		time.Sleep(2 * historyMax * SampleEvery)
		all := h.History()
		if len(all.Samples) != historyMax {
			t.Errorf("%d samples", len(all.Samples))
		}
		for i, s := range all.Samples[1:] {
			if apart := s.Time - all.Samples[i].Time; apart != int64(SampleEvery/time.Second) {
				t.Errorf("samples %d s apart", apart)
			}
		}
	})
}
