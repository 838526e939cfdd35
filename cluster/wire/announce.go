package wire

import (
	"net/url"
	"strconv"

	"imgcluster/cluster/image"
)

// Announcement answers the announcement of an upload.
type Announcement struct {
	// Nodes are those that are to store it, the owner first: the nodes that its client sends it to.
	Nodes []image.NodeID `json:"nodes"`
}

// AnnounceQuery announces an upload of so many bytes, more than 0, to all nodes but those that its client
// does not reach.
type AnnounceQuery struct {
	Bytes   int64
	Without []image.NodeID
}

// Values returns the query's parameters.
func (q AnnounceQuery) Values() url.Values {
	v := url.Values{"bytes": {strconv.FormatInt(q.Bytes, 10)}}
	if len(q.Without) > 0 {
		v.Set("without", FormatNodes(q.Without))
	}
	return v
}

// ParseAnnounce reads an AnnounceQuery.
func ParseAnnounce(v url.Values) (q AnnounceQuery, err error) {
	q.Bytes, err = strconv.ParseInt(v.Get("bytes"), 10, 64)
	if err != nil || q.Bytes < 1 {
		return q, image.Errorf(image.KindInvalid, "bytes=%.20q", v.Get("bytes")).
			WithHint("give the length of the image that is to be sent, such as bytes=1000000")
	}
	if list := v.Get("without"); list != "" {
		var ok bool
		if q.Without, ok = ParseNodes(list); !ok {
			return q, image.Errorf(image.KindInvalid, "without=%.40q", list).
				WithHint("list the IDs of the nodes that cannot be reached, such as 2,3; or leave it out")
		}
	}
	return q, nil
}
