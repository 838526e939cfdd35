package sample

import (
	"encoding/json"
	"math"
	"slices"
	"strings"
	"testing"
)

// TestFiguresOfSamples holds that each type and its table name the same figures.
func TestFiguresOfSamples(t *testing.T) {
	expectFigures(t, Nodes, Node{})
	expectFigures(t, Clients, Client{})
}

// TestReports: a report distinguishes the figures, and what it shows of them is complete.
func TestReports(t *testing.T) {
	seen := map[string]bool{}
	for _, f := range Processes {
		r := f.Report
		shown := r.Key != "" || r.Chart != "" || r.Column != "" || r.Compared != ""
		if shown && (r.Summary == NoSummary || r.Scale == "") {
			t.Errorf("%s is shown, with %+v", f.Name, r)
		}
		if rate := r.Summary == Rate || r.Summary == BusyTime; r.Summary != NoSummary && rate != f.Counter {
			t.Errorf("%s: counter %v, summary %v", f.Name, f.Counter, r.Summary)
		}
		for _, name := range []string{f.Name, "key " + r.Key, "chart " + r.Chart, "column " + r.Column} {
			if seen[name] && !strings.HasSuffix(name, " ") {
				t.Errorf("%s: %q is there twice", f.Name, name)
			}
			seen[name] = true
		}
	}
}

func expectFigures(t *testing.T, figures Figures, zero any) {
	t.Helper()
	object, err := json.Marshal(zero)
	if err != nil {
		t.Fatal(err)
	}
	var values map[string]float64
	if err := json.Unmarshal(object, &values); err != nil {
		t.Fatal(err)
	}
	if len(values) != len(figures) || len(figures.Values(zero)) != len(figures) {
		t.Errorf("%T has %d figures, its table %d", zero, len(values), len(figures))
	}
	for _, f := range figures {
		if _, ok := values[f.Name]; !ok || f.Help == "" {
			t.Errorf("%T: the table has %+v", zero, f)
		}
	}
}

func TestValues(t *testing.T) {
	type status struct {
		Name string `json:"name"`
		Node
		Full bool `json:"full"`
		Up   bool `json:"up"`
	}
	figures := append(slices.Clone(Nodes), Figure{Name: "full"}, Figure{Name: "up"})
	s := status{Name: "x", Node: Node{RSSBytes: 3, DiskBusyS: 0.5}, Full: true}
	values := figures.Values(&s)
	for name, want := range map[string]float64{
		"rss_bytes": 3, "disk_busy_s": 0.5, "full": 1, "up": 0, "cpu_s": 0,
	} {
		if got := values[figures.Index(name)]; got != want {
			t.Errorf("%s is %v, want %v", name, got, want)
		}
	}
}

func TestCheck(t *testing.T) {
	for _, c := range []struct {
		name  string
		value float64
		ok    bool
	}{
		{"rss_bytes", 0, true},
		{"rss_bytes", BytesMax, true},
		{"rss_bytes", BytesMax * 2, false},
		{"rss_bytes", -1, false},
		{"rss_bytes", 1.5, false},
		{"cpu_s", 1.5, true},
		{"cpu_s", -0.1, false},
		{"cpu_s", math.Inf(1), false},
		{"owned_images", CountMax, true},
		{"owned_images", CountMax + 1, false},
	} {
		values := Nodes.Values(Node{})
		values[Nodes.Index(c.name)] = c.value
		if err := Nodes.Check(values); (err == nil) != c.ok {
			t.Errorf("%s of %v: %v", c.name, c.value, err)
		}
	}
}
