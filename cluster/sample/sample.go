// Package sample declares the figures that nodes and clients report of themselves. Each is declared once: its
// name in JSON, which gives its unit and so its bounds, whether it is a counter, its metric, what it means,
// and how the live screen and the report of a run show it. A node's status, /metrics, the run's log, the
// screen and the report's tables, charts, JSON and CSV go by these tables, so that a new figure is a field
// and a row here, and a line where it is measured.
package sample

// Node are the figures of a node at one moment. Counters grow from the start of its process, those of
// the disk from the start of its host.
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

// Nodes are the figures of Node, in the order in which reports show them. Those without a metric have one
// from Prometheus's own collector of the process.
var Nodes = Figures{
	{
		Name:     "rss_bytes",
		Positive: true,
		Help:     "Resident memory of the node's process.",
		Report:   memoryReport,
		Screen:   Screen{Head: "memory", Place: 2, Drop: 4},
	},
	{
		Name:    "cpu_s",
		Counter: true,
		Help:    "CPU time of the node's process.",
		Report:  cpuReport,
		Screen:  Screen{Head: "CPU", Place: 4, Drop: 2},
	},
	{
		Name:    "net_rx_bytes",
		Counter: true,
		Metric:  "received_bytes_total",
		Help:    "Body bytes received.",
		Report:  receivedReport,
		Screen:  Screen{Head: "rx", Place: 5, Drop: 6},
	},
	{
		Name:    "net_tx_bytes",
		Counter: true,
		Metric:  "sent_bytes_total",
		Help:    "Body bytes sent.",
		Report:  sentReport,
		Screen:  Screen{Head: "tx", Place: 6, Drop: 7},
	},
	{
		Name:    "disk_written_bytes",
		Counter: true,
		Metric:  "disk_written_bytes_total",
		Help: "Bytes written to the device under the data directory, by all its users; " +
			"0 where that is not known.",
		Report: Report{
			Summary: Rate,
			Key:     "disk_written_bytes_per_s",
			Scale:   BytesPerS,
			Chart:   "Disk, written",
			Column:  "written",
		},
	},
	{
		Name:    "disk_read_bytes",
		Counter: true,
		Metric:  "disk_read_bytes_total",
		Help: "Bytes read from the device under the data directory, by all its users; " +
			"0 where that is not known.",
		Report: Report{
			Summary: Rate,
			Key:     "disk_read_bytes_per_s",
			Scale:   BytesPerS,
			Chart:   "Disk, read",
		},
	},
	{
		Name:    "disk_busy_s",
		Counter: true,
		Metric:  "disk_busy_seconds_total",
		Help: "Time in which the device under the data directory had something to do; " +
			"0 where that is not known.",
		Report: Report{
			Summary: BusyTime,
			Key:     "disk_busy_percent",
			Scale:   PercentOfTime,
			Chart:   "Disk, busy",
			Column:  "busy",
		},
	},
	{
		Name:     "disk_free_bytes",
		Positive: true,
		Metric:   "disk_free_bytes",
		Help:     "Free space of the data directory's file system.",
		Report: Report{
			Summary: Lowest,
			Key:     "disk_free_bytes",
			Scale:   InBytes,
			Chart:   "Disk, free",
			Column:  "disk left",
		},
		Screen: Screen{Head: "disk free", Place: 3, Drop: 5},
	},
	{
		Name:   "staging_bytes",
		Metric: "staging_bytes",
		Help:   "Image bytes held in memory.",
		Report: Report{
			Summary: Highest,
			Key:     "staging_peak_bytes",
			Scale:   InMiB,
			Chart:   "Images in the nodes' memory",
		},
	},
	{
		Name:   "owned_images",
		Metric: "owned_images",
		ByNode: true,
		Help:   "Committed images by owner.",
	},
	{
		Name:   "owned_bytes",
		Metric: "owned_bytes",
		ByNode: true,
		Help:   "Plaintext bytes of the images by owner.",
		Screen: Screen{Head: "owns", Place: 1, Drop: 3},
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

// Clients are the figures of Client, in the order in which reports show them.
var Clients = Figures{
	{
		Name:     "rss_bytes",
		Positive: true,
		Help:     "Resident memory of the client's process.",
		Report:   memoryReport,
	},
	{
		Name:    "cpu_s",
		Counter: true,
		Help:    "CPU time of the client's process.",
		Report:  cpuReport,
	},
	{
		Name:    "net_rx_bytes",
		Counter: true,
		Help:    "Bytes of images read.",
		Report:  receivedReport,
	},
	{
		Name:    "net_tx_bytes",
		Counter: true,
		Help:    "Bytes of images sent, to all nodes.",
		Report:  sentReport,
	},
	{
		Name: "in_flight",
		Help: "Uploads and reads under way.",
		Report: Report{
			Summary: Mean,
			Key:     "in_flight",
			Scale:   Operations,
			Chart:   "Operations at once",
		},
	},
	{
		Name: "late_s",
		Help: "How far an open loop is behind its schedule.",
		Report: Report{
			Summary: HighestMeasured,
			Key:     "late_max_s",
			Scale:   InSeconds,
			Chart:   "Behind schedule",
		},
	},
	{
		Name:    "source_s",
		Counter: true,
		Help:    "Time that workers spent making images, all added up.",
		Report:  Report{Summary: Rate, Scale: Cores}, // a share of the workers, by how many there are
	},
}
