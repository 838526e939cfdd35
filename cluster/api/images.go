package api

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"time"

	"imgcluster/cluster/connlimit"
	"imgcluster/cluster/image"
	"imgcluster/cluster/thumbnail"
	"imgcluster/cluster/trace"
	"imgcluster/cluster/wire"
)

// images routes what is under /v1/images/: rest is the escaped "user/name" or "user".
func (h *Handler) images(w http.ResponseWriter, r *http.Request, rest string) {
	user, name, one, err := wire.ParseImagePath(rest)
	by, allow, path := listRoutes, listMethods, wire.ListPattern
	if one {
		by, allow, path = imageRoutes, imageMethods, wire.ImagePattern
	}
	may, known := by[r.Method]
	if err != nil || !known {
		may.who = holders
	}
	if r = h.admit(w, r, may.who, user); r == nil {
		return
	}
	request := trace.From(r.Context())
	request.Start(h.Tracer, r.Method+" "+path, r.Header) // which names neither user nor image
	defer request.End()
	switch {
	case err != nil:
		h.fail(w, r, err)
		return
	case !known:
		h.refuseMethod(w, r, allow)
		return
	case r.Method == http.MethodGet:
		paced, _ := w.(connlimit.Mover)
		at := h.reads
		if r.URL.Query().Get("form") == string(wire.FormThumbnail) {
			at = h.thumbnails
		}
		began := time.Now()
		leave, err := at.enter(r.Context(), holder(r, user), 0, paced)
		request.Since(trace.Wait, began)
		if err != nil {
			h.fail(w, r, err)
			return
		}
		defer leave()
	}
	if one && h.forward(w, r, user, name) {
		return
	}
	cond, err := conditionsOf(r)
	if err == nil {
		if err = h.Node.Await(r.Context(), user, name); err != nil && one &&
			h.forwardMisplaced(w, r, user, name, err) {
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
	case r.Method == http.MethodPost:
		h.announce(w, r, user, name, cond)
	case r.Method == http.MethodDelete:
		h.delete(w, r, user, name, cond)
	default:
		h.get(w, r, user, name, cond)
	}
}

func (h *Handler) put(w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions) {
	req, err := h.parsePut(r)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	req.User, req.Name, req.If = user, name, cond
	body := h.body(w, r)
	leave, err := h.enterUpload(r, h.uploads, user, body)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	rec, err := h.Images.Put(r.Context(), req, body)
	leave()
	request := trace.From(r.Context())
	if err != nil {
		if r.Header.Set(wire.UploadField, req.ID.String()); body.read.Load() ||
			!h.forwardMisplaced(w, r, user, name, err) {
			h.Ended(trace.Upload, request, Outcome{user, name, req.Size, err})
			h.fail(w, r, err)
		}
		return
	}
	status := http.StatusOK
	if rec.Owner == h.ID || len(req.Broadcast) == 0 {
		status = http.StatusCreated
	}
	wire.SetRecord(w.Header(), rec)
	began := time.Now()
	h.writeJSON(w, status, rec.Receipt())
	request.Since(trace.Answer, began)
	h.Ended(trace.Upload, request, Outcome{user, name, req.Size, nil})
}

// announce answers which nodes an upload is to be sent to.
func (h *Handler) announce(
	w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions,
) {
	req := image.Request{User: user, Name: name, If: cond}
	q, err := wire.ParseAnnounce(r.URL.Query())
	if err == nil && r.ContentLength != 0 {
		err = image.Errorf(image.KindInvalid, "a body with POST").
			WithHint("announce an upload without its bytes, and send them with PUT to the nodes of the answer")
	}
	if err == nil {
		req.Size, err = q.Bytes, h.checkLength(q.Bytes)
	}
	if err == nil {
		req.ID, err = wire.UploadID(r.Header)
	}
	var nodes []image.NodeID
	if err == nil {
		nodes, err = h.Images.Announce(r.Context(), req, q.Without)
	}
	if err != nil {
		if !h.forwardMisplaced(w, r, user, name, err) {
			h.fail(w, r, err)
		}
		return
	}
	h.writeJSON(w, http.StatusOK, wire.Announcement{Nodes: nodes})
}

// enterUpload waits for an upload's first bytes, then for a place, which leave gives back. Where another node
// sends the upload, that one has waited for the bytes.
func (h *Handler) enterUpload(r *http.Request, g *gate, user string, b *body) (leave func(), err error) {
	request := trace.From(r.Context())
	if !wire.FromNode(r) {
		began := time.Now()
		over := connlimit.Waits(r.Context(), b)
		err := b.await(min(r.ContentLength, h.FirstBytes))
		over()
		request.Since(trace.Receive, began)
		if err != nil {
			return nil, err
		}
	}
	defer request.Since(trace.Wait, time.Now())
	return g.enter(r.Context(), holder(r, user), r.ContentLength, b)
}

// parsePut reads an upload's header.
func (h *Handler) parsePut(r *http.Request) (req image.Request, err error) {
	if req.Size = r.ContentLength; req.Size < 0 {
		return req, noLength()
	}
	if err := h.checkLength(req.Size); err != nil {
		return req, err
	}
	if req.ID, err = wire.UploadID(r.Header); err != nil {
		return req, err
	}
	if r.Header.Get("Content-Range") != "" {
		return req, image.Errorf(image.KindInvalid, "Content-Range with PUT").
			WithHint("send the whole image: parts of one are not stored")
	}
	if coding := r.Header.Get("Content-Encoding"); coding != "" && !strings.EqualFold(coding, "identity") {
		return req, image.Errorf(image.KindMedia, "Content-Encoding: %.40q with PUT", coding).
			WithHint("send the image as it is: what is stored comes back without a coding")
	}
	if req.Type, err = parseType(r.Header); err != nil {
		return req, err
	}
	if req.Digest, err = wire.ParseDigests(r.Header); err != nil {
		return req, err
	}
	req.Broadcast, err = wire.Broadcast(r.Header, h.ID)
	req.Announced = len(req.Broadcast) > 0 && wire.Announced(r.Header)
	req.Relayed = wire.Relayed(r.Header)
	req.WantDigest = len(req.Broadcast) == 0 || wire.WantsDigest(r.Header)
	return req, err
}

func (h *Handler) checkLength(bytes int64) error {
	if bytes <= h.ImageBytes {
		return nil
	}
	return image.Errorf(image.KindTooLarge, "%d bytes are more than the limit of %d", bytes, h.ImageBytes).
		WithHint("send a smaller image, or raise limits.image_bytes on every node")
}

// replacedMax bounds how often a read starts again because the image was replaced under it.
const replacedMax = 4

func (h *Handler) get(w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions) {
	form, edge, err := wire.ParseForm(r.URL.Query(), thumbnail.EdgeDefault, thumbnail.EdgeMax)
	if err != nil {
		h.fail(w, r, err)
		return
	}
	began := time.Now()
	rec, err := h.Images.Record(r.Context(), user, name)
	trace.From(r.Context()).Since(trace.Log, began)
	if err != nil && h.forwardMisplaced(w, r, user, name, err) {
		return
	}
	for range replacedMax {
		if err != nil {
			break
		}
		if form == wire.FormThumbnail {
			err = h.sendThumbnail(w, r, rec, edge, cond)
		} else {
			err = h.send(w, r, rec, form, cond)
		}
		if err == nil {
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
func (h *Handler) send(
	w http.ResponseWriter, r *http.Request, rec *image.Record, form wire.Form, cond image.Conditions,
) error {
	header := http.Header{}
	wire.SetRecord(header, rec)
	if form == wire.FormPlain {
		protect(header, rec.MediaType(), rec.Name)
		sent, err := h.serve(w, r, h.Images.Open(r.Context(), rec), cond, rec.Tags(), header)
		if sent > 0 || err != nil {
			h.Ended(trace.Read, trace.From(r.Context()), Outcome{rec.User, rec.Name, sent, err})
		}
		return err
	}
	c, from, err := h.Images.OpenEncrypted(r.Context(), rec)
	if err != nil {
		return err
	}
	// Copies differ in every byte, so each has its own tag: parts of two make no file.
	tag := fmt.Sprintf(`"%s-encrypted-%s"`, rec.ID, from.Attempt)
	protect(header, image.DefaultMediaType, rec.Name+".img")
	header.Set("ETag", tag)
	_, err = h.serve(w, r, c, cond, []string{tag}, header)
	return err
}

// Thumbnails at once, and how long one waits for a place. Few are made at once, see package thumbnail.
const (
	thumbnailsMax    = 64
	keyThumbnailsMax = 16
	thumbnailWait    = 10 * time.Second
)

// sendThumbnail answers with a small picture of a record's image. Its error means that nothing was sent.
func (h *Handler) sendThumbnail(
	w http.ResponseWriter, r *http.Request, rec *image.Record, edge int, cond image.Conditions,
) error {
	tags := []string{fmt.Sprintf(`"%s-thumbnail-%d"`, rec.ID, edge)}
	header := http.Header{}
	protect(header, "image/jpeg", rec.Name+".jpg")
	header.Set("ETag", tags[0])
	if cond.Excluded(tags) {
		notModified(w, header)
		return nil
	}
	c := h.Images.Open(r.Context(), rec)
	defer c.Close()
	text, err := h.Thumbnails.Make(r.Context(), c, edge)
	if errors.Is(err, thumbnail.ErrNone) {
		h.fail(w, r, image.Errorf(image.KindMedia, "%s: %w", rec.Name, err).
			WithHint("ask for the image itself"))
		return nil
	}
	if err != nil {
		return err
	}
	maps.Copy(w.Header(), header)
	h.extend(w)
	w.Write(text)
	return nil
}

func (h *Handler) delete(w http.ResponseWriter, r *http.Request, user, name string, cond image.Conditions) {
	id, err := wire.UploadID(r.Header)
	if err == nil {
		err = h.Images.Delete(r.Context(), id, user, name, cond)
	}
	if err != nil {
		if r.Header.Set(wire.UploadField, id.String()); !h.forwardMisplaced(w, r, user, name, err) {
			h.fail(w, r, err)
		}
		return
	}
	h.extend(w)
	w.WriteHeader(http.StatusNoContent)
}
