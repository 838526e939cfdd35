package modes

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// completed is what a shell gets for a line: its last word is completed. Descriptions are left out.
func completed(t *testing.T, line ...string) (words []string, directive string) {
	t.Helper()
	e := call(t, append([]string{cobra.ShellCompRequestCmd}, line...)...)
	text, directive, _ := strings.Cut("\n"+e.out, "\n:")
	if e.status != 0 || directive == "" {
		t.Fatal(e)
	}
	for _, word := range strings.Split(text, "\n")[1:] {
		word, _, _ = strings.Cut(word, "\t")
		words = append(words, word)
	}
	return words, strings.TrimSpace(directive)
}

// The directives, as the scripts of the shells get them.
var (
	filesToo  = fmt.Sprint(int(cobra.ShellCompDirectiveDefault))
	nothing   = fmt.Sprint(int(cobra.ShellCompDirectiveNoFileComp))
	goesOn    = fmt.Sprint(int(cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace))
	inOrder   = fmt.Sprint(int(cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveKeepOrder))
	beginning = fmt.Sprint(int(cobra.ShellCompDirectiveNoFileComp | cobra.ShellCompDirectiveNoSpace |
		cobra.ShellCompDirectiveKeepOrder))
	ofType  = fmt.Sprint(int(cobra.ShellCompDirectiveFilterFileExt))
	folders = fmt.Sprint(int(cobra.ShellCompDirectiveFilterDirs))
)

// TestCompletionWithoutNodes completes what no cluster is asked for, and nothing where none answers.
func TestCompletionWithoutNodes(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeConfig(t, dir, "")
	for _, test := range []struct{ line, want, directive string }{
		{"member dr|", "drain", nothing},
		{"member drain |", "1 2 3", nothing},
		{"member drain 1 |", "", nothing},
		{"server --id |", "1 2 3", nothing},
		{"server --set cluster.nodes=7=127.0.0.1:1:2 --set cluster.replicas=1 --id |", "7", nothing},
		{"verify --node |", "1 2 3", nothing},
		{"server --log-level |", "debug info warn error", nothing},
		{"log-level |", "debug info warn error", nothing},
		{"key add --role |", "read write admin metrics", nothing},
		{"stress --profile |", "quick demo extreme", nothing},
		{"stress --arrivals |", "constant poisson", nothing},
		{"put --delivery |", "broadcast announce relay auto", nothing},
		{"ls --set log.l|", "log.level=", beginning},
		{"ls --set log.level=|", "log.level=debug log.level=info log.level=warn log.level=error", inOrder},
		{"ls --set log.level=w|", "log.level=warn", inOrder},
		{"ls --set cluster.replicas=|", "cluster.replicas=2", inOrder},
		{"ls --set no.such=|", "", inOrder},
		{"completion |", "bash fish powershell zsh", nothing},
		{"put |", "", filesToo},
		{"report |", "", filesToo},
		{"get alice/a -o |", "", filesToo},
		{"decrypt --identity |", "", filesToo},
		{"ls --config |", "yaml yml", ofType},
		{"generate --out |", "", folders},
		{"status |", "", nothing},
		{"put --name |", "", nothing},
		{"generate --count |", "", nothing},
		{"ls |", "", nothing},
		{"put --user |", "", nothing},
		{"get |", "", goesOn},
		{"get alice/|", "", nothing},
		{"get --config missing.yaml |", "", goesOn},
		{"key rm |", "", nothing},
	} {
		line := strings.Split(strings.TrimSuffix(test.line, "|"), " ")
		words, directive := completed(t, line...)
		if got := strings.TrimSpace(strings.Join(words, " ")); got != test.want || directive != test.directive {
			t.Errorf("%s: %q with %s, want %q with %s", test.line, got, directive, test.want, test.directive)
		}
	}
}

// Every option that names a file or a folder is completed with some.
func TestCompletionOfFiles(t *testing.T) {
	file := regexp.MustCompile(`\b[Ff]iles?\b|\bfolder\b`)
	noFile := []string{"set", "name", "user", "count"} // their usage names files all the same
	count := 0
	commandsOf(newRoot(&env{}), func(c *cobra.Command) {
		c.Flags().VisitAll(func(f *pflag.Flag) {
			if f.Value.Type() == "bool" || !file.MatchString(f.Usage) || slices.Contains(noFile, f.Name) {
				return
			}
			count++
			complete, _ := c.GetFlagCompletionFunc(f.Name)
			if complete == nil {
				t.Fatalf("%s --%s is not completed", c.CommandPath(), f.Name)
			}
			if _, d := complete(c, nil, ""); d == cobra.ShellCompDirectiveNoFileComp {
				t.Errorf("%s --%s is completed without files: %s", c.CommandPath(), f.Name, f.Usage)
			}
		})
	})
	if count < 10 {
		t.Errorf("only %d options of files", count)
	}
}

// testCompletion completes users, images and access keys of a cluster, also in a real bash.
func testCompletion(t *testing.T, l *upCluster) {
	photo := photos(t)[0]
	for _, name := range []string{"a b.jpg", "gate/now.jpg", "gate/then.jpg", "hidden\u202egpj.exe"} {
		l.expectExit(0, "put", "--user", "tabby", "--name", name, photo)
	}
	l.expectExit(0, "put", "--user", "tabor", photo)
	expect := func(directive, line string, want ...string) {
		t.Helper()
		got, d := completed(t, strings.Split(line, " ")...)
		got = slices.DeleteFunc(got, func(s string) bool { return s == "" })
		if !slices.Equal(got, want) || d != directive {
			t.Errorf("%q: %q with %s, want %q with %s", line, got, d, want, directive)
		}
	}
	expect(nothing, "put --user tab", "tabby", "tabor")
	expect(nothing, "key add --user tabb", "tabby")
	expect(nothing, "user rm tabo", "tabor")
	expect(nothing, "ls tab", "tabby", "tabor")
	expect(nothing, "ls tabby/gate", "tabby/gate/now.jpg", "tabby/gate/then.jpg")
	expect(goesOn, "get tabb", "tabby/")
	expect(nothing, "get tabby/", "tabby/a b.jpg", "tabby/gate/now.jpg", "tabby/gate/then.jpg")
	expect(nothing, "rm tabby/gate/now.jpg tabby/gate/", "tabby/gate/then.jpg")
	expect(nothing, "stat tabby/none")
	bash := func(line string) string {
		t.Helper()
		return inBash(t, l.dir, line)
	}
	if got := bash("imgcluster get tabby/gate/n"); got != "tabby/gate/now.jpg" {
		t.Errorf("bash completes %q", got)
	}
	if got := bash("imgcluster put --user tab"); !strings.Contains(got, "tabby") ||
		!strings.Contains(got, "tabor") {
		t.Errorf("bash completes %q", got)
	}
	if got := bash("imgcluster ls --set log.level=w"); got != "warn" && got != "log.level=warn" {
		t.Errorf("bash completes %q", got)
	}
	l.expectExit(0, "user", "rm", "tabby", "--yes")
	l.expectExit(0, "user", "rm", "tabor", "--yes")
}

// inBash returns what bash completes at the end of a line, with the script that the program prints for it.
func inBash(t *testing.T, dir, line string) string {
	t.Helper()
	const library = "/usr/share/bash-completion/bash_completion"
	bash, err := exec.LookPath("bash")
	if _, missing := os.Stat(library); err != nil || missing != nil {
		t.Skip("no bash, or no bash-completion")
	}
	bin := t.TempDir()
	must(t, os.Symlink(os.Args[0], filepath.Join(bin, "imgcluster")))
	cmd := exec.CommandContext(t.Context(), bash, "--norc", "-c", `
		source "$1" && source <(imgcluster completion bash) || exit
		COMP_LINE=$2 COMP_POINT=${#2} COMP_TYPE=9 COMP_KEY=9
		read -ra COMP_WORDS <<<"${2//=/ = }"
		COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
		compopt() { :; }
		__start_imgcluster
		printf '%s\n' "${COMPREPLY[@]}"`, "bash", library, line)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
	e := finish(t, cmd)
	if e.status != 0 || e.err != "" {
		t.Errorf("bash: status %d: %s", e.status, e.err)
	}
	return strings.TrimSpace(e.out)
}

// A command of the configuration for the master key, which may ask its user something, is not run.
func TestCompletionAsksNothing(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	writeConfig(t, dir, "security: {always: true}\nnode: {master_key_command: 'touch asked'}")
	t.Setenv("HOME", dir)
	completed(t, "get", "")
	if _, err := os.Stat("asked"); err == nil {
		t.Error("the command was run")
	}
}

// TestCompletionOfUsers: who may not list users gets the own name, a list has an end, and a name that a
// terminal would not show as it is, is left out.
func TestCompletionOfUsers(t *testing.T) {
	may := false
	node := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var answer any = wire.KeyList{Keys: []wire.AccessKey{{ID: "A", User: "alice"}, {ID: "B", User: "alice"}}}
		if r.URL.Path == wire.UsersPath {
			list := wire.UserList{Users: []wire.User{{Name: "a\u202eb"}}}
			for i := range 2 * completionsMax {
				list.Users = append(list.Users, wire.User{Name: fmt.Sprintf("u%03d", i)})
			}
			answer = list
			if !may {
				w.Header().Set("Content-Type", "application/problem+json")
				w.WriteHeader(http.StatusForbidden)
				answer = image.AsProblem(image.Errorf(image.KindForbidden, "not for you"))
			}
		}
		json.NewEncoder(w).Encode(answer)
	}))
	defer node.Close()
	t.Chdir(t.TempDir())
	nodes := "cluster.nodes=1=" + node.Listener.Addr().String() + ":9"
	line := []string{"--set", nodes, "--set", "cluster.replicas=1", "put", "--user", ""}
	if words, _ := completed(t, line...); !slices.Equal(words, []string{"alice"}) {
		t.Errorf("its own user is %q", words)
	}
	may = true
	if words, _ := completed(t, line...); len(words) != completionsMax || words[0] != "u000" {
		t.Errorf("%d users, the first %.20q", len(words), words)
	}
}
