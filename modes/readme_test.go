package modes

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"imgcluster/config"
)

// readmeScript runs every command of README.md.
const readmeScript = "testdata/readme.txtar"

// TestReadme does what the README says, with the binary that it builds, in a folder of its own. The script
// has each command of the README: verbatim after "exec", or after "# README:" where something equal runs in
// its place.
func TestReadme(t *testing.T) {
	t.Parallel()
	root, err := filepath.Abs("..")
	must(t, err)
	readme := string(read(t, filepath.Join(root, "README.md")))
	expectScript(t, readme)
	testscript.Run(t, testscript.Params{
		Files:               []string{readmeScript},
		RequireExplicitExec: true,
		Setup:               func(e *testscript.Env) error { return readmeFolder(e, root, readme) },
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"until": until, "key": useNewKey,
		},
	})
}

// blocks finds the fenced blocks of a language, indented or not.
func blocks(text, language string) (found []string) {
	re := regexp.MustCompile("(?ms)^( *)```" + language + "\n(.*?)^ *```")
	for _, m := range re.FindAllStringSubmatch(text, -1) {
		found = append(found, regexp.MustCompile("(?m)^"+m[1]).ReplaceAllString(m[2], ""))
	}
	return found
}

// expectScript holds the script to the commands of the README, in their order.
func expectScript(t *testing.T, readme string) {
	var documented, run []string
	for line := range strings.SplitSeq(strings.Join(blocks(readme, "sh"), ""), "\n") {
		if line != "" {
			documented = append(documented, line)
		}
	}
	background := regexp.MustCompile(` &\w*&$`)
	ports := strings.NewReplacer("$API1", "8001", "$API3", "8003")
	for line := range strings.SplitSeq(string(read(t, readmeScript)), "\n") {
		command, isExec := strings.CutPrefix(line, "exec ")
		if other, ok := strings.CutPrefix(line, "# README: "); ok {
			command = other
		} else if !isExec {
			continue
		}
		command = background.ReplaceAllString(ports.Replace(command), "")
		if slices.Contains(documented, command) {
			run = append(run, command)
		}
	}
	if !slices.Equal(documented, run) {
		t.Errorf("README.md has the commands\n%s\nand of these %s runs\n%s",
			strings.Join(documented, "\n"), readmeScript, strings.Join(run, "\n"))
	}
}

// readmeFolder gives the script the repository's photographs, free ports, and limits that a busy machine
// keeps too.
func readmeFolder(e *testscript.Env, root, readme string) error {
	if err := os.Symlink(filepath.Join(root, "testdata"), filepath.Join(e.WorkDir, "testdata")); err != nil {
		return err
	}
	ports, err := config.FreePorts(12)
	if err != nil {
		return err
	}
	nodes := func(p []int) string {
		const three = "1=127.0.0.1:%d:%d,2=127.0.0.1:%d:%d,3=127.0.0.1:%d:%d"
		return fmt.Sprintf(three, p[0], p[1], p[2], p[3], p[4], p[5])
	}
	e.Setenv("PATH", e.WorkDir+string(os.PathListSeparator)+os.Getenv("PATH"))
	e.Setenv("IMGCLUSTER_CLUSTER_NODES", nodes(ports[:6]))
	e.Setenv("REPOSITORY", root)
	e.Setenv("NODES", nodes(ports[6:]))
	e.Setenv("API1", fmt.Sprint(ports[0]))
	e.Setenv("API3", fmt.Sprint(ports[4]))
	e.Setenv("APITLS", fmt.Sprint(ports[6]))
	e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, ".config"))
	e.Setenv("GOFLAGS", "-ldflags=-w")                                         // linked in half the time
	for _, name := range []string{"HOME", "GOCACHE", "GOMODCACHE", "GOPATH"} { // the go command's
		e.Setenv(name, os.Getenv(name))
	}
	for key, value := range map[string]string{
		"REPORT_MAX_P99": "10m", "REPORT_MIN_THROUGHPUT": "0", "REPORT_MAX_RESENT": "1000",
		"REPORT_MAX_PAUSE": "2m", "LIMITS_DISK_FREE_BYTES": "1MiB",
	} {
		e.Setenv("IMGCLUSTER_"+key, value)
	}
	yaml := blocks(readme, "yaml")
	if len(yaml) != 1 {
		return fmt.Errorf("README.md has %d configurations", len(yaml))
	}
	for _, machine := range []string{"1", "2", "3"} {
		if err := os.Mkdir(filepath.Join(e.WorkDir, "machine"+machine), 0o755); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(e.WorkDir, "readme.yaml"), []byte(yaml[0]), 0o644)
}

// useNewKey puts the access key that the last command has shown into the environment.
func useNewKey(ts *testscript.TestScript, _ bool, _ []string) {
	shown := ts.ReadFile("stdout")
	for name, label := range map[string]string{"ACCESS_KEY": "access key", "SECRET_KEY": "secret"} {
		found := regexp.MustCompile(`(?m)^` + label + ` +(\S+)$`).FindStringSubmatch(shown)
		if found == nil {
			ts.Fatalf("no %s in %s", label, shown)
		}
		ts.Setenv("IMGCLUSTER_"+name, found[1])
	}
}

// until runs a command again and again, until it succeeds: until imgcluster status.
func until(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until command [args...]")
	}
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(waitMax); ts.Exec(args[0], args[1:]...) != nil; <-tick.C {
		if time.Now().After(end) {
			ts.Fatalf("%s: not within %v", strings.Join(args, " "), waitMax)
		}
	}
}
