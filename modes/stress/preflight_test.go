package stress

import (
	"errors"
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
)

// sound is what a look at three good machines finds.
func sound(t *testing.T) (*config.Config, *found) {
	t.Helper()
	cfg := config.Default()
	f := &found{version: testVersion, client: hostinfo.Host{CPUs: 4, MemoryFree: 1 << 34, OpenFilesMax: 1024, DiskID: "client/8:1", DiskFree: 1 << 30, LinkBytesPS: 125e6}}
	f.status = wire.ClusterStatus{Ready: true, Replicas: 2, Shards: []wire.ShardStatus{{ID: 1, Leader: 1}, {ID: 2, Leader: 2}}}
	for i, n := range cfg.Cluster.Nodes {
		host := string(rune('a' + i))
		f.status.Nodes = append(f.status.Nodes, wire.NodeStatus{ID: n.ID, State: wire.NodeUp, Ready: true})
		f.nodes = append(f.nodes, nodeFound{ID: n.ID, latency: time.Millisecond, within: time.Millisecond / 2, info: wire.NodeInfo{
			ID: n.ID, Version: testVersion, Settings: cfg.Shared(),
			Machine: hostinfo.Host{Host: host, MemoryFree: 1 << 34, OpenFilesMax: 4096, DiskID: host + "/8:1", DiskFree: 1 << 38},
		}})
	}
	return cfg, f
}

// TestPreflight spoils what was found in one way after the other.
func TestPreflight(t *testing.T) {
	o := Options{Count: 1500, Concurrency: 8, Delivery: "broadcast"}
	for name, test := range map[string]struct {
		spoil func(f *found)
		check string
		state Verdict
		said  string
	}{
		"sound":          {func(*found) {}, "nodes", CheckOK, "3 of 3 answer"},
		"a node is gone": {func(f *found) { f.nodes[1].err = errDown }, "nodes", CheckFail, "node 2 does not answer"},
		"a node was removed": {func(f *found) {
			f.strangers = []image.NodeID{1}
		}, "nodes", CheckWarn, "node 1 is not a member of the cluster: it was removed"},
		"a node was added": {func(f *found) {
			f.unlisted = []image.NodeID{4}
		}, "nodes", CheckWarn, "node 4 is a member of the cluster and not in the configuration here"},
		"a disk is full":  {func(f *found) { f.status.Nodes[2].DiskFull = true }, "nodes", CheckFail, "node 3 is up, disk full"},
		"a disk failed":   {func(f *found) { f.status.Nodes[0].Problem = "it broke" }, "nodes", CheckFail, "node 1 is up, disk failed"},
		"versions":        {func(f *found) { f.nodes[2].info.Version = "0.1" }, "versions", CheckFail, "node 3 has 0.1"},
		"another version": {func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Version = "0.1" }) }, "versions", CheckWarn, "node 1 has 0.1"},
		"settings":        {func(f *found) { f.nodes[1].info.Settings["raft.rtt"] = "20ms" }, "settings", CheckFail, "raft.rtt is 50ms on node 1 and 20ms on node 2"},
		"other copies": {
			func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Settings["cluster.replicas"] = "3" }) },
			"settings", CheckWarn, "cluster.replicas is 3 on the nodes and 2 here",
		},
		"a clock":       {func(f *found) { f.nodes[2].ahead = 1200 * time.Millisecond }, "clocks", CheckFail, "node 3 is 1200 ms ahead of this machine"},
		"clocks apart":  {func(f *found) { f.nodes[0].ahead, f.nodes[1].ahead = 600*time.Millisecond, -600*time.Millisecond }, "clocks", CheckFail, "node 1 is 1200 ms ahead of node 2"},
		"a slow answer": {func(f *found) { f.nodes[0].ahead, f.nodes[0].within = 1200*time.Millisecond, time.Second }, "clocks", CheckOK, "1200 ms apart"},
		"a disk":        {func(f *found) { f.nodes[1].info.Machine.DiskFree = 10e9 }, "disks", CheckFail, "node 2: needs 15.9 GB, 10.0 GB free"},
		"one disk": {func(f *found) {
			setAll(f, func(n *wire.NodeInfo) { n.Machine.DiskID, n.Machine.DiskFree = "x/1", 40e9 })
		}, "disks", CheckFail, "nodes 1, 2, 3 on one disk: needs 45.0 GB, 40.0 GB free"},
		"the log":         {func(f *found) { f.client.DiskFree = 1000 }, "log", CheckFail, "1.00 kB free"},
		"memory here":     {func(f *found) { f.client.MemoryFree = 200 << 20 }, "memory", CheckFail, "this machine: needs 268 MB, 210 MB free"},
		"memory of nodes": {func(f *found) { f.nodes[2].info.Machine.MemoryFree = 300 << 20 }, "memory", CheckFail, "node 3: needs 537 MB, 315 MB free"},
		"memory in use": {func(f *found) {
			f.nodes[2].info.Machine.MemoryFree, f.status.Nodes[2].RSSBytes = 300<<20, 300<<20
		}, "memory", CheckOK, "node 3: needs 222 MB, 315 MB free"},
		"files here":     {func(f *found) { f.client.OpenFilesMax = 90 }, "open files", CheckFail, "needs 96, may have 90"},
		"files of nodes": {func(f *found) { f.nodes[0].info.Machine.OpenFilesMax = 256 }, "open files", CheckFail, "node 1: needs 272, may have 256"},
		"many at once":   {func(f *found) { setAll(f, func(n *wire.NodeInfo) { n.Settings["limits.uploads"] = "4" }) }, "at once", CheckWarn, "node 1 takes 4"},
		"far away":       {func(f *found) { f.nodes[1].latency = 70 * time.Millisecond }, "latency", CheckWarn, "node 2 70 ms, more than raft.rtt, 50 ms"},
		"link":           {func(*found) {}, "network", CheckOK, "125 MB/s from here: sending 59.5 GB takes 8 min"},
		"unknown link":   {func(f *found) { f.client.LinkBytesPS = 0 }, "network", CheckOK, "not known"},
	} {
		cfg, f := sound(t)
		o.Spec.Seed, o.Spec.MinPixels, o.Spec.MaxPixels = 1, 1600, 3500
		test.spoil(f)
		checks := f.judge(cfg, &o, o.needs(cfg, &load.Options{Run: o.run(cfg), Source: load.Generated{Spec: o.Spec}}))
		seen := false
		for _, c := range checks {
			switch {
			case c.Name == test.check:
				seen = true
				if c.State != test.state || !strings.Contains(c.Said, test.said) {
					t.Errorf("%s: %+v, want %s and %q", name, c, test.state, test.said)
				}
			case c.State != CheckOK:
				t.Errorf("%s: %+v too", name, c)
			}
			if c.State == CheckFail && c.Hint == "" {
				t.Errorf("%s: no next step in %+v", name, c)
			}
		}
		err := Refusal(checks, true)
		if !seen || (err != nil) != (test.state == CheckFail) || errors.As(err, new(interface{ ExitStatus() int })) {
			t.Errorf("%s: refusal %v of %+v", name, err, checks)
		}
		if err != nil && !strings.Contains(hintOf(err), "--force") {
			t.Errorf("%s: hint %q", name, hintOf(err))
		}
		if demo := Refusal(checks, false); demo != nil && strings.Contains(hintOf(demo), "--force") {
			t.Errorf("%s: a demo has no --force: hint %q", name, hintOf(demo))
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
	f.nodes[1].err = errDown
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

// What a run needs, of each shape.
func TestNeeds(t *testing.T) {
	cfg := config.Default()
	for name, test := range map[string]struct {
		change func(o *Options)
		want   func(t Needs) bool
	}{
		"count": {func(o *Options) { o.Count = 1500 }, func(t Needs) bool {
			return t.Uploads == 1500 && t.Bytes == 19836599527 && t.Sent == 3*t.Bytes && t.PerNode == 2*t.Bytes/3
		}},
		"many":  {func(o *Options) { o.Count = 1e6 }, func(t Needs) bool { return t.Uploads == 1e6 && t.Bytes > 13.0e12 && t.Bytes < 13.4e12 && t.Log > 400e6 }},
		"relay": {func(o *Options) { o.Count, o.Delivery = 30, "relay" }, func(t Needs) bool { return t.Sent == t.Bytes }},
		"rate": {func(o *Options) { o.Rate, o.Duration = 10, time.Minute }, func(t Needs) bool {
			return t.Uploads == 600 && t.Bytes > 7.8e9 && t.Bytes < 8.1e9 && t.LeastS == 60 && !t.AtMost
		}},
		"time":    {func(o *Options) { o.Duration = time.Minute }, func(t Needs) bool { return t.AtMost && t.Bytes == 30e9 && t.MostS == 60 }},
		"at rate": {func(o *Options) { o.Count, o.Rate = 30, 0.1 }, func(t Needs) bool { return t.LeastS == 300 && t.MostS == 300 }},
	} {
		o := Options{Concurrency: 8, Delivery: "broadcast"}
		o.Spec.Seed, o.Spec.MinPixels, o.Spec.MaxPixels = 1, 1600, 3500
		test.change(&o)
		got := o.needs(cfg, &load.Options{Run: o.run(cfg), Source: load.Generated{Spec: o.Spec}})
		if !test.want(got) {
			t.Errorf("%s: %+v", name, got)
		}
	}
	past := &load.Options{Run: runlog.Run{Count: 100}, Source: load.Generated{}, Resume: &load.Resume{Done: map[int64]bool{1: true, 2: true}}}
	o := Options{Count: 100}
	o.Spec.Seed, o.Spec.MinPixels, o.Spec.MaxPixels = 1, 100, 100
	if got := o.needs(cfg, past); got.Uploads != 98 {
		t.Errorf("resumed: %+v", got)
	}
}
