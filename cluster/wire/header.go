package wire

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// The header fields of requests that are not read and written here.
const (
	UploadField    = "Idempotency-Key"
	BroadcastField = "Imgcluster-Broadcast"
	// ForwardedField names the node that forwarded a request; such a request is not forwarded again.
	ForwardedField = "Imgcluster-Forwarded"
	// NodeField names the node that answers.
	NodeField = "Imgcluster-Node"

	announcedField  = "Imgcluster-Announced"
	relayedField    = "Imgcluster-Relayed"
	wantDigestField = "Want-Content-Digest"
)

// nodesMax bounds the nodes that one field lists.
const nodesMax = 16

// FormatNodes returns a list of nodes as BroadcastField has it.
func FormatNodes(ids []image.NodeID) string {
	texts := make([]string, len(ids))
	for i, id := range ids {
		texts[i] = formatNode(id)
	}
	return strings.Join(texts, ",")
}

func formatNode(id image.NodeID) string { return strconv.FormatUint(uint64(id), 10) }

// ParseNodes reads a list of nodes, of which none is in it twice. ok reports whether it is one.
func ParseNodes(list string) (ids []image.NodeID, ok bool) {
	for part := range strings.SplitSeq(list, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 32)
		if err != nil || n == 0 || slices.Contains(ids, image.NodeID(n)) || len(ids) == nodesMax {
			return nil, false
		}
		ids = append(ids, image.NodeID(n))
	}
	return ids, true
}

// SetUpload sets the header of a PUT, other than what HTTP itself has of it: length and type.
func SetUpload(h http.Header, up image.Request) {
	h.Set(UploadField, up.ID.String())
	SetConditions(h, up.If)
	if len(up.Broadcast) > 0 {
		h.Set(BroadcastField, FormatNodes(up.Broadcast))
	}
	if up.Announced {
		h.Set(announcedField, "true")
	}
	if up.Relayed {
		h.Set(relayedField, "true")
	}
	if up.WantDigest {
		h.Set(wantDigestField, "sha-256=1")
	}
	if up.Digest != nil {
		SetDigest(h, *up.Digest)
	}
}

// UploadID returns the ID of a request that its client may send again, a new one when it has none.
func UploadID(h http.Header) (image.ID, error) {
	key := h.Get(UploadField)
	if key == "" {
		return image.NewID(), nil
	}
	return image.ParseID(strings.Trim(key, `"`)) // the draft RFC's structured string has quotes around it
}

// Broadcast returns the nodes that an upload is sent to, none in a relay. self, the node that reads it, must
// be among them.
func Broadcast(h http.Header, self image.NodeID) ([]image.NodeID, error) {
	list := h.Get(BroadcastField)
	if list == "" {
		return nil, nil
	}
	to, ok := ParseNodes(list)
	if !ok || !slices.Contains(to, self) {
		return nil, image.Errorf(image.KindInvalid, BroadcastField+": %.80q", list).
			WithHint("list the IDs of all nodes that get this upload, this one (" + formatNode(self) +
				") among them, such as 1,2,3")
	}
	return to, nil
}

// Announced reports whether an upload goes to the nodes that the answer to its announcement has named.
func Announced(h http.Header) bool { return h.Get(announcedField) == "true" }

// Relayed reports whether another node, which has had the upload assigned, relays it.
func Relayed(h http.Header) bool { return h.Get(relayedField) == "true" }

// BehindField is set where the state of a shard may lack the newest changes.
const BehindField = "Imgcluster-Behind"

// RequestField has the ID of a request: the client's, or the node's that was asked first. The answer, what is
// logged of the request and the request as other nodes get it have the same.
const RequestField = "X-Request-Id"

const (
	requestIDMax   = 64 // bytes
	requestIDChars = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz-_."
)

// RequestID returns the ID that a request has, or a new one where it has none that can be logged.
func RequestID(h http.Header) string {
	id := h.Get(RequestField)
	odd := func(c rune) bool { return !strings.ContainsRune(requestIDChars, c) }
	if id == "" || len(id) > requestIDMax || strings.ContainsFunc(id, odd) {
		return image.NewID().String()
	}
	return id
}

// StripNode removes what only nodes may say of a request.
func StripNode(h http.Header) {
	h.Del(relayedField)
	h.Del(ForwardedField)
}

// FromNode reports whether another node sends a request, its own or a client's. The fields count because
// StripNode has removed those of clients.
func FromNode(r *http.Request) bool {
	return r.Header.Get(relayedField) != "" || r.Header.Get(ForwardedField) != "" ||
		strings.HasPrefix(r.URL.Path, InternalPath)
}

// SetRecord sets the header fields of a record, its tag among them.
func SetRecord(h http.Header, rec *image.Record) {
	h.Set("ETag", rec.ETag())
	h.Set("Imgcluster-Version", strconv.FormatUint(rec.Version, 10))
	h.Set("Imgcluster-Owner", formatNode(rec.Owner))
	h.Set("Imgcluster-Replicas", FormatNodes(rec.Replicas()))
	h.Set("Imgcluster-Shard", strconv.FormatUint(rec.Shard, 10))
	h.Set("Imgcluster-Created", rec.Created.Format(time.RFC3339Nano))
	if rec.SHA256 != nil {
		h.Set("Imgcluster-Sha256", rec.SHA256.String())
	}
	h.Set("Imgcluster-Upload", rec.ID.String())
}

// ReadRecord reads what SetRecord has set. What is missing stays zero, as do its
// name and its length.
func ReadRecord(h http.Header) (i Info, shard uint64) {
	number := func(key string, bits int) uint64 {
		n, _ := strconv.ParseUint(h.Get(key), 10, bits) // zero: unknown
		return n
	}
	i = Info{
		Type: h.Get("Content-Type"), Version: number("Imgcluster-Version", 64),
		Owner: image.NodeID(number("Imgcluster-Owner", 32)), SHA256: h.Get("Imgcluster-Sha256"),
	}
	i.Replicas, _ = ParseNodes(h.Get("Imgcluster-Replicas"))
	i.Created, _ = time.Parse(time.RFC3339Nano, h.Get("Imgcluster-Created"))
	return i, number("Imgcluster-Shard", 64)
}
