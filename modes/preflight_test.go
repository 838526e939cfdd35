package modes

import (
	"bytes"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/modes/runlog"
	"imgcluster/modes/stress/load"
	"imgcluster/modes/term"
)

// sound is what a look at three good machines finds.
func sound(t *testing.T) (*config.Config, *found) {
	t.Helper()
	cfg := config.Default()
	f := &found{client: hostinfo.Host{CPUs: 4, MemoryFree: 1 << 34, OpenFilesMax: 1024, DiskID: "client/8:1", DiskFree: 1 << 30, LinkBytesPS: 125e6}}
	f.status = wire.ClusterStatus{Ready: true, Replicas: 2, Shards: []wire.ShardStatus{{ID: 1, Leader: 1}, {ID: 2, Leader: 2}}}
	for i, n := range cfg.Cluster.Nodes {
		host := string(rune('a' + i))
		f.status.Nodes = append(f.status.Nodes, wire.NodeStatus{ID: n.ID, State: wire.NodeUp, Ready: true})
		f.nodes = append(f.nodes, nodeFound{ID: n.ID, latency: time.Millisecond, within: time.Millisecond / 2, info: wire.NodeInfo{
			ID: n.ID, Version: version(), Settings: cfg.Shared(),
			Machine: hostinfo.Host{Host: host, MemoryFree: 1 << 34, OpenFilesMax: 4096, DiskID: host + "/8:1", DiskFree: 1 << 38},
		}})
	}
	return cfg, f
}

// TestPreflight spoils what was found in one way after the other.
func TestPreflight(t *testing.T) {
	o := stressOptions{count: 1500, concurrency: 8, delivery: "broadcast"}
	for name, test := range map[string]struct {
		spoil func(f *found)
		check string
		state verdict
		said  string
	}{
		"sound":          {func(*found) {}, "nodes", checkOK, "3 of 3 answer"},
		"a node is gone": {func(f *found) { f.nodes[1].err = errFolder }, "nodes", checkFail, "node 2 does not answer"},
		"a node was removed": {func(f *found) {
			f.strangers = []image.NodeID{1}
		}, "nodes", checkWarn, "node 1 is not a member of the cluster: it was removed"},
		"a node was added": {func(f *found) {
			f.unlisted = []image.NodeID{4}
		}, "nodes", checkWarn, "node 4 is a member of the cluster and not in the configuration here"},
		"a disk is full":  {func(f *found) { f.status.Nodes[2].DiskFull = true }, "nodes", checkFail, "node 3 is up, disk full"},
		"a disk failed":   {func(f *found) { f.status.Nodes[0].Problem = "it broke" }, "nodes", checkFail, "node 1 is up, disk failed"},
		"versions":        {func(f *found) { f.nodes[2].info.Version = "0.1" }, "versions", checkFail, "node 3 has 0.1"},
		"another version": {func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Version = "0.1" }) }, "versions", checkWarn, "node 1 has 0.1"},
		"settings":        {func(f *found) { f.nodes[1].info.Settings["raft.rtt"] = "20ms" }, "settings", checkFail, "raft.rtt is 50ms on node 1 and 20ms on node 2"},
		"other copies": {
			func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Settings["cluster.replicas"] = "3" }) },
			"settings", checkWarn, "cluster.replicas is 3 on the nodes and 2 here",
		},
		"a clock":       {func(f *found) { f.nodes[2].ahead = 1200 * time.Millisecond }, "clocks", checkFail, "node 3 is 1200 ms ahead of this machine"},
		"clocks apart":  {func(f *found) { f.nodes[0].ahead, f.nodes[1].ahead = 600*time.Millisecond, -600*time.Millisecond }, "clocks", checkFail, "node 1 is 1200 ms ahead of node 2"},
		"a slow answer": {func(f *found) { f.nodes[0].ahead, f.nodes[0].within = 1200*time.Millisecond, time.Second }, "clocks", checkOK, "1200 ms apart"},
		"a disk":        {func(f *found) { f.nodes[1].info.Machine.DiskFree = 10e9 }, "disks", checkFail, "node 2: needs 15.9 GB, 10.0 GB free"},
		"one disk": {func(f *found) {
			setAll(f, func(n *wire.NodeInfo) { n.Machine.DiskID, n.Machine.DiskFree = "x/1", 40e9 })
		}, "disks", checkFail, "nodes 1, 2, 3 on one disk: needs 45.0 GB, 40.0 GB free"},
		"the log":         {func(f *found) { f.client.DiskFree = 1000 }, "log", checkFail, "1.00 kB free"},
		"memory here":     {func(f *found) { f.client.MemoryFree = 200 << 20 }, "memory", checkFail, "this machine: needs 268 MB, 210 MB free"},
		"memory of nodes": {func(f *found) { f.nodes[2].info.Machine.MemoryFree = 300 << 20 }, "memory", checkFail, "node 3: needs 537 MB, 315 MB free"},
		"memory in use": {func(f *found) {
			f.nodes[2].info.Machine.MemoryFree, f.status.Nodes[2].RSSBytes = 300<<20, 300<<20
		}, "memory", checkOK, "node 3: needs 222 MB, 315 MB free"},
		"files here":     {func(f *found) { f.client.OpenFilesMax = 90 }, "open files", checkFail, "needs 96, may have 90"},
		"files of nodes": {func(f *found) { f.nodes[0].info.Machine.OpenFilesMax = 256 }, "open files", checkFail, "node 1: needs 272, may have 256"},
		"many at once":   {func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Settings["limits.uploads"] = "4" }) }, "at once", checkWarn, "node 1 takes 4"},
		"far away":       {func(f *found) { f.nodes[1].latency = 70 * time.Millisecond }, "latency", checkWarn, "node 2 70 ms, more than raft.rtt, 50 ms"},
		"link":           {func(*found) {}, "network", checkOK, "125 MB/s from here: sending 59.5 GB takes 8 min"},
		"unknown link":   {func(f *found) { f.client.LinkBytesPS = 0 }, "network", checkOK, "not known"},
	} {
		cfg, f := sound(t)
		o.spec.Seed, o.spec.MinPixels, o.spec.MaxPixels = 1, 1600, 3500
		test.spoil(f)
		checks := f.judge(cfg, o, o.takes(cfg, &load.Options{Run: o.run(cfg), Source: load.Generated{Spec: o.spec}}))
		seen := false
		for _, c := range checks {
			switch {
			case c.Name == test.check:
				seen = true
				if c.State != test.state || !strings.Contains(c.Said, test.said) {
					t.Errorf("%s: %+v, want %s and %q", name, c, test.state, test.said)
				}
			case c.State != checkOK:
				t.Errorf("%s: %+v too", name, c)
			}
			if c.State == checkFail && c.Hint == "" {
				t.Errorf("%s: no next step in %+v", name, c)
			}
		}
		err := refusal(checks, true)
		if !seen || (err != nil) != (test.state == checkFail) || err != nil && exitStatus(err) != exitFailed {
			t.Errorf("%s: refusal %v of %+v", name, err, checks)
		}
		if err != nil && !strings.Contains(hintOf(err), "--force") {
			t.Errorf("%s: hint %q", name, hintOf(err))
		}
		if demo := refusal(checks, false); demo != nil && strings.Contains(hintOf(demo), "--force") {
			t.Errorf("%s: a demo has no --force: hint %q", name, hintOf(demo))
		}
		var table bytes.Buffer
		writeChecks(&table, checks, false)
		if columnsOf(table.String()) > term.Width {
			t.Errorf("%s: wider than %d columns:\n%s", name, term.Width, &table)
		}
	}
}

// setAll changes what every node says of itself.
func setAll(f *found, change func(*wire.NodeInfo)) {
	for i := range f.nodes {
		f.nodes[i].info.Settings = maps.Clone(f.nodes[i].info.Settings)
		change(&f.nodes[i].info)
	}
}

func TestDescribe(t *testing.T) {
	cfg, f := sound(t)
	f.nodes[1].err = errFolder
	var run runlog.Run
	f.describe(cfg, &run)
	if m := run.Machines; m.Client.CPUs != 4 || m.Client.LinkBytesPS != 125e6 || len(m.Nodes) != 2 || m.Nodes[1].ID != 3 || m.Nodes[1].Host != "c" {
		t.Errorf("machines %+v", run.Machines)
	}
	if run.Settings["cluster.name"] != "imgcluster" || !strings.Contains(run.Settings["cluster.nodes"], "127.0.0.1:8001:9001") || run.Replicas != 2 {
		t.Errorf("settings %v", run.Settings)
	}
	if slices.Contains(slices.Collect(maps.Keys(f.nodes[0].info.Settings)), "cluster.nodes") {
		t.Error("the settings of a node were changed")
	}
}

// What a run takes, of each shape.
func TestTakes(t *testing.T) {
	cfg := config.Default()
	for name, test := range map[string]struct {
		change func(o *stressOptions)
		want   func(t takes) bool
	}{
		"count": {func(o *stressOptions) { o.count = 1500 }, func(t takes) bool {
			return t.Uploads == 1500 && t.Bytes == 19836599527 && t.Sent == 3*t.Bytes && t.PerNode == 2*t.Bytes/3
		}},
		"many":  {func(o *stressOptions) { o.count = 1e6 }, func(t takes) bool { return t.Uploads == 1e6 && t.Bytes > 13.0e12 && t.Bytes < 13.4e12 && t.Log > 400e6 }},
		"relay": {func(o *stressOptions) { o.count, o.delivery = 30, "relay" }, func(t takes) bool { return t.Sent == t.Bytes }},
		"rate": {func(o *stressOptions) { o.rate, o.duration = 10, time.Minute }, func(t takes) bool {
			return t.Uploads == 600 && t.Bytes > 7.8e9 && t.Bytes < 8.1e9 && t.LeastS == 60 && !t.AtMost
		}},
		"time":    {func(o *stressOptions) { o.duration = time.Minute }, func(t takes) bool { return t.AtMost && t.Bytes == 30e9 && t.MostS == 60 }},
		"at rate": {func(o *stressOptions) { o.count, o.rate = 30, 0.1 }, func(t takes) bool { return t.LeastS == 300 && t.MostS == 300 }},
	} {
		o := stressOptions{concurrency: 8, delivery: "broadcast"}
		o.spec.Seed, o.spec.MinPixels, o.spec.MaxPixels = 1, 1600, 3500
		test.change(&o)
		got := o.takes(cfg, &load.Options{Run: o.run(cfg), Source: load.Generated{Spec: o.spec}})
		if !test.want(got) {
			t.Errorf("%s: %+v", name, got)
		}
		var text bytes.Buffer
		got.write(&text)
		if columnsOf(text.String()) > term.Width {
			t.Errorf("%s: wider than %d columns:\n%s", name, term.Width, &text)
		}
	}
	past := &load.Options{Run: runlog.Run{Count: 100}, Source: load.Generated{}, Resume: &load.Resume{Done: map[int64]bool{1: true, 2: true}}}
	o := stressOptions{count: 100}
	o.spec.Seed, o.spec.MinPixels, o.spec.MaxPixels = 1, 100, 100
	if got := o.takes(cfg, past); got.Uploads != 98 {
		t.Errorf("resumed: %+v", got)
	}
}
