package api

import (
	"cmp"
	"encoding/base64"
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// images routes what is under /v1/images/: rest is the escaped "user/name" or "user".
func (h *Handler) images(w http.ResponseWriter, r *http.Request, rest string) {
	user, name, one, err := parsePath(rest)
	if err == nil {
		err = h.Node.Ready()
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	switch {
	case one && r.Method == http.MethodPut:
		h.put(w, r, user, name)
	case one && (r.Method == http.MethodGet || r.Method == http.MethodHead):
		h.get(w, r, user, name)
	case one && r.Method == http.MethodDelete:
		h.delete(w, r, user, name)
	case !one && r.Method == http.MethodGet:
		h.list(w, r, user)
	default:
		allow := map[bool]string{true: "PUT, GET, HEAD, DELETE", false: "GET"}[one]
		w.Header().Set("Allow", allow)
		h.fail(w, r, image.Errorf(image.KindMethod, "%.20q is not for this path", r.Method).WithHint("use one of "+allow))
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

func (h *Handler) put(w http.ResponseWriter, r *http.Request, user, name string) {
	req, err := h.parsePut(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req.User, req.Name = user, name
	rec, err := h.Images.Put(r.Context(), req, h.body(w, r))
	if err != nil {
		h.fail(w, r, err)
		return
	}
	status := http.StatusOK
	if rec.Owner == h.ID || len(req.Broadcast) == 0 {
		status = http.StatusCreated
	}
	recordHeaders(w.Header(), rec)
	writeJSON(w, status, rec.Receipt())
}

// parsePut reads an upload's header.
func (h *Handler) parsePut(r *http.Request) (req image.Request, err error) {
	if req.Size = r.ContentLength; req.Size < 0 {
		return req, image.Errorf(image.KindLengthRequired, "no Content-Length").
			WithHint("send the length of the body in Content-Length; a pipe has none, save it to a file first")
	}
	if req.Size > h.ImageBytes {
		return req, image.Errorf(image.KindTooLarge, "%d bytes are more than the limit of %d", req.Size, h.ImageBytes).
			WithHint("send a smaller image, or raise limits.image_bytes on every node")
	}
	switch v := r.Header.Get("If-None-Match"); v {
	case "":
	case "*":
		req.IfAbsent = true
	default:
		return req, image.Errorf(image.KindInvalid, "If-None-Match: %.40q with PUT", v).WithHint("only * is understood: store unless the name is taken")
	}
	if req.ID = image.NewID(); r.Header.Get("Idempotency-Key") != "" {
		// The draft RFC's structured string has quotes around it.
		if req.ID, err = image.ParseID(strings.Trim(r.Header.Get("Idempotency-Key"), `"`)); err != nil {
			return req, err
		}
	}
	if req.Digest, err = parseDigest(r.Header.Get("Content-Digest")); err != nil {
		return req, err
	}
	req.Broadcast, err = h.parseBroadcast(r.Header.Get("Imgcluster-Broadcast"))
	return req, err
}

// parseDigest finds the sha-256 in a Content-Digest (RFC 9530), nil when there is none.
func parseDigest(header string) (*image.Digest, error) {
	for member := range strings.SplitSeq(header, ",") {
		algorithm, value, _ := strings.Cut(strings.TrimSpace(member), "=")
		if !strings.EqualFold(algorithm, "sha-256") {
			continue
		}
		raw, err := base64.StdEncoding.DecodeString(strings.Trim(value, ":"))
		if err != nil || len(raw) != 32 || !strings.HasPrefix(value, ":") || !strings.HasSuffix(value, ":") {
			return nil, image.Errorf(image.KindInvalid, "malformed Content-Digest").WithHint("send sha-256=:BASE64:")
		}
		return (*image.Digest)(raw), nil
	}
	return nil, nil
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

// recordHeaders tells of a record what HTTP has no header for.
func recordHeaders(header http.Header, rec *image.Record) {
	header.Set("ETag", `"`+rec.SHA256.String()+`"`)
	header.Set("Imgcluster-Version", strconv.FormatUint(rec.Version, 10))
	header.Set("Imgcluster-Owner", strconv.Itoa(int(rec.Owner)))
	nodes := make([]string, len(rec.Copies))
	for i, c := range rec.Copies {
		nodes[i] = strconv.Itoa(int(c.Node))
	}
	header.Set("Imgcluster-Replicas", strings.Join(nodes, ","))
	header.Set("Imgcluster-Shard", strconv.FormatUint(rec.Shard, 10))
	header.Set("Imgcluster-Created", rec.Created.Format(time.RFC3339Nano))
	header.Set("Imgcluster-Sha256", rec.SHA256.String())
	header.Set("Imgcluster-Upload", rec.ID.String())
}

func (h *Handler) get(w http.ResponseWriter, r *http.Request, user, name string) {
	rec, err := h.Images.Record(r.Context(), user, name)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	var c Content
	switch form := r.URL.Query().Get("form"); form {
	case "":
		c = h.Images.Open(r.Context(), rec)
	case "encrypted":
		if c, err = h.Images.OpenEncrypted(r.Context(), rec); err != nil {
			h.fail(w, r, err)
			return
		}
	default:
		h.fail(w, r, image.Errorf(image.KindInvalid, "form=%.40q", form).WithHint("leave form out, or ask for form=encrypted"))
		return
	}
	defer c.Close()
	recordHeaders(w.Header(), rec)
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.Header().Set("Content-Type", cmp.Or(mime.TypeByExtension(path.Ext(name)), "application/octet-stream"))
	if r.URL.Query().Get("form") == "encrypted" {
		w.Header().Set("Content-Type", "application/octet-stream")
		w.Header().Set("ETag", `"`+rec.SHA256.String()+`-encrypted"`)
	}
	h.serve(w, r, c, rec.Created)
}

// serve answers with content, or the range of it that is asked for. When the first read fails the
// client gets the error; later the connection is cut, for the length was promised.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, c Content, modified time.Time) {
	lazy := &lazyWriter{ResponseWriter: w, control: http.NewResponseController(w), idle: h.BodyIdle, count: &h.tx}
	body := &errReader{Content: c}
	http.ServeContent(lazy, r, "", modified, body)
	defer lazy.control.SetWriteDeadline(time.Time{}) // it would outlast the request
	switch {
	case body.err == nil:
		lazy.flushHeader()
	case lazy.started:
		panic(http.ErrAbortHandler)
	default:
		for _, k := range []string{"Content-Length", "Content-Range", "Accept-Ranges", "Last-Modified", "Content-Encoding"} {
			w.Header().Del(k)
		}
		h.fail(w, r, body.err)
	}
}

// errReader remembers why reading failed.
type errReader struct {
	Content
	err error
}

func (e *errReader) Read(p []byte) (int, error) {
	n, err := e.Content.Read(p)
	if err != nil && err != io.EOF {
		e.err = err
	}
	return n, err
}

func (h *Handler) delete(w http.ResponseWriter, r *http.Request, user, name string) {
	if err := h.Images.Delete(r.Context(), user, name); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) list(w http.ResponseWriter, r *http.Request, user string) {
	q := r.URL.Query()
	limit := h.ListPage
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			h.fail(w, r, image.Errorf(image.KindInvalid, "limit=%.20q", v).WithHint("limit is a number from 1 to "+strconv.Itoa(h.ListPage)))
			return
		}
		limit = min(n, limit)
	}
	page, err := h.Images.List(r.Context(), user, q.Get("prefix"), q.Get("after"), limit)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	if page.Images == nil {
		page.Images = []image.Info{}
	}
	writeJSON(w, http.StatusOK, page)
}
