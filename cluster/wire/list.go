package wire

import (
	"time"

	"imgcluster/cluster/image"
)

// Info is one image in a list.
type Info struct {
	Name     string         `json:"name"`
	Bytes    int64          `json:"bytes"`
	Type     string         `json:"type"` // Content-Type
	Version  uint64         `json:"version"`
	Owner    image.NodeID   `json:"owner"`
	Replicas []image.NodeID `json:"replicas"`
	Created  time.Time      `json:"created"`
	SHA256   string         `json:"sha256,omitempty"`
}

// InfoOf returns a record as it is listed.
func InfoOf(r *image.Record) Info {
	i := Info{
		Name: r.Name, Bytes: r.Bytes, Type: r.MediaType(), Version: r.Version, Owner: r.Owner,
		Replicas: r.Replicas(), Created: r.Created,
	}
	if r.SHA256 != nil {
		i.SHA256 = r.SHA256.String()
	}
	return i
}

// List is one page of a user's images, by name in byte order. Next is empty on the last page,
// else the value for ?after= that gives the next page.
type List struct {
	Images []Info `json:"images"`
	Next   string `json:"next,omitempty"`
}
