package main

import (
	"os/exec"
	"path/filepath"
	"testing"
)

// TestBugsApply: each seeded bug is still one of this program, so that make bugs can seed it.
func TestBugsApply(t *testing.T) {
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip(err)
	}
	patches, err := filepath.Glob("testdata/bugs/*.patch")
	if err != nil || len(patches) == 0 {
		t.Fatalf("no seeded bugs: %v", err)
	}
	for _, patch := range patches {
		if out, err := exec.Command("git", "apply", "--check", patch).CombinedOutput(); err != nil {
			t.Errorf("%s: %v: %s", patch, err, out)
		}
	}
}
