package cluster_test

import (
	"cmp"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
)

// action is what a client asks of a name.
type action string

const (
	actPut    action = "put"
	actPutNew action = "put if absent" // If-None-Match: *
	actGet    action = "get"
	actDelete action = "delete"
)

// absent is the content of a name that has no image. Other contents are the numbers of puts.
const absent = 0

// call is an operation's input: value is what a put brings.
type call struct {
	act   action
	name  string
	value int
}

// outcome is how an operation ended. An operation of unknown outcome, without an answer or with one of a
// failure, may have had its effect, may have it later, or never.
type outcome int

const (
	outUnknown outcome = iota
	outDone
	outRefused // put if absent: there is an image; delete: there is none
)

// answer is an operation's output: value is what a get saw.
type answer struct {
	outcome outcome
	value   int
}

// oneImage is what a name must be to all clients: a register for one image, on which every operation acts at
// one moment between its call and its return (Herlihy, Wing: Linearizability, 1990). An operation of unknown
// outcome never returns: its moment may be after all the others, where nobody sees it.
var oneImage = porcupine.Model{
	Partition: byName,
	Init:      func() any { return absent },
	Step: func(state, input, output any) (bool, any) {
		now := state.(int)
		in := input.(call)
		out := output.(answer)
		switch in.act {
		case actGet:
			return out.value == now, now
		case actDelete:
			return out.outcome == outUnknown || (out.outcome == outRefused) == (now == absent), absent
		case actPutNew:
			free := now == absent
			if !free {
				in.value = now
			}
			return out.outcome == outUnknown || (out.outcome == outDone) == free, in.value
		}
		return true, in.value
	},
	DescribeOperation: func(input, output any) string { return describe(input.(call), output.(answer)) },
}

func byName(ops []porcupine.Operation) (parts [][]porcupine.Operation) {
	names := map[string][]porcupine.Operation{}
	for _, op := range ops {
		name := op.Input.(call).name
		names[name] = append(names[name], op)
	}
	for _, part := range names {
		parts = append(parts, part)
	}
	return parts
}

func describe(in call, out answer) string {
	text := fmt.Sprintf("%s %s", in.act, in.name)
	switch {
	case in.act == actGet:
		return fmt.Sprintf("%s: %d", text, out.value)
	case in.value != 0:
		text += fmt.Sprintf(" = %d", in.value)
	}
	return text + [...]string{": unknown", ": done", ": refused"}[out.outcome]
}

// history collects what clients did.
type history struct {
	start time.Time
	mu    sync.Mutex
	ops   []porcupine.Operation
}

func (h *history) now() int64 { return int64(time.Since(h.start)) }

// add appends an operation that was called at the given time and has just returned.
func (h *history) add(client int, called int64, in call, out answer) {
	op := porcupine.Operation{ClientId: client, Input: in, Call: called, Output: out, Return: h.now()}
	if out.outcome == outUnknown && in.act != actGet {
		op.Return = math.MaxInt64
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.ops = append(h.ops, op)
}

// contradiction returns the part of a history that is not linearizable, "" when all of it is.
func contradiction(ops []porcupine.Operation) string {
	for _, part := range byName(ops) {
		if !porcupine.CheckOperations(oneImage, part) {
			return text(shrink(part))
		}
	}
	return ""
}

// shrink removes what is not needed for the contradiction: gets, which change nothing, and what was called
// after it.
func shrink(ops []porcupine.Operation) []porcupine.Operation {
	ops = slices.Clone(ops)
	slices.SortFunc(ops, func(a, b porcupine.Operation) int { return cmp.Compare(a.Call, b.Call) })
	for len(ops) > 0 && !porcupine.CheckOperations(oneImage, ops[:len(ops)-1]) {
		ops = ops[:len(ops)-1]
	}
	for i := 0; i < len(ops); {
		fewer := slices.Delete(slices.Clone(ops), i, i+1)
		if ops[i].Input.(call).act == actGet && !porcupine.CheckOperations(oneImage, fewer) {
			ops = fewer
			continue
		}
		i++
	}
	return ops
}

func text(ops []porcupine.Operation) string {
	var b strings.Builder
	for _, op := range ops {
		until := "      never"
		if op.Return != math.MaxInt64 {
			until = fmt.Sprintf("%8.1f ms", float64(op.Return)/1e6)
		}
		fmt.Fprintf(&b, "%8.1f ms to %s  client %d  %s\n",
			float64(op.Call)/1e6, until, op.ClientId, describe(op.Input.(call), op.Output.(answer)))
	}
	return b.String()
}

// TestContradiction: it distinguishes good histories from bad ones. The times are those of the calls and
// returns; a return at 0 is never.
func TestContradiction(t *testing.T) {
	type op struct {
		from, to int64
		act      action
		value    int
		outcome  outcome
	}
	for name, c := range map[string]struct {
		ops  []op
		good bool
	}{
		"one after the other": {[]op{
			{1, 2, actGet, absent, outDone},
			{3, 4, actPut, 1, outDone},
			{5, 6, actGet, 1, outDone},
			{7, 8, actDelete, 0, outDone},
			{9, 10, actDelete, 0, outRefused},
			{11, 12, actPutNew, 2, outDone},
			{13, 14, actPutNew, 3, outRefused},
			{15, 16, actGet, 2, outDone},
		}, true},
		"concurrent puts, seen in one order": {[]op{
			{1, 9, actPut, 1, outDone},
			{1, 9, actPut, 2, outDone},
			{2, 3, actGet, 2, outDone},
			{4, 5, actGet, 1, outDone},
		}, true},
		"concurrent puts, seen to and fro": {[]op{
			{1, 9, actPut, 1, outDone},
			{1, 9, actPut, 2, outDone},
			{2, 3, actGet, 2, outDone},
			{4, 5, actGet, 1, outDone},
			{6, 7, actGet, 2, outDone},
		}, false},
		"an acknowledged put is lost": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 4, actGet, absent, outDone},
		}, false},
		"an older image after a newer one": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 4, actPut, 2, outDone},
			{5, 6, actGet, 1, outDone},
		}, false},
		"an image before its put": {[]op{
			{1, 2, actGet, 1, outDone},
			{3, 4, actPut, 1, outDone},
		}, false},
		"a deleted image is there again": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 4, actDelete, 0, outDone},
			{5, 6, actGet, 1, outDone},
		}, false},
		"two puts find the name free": {[]op{
			{1, 5, actPutNew, 1, outDone},
			{1, 5, actPutNew, 2, outDone},
		}, false},
		"a put finds a free name taken": {[]op{
			{1, 2, actPutNew, 1, outRefused},
		}, false},
		"a delete finds nothing, but took it": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 4, actDelete, 0, outRefused},
			{5, 6, actGet, absent, outDone},
		}, false},
		"two deletes of one image": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 6, actDelete, 0, outDone},
			{3, 6, actDelete, 0, outDone},
		}, false},
		"a delete takes two images": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 9, actDelete, 0, outDone},
			{4, 5, actGet, absent, outDone},
			{6, 7, actPut, 2, outDone},
			{10, 11, actGet, absent, outDone},
		}, false},
		"an unknown put has an effect, and late": {[]op{
			{1, 0, actPut, 1, outUnknown},
			{2, 3, actGet, absent, outDone},
			{4, 5, actGet, 1, outDone},
		}, true},
		"an unknown put has none": {[]op{
			{1, 0, actPut, 1, outUnknown},
			{2, 3, actPut, 2, outDone},
			{4, 5, actGet, 2, outDone},
		}, true},
		"an unknown put has an effect twice": {[]op{
			{1, 0, actPut, 1, outUnknown},
			{2, 3, actGet, 1, outDone},
			{4, 5, actDelete, 0, outDone},
			{6, 7, actGet, 1, outDone},
		}, false},
		"an unknown delete": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 0, actDelete, 0, outUnknown},
			{4, 5, actGet, 1, outDone},
			{6, 7, actGet, absent, outDone},
		}, true},
		"an unknown delete has an effect twice": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 0, actDelete, 0, outUnknown},
			{4, 5, actGet, absent, outDone},
			{6, 7, actPut, 2, outDone},
			{8, 9, actGet, absent, outDone},
		}, false},
		"an unknown put if absent of a taken name": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 0, actPutNew, 2, outUnknown},
			{4, 5, actGet, 2, outDone},
		}, false},
		"an unknown put if absent of a name made so": {[]op{
			{1, 2, actPut, 1, outDone},
			{3, 0, actPutNew, 2, outUnknown},
			{4, 5, actDelete, 0, outDone},
			{6, 7, actGet, 2, outDone},
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			var ops []porcupine.Operation
			for i, o := range c.ops {
				if o.to == 0 {
					o.to = math.MaxInt64
				}
				in := call{o.act, "a.png", o.value}
				out := answer{outcome: o.outcome}
				if o.act == actGet {
					in.value = 0
					out.value = o.value
				}
				ops = append(ops, porcupine.Operation{ClientId: i, Input: in, Call: o.from, Output: out, Return: o.to})
			}
			elsewhere := porcupine.Operation{
				Input: call{actGet, "b.png", 0}, Call: 1, Output: answer{outcome: outDone}, Return: 2,
			}
			if why := contradiction(append(ops, elsewhere)); (why == "") != c.good {
				t.Errorf("linearizable: %v, want %v\n%s", why == "", c.good, why)
			}
		})
	}
}
