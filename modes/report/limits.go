package report

// Limits are what the checks ask for. A field that is zero allows nothing; start from DefaultLimits.
type Limits struct {
	StddevPercent      float64 `json:"max_stddev_percent"`       // of the nodes' shares, by uploads and by bytes
	SuccessPercent     float64 `json:"min_success_percent"`      // of the attempted uploads and reads
	P99S               float64 `json:"max_p99_s"`                // of the uploads' latency
	ThroughputPerS     float64 `json:"min_throughput_per_s"`     // uploads
	SlowdownPercent    float64 `json:"max_slowdown_percent"`     // by which the throughput may fall in a run
	NodeRSSBytes       int64   `json:"max_node_memory_bytes"`    // peak
	ClientRSSBytes     int64   `json:"max_client_memory_bytes"`  // peak
	GrowthBytes        int64   `json:"max_memory_growth_bytes"`  // of one process after its warm-up
	ResentPercent      float64 `json:"max_resent_percent"`       // of the bytes needed
	HashP              float64 `json:"min_hash_p"`               // of the chi-square tests
	FirstChoicePercent float64 `json:"min_first_choice_percent"` // of the uploads
	PauseS             float64 `json:"max_pause_s"`              // between acknowledgements, around faults
}

// DefaultLimits are the promises of the design, and what else a run on slow machines must reach.
func DefaultLimits() Limits {
	return Limits{
		StddevPercent:      0.15,
		SuccessPercent:     100,
		P99S:               60,
		ThroughputPerS:     0.2,
		SlowdownPercent:    20,
		NodeRSSBytes:       512 << 20,
		ClientRSSBytes:     256 << 20,
		GrowthBytes:        64 << 20,
		ResentPercent:      5,
		HashP:              0.01,
		FirstChoicePercent: 30,
		PauseS:             10,
	}
}
