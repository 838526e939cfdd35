package config

import (
	"errors"
	"os"
	"strings"
	"testing"
	"unicode/utf8"
)

// FuzzLoad holds what is true of any file: no panic; either problems that can be shown, or a
// configuration that is valid and survives being written and read. Run it with -fuzzminimizetime=1x:
// maps make the coverage of one input differ from run to run, which keeps the minimizer busy for
// nothing.
func FuzzLoad(f *testing.F) {
	for _, path := range []string{
		"../testdata/cluster.yaml", "testdata/problems.yaml", "testdata/default.yaml",
	} {
		data, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data, "IMGCLUSTER_LOG_LEVEL=debug")
	}
	for _, g := range mistakes {
		for _, m := range g.list {
			f.Add([]byte(m.text), "IMGCLUSTER_CLUSTER_NODES=1=h:1:2,2=h:3:4")
		}
	}
	f.Add([]byte("{}"), "IMGCLUSTER_LOG_LEVE=debug")
	f.Add([]byte("a: &a [*a]"), "IMGCLUSTER_LIMITS_IMAGE_BYTES=1GiB")
	f.Fuzz(func(t *testing.T, data []byte, variable string) {
		cfg, err := load("f.yaml", data, Options{Env: []string{variable}}, &collector{})
		if err != nil {
			var ps Problems
			if !errors.As(err, &ps) || len(ps) == 0 || len(ps) > problemsMax+1 {
				t.Fatalf("%T with %d problems", err, len(ps))
			}
			for _, p := range ps {
				if p.Message == "" || p.Hint == "" || !utf8.ValidString(p.String()) ||
					strings.ContainsFunc(p.String(), func(r rune) bool { return r < 0x20 }) {
					t.Fatalf("bad problem %q with hint %q", p, p.Hint)
				}
			}
			return
		}
		out, err := cfg.YAML()
		if err != nil {
			t.Fatal(err)
		}
		back, err := loadText(string(out), Options{})
		if err != nil || !same(back, cfg) {
			t.Fatalf("read back as %+v, %v\n%s", back, err, out)
		}
	})
}
