package modes

import (
	"cmp"
	"fmt"
	"runtime"
	"runtime/debug"

	"github.com/spf13/cobra"
)

// versionInfo is what version prints.
type versionInfo struct {
	Version string `json:"version"`
	Commit  string `json:"commit,omitempty"`   // of the source, in hexadecimal; none where there was no git
	Changed bool   `json:"modified,omitempty"` // the source differed from the commit
	Go      string `json:"go"`
	OS      string `json:"os"`
	Arch    string `json:"arch"`
}

func newVersion(e *env) *cobra.Command {
	return &cobra.Command{
		Use:     "version",
		Short:   "Print the version and what the program was built from",
		Example: "  imgcluster version\n  imgcluster version --json",
		Args:    args(0, 0),
		RunE: func(*cobra.Command, []string) error {
			v := thisVersion()
			if e.json {
				return e.printJSON(v)
			}
			_, err := fmt.Fprintln(e.out, v)
			return err
		},
	}
}

func (v versionInfo) String() string {
	commit := cmp.Or(v.Commit, "unknown")
	if v.Changed {
		commit += " with changes"
	}
	return fmt.Sprintf("imgcluster %s (commit %s, %s, %s/%s)", v.Version, commit, v.Go, v.OS, v.Arch)
}

// thisVersion is this program's, by what Go has recorded in the binary.
func thisVersion() versionInfo {
	v := versionInfo{Version: version(), Go: runtime.Version(), OS: runtime.GOOS, Arch: runtime.GOARCH}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, s := range info.Settings {
			switch s.Key {
			case "vcs.revision":
				v.Commit = s.Value
			case "vcs.modified":
				v.Changed = s.Value == "true"
			}
		}
	}
	return v
}

// version is the module's version, or the commit that the binary was built from.
func version() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "unknown"
	}
	if v := info.Main.Version; v != "" && v != "(devel)" {
		return v
	}
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" {
			return "devel-" + s.Value[:min(12, len(s.Value))]
		}
	}
	return "devel"
}
