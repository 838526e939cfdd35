package stress

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
)

// healthy returns the default configuration and what the preflight finds of it on three good machines.
func healthy(t *testing.T) (*config.Config, *found) {
	t.Helper()
	cfg := config.Default()
	f := &found{
		version: testVersion,
		client: hostinfo.Host{
			CPUs:         4,
			MemoryFree:   1 << 34,
			OpenFilesMax: 1024,
			DiskID:       "client/8:1",
			DiskFree:     1 << 30,
			LinkBytesPS:  125e6,
		},
		status: wire.ClusterStatus{
			Ready:    true,
			Replicas: 2,
			Shards:   []wire.ShardStatus{{ID: 1, Leader: 1}, {ID: 2, Leader: 2}},
		},
	}
	for i, n := range cfg.Cluster.Nodes {
		host := string(rune('a' + i))
		f.status.Nodes = append(f.status.Nodes, wire.NodeStatus{ID: n.ID, State: wire.NodeUp, Ready: true})
		f.nodes = append(f.nodes, nodeFound{
			ID:      n.ID,
			latency: time.Millisecond,
			within:  time.Millisecond / 2,
			info: wire.NodeInfo{
				ID:       n.ID,
				Version:  testVersion,
				Settings: cfg.Shared(),
				Machine: hostinfo.Host{
					Host:         host,
					MemoryFree:   1 << 34,
					OpenFilesMax: 4096,
					DiskID:       host + "/8:1",
					DiskFree:     1 << 38,
				},
			},
		})
	}
	return cfg, f
}

// setAll changes the answer of every node.
func setAll(f *found, change func(*wire.NodeInfo)) {
	for i := range f.nodes {
		f.nodes[i].info.Settings = maps.Clone(f.nodes[i].info.Settings)
		change(&f.nodes[i].info)
	}
}

// TestPreflight changes what was found in one way after the other. Each time one check has the given
// state and names the given nodes and figures, and all others are ok.
func TestPreflight(t *testing.T) {
	for name, test := range map[string]struct {
		change func(f *found)
		check  string
		state  CheckState
		names  []string
	}{
		"healthy": {
			func(*found) {},
			"nodes", CheckOK,
			[]string{"3 of 3"},
		},
		"a node is down": {
			func(f *found) { f.nodes[1].err = errDown },
			"nodes", CheckFail,
			[]string{"node 2", errDown.Error()},
		},
		"a node was removed": {
			func(f *found) { f.notMembers = []image.NodeID{1} },
			"nodes", CheckWarn,
			[]string{"node 1"},
		},
		"a node was added": {
			func(f *found) { f.unlisted = []image.NodeID{4} },
			"nodes", CheckWarn,
			[]string{"node 4"},
		},
		"a disk is full": {
			func(f *found) { f.status.Nodes[2].DiskFull = true },
			"nodes", CheckFail,
			[]string{"node 3", "disk full"},
		},
		"a disk failed": {
			func(f *found) { f.status.Nodes[0].Problem = "it broke" },
			"nodes", CheckFail,
			[]string{"node 1", "disk failed"},
		},
		"versions": {
			func(f *found) { f.nodes[2].info.Version = "0.1" },
			"versions", CheckFail,
			[]string{"node 1", testVersion, "node 3", "0.1"},
		},
		"another version": {
			func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Version = "0.1" }) },
			"versions", CheckWarn,
			[]string{testVersion, "node 1", "0.1"},
		},
		"settings": {
			func(f *found) { f.nodes[1].info.Settings["raft.rtt"] = "20ms" },
			"settings", CheckFail,
			[]string{"raft.rtt", "100ms", "node 1", "20ms", "node 2"},
		},
		"other copies": {
			func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Settings["cluster.replicas"] = "3" }) },
			"settings", CheckWarn,
			[]string{"cluster.replicas", "3", "2"},
		},
		"a clock": {
			func(f *found) { f.nodes[2].ahead = 1200 * time.Millisecond },
			"clocks", CheckFail,
			[]string{"node 3", "1200 ms", "this machine"},
		},
		"clocks apart": {
			func(f *found) {
				f.nodes[0].ahead = 600 * time.Millisecond
				f.nodes[1].ahead = -600 * time.Millisecond
			},
			"clocks", CheckFail,
			[]string{"node 1", "1200 ms", "node 2"},
		},
		"a slow answer": {
			func(f *found) {
				f.nodes[0].ahead = 1200 * time.Millisecond
				f.nodes[0].within = time.Second
			},
			"clocks", CheckOK,
			[]string{"1200 ms"},
		},
		"a disk": {
			func(f *found) { f.nodes[1].info.Machine.DiskFree = 10e9 },
			"disks", CheckFail,
			[]string{"node 2", "15.9 GB", "10.0 GB"},
		},
		"one disk": {
			func(f *found) {
				setAll(f, func(n *wire.NodeInfo) {
					n.Machine.DiskID = "x/1"
					n.Machine.DiskFree = 40e9
				})
			},
			"disks", CheckFail,
			[]string{"nodes 1, 2, 3", "45.0 GB", "40.0 GB"},
		},
		"the log": {
			func(f *found) { f.client.DiskFree = 1000 },
			"log", CheckFail,
			[]string{"1.00 kB"},
		},
		"memory here": {
			func(f *found) { f.client.MemoryFree = 200 << 20 },
			"memory", CheckFail,
			[]string{"this machine", "268 MB", "210 MB"},
		},
		"memory of a system that does not tell": {
			func(f *found) { f.client.MemoryFree = 0 },
			"memory", CheckWarn,
			[]string{"this machine", "not known"},
		},
		"memory of nodes": {
			func(f *found) { f.nodes[2].info.Machine.MemoryFree = 300 << 20 },
			"memory", CheckFail,
			[]string{"node 3", "537 MB", "315 MB"},
		},
		"memory in use": {
			func(f *found) {
				f.nodes[2].info.Machine.MemoryFree = 300 << 20
				f.status.Nodes[2].RSSBytes = 300 << 20
			},
			"memory", CheckOK,
			[]string{"node 3", "222 MB", "315 MB"},
		},
		"files here": {
			func(f *found) { f.client.OpenFilesMax = 90 },
			"open files", CheckFail,
			[]string{"96", "90"},
		},
		"files of nodes": {
			func(f *found) { f.nodes[0].info.Machine.OpenFilesMax = 256 },
			"open files", CheckFail,
			[]string{"node 1", "272", "256"},
		},
		"many at once": {
			func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Settings["limits.uploads"] = "4" }) },
			"at once", CheckWarn,
			[]string{"8", "node 1", "4"},
		},
		"far away": {
			func(f *found) { f.nodes[1].latency = 140 * time.Millisecond },
			"latency", CheckWarn,
			[]string{"node 2", "140 ms", "100 ms"},
		},
		"link": {
			func(*found) {},
			"network", CheckOK,
			[]string{"125 MB/s", "59.5 GB", "8 min"},
		},
		"unknown link": {
			func(f *found) { f.client.LinkBytesPS = 0 },
			"network", CheckOK, nil,
		},
	} {
		t.Run(name, func(t *testing.T) {
			cfg, f := healthy(t)
			o := plannedOptions()
			o.Count = 1500
			test.change(f)
			checks := f.judge(cfg, &o, needsOf(cfg, &o))
			expectCheck(t, checks, test.check, test.state, test.names)
			for _, c := range checks {
				if c.Name != test.check && c.State != CheckOK {
					t.Errorf("also %+v", c)
				}
				if c.State == CheckFail && c.Hint == "" {
					t.Errorf("no next step in %+v", c)
				}
			}
			expectRefusal(t, checks, test.state == CheckFail)
		})
	}
}

// expectCheck checks the state of the check with this name, and that it names all of names.
func expectCheck(t *testing.T, checks []Check, name string, state CheckState, names []string) {
	t.Helper()
	i := slices.IndexFunc(checks, func(c Check) bool { return c.Name == name })
	if i < 0 {
		t.Fatalf("no check %s in %+v", name, checks)
	}
	c := checks[i]
	if c.State != state {
		t.Errorf("%+v, want the state %s", c, state)
	}
	for _, n := range names {
		if !strings.Contains(c.Said, n) {
			t.Errorf("%+v does not name %q", c, n)
		}
	}
}

// expectRefusal checks whether a run with these checks is refused: as a failure, not as a usage error,
// and with --force in the hint where the command has that option.
func expectRefusal(t *testing.T, checks []Check, want bool) {
	t.Helper()
	for _, hasForce := range []bool{true, false} {
		err := Refusal(checks, hasForce)
		if (err != nil) != want || errors.As(err, new(interface{ ExitStatus() int })) {
			t.Errorf("refusal %v, want one: %v", err, want)
		}
		if err != nil && strings.Contains(image.HintOf(err), "--force") != hasForce {
			t.Errorf("with --force %v the hint is %q", hasForce, image.HintOf(err))
		}
	}
}

func TestDescribe(t *testing.T) {
	cfg, f := healthy(t)
	f.nodes[1].err = errDown
	var run runlog.Run
	f.describe(cfg, &run)
	if m := run.Hosts.Client; m.CPUs != 4 || m.LinkBytesPS != 125e6 {
		t.Errorf("client %+v", m)
	}
	if m := run.Hosts.Nodes; len(m) != 2 || m[1].ID != 3 || m[1].Name != "c" {
		t.Errorf("nodes %+v", m)
	}
	addresses := run.Settings["cluster.nodes"]
	if run.Settings["cluster.name"] != "imgcluster" || !strings.Contains(addresses, "127.0.0.1:8001:9001") {
		t.Errorf("settings %v", run.Settings)
	}
	if run.Replicas != 2 {
		t.Errorf("%d replicas", run.Replicas)
	}
	if _, ok := f.nodes[0].info.Settings["cluster.nodes"]; ok {
		t.Error("the settings of a node were changed")
	}
}

// plannedOptions are options of a run without its size.
func plannedOptions() Options {
	return Options{
		Concurrency: 8,
		Delivery:    string(client.Broadcast),
		Spec:        genimg.Default(1),
	}
}

func needsOf(cfg *config.Config, o *Options) Needs {
	return o.needs(cfg, &load.Options{Run: o.run(cfg), Source: load.Generated{Spec: o.Spec}})
}

// TestNeeds estimates what runs of each kind need.
func TestNeeds(t *testing.T) {
	cfg := config.Default()
	for name, test := range map[string]struct {
		change func(o *Options)
		ok     func(n Needs) bool
	}{
		"count": {
			func(o *Options) { o.Count = 1500 },
			func(n Needs) bool {
				return n.Uploads == 1500 && n.Bytes == 19836599527 && n.Sent == 3*n.Bytes && n.PerNode == 2*n.Bytes/3
			},
		},
		"many": {
			func(o *Options) { o.Count = 1e6 },
			func(n Needs) bool { return n.Uploads == 1e6 && within(n.Bytes, 13.0e12, 13.4e12) && n.Log > 400e6 },
		},
		"relay": {
			func(o *Options) {
				o.Count = 30
				o.Delivery = string(client.Relay)
			},
			func(n Needs) bool { return n.Sent == n.Bytes },
		},
		"rate": {
			func(o *Options) {
				o.Rate = 10
				o.Duration = time.Minute
			},
			func(n Needs) bool {
				return n.Uploads == 600 && within(n.Bytes, 7.8e9, 8.1e9) && n.LeastS == 60 && !n.AtMost
			},
		},
		"duration": {
			func(o *Options) { o.Duration = time.Minute },
			func(n Needs) bool { return n.AtMost && n.Bytes == 30e9 && n.MostS == 60 },
		},
		"count at a rate": {
			func(o *Options) {
				o.Count = 30
				o.Rate = 0.1
			},
			func(n Needs) bool { return n.LeastS == 300 && n.MostS == 300 },
		},
	} {
		o := plannedOptions()
		test.change(&o)
		if got := needsOf(cfg, &o); !test.ok(got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func within(n, least, most int64) bool { return n > least && n < most }

func TestNeedsResumed(t *testing.T) {
	o := Options{Count: 100, Spec: genimg.Spec{Seed: 1, MinPixels: 100, MaxPixels: 100}}
	got := o.needs(config.Default(), &load.Options{
		Run:    runlog.Run{Count: 100},
		Source: load.Generated{},
		Resume: &load.Resume{Done: map[int64]bool{1: true, 2: true}},
	})
	if got.Uploads != 98 {
		t.Errorf("%+v, want 98 uploads", got)
	}
}
