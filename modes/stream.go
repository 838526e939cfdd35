package modes

import (
	"bytes"
	"encoding/json"
	"errors"

	"imgcluster/cluster/printable"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress"
)

// stream writes the records of a run to standard output as they are written to the log; nil without --json.
type stream struct{ w *runlog.Writer }

func (e *env) stream() *stream {
	if !e.json {
		return nil
	}
	return &stream{runlog.NewWriter(printable.Writer(e.out))}
}

// take writes a record at once. A failure does not end the run: the log is complete.
func (s *stream) take(rec runlog.Record) {
	if s == nil {
		return
	}
	if s.w.Write(rec) == nil {
		s.w.Flush()
	}
}

// finalReport prints the report of a run that has just ended. After streamed records it is the last of them.
func (e *env) finalReport(o reportOptions, path string) error {
	if !e.json {
		return runReport(e, o, path)
	}
	var report bytes.Buffer
	inner := *e
	inner.out = &output{w: &report}
	verdict := runReport(&inner, o, path)
	if verdict != nil && !errors.Is(verdict, errVerdict) {
		return verdict
	}
	line, err := reportLine(report.Bytes())
	if err != nil {
		return err
	}
	if _, err := e.out.Write(line); err != nil {
		return err
	}
	return verdict
}

// reportLine returns the report's JSON as a record of type report.
func reportLine(report []byte) ([]byte, error) {
	line := bytes.NewBufferString(`{"type":"report",`)
	var body bytes.Buffer
	if err := json.Compact(&body, bytes.TrimLeft(report, " \n")); err != nil {
		return nil, err
	}
	line.Write(body.Bytes()[1:]) // without its brace
	line.WriteByte('\n')
	return line.Bytes(), nil
}

// runView shows a run under way as progress, and its records as a stream.
type runView struct {
	*progress
	stream *stream
}

// Watch implements stress.View.
func (v *runView) Watch(t *stress.Tally) { v.watch(t) }

// Update implements stress.View.
func (v *runView) Update(t *stress.Tally) { v.run(false, t) }

// Uploaded implements stress.View.
func (v *runView) Uploaded(t *stress.Tally) { v.run(true, t) }

// Record implements stress.View.
func (v *runView) Record(rec runlog.Record) { v.stream.take(rec) }

// Stage implements stress.View.
func (v *runView) Stage(s stress.Stage) { v.stage(s) }

// Note implements stress.View.
func (v *runView) Note(text string) { v.note(text) }

// Crash implements stress.View.
func (v *runView) Crash() { v.crash() }
