package stress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"imgcluster/modes/runlog"
)

// wholeLines describes the lines of a run's log that end with a newline: an interrupted run may leave the
// last one without.
type wholeLines struct {
	form    runlog.Form
	bytes   int64     // of these lines
	written time.Time // when the log was written last
}

// eachLine calls take with every whole line that is not empty.
func eachLine(path, hint string, take func(text []byte) error) (whole wholeLines, err error) {
	f, err := runlog.OpenRegular(path)
	if err != nil {
		return whole, refusef(hint, "%s: %w", path, err)
	}
	defer f.Close()
	if _, err := runlog.Read(f); err != nil { // the best message about a bad line
		return whole, fmt.Errorf("%s: %w", path, err)
	}
	if _, err := f.Seek(0, io.SeekStart); err != nil {
		return whole, err
	}
	info, err := f.Stat()
	if err != nil {
		return whole, err
	}
	whole.written = info.ModTime()
	in, form, err := runlog.Plain(f)
	if err != nil {
		return whole, fmt.Errorf("%s: %w", path, err)
	}
	whole.form = form
	for {
		text, err := in.ReadBytes('\n')
		if errors.Is(err, io.EOF) {
			return whole, nil
		}
		if err != nil {
			return whole, err
		}
		whole.bytes += int64(len(text))
		if text = bytes.TrimSpace(text); len(text) > 0 {
			if err := take(text); err != nil {
				return whole, fmt.Errorf("%s: %w", path, err)
			}
		}
	}
}
