package modes

import (
	"bytes"
	"cmp"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"filippo.io/age"
	"github.com/spf13/cobra"

	"imgcluster/cluster/image"
	"imgcluster/genimg"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// commandsOf calls fn with a command and all below it.
func commandsOf(cmd *cobra.Command, fn func(*cobra.Command)) {
	fn(cmd)
	for _, sub := range cmd.Commands() {
		commandsOf(sub, fn)
	}
}

// The help of every command begins with its examples, ends with its exit statuses, and fits a terminal.
func TestHelp(t *testing.T) {
	statuses := regexp.MustCompile(`\n\nExit status: 0 [^\n]+(\n[^\n]+){0,2}\.\n$`)
	commandsOf(newRoot(&env{}), func(c *cobra.Command) {
		var out bytes.Buffer
		c.SetOut(&out)
		if err := c.Help(); err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(out.String()) {
			if columnsOf(line) > term.Width {
				t.Errorf("%s --help: %d columns: %s", c.CommandPath(), columnsOf(line), line)
			}
		}
		begin := "Examples:\n  imgcluster "
		if c.Name() == "completion" {
			begin = "Examples:\n  source <(imgcluster "
		}
		if text := out.String(); !strings.HasPrefix(text, begin) || !statuses.MatchString(text) ||
			strings.Count(text, "Examples:") != 1 {
			t.Errorf("%s --help is %s", c.CommandPath(), text)
		}
	})
}

// The examples of every command are command lines that it would take, most of its own.
func TestExamples(t *testing.T) {
	line := regexp.MustCompile(`imgcluster( [^|#>)]*)?`)
	shell := regexp.MustCompile(`\$\([^)]*\)`)
	count := 0
	commandsOf(newRoot(&env{}), func(c *cobra.Command) {
		own := c.HasSubCommands()
		for _, example := range exampleLines(c) {
			example = shell.ReplaceAllString(strings.ReplaceAll(example, "\\\n", ""), "X")
			example, _, _ = strings.Cut(example, "&&")
			args := strings.Fields(line.FindString(example))
			root := newRoot(&env{})
			cmd, rest, err := root.Find(args[min(1, len(args)):])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err == nil {
				err = cmd.ValidateArgs(cmd.Flags().Args())
			}
			if err != nil {
				t.Errorf("%s: %s: %v", c.CommandPath(), example, err)
				continue
			}
			own = own || cmd.CommandPath() == c.CommandPath()
			count++
		}
		if !own {
			t.Errorf("no example of %s is one of it", c.CommandPath())
		}
	})
	if count < 80 {
		t.Errorf("only %d examples", count)
	}
}

// Each command of endings is there.
func TestEndings(t *testing.T) {
	there := map[string]bool{}
	commandsOf(newRoot(&env{}), func(c *cobra.Command) { there[pathOf(c)] = true })
	for path := range endings {
		if !there[path] {
			t.Errorf("there is no command %q", path)
		}
	}
}

// TestNobodyAnswers: without nodes each command ends with a status that its help lists, and those that ask
// nodes with 3.
func TestNobodyAnswers(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeConfig(t, dir, "")
	must(t, os.WriteFile("photo.png", []byte("image"), 0o600))
	must(t, os.WriteFile("log.jsonl", []byte(goodLog), 0o600))
	lines := map[string]string{ // in place of the command's name alone
		"put": "put photo.png", "get": "get alice/none", "rm": "rm alice/photo.png", "stat": "stat alice/a",
		"key add": "key add --role metrics", "key rm": "key rm ICAAAAAAAAAAAAAAAAAA", "user add": "user add alice",
		"user rm": "user rm alice --yes", "member drain": "member drain 3", "member remove": "member remove 3",
		"keys rewrap": "keys rewrap --user alice", "keys rotate": "keys rotate --user alice",
		"member add":  "member add --id 4 --host 127.0.0.1 --api-port 1 --raft-port 2",
		"keys export": "keys export -o out --to " + recipient(t), "clean": "clean --yes",
		"backup": "backup out", "completion": "completion bash", "man": "man pages", "report": "report log.jsonl",
		"export": "export out", "import": "import photo.png --user alice",
		"stress": "stress --count 1 --min-pixels 16 --max-pixels 40 --force",
	}
	leftOut := map[string]bool{"up": true, "demo": true, "server": true, "generate": true}
	asked := 0
	commandsOf(newRoot(&env{}), func(c *cobra.Command) {
		path := pathOf(c)
		if leftOut[path] || c.HasSubCommands() {
			return
		}
		e := call(t, strings.Fields(cmp.Or(lines[path], path))...)
		statuses := endingOf(c).statuses
		switch {
		case !slices.Contains(statuses, e.status):
			t.Errorf("the help lists %v: %v", statuses, e)
		case slices.Contains(statuses, exitNobody):
			asked++
			if e.status != exitNobody {
				t.Errorf("it did not ask nodes, as the help says: %v", e)
			}
		}
	})
	if asked < 20 {
		t.Errorf("only %d commands ask nodes", asked)
	}
}

// A folder that cannot be made is a usage error whose hint names the option.
func TestFolderRefused(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	if err := os.WriteFile("file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	missing := filepath.Join(dir, "file", "x") // even root cannot make a folder in a file
	spec := genimg.Spec{Seed: 1, MinPixels: 200, MaxPixels: 400}
	made := genimg.Generate(t.Context(), spec, 1, "file", 1, nil)
	t.Setenv("TMPDIR", missing)
	demo := runDemo(t.Context(), &env{}, stressOptions{Options: stress.Options{Count: 1, Spec: spec}})
	for name, test := range map[string]struct {
		err  error
		hint string
	}{
		"generate": {made, "--out"},
		"demo":     {demo, "TMPDIR"},
		"get":      {writeFile(filepath.Join(missing, "y"), func(io.Writer) error { return nil }), "-o"},
	} {
		if got := exitStatus(test.err); got != exitUsage || !strings.Contains(image.HintOf(test.err), test.hint) {
			t.Errorf("%s: %v (hint %s) gives %d", name, test.err, image.HintOf(test.err), got)
		}
	}
}

// recipient returns an age recipient whose identity nobody has.
func recipient(t *testing.T) string {
	t.Helper()
	id, err := age.GenerateX25519Identity()
	must(t, err)
	return id.Recipient().String()
}
