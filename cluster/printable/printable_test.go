package printable

import (
	"encoding/json"
	"os/exec"
	"strings"
	"testing"
)

// escaped maps texts that others may choose to what a terminal shall show.
var escaped = map[string]string{
	"photo.png":         "photo.png",
	"日本語 ünï.jpg":       "日本語 ünï.jpg",
	"narrow\u202fspace": "narrow\u202fspace",
	"a\u202egpj.exe":    `a\u202egpj.exe`,
	"\u2066x\u2069":     `\u2066x\u2069`,
	"zero\u200bwidth":   `zero\u200bwidth`,
	"\ufeffbom":         `\ufeffbom`,
	"\x1b[2Jcleared":    `\u001b[2Jcleared`,
	"c1\u009b31m":       `c1\u009b31m`,
	"two\nlines\r\t":    `two\u000alines\u000d\u0009`,
	"del\x7f":           `del\u007f`,
	"\xff\xfebytes":     `\ufffd\ufffdbytes`,
	"tag\U000e0041":     `tag\udb40\udc41`,
	"para\u2029":        `para\u2029`,
	`back\slash`:        `back\slash`,
}

func TestText(t *testing.T) {
	for s, want := range escaped {
		if got := Text(s); got != want {
			t.Errorf("%q becomes %q, not %q", s, got, want)
		}
	}
}

func TestLines(t *testing.T) {
	if got := Lines("bad\x1b\nhint: rm -rf\n"); got != "bad\\u001b\n  hint: rm -rf" {
		t.Errorf("got %q", got)
	}
}

// TestArgument: bash reads back the text, and a terminal shows all of it.
func TestArgument(t *testing.T) {
	shell, err := exec.LookPath("bash")
	for s := range escaped {
		for _, s := range []string{s, s + "'7", "0" + s + `\`, "$" + s + " `x`"} {
			arg := Argument(s)
			if Text(arg) != arg {
				t.Errorf("%q becomes %q", s, arg)
			}
			if err != nil {
				continue
			}
			out, err := exec.Command(shell, "-c", "printf %s "+arg).Output()
			if err != nil || string(out) != s {
				t.Errorf("%q becomes %s, which bash reads as %q: %v", s, arg, out, err)
			}
		}
	}
	for s, want := range map[string]string{
		"a/b.yaml": "a/b.yaml", "": "''", "a b": "'a b'", "it's": `'it'\''s'`,
		"node{id}": "'node{id}'", "$x": "'$x'",
		"a\u202eb": `$'a\342\200\256b'`,
	} {
		if got := Argument(s); got != want {
			t.Errorf("%q becomes %s, not %s", s, got, want)
		}
	}
}

// TestWriter: what is written is escaped, and JSON keeps its values.
func TestWriter(t *testing.T) {
	for s := range escaped {
		if strings.Contains(s, "\xff") {
			continue // JSON has no such text
		}
		line, err := json.Marshal(map[string]string{"name": s})
		if err != nil {
			t.Fatal(err)
		}
		var out strings.Builder
		if n, err := Writer(&out).Write(append(line, '\n')); n != len(line)+1 || err != nil {
			t.Errorf("%d bytes written, %v", n, err)
		}
		var back map[string]string
		if err := json.Unmarshal([]byte(out.String()), &back); err != nil || back["name"] != s {
			t.Errorf("%s says %q, %v", out.String(), back["name"], err)
		}
		if shown := strings.TrimSuffix(out.String(), "\n"); Text(shown) != shown {
			t.Errorf("written: %q", shown)
		}
	}
	var out strings.Builder
	Writer(&out).Write([]byte("a\tb\nc\x1bd\te\u202ef\n"))
	if out.String() != "a\tb\nc\\u001bd\te\\u202ef\n" {
		t.Errorf("written: %q", out.String())
	}
}
