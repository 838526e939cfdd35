package modes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strings"
	"testing"

	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/sample"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
	"imgcluster/genimg"
	"imgcluster/modes/local"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// The status of a large cluster of real addresses still fits the terminal.
func TestStatusFits(t *testing.T) {
	s := wire.ClusterStatus{
		Name:            "imgcluster",
		Ready:           true,
		Images:          123456,
		Bytes:           987654321987,
		Replicas:        2,
		UnderReplicated: 12345,
		Insecure:        true,
	}
	for id := range image.NodeID(3) {
		s.Nodes = append(s.Nodes, wire.NodeStatus{
			ID: id + 1, API: fmt.Sprintf("10.40.45.20%d:8001", id), State: wire.NodeUp, LeaderOf: 13,
			Node: sample.Node{
				OwnedImages: 41152, OwnedBytes: 329218107329, RSSBytes: 498765432, DiskFreeBytes: 72444620800,
			},
			StoredBytes: 658436214658,
		})
	}
	var out bytes.Buffer
	if err := writeStatus(&out, s); err != nil {
		t.Fatal(err)
	}
	if columnsOf(out.String()) > term.Width || strings.Count(out.String(), "10.40.45.20") != 3 {
		t.Errorf("%d columns:\n%s", columnsOf(out.String()), &out)
	}
}

func TestExitStatus(t *testing.T) {
	nobody := new(client.Client).NobodyAnswers("x", errors.New("connection refused"))
	noLeader := stress.NoLeader(wire.ClusterStatus{})
	notFound := image.Errorf(image.KindNotFound, "x")
	usage := usagef("", "x")
	for want, errs := range map[int][]error{
		exitDone: {nil},
		exitFailed: {
			errors.New("x"),
			errDeclined,
			notFound,
			&local.NodeError{Status: -1},
			&local.NodeError{Status: exitNobody},
			&genimg.Error{Err: genimg.ErrNoRoom},
			&outputError{write: io.ErrShortWrite},
			&partError{"x", []error{notFound}},
		},
		exitUsage: {
			usage,
			image.Errorf(image.KindInvalid, "x"),
			image.Errorf(image.KindDamaged, "x: %w", &crypto.Error{Kind: crypto.ErrAuth}),
			fmt.Errorf("y: %w", config.Problems{{}}),
			&local.NodeError{Status: exitUsage},
			&genimg.Error{Err: genimg.ErrSpec},
			&crypto.Error{Kind: crypto.ErrAuth},
			&bootstrap.RefusedError{},
			&runlog.ReadError{Err: runlog.ErrBadLine},
			&hintedError{usage, "y"},
			&outputError{write: io.ErrShortWrite, also: usage},
			&partError{"x", []error{notFound, usage}},
			errors.Join(noLeader, usage), // the first step to take
		},
		exitNobody: {
			noLeader,
			&partError{"x", []error{errors.New("y"), noLeader}},
			fmt.Errorf("y: %w", nobody),
			errors.Join(nobody, context.Canceled),
			new(client.Client).NobodyAnswers("x", image.Errorf(image.KindInvalid, "y")),
		},
		exitVerdict: {
			errVerdict,
			errors.Join(errVerdict, errors.New("x")),
			errors.Join(usage, errVerdict),
		},
		exitCanceled: {
			fmt.Errorf("x: %w", context.Canceled),
			image.Errorf(image.KindAborted, "x: %w", context.Canceled),
		},
	} {
		if !strings.Contains(exitHelp(newRoot(&env{})), fmt.Sprintf(" %d ", want)) {
			t.Errorf("the help does not list %d", want)
		}
		for _, err := range errs {
			if got := exitStatus(err); got != want {
				t.Errorf("%v gives %d, not %d", err, got, want)
			}
		}
	}
}

// The hint of the outermost error that has one counts, also an empty one.
func TestHint(t *testing.T) {
	inner := image.Errorf(image.KindExists, "x").WithHint("inner")
	for want, err := range map[string]error{
		"inner": fmt.Errorf("y: %w", inner),
		"outer": &hintedError{fmt.Errorf("y: %w", inner), "outer"},
		"":      &partError{"x", []error{inner}},
	} {
		if got := image.HintOf(err); got != want {
			t.Errorf("%v has the hint %q, not %q", err, got, want)
		}
	}
	if got := image.HintOf(errors.New("x")); got != "" {
		t.Errorf("hint %q", got)
	}
}

// The hint for a cluster that does not answer is a command line that starts it.
func TestStartHint(t *testing.T) {
	e := &env{ctx: t.Context(), path: "my cluster.yaml", set: []string{"log.level=warn"}, cfg: config.Default()}
	hint := func() string {
		c, err := e.client(e.cfg, client.Broadcast)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		return image.HintOf(fmt.Errorf("x: %w", c.NobodyAnswers("no node answers")))
	}
	if got := hint(); got != "start them with: imgcluster up --config 'my cluster.yaml' --set log.level=warn" {
		t.Error(got)
	}
	e.cfg.Cluster.Nodes[1].Host = "10.0.0.1"
	e.cfg.Client.CAFile = config.CASystem
	if got := hint(); !strings.Contains(got, "imgcluster server --id N --config 'my cluster.yaml'") {
		t.Error(got)
	}
}

// A dumb terminal gets no colours, no screen and no line that is rewritten, and neither does a file.
func TestTerminals(t *testing.T) {
	_, tty := terminal(t)
	for _, test := range []struct {
		kind, noColor string
		e             env
		color, screen bool
	}{
		{kind: "xterm", color: true, screen: true},
		{kind: "xterm", noColor: "1", screen: true},
		{kind: "xterm", e: env{noColor: true}, screen: true},
		{kind: "dumb"},
		{kind: ""},
	} {
		t.Setenv("TERM", test.kind)
		t.Setenv("NO_COLOR", test.noColor)
		test.e.err = tty
		p := test.e.progress()
		p.watch(stress.NewTally(load.Options{}))
		color, screen := test.e.color(tty), p.screen != nil
		if color != test.color || p.live != test.screen || screen != test.screen {
			t.Errorf("%+v: colours %v, a rewritten line %v, a screen %v", test, color, p.live, screen)
		}
		p.end()
		if test.e.color(&bytes.Buffer{}) {
			t.Error("colours in a file")
		}
	}
}

// Without a terminal, progress is a few lines, always with the last one.
func TestProgressLines(t *testing.T) {
	var out bytes.Buffer
	p := (&env{err: &out}).progress()
	for i := range 1000 {
		p.show(false, "%d", i)
	}
	p.note("note")
	p.show(true, "1000")
	p.end()
	got := out.String()
	if !strings.HasSuffix(got, "note\n1000\n") || strings.Contains(got, "\r") || len(got) > 200 {
		t.Errorf("%q", got)
	}
	out.Reset()
	p = (&env{err: &out, quiet: true}).progress()
	p.show(true, "1000")
	p.note("note")
	if out.Len() > 0 {
		t.Errorf("--quiet says %q", &out)
	}
}

// The largest needs of a run and long findings of the preflight fit a terminal.
func TestPlanFits(t *testing.T) {
	var out bytes.Buffer
	writeNeeds(&out, stress.Needs{
		Uploads:  99_999_999,
		Bytes:    9e17,
		Sent:     9e17,
		PerNode:  9e17,
		Log:      9e17,
		AtMost:   true,
		LeastS:   60,
		MostS:    9e6,
		Copies:   3,
		Faults:   1000,
		ReadBack: true,
	})
	long := strings.Repeat("node 2 does not answer as this version does; ", 9)
	writeChecks(&out, []stress.Check{
		{Name: "open files", State: stress.CheckWarn, Said: long},
		{Name: "nodes", State: stress.CheckOK},
	}, false)
	row := regexp.MustCompile(`(?m)^  warn  open files  node 2 `)
	if columnsOf(out.String()) > term.Width || !row.Match(out.Bytes()) {
		t.Errorf("wider than %d columns:\n%s", term.Width, &out)
	}
}
