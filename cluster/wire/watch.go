package wire

import "imgcluster/cluster/image"

// The events of the stream at EventsPath. Each has a document in JSON as its data.
const (
	EventCluster = "cluster" // a ClusterStatus, each second
	EventSample  = "sample"  // a Sample, as History gets it; for administrators
	EventImages  = "images"  // an ImagesChanged
)

// EventsType is the Content-Type of the stream.
const EventsType = "text/event-stream"

// ImagesChanged says that images of a user were stored, replaced or deleted.
type ImagesChanged struct {
	User string `json:"user"`
}

// History is the last hour as one node saw it, oldest first.
type History struct {
	EveryS  float64  `json:"every_s"`
	Samples []Sample `json:"samples"`
}

// Sample is the cluster at one time, with the rates since the sample before it.
type Sample struct {
	Time            int64        `json:"t"` // Unix time in seconds
	Ready           bool         `json:"ready"`
	Images          int64        `json:"images"`
	Bytes           int64        `json:"bytes"`
	UnderReplicated int64        `json:"under_replicated"`
	Nodes           []NodeSample `json:"nodes"`
}

// NodeSample is one node at that time. Uploads are those that it owns. A figure that is left out is 0.
type NodeSample struct {
	ID              image.NodeID `json:"id"`
	Up              bool         `json:"up"`
	RSSBytes        int64        `json:"rss_bytes,omitempty"`
	CPU             float64      `json:"cpu,omitempty"` // processors in use
	UploadsPerS     float64      `json:"uploads_per_s,omitempty"`
	UploadBytesPerS float64      `json:"upload_bytes_per_s,omitempty"`
	UploadP50S      float64      `json:"upload_p50_s,omitempty"`
	UploadP99S      float64      `json:"upload_p99_s,omitempty"`
	ReadsPerS       float64      `json:"reads_per_s,omitempty"`
	ReadBytesPerS   float64      `json:"read_bytes_per_s,omitempty"`
	ReadP50S        float64      `json:"read_p50_s,omitempty"`
	ReadP99S        float64      `json:"read_p99_s,omitempty"`
}

// Login is what a browser sends for a session: an access key.
type Login struct {
	ID     string `json:"id"`
	Secret string `json:"secret"`
}

// Session says who a request is from.
type Session struct {
	Key     string       `json:"key,omitempty"`
	User    string       `json:"user,omitempty"`
	Role    image.Role   `json:"role"`
	Open    bool         `json:"open,omitempty"` // the cluster asks nobody for a key
	Node    image.NodeID `json:"node"`           // which answers
	Name    string       `json:"cluster"`
	Version string       `json:"version"`
}
