package api

import (
	"net/http"

	"imgcluster/cluster/wire"
)

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
	var c wire.MemberChange
	const hint = `{"op":"add","id":4,"api":"HOST:PORT","raft":"HOST:PORT"}, ` +
		"or op drain, resume or remove and an id"
	if !h.decode(w, r, &c, hint) {
		return
	}
	if err := h.Node.ChangeMember(r.Context(), c); err != nil {
		h.fail(w, r, err)
		return
	}
	h.members(w, r)
}
