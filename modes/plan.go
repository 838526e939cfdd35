package modes

import (
	"bufio"
	"fmt"
	"io"
	"strings"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/config"
)

// confirm shows what an extreme run will take, and asks.
func (e *env) confirm(o stressOptions, cfg *config.Config, status image.ClusterStatus) error {
	if o.profile != "extreme" || o.images != "" {
		return nil
	}
	e.plan(o, cfg, status)
	if o.yes {
		return nil
	}
	if !isTerminal(e.in) {
		return usagef("add --yes to start it without a terminal", "the extreme profile asks before it starts")
	}
	fmt.Fprint(e.err, "Start? [y/N] ")
	answer, err := bufio.NewReader(e.in).ReadString('\n')
	if err != nil && err != io.EOF {
		return err
	}
	if a := strings.ToLower(strings.TrimSpace(answer)); a != "y" && a != "yes" {
		return errDeclined
	}
	return nil
}

// Rates between which a run's time is estimated, in bytes of images a second: a gigabit network, and
// local disks of two cores.
const (
	slowBytesPerSecond = 40e6
	fastBytesPerSecond = 500e6
)

// plan tells what a run takes. --quiet does not turn it off where a question follows.
func (e *env) plan(o stressOptions, cfg *config.Config, status image.ClusterStatus) {
	if o.yes && e.quiet {
		return
	}
	sum := o.spec.Summary(int(o.count))
	nodes := len(cfg.Cluster.Nodes)
	sent := sum.Broadcast(nodes)
	if o.delivery == string(client.Relay) {
		sent = sum.Bytes
	}
	fmt.Fprintf(e.err, "%s, %s, %s each on average\n", plural(sum.Images, "image"), formatBytes(sum.Bytes), formatBytes(sum.Average()))
	fmt.Fprintf(e.err, "  network  %s sent by this machine\n", formatBytes(sent))
	stored, free := sum.Bytes*int64(cfg.Cluster.Replicas), leastFree(status)
	disk, where := stored/int64(nodes), fmt.Sprintf("on each of %d nodes", nodes)
	if cfg.Loopback() {
		disk, where = stored, "on this machine"
	}
	fmt.Fprintf(e.err, "  disk     %s %s, where %s are free\n", formatBytes(disk), where, formatBytes(free))
	if disk > free-int64(cfg.Limits.DiskFreeBytes) {
		fmt.Fprintln(e.err, "           that is too little: uploads will fail with a full disk")
	}
	if o.chaos {
		fmt.Fprintf(e.err, "  chaos    %s, for each of which uploads may wait some seconds; then all is read back\n", plural(o.faults, "fault"))
	}
	fmt.Fprintln(e.err, "  memory   up to 256 MiB here, 512 MiB on each node")
	fmt.Fprintf(e.err, "  time     %s to %s\n", estimate(sum.Bytes, fastBytesPerSecond), estimate(sum.Bytes, slowBytesPerSecond))
}

// leastFree is the free disk of the node that has least.
func leastFree(status image.ClusterStatus) int64 {
	least := int64(-1)
	for _, n := range status.Nodes {
		if n.State != image.NodeDown && (least < 0 || n.DiskFree < least) {
			least = n.DiskFree
		}
	}
	return max(least, 0)
}

// estimate is rounded so that nobody takes it for exact.
func estimate(bytes int64, rate float64) string {
	d := time.Duration(float64(bytes) / rate * float64(time.Second))
	if d < 2*time.Minute {
		return fmt.Sprintf("%d s", max(1, int(d.Seconds())))
	}
	return fmt.Sprintf("%d min", int(d.Minutes()+0.5))
}
