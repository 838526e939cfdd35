package trace

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap/zapcore"
)

func TestRequest(t *testing.T) {
	r := New("a1")
	ctx := With(t.Context(), r)
	From(ctx).Add(Seal, 2*time.Second)
	From(ctx).Add(Seal, 500*time.Millisecond)
	From(ctx).Add(Wait, time.Microsecond)
	if got := r.Took(Seal); got != 2500*time.Millisecond {
		t.Errorf("seal took %v", got)
	}
	e := zapcore.NewMapObjectEncoder()
	r.Field().AddTo(e)
	r.Times().AddTo(e)
	if len(e.Fields) != 2 || e.Fields["request"] != "a1" || e.Fields["seal_s"] != 2.5 {
		t.Errorf("logged as %v", e.Fields)
	}
}

// TestNoRequest: work that is for no request takes no notes, and logs none.
func TestNoRequest(t *testing.T) {
	for _, ctx := range []context.Context{t.Context(), With(t.Context(), nil)} {
		r := From(ctx)
		r.Add(Seal, time.Second)
		r.Since(Seal, time.Now())
		e := zapcore.NewMapObjectEncoder()
		r.Field().AddTo(e)
		if r.Took(Seal) != 0 || len(e.Fields) != 0 {
			t.Errorf("%v, logged as %v", r.Took(Seal), e.Fields)
		}
	}
}

// TestSteps: each step is one of an upload or of a read, and has a name of its own.
func TestSteps(t *testing.T) {
	seen := map[string]bool{}
	for _, op := range Ops {
		for _, s := range op.Steps() {
			seen[s.String()] = true
		}
	}
	if len(seen) != steps || seen[""] {
		t.Errorf("steps %v, want %d", seen, steps)
	}
}

// TestParent: a request continues the trace that its header names, if it names one, and those after it name
// the request. Nothing is shown of what nobody traces.
func TestParent(t *testing.T) {
	const trace, span = "0af7651916cd43dd8448eb211c80319c", "b7ad6b7169203331"
	for header, want := range map[string]bool{
		"00-" + trace + "-" + span + "-01":                    true,
		"00-" + trace + "-" + span + "-00":                    true,
		"cc-" + trace + "-" + span + "-01-later":              true,
		"00-" + trace + "-" + span + "-01-later":              false,
		"ff-" + trace + "-" + span + "-01":                    false,
		"00-" + trace + "-" + span:                            false,
		"00-" + trace + "0-" + span + "-01":                   false,
		"00-" + strings.ToUpper(trace) + "-" + span + "-01":   false,
		"00-00000000000000000000000000000000-" + span + "-01": false,
		"00-" + trace + "-0000000000000000-01":                false,
		"0x-" + trace + "-" + span + "-01":                    false,
		"":                                                    false,
	} {
		var got spans
		r := New("a")
		h := http.Header{parentField: {header}}
		r.Start(&got, "GET /", h)
		r.Add(Log, time.Millisecond)
		r.Fail("gone")
		r.End()
		if len(got) != 2 || got[1].Parent != got[0].ID || got[0].Failed != "gone" ||
			got[1].Busy != time.Millisecond {
			t.Fatalf("spans %v", got)
		}
		continued := hex.EncodeToString(got[0].Trace[:]) == trace && hex.EncodeToString(got[0].Parent[:]) == span
		if continued != want || !want && got[0].Parent != [8]byte{} {
			t.Errorf("%q: of trace %x, span %x", header, got[0].Trace, got[0].Parent)
		}
		named := fmt.Sprintf("00-%x-%x-01", got[0].Trace, got[0].ID)
		if h.Get(parentField) != named {
			t.Errorf("the header names %s, want %s", h.Get(parentField), named)
		}
	}
	r, h := New("a"), http.Header{}
	r.Start(nil, "GET /", h)
	r.Inject(h)
	r.Fail("x")
	r.End()
	if len(h) != 0 {
		t.Errorf("header %v", h)
	}
}

// spans are those that it was given.
type spans []Span

func (s *spans) Samples([16]byte) bool { return true }
func (s *spans) Take(more []Span)      { *s = append(*s, more...) }
