package crypto

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strings"
	"time"

	"imgcluster/cluster/oserr"
	"imgcluster/cluster/printable"
)

const (
	// keyCommandTimeout bounds a command that prints the master key.
	keyCommandTimeout = 30 * time.Second
	// keyCommandStderrBytes is how much of its standard error goes into an error.
	keyCommandStderrBytes = 1 << 10
	// keyCommandGrace is how long the pipes of a command that was killed may stay open.
	keyCommandGrace = time.Second
	// secretEnvPrefix starts the variables that a key command does not inherit.
	secretEnvPrefix = "IMGCLUSTER_"
	// masterKeysMax is how many master keys the environment or a command may give: the cluster's, and during
	// a rotation the other one.
	masterKeysMax = 2
)

// masterKeysFromCommand runs a command and reads from its standard output, at most 4 KiB, the line of a key
// file, or two while the master key is rotated. No shell is in between: the words of the command are parted
// by white space, the first one is the program, and there are no quotes, variables, globs or pipes; for
// these, let a script be the command. It inherits the environment but for this program's variables, and an
// empty standard input. It is killed after 30 s, with the processes that it has started.
//
// Errors are of kind ErrKeyCommand, with the end of its standard error, ErrKeyMalformed or ErrKeyMismatch;
// what it printed on its standard output is in none.
func masterKeysFromCommand(ctx context.Context, command string) ([]*MasterKey, error) {
	words := strings.Fields(command)
	if len(words) == 0 {
		return nil, keyCommandError(command, "it is empty", "", nil)
	}
	ctx, cancel := context.WithTimeout(ctx, keyCommandTimeout)
	defer cancel()
	cmd := exec.CommandContext(ctx, words[0], words[1:]...)
	cmd.Env = slices.DeleteFunc(os.Environ(), func(variable string) bool {
		return strings.HasPrefix(variable, secretEnvPrefix)
	})
	killWithChildren(cmd)
	cmd.WaitDelay = keyCommandGrace
	out := &boundedHead{max: keyFileBytesMax, full: cancel}
	defer out.clear()
	said := &boundedTail{max: keyCommandStderrBytes}
	cmd.Stdout, cmd.Stderr = out, said
	err := cmd.Run()
	switch {
	case out.over:
		return nil, keyCommandError(command,
			fmt.Sprintf("it prints more than %d bytes", keyFileBytesMax), said.text(), nil)
	case err != nil && errors.Is(context.Cause(ctx), context.DeadlineExceeded):
		return nil, keyCommandError(command, fmt.Sprintf("it did not end within %v", keyCommandTimeout),
			said.text(), nil)
	case err != nil:
		return nil, keyCommandError(command, "", said.text(), cmp.Or(ctx.Err(), err))
	}
	return parseMasters(out.b, "the output of node.master_key_command")
}

func keyCommandError(command, detail, said string, err error) error {
	text := fmt.Sprintf("node.master_key_command %q gives no master key", command)
	for _, more := range []string{detail, said} {
		if more != "" {
			text += ": " + more
		}
	}
	return &Error{
		Kind: ErrKeyCommand, Detail: text, Err: err,
		hint: cmp.Or(oserr.Hint(err, command),
			"run it by hand as this user: it prints the line of a master key file. "+
				"It is run without a shell: for quotes, variables or pipes, name a script"),
	}
}

// boundedHead keeps up to max bytes, and calls full when there are more.
type boundedHead struct {
	b    []byte
	max  int
	over bool
	full func()
}

// Write implements io.Writer.
func (h *boundedHead) Write(p []byte) (int, error) {
	if h.b == nil {
		h.b = make([]byte, 0, h.max) // once, so that clear reaches all of it
	}
	if len(p) > h.max-len(h.b) {
		h.over = true
		h.full()
		return len(p), nil
	}
	h.b = append(h.b, p...)
	return len(p), nil
}

func (h *boundedHead) clear() { clear(h.b) }

// boundedTail keeps the last max bytes.
type boundedTail struct {
	b   []byte
	max int
}

// Write implements io.Writer.
func (t *boundedTail) Write(p []byte) (int, error) {
	n := len(p)
	t.b = append(t.b, p[max(0, n-t.max):]...)
	t.b = t.b[max(0, len(t.b)-t.max):]
	return n, nil
}

func (t *boundedTail) text() string {
	return printable.Text(string(bytes.Join(bytes.Fields(t.b), []byte(" "))))
}
