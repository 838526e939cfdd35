package commit

import (
	"reflect"
	"slices"
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
		p := NewParticipant(1, 7, 2, req, Times{Report: time.Second})
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
	p := NewParticipant(1, 7, 2, req, Times{Report: time.Second})
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

// TestEarlierTry: what comes late of an upload's earlier try ends nothing of the next one under the same ID.
func TestEarlierTry(t *testing.T) {
	m := Moment{Now: time.Unix(1, 0), Acted: 7, Leader: 1}
	req := image.Request{
		ID: image.NewID(), User: "alice", Name: "a.png", Size: 1, Broadcast: []image.NodeID{1, 2, 3},
	}
	problem := image.AsProblem(image.Errorf(image.KindAborted, "gone"))
	c := NewCoordinator(Times{Report: time.Second, Takeover: time.Minute, Upload: time.Minute})
	v := View{
		Now: m.Now, Up: req.Broadcast, Needed: 2, Wanted: 2, Random: func() uint64 { return 5 },
		Lookup:   func(image.ID) *catalog.Upload { return nil },
		Receives: func(image.NodeID, image.ID) bool { return false },
		Place: func(_ image.Request, keep, out []image.NodeID) (order []image.NodeID, storing int, err error) {
			for _, n := range []image.NodeID{1, 2, 3} {
				if !slices.Contains(out, n) {
					order = append(order, n)
				}
			}
			return order, 2, nil
		},
	}
	gone := func(part uint64) []Action {
		return c.Heard(v, Report{Node: 2, Part: part, Request: req, Problem: &problem, Gone: true})
	}
	c.Heard(v, Report{Node: 1, Part: 11, Request: req})
	if got := gone(21); len(got) != 0 {
		t.Errorf("before the node is heard, its earlier try did %+v", got)
	}
	c.Heard(v, Report{Node: 2, Part: 22, Request: req})
	if got := gone(21); len(got) != 0 {
		t.Errorf("the earlier try did %+v", got)
	}
	told := gone(22)
	for _, a := range told {
		if d := a.(Tell).Decision; !slices.Equal(d.Storing, []image.NodeID{1, 3}) {
			t.Errorf("decided %+v", d)
		}
		if tell := a.(Tell); tell.To == 1 && tell.Decision.Part != 11 {
			t.Errorf("told the part %d of node 1", tell.Decision.Part)
		}
	}
	if len(told) == 0 {
		t.Error("the try that is gone keeps its place")
	}

	p := NewParticipant(2, 22, 2, req, Times{Report: time.Second})
	p.Begin(m)
	if got := p.Decide(m, 1, Decision{ID: req.ID, Round: 4, Problem: &problem, Part: 21}); len(got) != 0 {
		t.Errorf("ended by what the earlier try is told: %+v", got)
	}
	if got := p.Decide(m, 1, Decision{ID: req.ID, Round: 5, Problem: &problem, Part: 22}); len(got) == 0 {
		t.Error("not ended by what it is told")
	}
}
