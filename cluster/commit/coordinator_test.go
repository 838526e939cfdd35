package commit

import (
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// TestGivenUp: when all nodes that had to do with an upload have given it up, those that were told of it are
// told that too. It means nothing to a node that has another try of it.
func TestGivenUp(t *testing.T) {
	req := image.Request{ID: image.NewID(), User: "alice", Name: "a.png", Size: 7}
	v := View{
		Now: time.Unix(1, 0), Up: []image.NodeID{1, 2, 3}, Needed: 2, Wanted: 2,
		Lookup: func(image.ID) *catalog.Upload { return nil },
		Place: func(image.Request, []image.NodeID, []image.NodeID) ([]image.NodeID, int, error) {
			return []image.NodeID{1, 2, 3}, 2, nil
		},
		Random:   func() uint64 { return 5 },
		Receives: func(image.NodeID, image.ID) bool { return false },
	}
	c := NewCoordinator(Times{Report: time.Second, Takeover: time.Second, Upload: time.Second})
	told := map[image.NodeID]Decision{}
	hear := func(r Report) {
		clear(told)
		for _, a := range c.Heard(v, r) {
			tell := a.(Tell)
			told[tell.To] = tell.Decision
		}
	}
	hear(Report{Node: 1, Request: req})
	for _, n := range v.Up {
		if d := told[n]; len(d.Storing) != 2 || d.Bytes != req.Size {
			t.Fatalf("told %+v", told)
		}
	}
	hear(Report{Node: 1, Request: req, Gone: true})
	for _, n := range v.Up[1:] {
		if d, is := told[n]; !is || len(d.Storing) > 0 || d.ID != req.ID {
			t.Errorf("node %d is told %+v, %v", n, d, is)
		}
	}
	if c.Busy() {
		t.Error("the upload is to be decided on yet")
	}

	m := Moment{Now: v.Now, Acted: 1, Leader: 1}
	p := NewParticipant(2, 7, 2, req, Times{Report: time.Second})
	p.Begin(m)
	again := Decision{ID: req.ID, Round: 6, Change: 1, Storing: []image.NodeID{2, 3}}
	p.Decide(m, 1, again)
	if got := p.Decide(m, 1, told[2]); len(got) > 0 || !p.Follows(again) {
		t.Errorf("another try is ended by %+v, with %+v", told[2], got)
	}
}
