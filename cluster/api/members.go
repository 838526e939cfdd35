package api

import (
	"encoding/json"
	"net/http"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// changeBytesMax bounds the body of a change of members.
const changeBytesMax = 4 << 10

// members lists the members.
func (h *Handler) members(w http.ResponseWriter, r *http.Request) {
	list, err := h.Node.Members(r.Context())
	if err != nil {
		h.fail(w, r, err)
		return
	}
	h.writeJSON(w, http.StatusOK, wire.MemberList{Members: list})
}

// changeMember changes one member and answers with the list that follows. What has to move moves
// after that.
func (h *Handler) changeMember(w http.ResponseWriter, r *http.Request) {
	if err := checkJSON(r); err != nil {
		h.fail(w, r, err)
		return
	}
	var c wire.MemberChange
	d := json.NewDecoder(http.MaxBytesReader(w, r.Body, changeBytesMax))
	d.DisallowUnknownFields()
	if err := d.Decode(&c); err != nil {
		h.fail(w, r, image.Errorf(image.KindInvalid, "malformed change of members: %v", err).
			WithHint(`send {"op":"add","id":4,"api":"HOST:PORT","raft":"HOST:PORT"}, `+
				"or op drain, resume or remove and an id"))
		return
	}
	if err := h.Node.ChangeMember(r.Context(), c); err != nil {
		h.fail(w, r, err)
		return
	}
	h.members(w, r)
}
