package modes

import (
	"cmp"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"imgcluster/cluster/durable"
	"imgcluster/cluster/oserr"
	"imgcluster/modes/stress"
)

// used is a file that a command reads or writes: one named on the command line, or a standard stream.
type used struct {
	name string // for messages
	path string // empty for a stream
	hint string // for a written file: how another one is named
	info os.FileInfo
}

// usedFile returns a file with a path, which need not exist.
func usedFile(name, path, hint string) used {
	info, _ := os.Stat(path) // an error comes back when it is opened
	return used{name, path, hint, info}
}

// usedStream returns a standard stream, without info when it is no file.
func usedStream(name, hint string, stream any) used {
	u := used{name: name, hint: hint}
	if f := fileOf(stream); f != nil {
		u.info, _ = f.Stat()
	}
	return u
}

// same reports whether both are the same regular file, or will be when they are created.
func (u used) same(other used) bool {
	switch {
	case u.info != nil && other.info != nil:
		return u.info.Mode().IsRegular() && os.SameFile(u.info, other.info)
	case u.info != nil || other.info != nil:
		return false
	case u.path == "" || other.path == "" || filepath.Base(u.path) != filepath.Base(other.path):
		return false
	}
	folder, err := os.Stat(filepath.Dir(u.path))
	otherFolder, otherErr := os.Stat(filepath.Dir(other.path))
	return err == nil && otherErr == nil && os.SameFile(folder, otherFolder)
}

// streams returns the standard streams that a command writes to.
func (e *env) streams() []used {
	return []used{
		usedStream("standard output", "redirect standard output to another file", e.out),
		usedStream("standard error", "redirect standard error to another file", e.err),
	}
}

// checkDistinct refuses two outputs in one file, and an output in a file that is read.
func (e *env) checkDistinct(written, read []used) error {
	written = append(written, e.streams()...)
	for i, out := range written {
		for _, in := range read {
			if out.same(in) {
				return usagef(out.hint, "%s is the same file as %s, which is read", out.name, in.name)
			}
		}
		for _, other := range written[:i] {
			if out.same(other) && (out.path != "" || other.path != "") {
				return usagef(out.hint, "%s and %s are the same file", other.name, out.name)
			}
		}
	}
	return nil
}

// readBy returns the files that a report reads besides the logs.
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

// htmlFile returns the file of the HTML report, if one is written.
func (o reportOptions) htmlFile() []used {
	if o.html == "" {
		return nil
	}
	return []used{usedFile("--html "+o.html, o.html, "name another file with --html")}
}

// checkReportFiles refuses a report that would be written into a file that it reads.
func (e *env) checkReportFiles(o reportOptions, logs []string) error {
	read := e.readBy(o)
	for _, path := range logs {
		if path == stdin {
			read = append(read, usedStream("standard input", "", e.in))
		} else {
			read = append(read, usedFile(path, path, ""))
		}
	}
	return e.checkDistinct(o.htmlFile(), read)
}

// checkRunFiles refuses a run that would overwrite a file that it reads, or one of its outputs with
// another. older is the new name of an existing log.
func (e *env) checkRunFiles(o stressOptions, run *stress.Run, older string) error {
	const hint = "name another file with --log"
	log := usedFile("--log "+o.Log, o.Log, hint)
	compare := o.report.compare
	if compare != "" && log.same(usedFile("", compare, "")) {
		if o.Past != nil {
			return usagef("name the log of another run with --compare",
				"--compare %s is the log of this run", compare)
		}
		return usagef("name this run's log with --log, such as --log new.jsonl",
			"--compare %s is the log of this run, which replaces it", compare)
	}
	written := append([]used{log}, o.report.htmlFile()...)
	if older != "" {
		written = append(written, usedFile("the new name of the log of the run before, "+older+",", older, hint))
	}
	for _, out := range append(written, e.streams()...) {
		if out.info != nil && run.Sends(out.info) {
			return usagef(out.hint, "%s is one of the files in --images %s", out.name, o.Images)
		}
	}
	return e.checkDistinct(written, e.readBy(o.report))
}

// checkFileNames refuses options that name a file but are empty, as after an unset variable of the shell.
func checkFileNames(f *pflag.FlagSet) error {
	for _, name := range []string{"html", "compare", "log", "resume", "images", "out", "keys", "identity"} {
		flag := f.Lookup(name)
		if flag != nil && flag.Changed && flag.Value.String() == "" {
			hint := "leave out --" + name + ", or give it a name; a variable of the shell may be empty"
			return usagef(hint, "--%s names nothing", name)
		}
	}
	return nil
}

// writePublic makes a file with no secret in it. Its error, fs.ErrExist where there is a file, has a hint.
func writePublic(path string, text []byte) error {
	if err := durable.WriteNew(path, text, 0o644); err != nil {
		return &hintedError{
			fmt.Errorf("%s cannot be made: %w", path, oserr.NoPath(err)),
			cmp.Or(oserr.Hint(err, path), "choose a folder that this user can write to"),
		}
	}
	return nil
}
