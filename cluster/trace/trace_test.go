package trace

import (
	"context"
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
