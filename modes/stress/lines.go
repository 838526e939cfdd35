package stress

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"time"

	"imgcluster/modes/runlog"
)

// wholeLines are those of the log of a run that have their end: the last one was cut off without it.
type wholeLines struct {
	form    runlog.Form
	bytes   int64     // their length
	written time.Time // when the log was, last
}

// eachLine calls take with every whole line that is not empty.
func eachLine(path, hint string, take func(text []byte) error) (whole wholeLines, err error) {
	f, err := runlog.OpenRegular(path)
	if err != nil {
		return whole, refusef(hint, "%s: %w", path, err)
	}
	defer f.Close()
	if _, err := runlog.Read(f); err != nil { // it says best what is wrong with a line
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
