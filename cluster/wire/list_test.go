package wire

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

func TestListDocument(t *testing.T) {
	r := &image.Record{
		User: "alice", Name: "a.png", Version: 7, Bytes: 3, SHA256: &image.Digest{}, Owner: 2, Shard: 4,
		Wanted:  2,
		Copies:  []image.Copy{{Node: 3, Attempt: image.Attempt{1}}, {Node: 2, Attempt: image.Attempt{2}}},
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	listed := `{"name":"a.png","bytes":3,"type":"image/png","version":7,"owner":2,` +
		`"replicas":[3,2],"created":"2026-01-02T03:04:05Z"`
	for want, v := range map[string]any{
		listed + `,"sha256":"` + strings.Repeat("0", 64) + `"}`: InfoOf(r),
		`{"images":[],"next":"b"}`:                              List{Images: []Info{}, Next: "b"},
	} {
		if b, err := json.Marshal(v); err != nil || string(b) != want {
			t.Errorf("%s, %v\nwant %s", b, err, want)
		}
	}
	r.SHA256 = nil // nobody asked for it
	if b, err := json.Marshal(InfoOf(r)); err != nil || string(b) != listed+"}" {
		t.Errorf("%s, %v", b, err)
	}
}
