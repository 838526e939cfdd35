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
func writeNeeds(w io.Writer, n stress.Needs) {
	about := ""
	if n.AtMost {
		about = "at most "
	}
	fmt.Fprintf(w, "%s%s, %s, %s each on average\n", about, term.Plural(n.Uploads, "image"),
		term.Bytes(n.Bytes), term.Bytes(n.Bytes/max(n.Uploads, 1)))
	fmt.Fprintf(w, "  network  %s%s sent by this machine\n", about, term.Bytes(n.Sent))
	fmt.Fprintf(w, "  disk     %s%s on each node, for %s of each image\n", about, term.Bytes(n.PerNode),
		term.Plural(n.Copies, "copy"))
	fmt.Fprintf(w, "  log      %s%s\n", about, term.Bytes(n.Log))
	if n.Faults > 0 {
		fmt.Fprintf(w, "  chaos    %s, for each of which uploads may wait some seconds\n",
			term.Plural(n.Faults, "fault"))
	}
	if n.ReadBack {
		fmt.Fprintf(w, "  reading  %s%s, every image once\n", about, term.Bytes(n.Bytes))
	}
	fmt.Fprintln(w, "  memory   up to 256 MiB here, 512 MiB on each node")
	duration := stress.Roughly(n.LeastS)
	if most := stress.Roughly(n.MostS); most != duration {
		duration += " to " + most
	}
	fmt.Fprintf(w, "  time     %s\n", duration)
}

// mayAsk refuses a run that has to ask the user without a terminal.
func (e *env) mayAsk(o stressOptions) error {
	if o.asks() && !o.yes && !term.Is(fileOf(e.in)) {
		return usagef("add --yes to start it without a terminal", "the extreme profile asks before it starts")
	}
	return nil
}

// asks reports whether the user has to confirm the run, since it is large.
func (o stressOptions) asks() bool { return o.Profile == "extreme" && o.Images == "" }

// confirm shows what an extreme run takes, and asks the user. --quiet hides that only where no question
// follows.
func (e *env) confirm(o stressOptions, needs stress.Needs) error {
	if !o.asks() || o.yes && e.quiet {
		return nil
	}
	writeNeeds(e.err, needs)
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

// dryRun prints what the run takes and the checks of the preflight.
func (e *env) dryRun(needs stress.Needs, checks []stress.Check) error {
	if e.json {
		doc := struct {
			Plan      stress.Needs   `json:"plan"`
			Preflight []stress.Check `json:"preflight"`
		}{needs, checks}
		if err := e.printJSON(doc); err != nil {
			return err
		}
	} else {
		writeNeeds(e.out, needs)
		writeChecks(e.out, checks, e.color(e.out))
	}
	return stress.Refusal(checks, true)
}

var checkStyle = map[stress.CheckState]term.Style{
	stress.CheckOK:   term.Green,
	stress.CheckWarn: term.Yellow,
	stress.CheckFail: term.Red,
}

// writeChecks prints the checks as a table of at most term.Width columns.
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
