package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"time"

	"imgcluster/cluster/wire"
)

const (
	listsMax   = 16              // lists at once for clients, and as many for other nodes
	listWait   = 5 * time.Second // for one of them to end
	listBuffer = 32 << 10
)

func (h *Handler) list(w http.ResponseWriter, r *http.Request, user string) {
	if !h.conditional(w, r) {
		return
	}
	h.page(w, r, h.lists, func(q wire.ListQuery) (wire.List, error) {
		return h.Images.List(r.Context(), user, q.Prefix, q.After, q.Limit)
	})
}

// page answers with one page of a list, once there is a slot for it.
func (h *Handler) page(
	w http.ResponseWriter, r *http.Request, at *gate, list func(wire.ListQuery) (wire.List, error),
) {
	q, err := wire.ParseList(r.URL.Query(), h.ListPage)
	var page wire.List
	if err == nil {
		var leave func()
		if leave, err = at.enter(r.Context(), holder(r, ""), 0, nil); err == nil {
			defer leave()
			page, err = list(q)
		}
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", wire.DocumentType)
	writeList(w, page) // its errors are the client's, which is gone
}

// writeList is json.Encoder.Encode of a page, without the whole text in memory.
func writeList(w http.ResponseWriter, page wire.List) error {
	out := bufio.NewWriterSize(w, listBuffer)
	enc := json.NewEncoder(out)
	enc.SetEscapeHTML(false)
	out.WriteString(`{"images":[`)
	for i, one := range page.Images {
		if i > 0 {
			out.WriteByte(',')
		}
		if err := enc.Encode(one); err != nil {
			return err
		}
	}
	out.WriteByte(']')
	if page.Next != "" {
		out.WriteString(`,"next":`)
		enc.Encode(page.Next) // an error of out comes back from Flush
	}
	out.WriteString("}\n")
	return out.Flush()
}
