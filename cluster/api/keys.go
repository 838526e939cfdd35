package api

import (
	"net/http"

	"imgcluster/cluster/wire"
)

// masterKey says what the master key is, and how far a change of it is.
func (h *Handler) masterKey(w http.ResponseWriter, r *http.Request) {
	state, err := h.Keys.MasterKey(r.Context())
	h.answer(w, r, http.StatusOK, state, err)
}

// changeMasterKey begins or ends a change of the master key, and answers with what follows.
func (h *Handler) changeMasterKey(w http.ResponseWriter, r *http.Request) {
	var c wire.MasterKeyChange
	if !h.decode(w, r, &c, `{"op":"rotate"} or {"op":"finish"}`) {
		return
	}
	if err := h.Keys.ChangeMasterKey(r.Context(), c); err != nil {
		h.fail(w, r, err)
		return
	}
	h.masterKey(w, r)
}

// userKeys lists the users' keys, wrapped by the master key.
func (h *Handler) userKeys(w http.ResponseWriter, r *http.Request) {
	answerPage(h, w, r, h.Keys.UserKeys)
}

// rotateUserKey gives a user a newer key.
func (h *Handler) rotateUserKey(w http.ResponseWriter, r *http.Request) {
	key, err := h.Keys.RotateUserKey(r.Context(), r.PathValue("user"))
	h.answer(w, r, http.StatusCreated, key, err)
}

// rewrap begins to encrypt a user's images again under the user's newest key.
func (h *Handler) rewrap(w http.ResponseWriter, r *http.Request) {
	state, err := h.Keys.Rewrap(r.Context(), r.PathValue("user"))
	h.answer(w, r, http.StatusAccepted, state, err)
}

// rewrapState answers how far that is.
func (h *Handler) rewrapState(w http.ResponseWriter, r *http.Request) {
	state, err := h.Keys.RewrapState(r.Context(), r.PathValue("user"))
	h.answer(w, r, http.StatusOK, state, err)
}

// oldCopies counts the copies under older keys in some shards, for another node.
func (h *Handler) oldCopies(w http.ResponseWriter, r *http.Request) {
	q, err := wire.ParseOldCopies(r.URL.Query())
	var old wire.OldCopies
	if err == nil {
		old, err = h.Peers.OldCopies(r.Context(), q)
	}
	h.answer(w, r, http.StatusOK, old, err)
}
