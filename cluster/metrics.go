package cluster

import (
	"io"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/common/expfmt"
	"go.uber.org/zap"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/repair"
	"imgcluster/cluster/sample"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// metrics are this node's figures in the Prometheus format. Most are read from Status when asked.
type metrics struct {
	self     image.NodeID
	cluster  func() wire.ClusterStatus
	repair   *repair.Service
	log      *shardLogs
	refused  func(access.Reason) int64
	logger   *zap.Logger
	registry *prometheus.Registry
	whole    map[trace.Op]prometheus.Histogram
	steps    map[trace.Op]*prometheus.HistogramVec // by the label "step"
}

// register makes the registry; the other fields are set.
func (m *metrics) register() *metrics {
	m.registry = prometheus.NewRegistry()
	m.registry.MustRegister(
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), m)
	m.whole, m.steps = map[trace.Op]prometheus.Histogram{}, map[trace.Op]*prometheus.HistogramVec{}
	for _, op := range trace.Ops {
		name := "imgcluster_" + string(op)
		m.whole[op] = prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: name + "_seconds", Buckets: stepBuckets,
			Help: "From its header to its answer, on this node, of what succeeded.",
		})
		m.steps[op] = prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: name + "_step_seconds", Buckets: stepBuckets,
			Help: "Parts of that time. Some steps go on at the same time.",
		}, []string{"step"})
		for _, s := range op.Steps() {
			m.steps[op].WithLabelValues(s.String()) // it is there before the first
		}
		m.registry.MustRegister(m.whole[op], m.steps[op])
	}
	return m
}

// stepBuckets are the bounds of the histograms: 1 ms to 65 s, each twice the one before.
var stepBuckets = prometheus.ExponentialBuckets(0.001, 2, 17)

// observe counts an upload or a read that has succeeded.
func (m *metrics) observe(op trace.Op, r *trace.Request) {
	m.whole[op].Observe(time.Since(r.Began).Seconds())
	for _, s := range op.Steps() {
		if took := r.Took(s); took > 0 {
			m.steps[op].WithLabelValues(s.String()).Observe(took.Seconds())
		}
	}
}

// Figures that are in no status as numbers.
var (
	metricUp         = sample.Figure{Metric: "node_up", ByNode: true, Help: "1 when this node sees the node up."}
	metricDiskFailed = sample.Figure{
		Metric: "disk_failed",
		Help:   "1 when this node stores nothing because its disk failed.",
	}
	metricCertificate = sample.Figure{
		Metric: "certificate_expires_timestamp_seconds",
		Help:   "When this node's certificate of tls.cert_file ends, Unix time; 0: it has none.",
	}
)

var metricRefused = prometheus.NewDesc("imgcluster_requests_refused_total",
	"Requests refused for their credentials, by reason.", []string{"reason"}, nil)

// Describe implements prometheus.Collector. It describes nothing: the collector is registered before the node
// has figures.
func (m *metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m *metrics) Collect(c chan<- prometheus.Metric) {
	all := func(figures sample.Figures, values []float64) {
		for i, f := range figures {
			send(c, f, values[i], 0)
		}
	}
	all(repair.Figures, repair.Figures.Values(m.repair.Stats()))
	for _, reason := range access.Reasons {
		c <- prometheus.MustNewConstMetric(metricRefused, prometheus.CounterValue, float64(m.refused(reason)),
			string(reason))
	}
	s := m.cluster()
	all(wire.ClusterFigures, wire.ClusterFigures.Values(s))
	for _, n := range s.Nodes {
		send(c, metricUp, bit(n.State == wire.NodeUp), n.ID)
		own := n.ID == m.self
		if own {
			send(c, metricDiskFailed, bit(n.Problem != ""), 0)
			send(c, metricCertificate, max(float64(n.CertificateUntil.Unix()), 0), 0)
		}
		values := wire.NodeFigures.Values(n)
		for i, f := range wire.NodeFigures {
			if f.ByNode || own {
				send(c, f, values[i], n.ID)
			}
		}
	}
}

// send gives a figure to Prometheus, when it has a metric. One below 0 is not known.
func send(c chan<- prometheus.Metric, f sample.Figure, v float64, node image.NodeID) {
	if f.Metric == "" || v < 0 {
		return
	}
	kind, labels, values := prometheus.GaugeValue, []string(nil), []string(nil)
	if f.Counter {
		kind = prometheus.CounterValue
	}
	if f.ByNode {
		labels, values = []string{"node"}, []string{strconv.Itoa(int(node))}
	}
	desc := prometheus.NewDesc("imgcluster_"+f.Metric, f.Help, labels, nil)
	c <- prometheus.MustNewConstMetric(desc, kind, v, values...)
}

func bit(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

// WriteMetrics implements api.Node.
func (m *metrics) WriteMetrics(w io.Writer) {
	families, err := m.registry.Gather()
	if err != nil {
		m.logger.Warn("metrics", zap.Error(err))
	}
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(w, f); err != nil {
			return // the client is gone
		}
	}
	if c := m.log.c.Load(); c != nil {
		c.WriteMetrics(w)
	}
}
