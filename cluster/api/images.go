package api

import (
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// images routes what is under /v1/images/: rest is the escaped "user/name" or "user".
func (h *Handler) images(w http.ResponseWriter, r *http.Request, rest string) {
	user, name, one, err := parsePath(rest)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	allow := "GET, HEAD"
	if one {
		allow = "PUT, GET, HEAD, DELETE"
	}
	if !slices.Contains(strings.Split(allow, ", "), r.Method) {
		h.refuseMethod(w, r, allow)
		return
	}
	if one && h.forward(w, r, user, name) {
		return
	}
	cond, err := conditionsOf(r)
	if err == nil {
		if err = h.Node.Await(r.Context(), user, name); err != nil && one && h.elsewhere(w, r, user, name, err) {
			return
		}
	}
	switch {
	case err != nil:
		h.fail(w, r, err)
	case !one:
		h.list(w, r, user)
	case r.Method == http.MethodPut:
		h.put(w, r, user, name, cond)
	case r.Method == http.MethodDelete:
		h.delete(w, r, user, name, cond)
	default:
		h.get(w, r, user, name, cond)
	}
}

func parsePath(rest string) (user, name string, one bool, err error) {
	user, name, one = strings.Cut(rest, "/")
	if user, err = url.PathUnescape(user); err == nil {
		name, err = url.PathUnescape(name)
	}
	if err != nil {
		return "", "", false, image.Errorf(image.KindInvalid, "malformed path: %w", err).WithHint("percent-encode the name")
	}
	if err = image.CheckUser(user); err == nil && one {
		err = image.CheckName(name)
	}
	return user, name, one, err
}

func (h *Handler) put(w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions) {
	req, err := h.parsePut(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req.User, req.Name, req.If = user, name, cond
	body := h.body(w, r)
	rec, err := h.Images.Put(r.Context(), req, body)
	if err != nil {
		if r.Header.Set("Idempotency-Key", req.ID.String()); body.read.Load() || !h.elsewhere(w, r, user, name, err) {
			h.fail(w, r, err)
		}
		return
	}
	status := http.StatusOK
	if rec.Owner == h.ID || len(req.Broadcast) == 0 {
		status = http.StatusCreated
	}
	recordHeaders(w.Header(), rec)
	h.writeJSON(w, status, rec.Receipt())
}

// parsePut reads an upload's header.
func (h *Handler) parsePut(r *http.Request) (req image.Request, err error) {
	if req.Size = r.ContentLength; req.Size < 0 {
		return req, noLength()
	}
	if req.Size > h.ImageBytes {
		return req, image.Errorf(image.KindTooLarge, "%d bytes are more than the limit of %d", req.Size, h.ImageBytes).
			WithHint("send a smaller image, or raise limits.image_bytes on every node")
	}
	if req.ID, err = requestID(r); err != nil {
		return req, err
	}
	if r.Header.Get("Content-Range") != "" {
		return req, image.Errorf(image.KindInvalid, "Content-Range with PUT").WithHint("send the whole image: parts of one are not stored")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return req, image.Errorf(image.KindMedia, "Content-Encoding: %.40q with PUT", coding).
			WithHint("send the image as it is: what is stored comes back without a coding")
	}
	if req.Type, err = parseType(r.Header); err != nil {
		return req, err
	}
	if req.Digest, err = parseDigests(r.Header); err != nil {
		return req, err
	}
	req.Broadcast, err = h.parseBroadcast(r.Header.Get("Imgcluster-Broadcast"))
	req.Relayed = r.Header.Get("Imgcluster-Relayed") == "true"
	req.WantDigest = len(req.Broadcast) == 0 || wantsDigest(r.Header.Get("Want-Content-Digest"))
	return req, err
}

// requestID is the client's ID of a request that it may send again, else a new one.
func requestID(r *http.Request) (image.ID, error) {
	key := r.Header.Get("Idempotency-Key")
	if key == "" {
		return image.NewID(), nil
	}
	return image.ParseID(strings.Trim(key, `"`)) // the draft RFC's structured string has quotes around it
}

// broadcastMax bounds the nodes of one broadcast.
const broadcastMax = 16

func (h *Handler) parseBroadcast(header string) ([]image.NodeID, error) {
	if header == "" {
		return nil, nil
	}
	bad := image.Errorf(image.KindInvalid, "Imgcluster-Broadcast: %.80q", header).
		WithHint("list the IDs of all nodes that get this upload, this one (" + strconv.Itoa(int(h.ID)) + ") among them, such as 1,2,3")
	var to []image.NodeID
	self := false
	seen := map[uint64]bool{}
	for part := range strings.SplitSeq(header, ",") {
		n, err := strconv.ParseUint(strings.TrimSpace(part), 10, 32)
		if err != nil || n == 0 || seen[n] || len(to) == broadcastMax {
			return nil, bad
		}
		seen[n] = true
		self = self || image.NodeID(n) == h.ID
		to = append(to, image.NodeID(n))
	}
	if !self {
		return nil, bad
	}
	return to, nil
}

// wantsDigest reads Want-Content-Digest (RFC 9530): is sha-256 wanted?
func wantsDigest(header string) bool {
	for member := range strings.SplitSeq(header, ",") {
		algorithm, weight, _ := strings.Cut(strings.TrimSpace(member), "=")
		if strings.EqualFold(algorithm, "sha-256") && weight != "0" {
			return true
		}
	}
	return false
}

// recordHeaders tells of a record what HTTP has no header for.
func recordHeaders(header http.Header, rec *image.Record) {
	header.Set("ETag", rec.ETag())
	header.Set("Imgcluster-Version", strconv.FormatUint(rec.Version, 10))
	header.Set("Imgcluster-Owner", strconv.Itoa(int(rec.Owner)))
	nodes := make([]string, len(rec.Copies))
	for i, c := range rec.Copies {
		nodes[i] = strconv.Itoa(int(c.Node))
	}
	header.Set("Imgcluster-Replicas", strings.Join(nodes, ","))
	header.Set("Imgcluster-Shard", strconv.FormatUint(rec.Shard, 10))
	header.Set("Imgcluster-Created", rec.Created.Format(time.RFC3339Nano))
	if rec.SHA256 != nil {
		header.Set("Imgcluster-Sha256", rec.SHA256.String())
	}
	header.Set("Imgcluster-Upload", rec.ID.String())
}

// replacedMax bounds how often a read starts again because the image was replaced under it.
const replacedMax = 4

func (h *Handler) get(w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions) {
	form := r.URL.Query().Get("form")
	if form != "" && form != "encrypted" {
		h.fail(w, r, image.Errorf(image.KindInvalid, "form=%.40q", form).WithHint("leave form out, or ask for form=encrypted"))
		return
	}
	rec, err := h.Images.Record(r.Context(), user, name)
	if err != nil && h.elsewhere(w, r, user, name, err) {
		return
	}
	for range replacedMax {
		if err != nil {
			break
		}
		if err = h.send(w, r, rec, form == "encrypted", cond); err == nil {
			return
		}
		// The copies may be gone because the record is: then the answer is the newer one.
		newer, again := h.Images.Record(r.Context(), user, name)
		if again == nil && newer.Version == rec.Version {
			break
		}
		rec, err = newer, again
	}
	h.fail(w, r, err)
}

// send answers with a record's image. Its error means that nothing was sent.
func (h *Handler) send(w http.ResponseWriter, r *http.Request, rec *image.Record, encrypted bool, cond image.Conditions) error {
	header := http.Header{}
	recordHeaders(header, rec)
	if !encrypted {
		protect(header, rec.MediaType(), rec.Name)
		return h.serve(w, r, h.Images.Open(r.Context(), rec), cond, rec.Tags(), header)
	}
	c, from, err := h.Images.OpenEncrypted(r.Context(), rec)
	if err != nil {
		return err
	}
	// Copies differ in every byte, so each has its own tag: parts of two make no file.
	tag := fmt.Sprintf(`"%s-encrypted-%d-%d"`, rec.ID, from.Node, from.Epoch)
	protect(header, image.DefaultMediaType, rec.Name+".img")
	header.Set("ETag", tag)
	return h.serve(w, r, c, cond, []string{tag}, header)
}

func (h *Handler) delete(w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions) {
	id, err := requestID(r)
	if err == nil {
		err = h.Images.Delete(r.Context(), id, user, name, cond)
	}
	if err != nil {
		if r.Header.Set("Idempotency-Key", id.String()); !h.elsewhere(w, r, user, name, err) {
			h.fail(w, r, err)
		}
		return
	}
	h.extend(w)
	w.WriteHeader(http.StatusNoContent)
}
