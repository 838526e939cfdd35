package modes

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"imgcluster/cluster/client"
	"imgcluster/cluster/printable"
	"imgcluster/modes/exchange"
	"imgcluster/modes/term"
)

// moveAtOnce is how many images export and import move at the same time unless they are told otherwise.
const moveAtOnce = 8

func concurrencyFlag(f *pflag.FlagSet, atOnce *int) {
	f.IntVar(atOnce, "concurrency", moveAtOnce,
		fmt.Sprintf("images moved at the same time, up to %d", exchange.AtOnceMax))
}

func checkConcurrency(atOnce int) error {
	if atOnce < 1 || atOnce > exchange.AtOnceMax {
		return usagef(fmt.Sprintf("give a number from 1 to %d", exchange.AtOnceMax),
			"--concurrency %d", atOnce)
	}
	return nil
}

// moving shows an export or import and sums up its parts, one for each user, that are run in turn.
type moving struct {
	e        *env
	what     string // exported, imported
	client   *client.Client
	atOnce   int
	progress *progress
	started  time.Time
	done     exchange.Tally // of the parts that have ended
	written  error          // of standard output
}

func (e *env) moving(what string, c *client.Client, atOnce int) *moving {
	return &moving{e: e, what: what, client: c, atOnce: atOnce, progress: e.progress(), started: time.Now()}
}

// part returns what an export or import of a user begins with.
func (m *moving) part(user string) exchange.Move {
	return exchange.Move{
		Client: m.client, User: user, AtOnce: m.atOnce, Event: m.event,
		Progress: func(t exchange.Tally) {
			sum := m.done
			sum.Add(t)
			m.progress.show(false, "%s: %s", printable.Argument(user), m.figures(sum))
		},
	}
}

// figures says how far it is.
func (m *moving) figures(t exchange.Tally) string {
	return fmt.Sprintf("%d of %s %s, %s, %s", t.Images+t.Present, term.Plural(t.Of, "image"), m.what,
		term.Bytes(t.Bytes), m.rate(t))
}

func (m *moving) rate(t exchange.Tally) string {
	return term.Bytes(int64(float64(t.Bytes)/time.Since(m.started).Seconds())) + "/s"
}

// event prints what happened to an image or file.
func (m *moving) event(ev exchange.Event) {
	switch {
	case m.e.json:
		m.progress.end()
		m.written = errors.Join(m.written, m.e.printJSON(ev))
	case ev.Type == exchange.Failed:
		m.progress.end()
		m.e.printError(m.e.err, fmt.Errorf("%s: %w", ev.File, ev.Err))
	case ev.Type == exchange.Skipped:
		m.progress.note(fmt.Sprintf("skipped %s: %s", ev.File, ev.Problem))
	case ev.Type == exchange.Gone:
		m.progress.note(fmt.Sprintf("left %s: the cluster has no such image any more", ev.File))
	}
}

// outcome prints the sum and returns the error of the command.
func (m *moving) outcome(ctx context.Context, err error) error {
	m.progress.end()
	if err == nil || m.done.Of+m.done.Failed > 0 {
		m.sum()
	}
	switch {
	case m.written != nil:
		return m.written
	case ctx.Err() != nil:
		return &hintedError{context.Cause(ctx), "the same command goes on where it was stopped"}
	case err != nil:
		return err
	case m.done.Failed > 0:
		return &partError{fmt.Sprintf("%d of %d images were not %s",
			m.done.Failed, max(m.done.Of, m.done.Images+m.done.Present+m.done.Failed), m.what), nil}
	}
	return nil
}

// sum prints what was done.
func (m *moving) sum() {
	took := time.Since(m.started)
	if m.e.json {
		m.written = errors.Join(m.written, m.e.printJSON(struct {
			Type string `json:"type"`
			exchange.Tally
			ElapsedS float64 `json:"elapsed_s"`
			Rate     float64 `json:"bytes_per_s"`
		}{"end", m.done, took.Seconds(), float64(m.done.Bytes) / took.Seconds()}))
		return
	}
	text := fmt.Sprintf("%s %s, %s, in %s, %s", m.what, term.Plural(m.done.Images, "image"),
		term.Bytes(m.done.Bytes), term.Duration(took.Seconds()), m.rate(m.done))
	for _, more := range []struct {
		n    int
		said string
	}{
		{m.done.Present, "were there already"},
		{m.done.Skipped, "skipped"},
		{m.done.Gone, "left of images that are gone"},
		{m.done.Failed, "failed"},
	} {
		if more.n > 0 {
			text += fmt.Sprintf("; %d %s", more.n, more.said)
		}
	}
	m.e.say("%s", text)
}
