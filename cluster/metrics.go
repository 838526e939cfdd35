package cluster

import (
	"io"
	"strconv"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"

	"imgcluster/cluster/wire"
)

// metrics are this node's figures in the Prometheus format. Most are read from Status when asked.
type metrics struct {
	registry *prometheus.Registry
	node     *Node
}

func newMetrics(n *Node) *metrics {
	m := &metrics{registry: prometheus.NewRegistry(), node: n}
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	return m
}

var (
	descReady    = prometheus.NewDesc("imgcluster_ready", "1 when the node serves images.", nil, nil)
	descUploads  = prometheus.NewDesc("imgcluster_uploads_in_progress", "Uploads on their way on this node.", nil, nil)
	descStaging  = prometheus.NewDesc("imgcluster_staging_bytes", "Image bytes held in memory.", nil, nil)
	descDiskFree = prometheus.NewDesc("imgcluster_disk_free_bytes", "Free space of the data directory's file system.", nil, nil)
	descInodes   = prometheus.NewDesc("imgcluster_disk_free_inodes", "Free inodes of the data directory's file system, where it has a fixed number.", nil, nil)
	descDiskFull = prometheus.NewDesc("imgcluster_disk_full", "1 when this node is given no more images for lack of room.", nil, nil)
	descDiskFail = prometheus.NewDesc("imgcluster_disk_failed", "1 when this node stores nothing because its disk failed.", nil, nil)
	descRx       = prometheus.NewDesc("imgcluster_received_bytes_total", "Body bytes received.", nil, nil)
	descTx       = prometheus.NewDesc("imgcluster_sent_bytes_total", "Body bytes sent.", nil, nil)
	descImages   = prometheus.NewDesc("imgcluster_images", "Committed images in the cluster.", nil, nil)
	descUnder    = prometheus.NewDesc("imgcluster_under_replicated", "Images with fewer copies than configured.", nil, nil)
	descOwned    = prometheus.NewDesc("imgcluster_owned_images", "Committed images by owner.", []string{"node"}, nil)
	descStored   = prometheus.NewDesc("imgcluster_stored_bytes", "Plaintext bytes of the copies by node.", []string{"node"}, nil)
	descLeads    = prometheus.NewDesc("imgcluster_shards_led", "Raft groups led by node.", []string{"node"}, nil)
	descMade     = prometheus.NewDesc("imgcluster_repair_copies_made_total", "Missing copies that this node made.", nil, nil)
	descReplaced = prometheus.NewDesc("imgcluster_repair_copies_replaced_total", "Damaged copies of this node that were replaced.", nil, nil)
	descDamaged  = prometheus.NewDesc("imgcluster_repair_copies_damaged_total", "Copies of this node that were found damaged or missing.", nil, nil)
	descScrubbed = prometheus.NewDesc("imgcluster_scrubbed_copies_total", "Copies that the background check has read.", nil, nil)
	descUp       = prometheus.NewDesc("imgcluster_node_up", "1 when this node sees the node up.", []string{"node"}, nil)
)

// Describe implements prometheus.Collector. It names nothing, since the node is not there yet when
// the collector is registered.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	count := func(d *prometheus.Desc, v float64) {
		c <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, v)
	}
	done := m.node.repair.Stats()
	count(descMade, float64(done.Made))
	count(descReplaced, float64(done.Replaced))
	count(descDamaged, float64(done.Damaged))
	count(descScrubbed, float64(done.Scrubbed))
	s := m.node.Cluster()
	gauge(descImages, float64(s.Images))
	gauge(descUnder, float64(s.UnderReplicated))
	for _, n := range s.Nodes {
		id := strconv.Itoa(int(n.ID))
		gauge(descOwned, float64(n.OwnedImages), id)
		gauge(descStored, float64(n.StoredBytes), id)
		gauge(descLeads, float64(n.LeaderOf), id)
		gauge(descUp, bit(n.State == "up"), id)
		if n.ID != m.node.self.ID {
			continue
		}
		gauge(descReady, bit(n.Ready))
		gauge(descUploads, float64(n.Uploads))
		gauge(descStaging, float64(n.StagingBytes))
		gauge(descDiskFree, float64(n.DiskFree))
		if n.DiskFreeInodes != wire.NoInodeLimit {
			gauge(descInodes, float64(n.DiskFreeInodes))
		}
		gauge(descDiskFull, bit(n.DiskFull))
		gauge(descDiskFail, bit(n.Problem != ""))
		count(descRx, float64(n.NetRx))
		count(descTx, float64(n.NetTx))
	}
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// WriteMetrics implements api.Node.
func (n *Node) WriteMetrics(w io.Writer) {
	families, err := n.metrics.registry.Gather()
	if err != nil {
		n.logger.Warn("metrics", zap.Error(err))
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return // the client is gone
		}
	}
	if c := n.log.c.Load(); c != nil {
		c.WriteMetrics(w)
	}
}
