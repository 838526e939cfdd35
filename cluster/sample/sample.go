// Package sample declares the figures that nodes and clients report of themselves. Each is declared once:
// its name in JSON, which tells its unit and so its bounds, whether it is a counter, its metric, and what it
// means. A node's status, /metrics, the run's log and the report go by these tables, so that a new figure
// is a field and a row here, and a line where it is measured.
package sample

// Node are the figures of a node at one moment. Counters grow from the start of its process, those of
// the disk from the start of its machine.
type Node struct {
	RSSBytes         int64   `json:"rss_bytes"`
	DiskFreeBytes    int64   `json:"disk_free_bytes"`
	CPUS             float64 `json:"cpu_s"`
	NetRxBytes       int64   `json:"net_rx_bytes"`
	NetTxBytes       int64   `json:"net_tx_bytes"`
	OwnedImages      int64   `json:"owned_images"`
	OwnedBytes       int64   `json:"owned_bytes"`
	StagingBytes     int64   `json:"staging_bytes"`
	DiskReadBytes    int64   `json:"disk_read_bytes"`
	DiskWrittenBytes int64   `json:"disk_written_bytes"`
	DiskBusyS        float64 `json:"disk_busy_s"`
}

// Nodes are the figures of Node, in its order. Those without a metric have one from Prometheus's own
// collector of the process.
var Nodes = Figures{
	{Name: "rss_bytes", Help: "Resident memory of the node's process."},
	{Name: "disk_free_bytes", Metric: "disk_free_bytes", Help: "Free space of the data directory's file system."},
	{Name: "cpu_s", Counter: true, Help: "CPU time of the node's process."},
	{Name: "net_rx_bytes", Counter: true, Metric: "received_bytes_total", Help: "Body bytes received."},
	{Name: "net_tx_bytes", Counter: true, Metric: "sent_bytes_total", Help: "Body bytes sent."},
	{Name: "owned_images", Metric: "owned_images", ByNode: true, Help: "Committed images by owner."},
	{Name: "owned_bytes", Metric: "owned_bytes", ByNode: true, Help: "Plaintext bytes of the images by owner."},
	{Name: "staging_bytes", Metric: "staging_bytes", Help: "Image bytes held in memory."},
	{
		Name: "disk_read_bytes", Counter: true, Metric: "disk_read_bytes_total",
		Help: "Bytes read from the device under the data directory, by all its users; 0 where that is not known.",
	},
	{
		Name: "disk_written_bytes", Counter: true, Metric: "disk_written_bytes_total",
		Help: "Bytes written to the device under the data directory, by all its users; 0 where that is not known.",
	},
	{
		Name: "disk_busy_s", Counter: true, Metric: "disk_busy_seconds_total",
		Help: "Time in which the device under the data directory had something to do; 0 where that is not known.",
	},
}

// Client are the figures of the client of a run at one moment. Counters grow from its start.
type Client struct {
	RSSBytes  int64   `json:"rss_bytes"`
	CPUS      float64 `json:"cpu_s"`
	InFlight  int     `json:"in_flight"`
	LateS     float64 `json:"late_s"`
	SourceS   float64 `json:"source_s"`
	SentBytes int64   `json:"net_tx_bytes"`
	ReadBytes int64   `json:"net_rx_bytes"`
}

// Clients are the figures of Client, in its order.
var Clients = Figures{
	{Name: "rss_bytes", Help: "Resident memory of the client's process."},
	{Name: "cpu_s", Counter: true, Help: "CPU time of the client's process."},
	{Name: "in_flight", Help: "Uploads and reads under way."},
	{Name: "late_s", Help: "How far an open loop is behind its schedule."},
	{Name: "source_s", Counter: true, Help: "Time that workers spent making images, all added up."},
	{Name: "net_tx_bytes", Counter: true, Help: "Bytes of images sent, to all nodes."},
	{Name: "net_rx_bytes", Counter: true, Help: "Bytes of images read."},
}
