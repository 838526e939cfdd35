package cluster_test

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"testing"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/wire"
)

// deployFiles are those in which metrics are named.
const deployFiles = "../testdata/deploy"

var (
	metricName = regexp.MustCompile(`\b(?:imgcluster|process)_[a-z0-9_]+`)
	metricLine = regexp.MustCompile(`(?m)^([a-z0-9_]+)[{ ]`)
)

// TestUnit: systemd knows every line of the unit.
func TestUnit(t *testing.T) {
	analyze, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("no systemd-analyze")
	}
	unit := filepath.Join(deployFiles, "imgcluster.service")
	text, err := os.ReadFile(unit)
	if err != nil {
		t.Fatal(err)
	}
	// That the program and the user are there is not asked for.
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	here := filepath.Join(t.TempDir(), "imgcluster.service")
	for old, now := range map[string]string{
		"/usr/bin/imgcluster": program, "User=imgcluster": "User=root", "Group=imgcluster": "Group=root",
	} {
		if !bytes.Contains(text, []byte(old)) {
			t.Errorf("the unit has no %s", old)
		}
		text = bytes.ReplaceAll(text, []byte(old), []byte(now))
	}
	if err := os.WriteFile(here, text, 0o600); err != nil {
		t.Fatal(err)
	}
	out, err := exec.Command(analyze, "verify", "--man=no", here).CombinedOutput()
	if err != nil || len(bytes.TrimSpace(out)) > 0 {
		t.Errorf("systemd-analyze verify: %v\n%s", err, out)
	}
}

// TestDeployFiles: the alert rules and the Grafana dashboard name metrics that a node has, and the rules do
// what their tests say.
func TestDeployFiles(t *testing.T) {
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{})
	text := c.Do(http.MethodGet, 1, wire.MetricsPath, nil, nil).Body
	var known []string
	for _, m := range metricLine.FindAllSubmatch(text, -1) {
		known = append(known, string(m[1]))
	}
	for _, name := range []string{"alerts.yaml", "alerts_test.yaml", "grafana.json"} {
		text, err := os.ReadFile(filepath.Join(deployFiles, name))
		if err != nil {
			t.Fatal(err)
		}
		used := metricName.FindAllString(string(text), -1)
		if len(used) < 5 {
			t.Errorf("%s names %q", name, used)
		}
		for _, metric := range used {
			if !slices.Contains(known, metric) {
				t.Errorf("%s names %s, which a node does not have", name, metric)
			}
		}
		if filepath.Ext(name) == ".json" && !json.Valid(text) {
			t.Errorf("%s is not JSON", name)
		}
	}
	promtool, err := exec.LookPath("promtool")
	if err != nil {
		t.Skip("no promtool: install prometheus to test the rules")
	}
	for _, args := range [][]string{{"check", "rules", "alerts.yaml"}, {"test", "rules", "alerts_test.yaml"}} {
		cmd := exec.Command(promtool, args...)
		cmd.Dir = deployFiles
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Errorf("promtool %q: %v\n%s", args, err, out)
		}
	}
}
