package stress

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// TestAwaitQuorum: what a node has said counts when time runs out during the next question.
func TestAwaitQuorum(t *testing.T) {
	noLeader := wire.ClusterStatus{Shards: []wire.ShardStatus{{ID: 1}}}
	starting := wire.ClusterStatus{Ready: true, Nodes: []wire.NodeStatus{{ID: 1, State: wire.NodeUp}}}
	for name, c := range map[string]struct {
		first *wire.ClusterStatus // answered to the first question; the others are not answered
		ready bool
		hint  string // a part of the refusal's
	}{
		"no node answers":                  {nil, false, "the next step"},
		"no shard has a leader":            {&noLeader, false, "imgcluster server --id"},
		"a quorum, and a node that starts": {&starting, true, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // all of it is waiting
			var asked atomic.Int32
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if asked.Add(1) > 1 || c.first == nil {
					<-r.Context().Done()
					return
				}
				w.Header().Set("Content-Type", wire.DocumentType)
				json.NewEncoder(w).Encode(c.first)
			}))
			defer server.Close()
			nodes := []client.Node{{ID: 1, Addr: strings.TrimPrefix(server.URL, "http://")}}
			asker, err := client.New(client.Options{Nodes: nodes, StartHint: "the next step"})
			if err != nil {
				t.Fatal(err)
			}
			defer asker.Close()
			status, err := awaitQuorum(t.Context(), asker)
			if c.ready {
				if err != nil || !status.Ready {
					t.Errorf("got %+v, %v", status, err)
				}
				return
			}
			if image.KindOf(err) != image.KindNoQuorum || !strings.Contains(image.HintOf(err), c.hint) {
				t.Errorf("got %v, hint %q; want a hint with %q", err, image.HintOf(err), c.hint)
			}
		})
	}
}
