package api

import (
	"bufio"
	"encoding/json"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

const (
	listsMax     = 16              // lists at once for clients, and as many for other nodes
	listWait     = 5 * time.Second // for one of them to end
	listedShards = 256             // in one request, as many as there can be
	listBuffer   = 32 << 10
)

func (h *Handler) list(w http.ResponseWriter, r *http.Request, user string) {
	if !h.conditional(w, r) {
		return
	}
	h.page(w, r, h.lists, func(q url.Values, limit int) (wire.List, error) {
		return h.Images.List(r.Context(), user, q.Get("prefix"), q.Get("after"), limit)
	})
}

// listShards lists what some shards have, for another node.
func (h *Handler) listShards(w http.ResponseWriter, r *http.Request) {
	h.page(w, r, h.shardLists, func(q url.Values, limit int) (wire.List, error) {
		shards, err := parseShards(q.Get("shards"))
		if err == nil {
			err = image.CheckUser(q.Get("user"))
		}
		if err != nil {
			return wire.List{}, err
		}
		return h.Peers.ListShards(r.Context(), shards, q.Get("user"), q.Get("prefix"), q.Get("after"), limit)
	})
}

func parseShards(text string) (shards []uint64, err error) {
	for one := range strings.SplitSeq(text, ",") {
		shard, err := strconv.ParseUint(one, 10, 64)
		if err != nil || slices.Contains(shards, shard) || len(shards) == listedShards {
			return nil, image.Errorf(image.KindInvalid, "shards=%.40q", text).
				WithHint("shards are numbers with commas between them, each named once, and at most " + strconv.Itoa(listedShards))
		}
		shards = append(shards, shard)
	}
	return shards, nil
}

// page answers with one page of a list, once there is a place for it.
func (h *Handler) page(w http.ResponseWriter, r *http.Request, at places, list func(q url.Values, limit int) (wire.List, error)) {
	q := r.URL.Query()
	limit, err := h.parsePage(q)
	var page wire.List
	if err == nil {
		if err = at.take(r.Context(), listWait); err == nil {
			defer at.give()
			page, err = list(q, limit)
		}
	}
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	writeList(w, page) // its errors are the client's, which is gone
}

func (h *Handler) parsePage(q url.Values) (limit int, err error) {
	for _, key := range []string{"prefix", "after"} {
		if v := q.Get(key); len(v) > image.NameBytesMax {
			return 0, image.Errorf(image.KindInvalid, "%s has %d bytes, more than the %d of a name", key, len(v), image.NameBytesMax).
				WithHint("give the beginning of a name, or the last one of the page before")
		}
	}
	limit = h.ListPage
	if v := q.Get("limit"); v != "" {
		n, err := strconv.Atoi(v)
		if err != nil || n < 1 {
			return 0, image.Errorf(image.KindInvalid, "limit=%.20q", v).WithHint("limit is a number from 1 to " + strconv.Itoa(h.ListPage))
		}
		limit = min(n, limit)
	}
	return limit, nil
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
