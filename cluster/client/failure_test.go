package client

import (
	"errors"
	"strings"
	"testing"
)

// TestNobodyAnswersOrder: nodes that do not answer are named in one order, whichever failed first: a report
// counts equal texts.
func TestNobodyAnswersOrder(t *testing.T) {
	one := Node{ID: 1, Addr: "127.0.0.1:7301"}
	two := Node{ID: 2, Addr: "127.0.0.1:7302"}
	three := Node{ID: 3, Addr: "127.0.0.1:7303"}
	refused := errors.New("connection refused")
	for _, order := range [][]Node{{one, two, three}, {two, one, three}, {three, two, one}} {
		var failures []failure
		for _, n := range order {
			failures = append(failures, failure{node: n, err: refused})
		}
		err, retry := new(Client).summarize(failures)
		if !strings.Contains(err.Error(), "127.0.0.1:7301, 127.0.0.1:7302, 127.0.0.1:7303") || !retry ||
			!errors.Is(err, ErrNobodyAnswers) || !errors.Is(err, refused) {
			t.Errorf("%v: %v", order, err)
		}
		if failures[0].node != order[0] {
			t.Error("the failures of the caller are in another order")
		}
	}
}
