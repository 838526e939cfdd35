package modes

import (
	"os"
	"path/filepath"

	"imgcluster/modes/stress"

	"github.com/spf13/pflag"
)

// used is a file that a command reads or writes: one that the command line names, or a stream.
type used struct {
	said string // what people know it by
	path string // empty for a stream
	hint string // how another one is named, for what is written
	info os.FileInfo
}

// usedFile is one with a path; it need not be there yet.
func usedFile(said, path, hint string) used {
	info, _ := os.Stat(path) // who opens it says what is wrong with it
	return used{said, path, hint, info}
}

// usedStream is a standard stream, nil information when it is no file.
func usedStream(said, hint string, stream any) used {
	u := used{said: said, hint: hint}
	if f := fileOf(stream); f != nil {
		u.info, _ = f.Stat()
	}
	return u
}

// same reports whether two are one regular file, or would become one.
func (u used) same(other used) bool {
	switch {
	case u.info != nil && other.info != nil:
		return u.info.Mode().IsRegular() && os.SameFile(u.info, other.info)
	case u.info != nil || other.info != nil || u.path == "" || other.path == "" || filepath.Base(u.path) != filepath.Base(other.path):
		return false
	}
	one, err := os.Stat(filepath.Dir(u.path))
	two, bad := os.Stat(filepath.Dir(other.path))
	return err == nil && bad == nil && os.SameFile(one, two)
}

// streams are what a command writes besides the files that it names.
func (e *env) streams() []used {
	return []used{
		usedStream("standard output", "redirect standard output to another file", e.out),
		usedStream("standard error", "redirect standard error to another file", e.err),
	}
}

// apart refuses to write two things into one file, or into one that is read.
func (e *env) apart(written, read []used) error {
	written = append(written, e.streams()...)
	for i, out := range written {
		for _, in := range read {
			if out.same(in) {
				return usagef(out.hint, "%s is the same file as %s, which is read", out.said, in.said)
			}
		}
		for _, other := range written[:i] {
			if out.same(other) && (out.path != "" || other.path != "") {
				return usagef(out.hint, "%s and %s are the same file", other.said, out.said)
			}
		}
	}
	return nil
}

// readBy are the files that a report reads besides the logs.
func (e *env) readBy(o reportOptions) []used {
	var read []used
	if o.compare != "" {
		read = append(read, usedFile("--compare "+o.compare, o.compare, ""))
	}
	if e.cfg != nil && e.cfg.File != "" {
		read = append(read, usedFile("the configuration "+e.cfg.File, e.cfg.File, ""))
	}
	return read
}

// page is the file of the page, if one is written.
func (o reportOptions) page() []used {
	if o.html == "" {
		return nil
	}
	return []used{usedFile("--html "+o.html, o.html, "name another file with --html")}
}

// logsApart refuses a report whose page, or output, would be one of its logs.
func (e *env) logsApart(o reportOptions, logs []string) error {
	read := e.readBy(o)
	for _, path := range logs {
		if path == stdin {
			read = append(read, usedStream("standard input", "", e.in))
		} else {
			read = append(read, usedFile(path, path, ""))
		}
	}
	return e.apart(o.page(), read)
}

// runApart refuses a run that would overwrite what it reads, or one of its files with another; older is what the
// log of before becomes.
func (e *env) runApart(o stressOptions, run *stress.Run, older string) error {
	const hint = "name another file with --log"
	log := usedFile("--log "+o.Log, o.Log, hint)
	if o.report.compare != "" && log.same(usedFile("", o.report.compare, "")) {
		if o.Past != nil {
			return usagef("name the log of another run with --compare", "--compare %s is the log of this run", o.report.compare)
		}
		return usagef("name this run's log with --log, such as --log new.jsonl", "--compare %s is the log of this run, which replaces it", o.report.compare)
	}
	written := append([]used{log}, o.report.page()...)
	if older != "" {
		written = append(written, usedFile("what the log of before becomes, "+older+",", older, hint))
	}
	for _, out := range append(written, e.streams()...) {
		if out.info != nil && run.Sends(out.info) {
			return usagef(out.hint, "%s is one of the files in --images %s", out.said, o.Images)
		}
	}
	return e.apart(written, e.readBy(o.report))
}

// emptyFiles refuses options that name a file and have none, as an unset variable of the shell leaves them.
func emptyFiles(f *pflag.FlagSet) error {
	for _, name := range []string{"html", "compare", "log", "resume", "images", "out"} {
		if flag := f.Lookup(name); flag != nil && flag.Changed && flag.Value.String() == "" {
			return usagef("leave out --"+name+", or give it a name; a variable of the shell may be empty", "--%s names nothing", name)
		}
	}
	return nil
}
