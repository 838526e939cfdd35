//go:build !windows

package modes

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"imgcluster/cluster"
	"imgcluster/cluster/bootstrap"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
	"imgcluster/cluster/oserr"
	"imgcluster/cluster/store"
	"imgcluster/config"
	"imgcluster/modes/stress"
	"imgcluster/modes/term"
)

// What doctor asks of a disk, and how it tries it.
const (
	diskTryBytes  = 64 << 20
	diskTryWrite  = 1 << 20
	diskTryFor    = 3 * time.Second // writes, and again fsyncs, end after it
	diskTrySyncs  = 64
	diskSlowBytes = 50e6                  // a second; half of what an uploading node needs on 1 Gbit/s
	syncSlow      = 20 * time.Millisecond // median; each acknowledged upload waits for some
)

// examine looks at this machine for a node.
func examine(ctx context.Context, cfg *config.Config, self config.Node) []stress.Check {
	checks := []stress.Check{settingsCheck(cfg), masterKeyCheck(ctx, cfg), addressCheck(ctx, cfg, self)}
	dir := cfg.DataDir(self.ID)
	runs := store.InUse(dir) && isOf(store.Peek(dir), cfg, self)
	checks = append(checks, portsCheck(ctx, cfg, self, runs), dirCheck(cfg, self, runs))
	checks = append(checks, needsChecks(cfg, self)...)
	return append(checks, diskCheck(ctx, dir), clockCheck())
}

func masterKeyCheck(ctx context.Context, cfg *config.Config) stress.Check {
	c := stress.Check{Name: "master key", State: stress.CheckOK}
	keys, err := keySource(cfg).Load(ctx)
	switch {
	case err == nil:
		c.Said = keys.All()[0].ID()
	case cfg.Loopback() && errors.Is(err, fs.ErrNotExist):
		c.Said = "is made at the first start, since all nodes are on this machine"
	default:
		worse(&c, stress.CheckFail, err.Error(), image.HintOf(err))
	}
	return c
}

func addressCheck(ctx context.Context, cfg *config.Config, self config.Node) stress.Check {
	c := stress.Check{Name: "address", State: stress.CheckOK, Said: self.APIAddr() + ", Raft " + self.RaftAddr()}
	if !isOwn(ctx, cfg, self.Host) && !cfg.Loopback() {
		c.State, c.Said = stress.CheckWarn, fmt.Sprintf("node %d is at %s, which no interface of this machine has",
			self.ID, self.Host)
		c.Hint = "run it on the machine of node " + fmt.Sprint(self.ID) + ", or give this one's --id; " +
			"behind an address translation set node.listen"
	}
	return c
}

func portsCheck(ctx context.Context, cfg *config.Config, self config.Node, runs bool) stress.Check {
	c := stress.Check{
		Name: "ports", State: stress.CheckOK, Said: fmt.Sprintf("%d and %d are free", self.APIPort, self.RaftPort),
	}
	if runs {
		c.Said = "in use by the node, which runs"
	} else if err := cluster.TryPorts(ctx, cfg, self); err != nil {
		c.State, c.Said, c.Hint = stress.CheckFail, err.Error(), image.HintOf(err)
	}
	return c
}

func dirCheck(cfg *config.Config, self config.Node, runs bool) stress.Check {
	dir := cfg.DataDir(self.ID)
	c := stress.Check{Name: "data", State: stress.CheckOK, Said: dir + " is made at the first start"}
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		worse(&c, stress.CheckFail, err.Error(), oserr.Hint(err, dir))
	case !info.IsDir():
		c.Said = ""
		worse(&c, stress.CheckFail, dir+" is not a folder", "choose another --data-dir")
	default:
		c.Said = dir + " is there"
		if runs {
			c.Said = dir + " is in use by the node, which runs"
		} else if id := store.Peek(dir); bootstrap.Claimed(dir) {
			c.Said = fmt.Sprintf("%s has node %d of the cluster %s", dir, id.Node, id.Cluster)
			if !isOf(id, cfg, self) {
				worse(&c, stress.CheckFail, "another one than the configuration's", "choose another --data-dir")
			}
		}
		if mode := info.Mode().Perm(); mode&0o077 != 0 {
			worse(&c, stress.CheckWarn, fmt.Sprintf("it is open to others (mode %04o)", mode), "chmod 700 "+dir)
		}
	}
	if place, err := nearest(dir); err == nil {
		if what := hostinfo.Volatile(place); what != "" {
			worse(&c, stress.CheckWarn, "its file system is "+what, "choose a --data-dir on a disk of this machine")
		}
	}
	return c
}

// isOf reports whether a data directory is that of a node of the configuration.
func isOf(id store.Identity, cfg *config.Config, self config.Node) bool {
	return id.Node == self.ID && id.Cluster == cfg.Cluster.Name
}

func needsChecks(cfg *config.Config, self config.Node) (checks []stress.Check) {
	all, err := cluster.Needs(cfg, self.ID)
	if err != nil {
		return []stress.Check{{Name: "room", State: stress.CheckFail, Said: err.Error(), Hint: image.HintOf(err)}}
	}
	for _, n := range all {
		c := stress.Check{Name: n.What, State: stress.CheckOK, Said: amount(n)}
		if n.Lacks() {
			c.State, c.Said, c.Hint = stress.CheckFail, n.Reason, n.Hint
		} else if keep := int64(cfg.Limits.DiskFreeBytes); n.What == "room" && n.Has < keep {
			c.State = stress.CheckWarn
			c.Said += fmt.Sprintf(", less than the %s that limits.disk_free_bytes keeps free: it would take no images",
				term.Bytes(keep))
			c.Hint = "make room, or give the node another disk"
		}
		if n.What != "address space" || c.State != stress.CheckOK {
			checks = append(checks, c)
		}
	}
	return checks
}

// amount says what there is of something that a node needs.
func amount(n cluster.Need) string {
	switch {
	case n.Has >= hostinfo.Unlimited:
		return "no limit"
	case n.What == "open files" || n.What == "inodes":
		return fmt.Sprintf("%d, %d are needed", n.Has, n.Wanted)
	case n.What == "room":
		return term.Bytes(n.Has) + " free"
	}
	return fmt.Sprintf("%s, up to %s are used", term.Bytes(n.Has), term.Bytes(n.Wanted))
}

// nearest returns a folder, or the nearest one above it that there is.
func nearest(dir string) (string, error) {
	path, err := filepath.Abs(dir)
	for err == nil {
		if info, e := os.Stat(path); e == nil && info.IsDir() || path == filepath.Dir(path) {
			return path, e
		}
		path = filepath.Dir(path)
	}
	return "", err
}

// diskCheck writes a file where the data is to be and removes it.
func diskCheck(ctx context.Context, dir string) stress.Check {
	c := stress.Check{Name: "disk", State: stress.CheckOK}
	place, err := nearest(dir)
	if err == nil {
		err = tryDisk(ctx, place, &c)
	}
	if err != nil {
		worse(&c, stress.CheckFail, "it cannot be written: "+err.Error(), oserr.Hint(err, place))
	}
	return c
}

func tryDisk(ctx context.Context, place string, c *stress.Check) error {
	f, err := os.CreateTemp(place, ".imgcluster-doctor-*")
	if err != nil {
		return err
	}
	defer os.Remove(f.Name())
	defer f.Close()
	part := make([]byte, diskTryWrite)
	for i := range part {
		part[i] = byte(i * 131 >> 3)
	}
	began, written := time.Now(), 0
	for written < diskTryBytes && time.Since(began) < diskTryFor && ctx.Err() == nil {
		if _, err := f.Write(part); err != nil {
			return err
		}
		written += len(part)
	}
	if err := f.Sync(); err != nil {
		return err
	}
	rate := float64(written) / time.Since(began).Seconds()
	var took []time.Duration
	for began := time.Now(); len(took) < diskTrySyncs && time.Since(began) < diskTryFor && ctx.Err() == nil; {
		at := time.Now()
		if _, err := f.WriteAt(part[:4096], int64(len(took))*4096); err != nil {
			return err
		}
		if err := f.Sync(); err != nil {
			return err
		}
		took = append(took, time.Since(at))
	}
	if len(took) == 0 {
		return context.Cause(ctx)
	}
	slices.Sort(took)
	median, slowest := took[len(took)/2], took[len(took)-1]
	c.Said = fmt.Sprintf("writes %s/s, an fsync takes %s, the slowest of %d %s", term.Bytes(int64(rate)),
		median.Round(10*time.Microsecond), len(took), slowest.Round(10*time.Microsecond))
	switch {
	case median > syncSlow:
		c.State, c.Hint = stress.CheckWarn, "each upload waits for several: use a disk with a faster fsync (an SSD)"
	case rate < diskSlowBytes:
		c.State, c.Hint = stress.CheckWarn, "uploads are written no faster: use a faster disk"
	}
	return nil
}

func clockCheck() stress.Check {
	c := stress.Check{Name: "clock", State: stress.CheckOK, Said: time.Now().Format(time.RFC3339)}
	switch synced, known := hostinfo.ClockSynced(); {
	case !known:
	case synced:
		c.Said += ", kept right by the system"
	default:
		worse(&c, stress.CheckWarn, "nothing keeps it right", "install chrony, or switch systemd-timesyncd on")
	}
	return c
}
