package modes

import (
	"bufio"
	"fmt"
	"io"
	"strings"

	"imgcluster/cluster/printable"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// writeNeeds prints what a run takes.
func writeNeeds(w io.Writer, t stress.Needs) {
	about, images := "", t.Bytes
	if t.AtMost {
		about = "at most "
	}
	fmt.Fprintf(w, "%s%s, %s, %s each on average\n", about, term.Plural(t.Uploads, "image"), term.Bytes(images), term.Bytes(images/max(t.Uploads, 1)))
	fmt.Fprintf(w, "  network  %s%s sent by this machine\n", about, term.Bytes(t.Sent))
	fmt.Fprintf(w, "  disk     %s%s on each node, for %s of each image\n", about, term.Bytes(t.PerNode), term.Plural(t.Copies, "copy"))
	fmt.Fprintf(w, "  log      %s%s\n", about, term.Bytes(t.Log))
	if t.Faults > 0 {
		fmt.Fprintf(w, "  chaos    %s, for each of which uploads may wait some seconds\n", term.Plural(t.Faults, "fault"))
	}
	if t.ReadBack {
		fmt.Fprintf(w, "  reading  %s%s, every image once\n", about, term.Bytes(t.Bytes))
	}
	fmt.Fprintln(w, "  memory   up to 256 MiB here, 512 MiB on each node")
	least, most := stress.Roughly(t.LeastS), stress.Roughly(t.MostS)
	if least == most {
		fmt.Fprintf(w, "  time     %s\n", least)
		return
	}
	fmt.Fprintf(w, "  time     %s to %s\n", least, most)
}

// mayAsk refuses a run that has to ask and cannot.
func (e *env) mayAsk(o stressOptions) error {
	if o.asks() && !o.yes && !term.Is(fileOf(e.in)) {
		return usagef("add --yes to start it without a terminal", "the extreme profile asks before it starts")
	}
	return nil
}

// asks reports whether the run is one that nobody should start by mistake.
func (o stressOptions) asks() bool { return o.Profile == "extreme" && o.Images == "" }

// confirm shows what an extreme run will take, and asks. --quiet does not turn it off where a question
// follows.
func (e *env) confirm(o stressOptions, t stress.Needs) error {
	if !o.asks() || o.yes && e.quiet {
		return nil
	}
	writeNeeds(e.err, t)
	if o.yes {
		return nil
	}
	return e.ask("Start?", errDeclined)
}

// ask returns declined unless the user says yes.
func (e *env) ask(question string, declined error) error {
	fmt.Fprintf(e.err, "%s [y/N] ", printable.Text(question))
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return declined
	}
	return nil
}

// dryRun prints what the run takes and what the preflight found.
func (e *env) dryRun(t stress.Needs, checks []stress.Check) error {
	if e.json {
		doc := struct {
			Plan      stress.Needs   `json:"plan"`
			Preflight []stress.Check `json:"preflight"`
		}{t, checks}
		if err := e.printJSON(doc); err != nil {
			return err
		}
		return stress.Refusal(checks, true)
	}
	writeNeeds(e.out, t)
	writeChecks(e.out, checks, e.color(e.out))
	return stress.Refusal(checks, true)
}

var checkStyle = map[stress.CheckState]term.Style{
	stress.CheckOK:   term.Green,
	stress.CheckWarn: term.Yellow,
	stress.CheckFail: term.Red,
}

// writeChecks prints the table, at most term.Width wide.
func writeChecks(w io.Writer, checks []stress.Check, color bool) {
	const indent = "                    "
	for _, c := range checks {
		state := fmt.Sprintf("%-4s", c.State)
		if color {
			state = term.Styled(checkStyle[c.State], state)
		}
		text := strings.TrimPrefix(term.Indent(indent, printable.Text(c.Said)), indent)
		fmt.Fprintf(w, "  %s  %-10s  %s\n", state, c.Name, text)
	}
}
