//go:build !windows

package modes

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"imgcluster/cluster/client"
	"imgcluster/cluster/hostinfo"
	"imgcluster/config"
	"imgcluster/genimg"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

func newDemo(e *env) *cobra.Command {
	o := stressOptions{Options: stress.Options{
		Profile:     "quick",
		Concurrency: concurrencyDefault,
		User:        stressUser,
		Delivery:    string(client.Broadcast),
		Demo:        true,
	}}
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Three nodes, 30 images and the report, in a temporary folder",
		Long: `Start three nodes on free ports of this machine, store 30 images of 5 to 25 MB
on them, read one back, print the report, and delete everything again. With
--chaos, nodes are killed, paused and restarted meanwhile, and all images are
read back.`,
		Example: "  imgcluster demo\n  imgcluster demo --chaos",
		Args:    args(0, 0),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.Count < 1 {
				return usagef("give --count a number from 1, or leave it out", "a demo of %d uploads", o.Count)
			}
			if err := o.checkFaults(cmd.Flags()); err != nil {
				return err
			}
			return runDemo(cmd.Context(), e, o)
		},
	}
	cmd.Flags().Int64Var(&o.Count, "count", demoCount, "number of images")
	specFlags(cmd, &o.Spec)
	o.chaosFlags(cmd)
	o.report.flags(cmd)
	return cmd
}

func runDemo(ctx context.Context, e *env, o stressOptions) (err error) {
	if err := errors.Join(o.Spec.Validate(), o.report.check(e)); err != nil {
		return err
	}
	if err := e.checkCompare(o.report); err != nil {
		return err
	}
	began := time.Now()
	dir, err := os.MkdirTemp("", "imgcluster-demo-")
	if err != nil {
		return usagef("name a folder that can be written with TMPDIR", "the demo needs a temporary folder: %w", err)
	}
	started := false
	defer func() {
		if err = errors.Join(err, os.RemoveAll(dir)); started {
			e.say("demo over after %.1f s, everything deleted", time.Since(began).Seconds())
		}
	}()
	path, err := e.demoConfig(dir)
	if err != nil {
		return err
	}
	e.path = path
	cfg, err := e.load()
	if err != nil {
		return err
	}
	run, err := stress.New(cfg, o.Options)
	if err != nil {
		return err
	}
	if err := run.Check(); err != nil {
		return err
	}
	if err := checkRoom(dir, run.Needs().Disk(cfg, len(cfg.Cluster.Nodes))); err != nil {
		return err
	}
	e.say("starting %d nodes in %s", len(cfg.Cluster.Nodes), dir)
	nodes, err := e.startLocal(ctx, cfg)
	if err != nil {
		return err
	}
	started = true
	defer func() {
		err = errors.Join(err, nodes.Shutdown(ctx))
	}()
	e.say("ready after %.1f s", time.Since(began).Seconds())
	o.Nodes = nodes
	o.Log = filepath.Join(dir, "log.jsonl")
	if err := runStress(ctx, e, o); err != nil {
		return err
	}
	return e.readFirst(ctx, cfg, o.Spec.Image(1))
}

// readFirst reads an image of the run back and compares every byte.
func (e *env) readFirst(ctx context.Context, cfg *config.Config, want genimg.Image) error {
	c, err := e.client(cfg, client.Broadcast)
	if err != nil {
		return err
	}
	defer c.Close()
	obj, err := c.Get(ctx, stressUser, want.Name, false)
	if err != nil {
		return err
	}
	defer obj.Body.Close()
	got, err := io.ReadAll(io.LimitReader(obj.Body, want.Size+1))
	if err != nil {
		return err
	}
	if !bytes.Equal(got, want.AppendTo(nil)) {
		return fmt.Errorf("%s came back with other bytes", want.Name)
	}
	e.say("read %s back from node %d: all %d bytes are the same", want.Name, obj.Node, want.Size)
	return nil
}

const demoCount = 30

// demoConfig writes a configuration of three nodes on free ports, with all data in dir, and returns its
// path. All other settings are the user's. Nodes and folders are set on the command line too, which
// outweighs file and environment: a demo touches no other data.
func (e *env) demoConfig(dir string) (string, error) {
	const nodes = 3
	ports, err := config.FreePorts(2 * nodes)
	if err != nil {
		return "", err
	}
	list := make([]string, nodes)
	for i := range list {
		list[i] = fmt.Sprintf("%d=127.0.0.1:%d:%d", i+1, ports[2*i], ports[2*i+1])
	}
	e.set = append(slices.Clip(e.set),
		"cluster.nodes="+strings.Join(list, ","),
		"node.data_dir="+filepath.Join(dir, "node{id}"),
		"node.master_key_file="+filepath.Join(dir, "keys", "master.key"))
	cfg, err := e.load()
	if err != nil {
		return "", err
	}
	b, err := cfg.YAML()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, "imgcluster.yaml")
	return path, os.WriteFile(path, b, 0o600)
}

// checkRoom refuses a disk that the demo would fill, as the preflight would do after the nodes are started.
func checkRoom(dir string, need int64) error {
	disk, err := hostinfo.LimitsOf(dir)
	if err != nil {
		return fmt.Errorf("room for the demo: %w", err)
	}
	if disk.Bytes < need {
		return usagef("name a folder on another disk with TMPDIR", "the demo needs %s of disk, and %s has %s",
			term.Bytes(need), filepath.Dir(dir), term.Bytes(disk.Bytes))
	}
	return nil
}
