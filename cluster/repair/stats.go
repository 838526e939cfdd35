package repair

import "imgcluster/cluster/sample"

// Stats counts since the start of the service.
type Stats struct {
	Made      int64 `json:"made"`      // copies that were missing
	Replaced  int64 `json:"replaced"`  // copies that were damaged
	Rewrapped int64 `json:"rewrapped"` // copies that were under an older key
	Damaged   int64 `json:"damaged"`   // copies that were found damaged
	Bytes     int64 `json:"bytes"`     // of the copies made, plaintext length
	Scrubbed  int64 `json:"scrubbed"`  // copies that scrubs have read
	Missing   int64 `json:"missing"`   // copies that this node should have and lacks, now
}

// Figures are those of Stats; a node's status has the missing copies.
var Figures = sample.Figures{
	{
		Name: "made", Counter: true, Metric: "repair_copies_made_total",
		Help: "Missing copies that this node made.",
	},
	{
		Name: "replaced", Counter: true, Metric: "repair_copies_replaced_total",
		Help: "Damaged copies of this node that were replaced.",
	},
	{
		Name: "rewrapped", Counter: true, Metric: "repair_copies_rewrapped_total",
		Help: "Copies of this node that were encrypted again under a newer key of their user.",
	},
	{
		Name: "damaged", Counter: true, Metric: "repair_copies_damaged_total",
		Help: "Copies of this node that were found damaged or missing.",
	},
	{
		Name: "bytes", Counter: true, Metric: "repair_bytes_total",
		Help: "Plaintext bytes of the copies that this node made to repair.",
	},
	{
		Name: "scrubbed", Counter: true, Metric: "scrubbed_copies_total",
		Help: "Copies that the background check has read.",
	},
}

// Stats returns the counts so far.
func (s *Service) Stats() Stats {
	return Stats{
		Made:      s.made.Load(),
		Replaced:  s.replaced.Load(),
		Rewrapped: s.rewrapped.Load(),
		Damaged:   s.damaged.Load(),
		Bytes:     s.bytes.Load(),
		Scrubbed:  s.scrubbed.Load(),
		Missing:   s.missing.Load(),
	}
}
