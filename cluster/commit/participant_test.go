package commit

import (
	"reflect"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// TestSkippedEntries: a node that skips entries of the log gives up what it stores or has stored. The user
// may have been removed meanwhile, and another one made of that name.
func TestSkippedEntries(t *testing.T) {
	for _, c := range []struct {
		what                       string
		decided, stored, unreached bool // unreached: the leader was not, when the copy was stored
		want                       []any
	}{
		{"nothing", false, false, false, nil},
		{"storing", true, false, false, []any{StopStoring{}, Send{}, Finish{}}},
		{"stored", true, true, true, []any{DeleteCopy{}, Send{}, Finish{}}},
		{"reported", true, true, false, []any{Propose{}}},
	} {
		m := Moment{Now: time.Unix(1, 0), Acted: 7, Leader: 2}
		req := image.Request{ID: image.NewID(), User: "alice", Name: "a.png", Size: 1}
		p := NewParticipant(1, 2, req, Times{Report: time.Second})
		p.Begin(m)
		if c.decided {
			p.Decide(m, 2, Decision{ID: req.ID, Round: 1, Storing: []image.NodeID{1, 2}})
		}
		if c.stored {
			at := m
			if c.unreached {
				at.Leader = 0
			}
			p.Stored(at, Copy{Copy: image.Copy{Node: 1, Attempt: image.NewAttempt()}})
		}
		got := p.Skipped(m)
		if len(got) != len(c.want) {
			t.Fatalf("%s: %+v", c.what, got)
		}
		for i, a := range got {
			if reflect.TypeOf(a) != reflect.TypeOf(c.want[i]) {
				t.Errorf("%s: %+v", c.what, got)
			}
			if x, ok := a.(Propose); ok && x.Command.Abort == nil {
				t.Errorf("proposed %+v", x.Command)
			}
			if x, ok := a.(Finish); ok && (x.Problem == nil || x.Upload != (*catalog.Upload)(nil)) {
				t.Errorf("%s: ended with %+v", c.what, x)
			}
		}
	}
}

// TestEveryReportCounts: a copy that was in a report of any kind is taken back in the log before it is
// deleted.
func TestEveryReportCounts(t *testing.T) {
	m := Moment{Now: time.Unix(1, 0), Acted: 7}
	req := image.Request{ID: image.NewID(), User: "alice", Name: "a.png", Size: 1}
	problem := image.AsProblem(image.Errorf(image.KindAborted, "gone"))
	p := NewParticipant(1, 2, req, Times{Report: time.Second})
	p.Begin(m)
	m.Leader = 2
	p.Decide(m, 2, Decision{ID: req.ID, Round: 1, Storing: []image.NodeID{1, 3}})
	m.Leader = 0
	p.Stored(m, Copy{Copy: image.Copy{Node: 1, Attempt: image.NewAttempt()}}) // there is nobody to tell
	m.Leader = 3
	if got := p.CannotSend(m, 3, &problem); len(got) != 1 || got[0].(Send).Report.Copy == nil {
		t.Fatalf("reported %+v", got)
	}
	got := p.GiveUp(m, &problem)
	if len(got) != 1 {
		t.Fatalf("%+v", got)
	}
	if x, ok := got[0].(Propose); !ok || x.Command.Abort == nil {
		t.Errorf("given up with %+v", got)
	}
}
