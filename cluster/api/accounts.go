package api

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Accounts are the users and their access keys.
type Accounts interface {
	// AccessKeys lists up to limit keys, of one user where of is not empty, that come after an ID.
	AccessKeys(ctx context.Context, of, after string, limit int) (wire.KeyList, error)
	AddAccessKey(ctx context.Context, k wire.KeyRequest) (wire.NewKey, error)
	// RemoveAccessKey removes a key. Where of is not empty, those of other users are not found.
	RemoveAccessKey(ctx context.Context, id, of string) error
	// Users lists up to limit users whose names come after `after`.
	Users(ctx context.Context, after string, limit int) (wire.UserList, error)
	AddUser(ctx context.Context, name string) (wire.User, error)
	// RemoveUser destroys a user's keys, and returns what is left to do after that.
	RemoveUser(ctx context.Context, name string) (wire.Removal, error)
}

// requestBytesMax bounds a document that asks for a change.
const requestBytesMax = 4 << 10

// decode reads a request's document into v, and reports whether it is one; else the client is told so.
func (h *Handler) decode(w http.ResponseWriter, r *http.Request, v any, hint string) bool {
	err := checkJSON(r)
	if err == nil {
		d := json.NewDecoder(http.MaxBytesReader(w, r.Body, requestBytesMax))
		d.DisallowUnknownFields()
		if malformed := d.Decode(v); errors.As(malformed, new(*image.Error)) {
			err = malformed // it came too slowly
		} else if malformed != nil {
			err = image.Errorf(image.KindInvalid, "malformed request: %v", malformed).WithHint("send " + hint)
		}
	}
	if err != nil {
		h.fail(w, r, err)
	}
	return err == nil
}

// answer sends a document, or why there is none.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, status int, v any, err error) {
	if err != nil {
		h.fail(w, r, err)
		return
	}
	w.Header().Set("Cache-Control", "no-store")
	h.writeJSON(w, status, v)
}

// answerPage sends the page of a list that a request asks for.
func answerPage[T any](
	h *Handler, w http.ResponseWriter, r *http.Request,
	list func(ctx context.Context, after string, limit int) (T, error),
) {
	q, err := wire.ParseList(r.URL.Query(), h.ListPage)
	var page T
	if err == nil {
		page, err = list(r.Context(), q.After, q.Limit)
	}
	h.answer(w, r, http.StatusOK, page, err)
}

// listKeys lists the access keys: all of them to an administrator, else those of the sender's user.
func (h *Handler) listKeys(w http.ResponseWriter, r *http.Request) {
	of := r.URL.Query().Get("user")
	if p := access.From(r.Context()); !p.Admin() {
		of = p.User
	}
	answerPage(h, w, r, func(ctx context.Context, after string, limit int) (wire.KeyList, error) {
		return h.Accounts.AccessKeys(ctx, of, after, limit)
	})
}

func (h *Handler) addKey(w http.ResponseWriter, r *http.Request) {
	var k wire.KeyRequest
	if h.decode(w, r, &k, `{"user":"alice","role":"write"}`) {
		made, err := h.Accounts.AddAccessKey(r.Context(), k)
		h.answer(w, r, http.StatusCreated, made, err)
	}
}

// removeKey removes an access key: any for an administrator, of its user's for a key that writes, and itself
// for one that reads, so that who finds such a key cannot lock its user out.
func (h *Handler) removeKey(w http.ResponseWriter, r *http.Request) {
	id := r.PathValue("id")
	of := ""
	switch p := access.From(r.Context()); {
	case p.Admin():
	case p.Role == image.RoleWrite || p.Key == id:
		of = p.User
	default:
		h.fail(w, r, image.Errorf(image.KindForbidden, "%s can remove itself alone", p).
			WithHint("use a key of the role write, or ask an administrator"))
		return
	}
	if err := h.Accounts.RemoveAccessKey(r.Context(), id, of); err != nil {
		h.fail(w, r, err)
		return
	}
	w.WriteHeader(http.StatusNoContent)
}

func (h *Handler) listUsers(w http.ResponseWriter, r *http.Request) {
	answerPage(h, w, r, h.Accounts.Users)
}

func (h *Handler) addUser(w http.ResponseWriter, r *http.Request) {
	var u wire.UserRequest
	if h.decode(w, r, &u, `{"name":"alice"}`) {
		made, err := h.Accounts.AddUser(r.Context(), u.Name)
		h.answer(w, r, http.StatusCreated, made, err)
	}
}

func (h *Handler) removeUser(w http.ResponseWriter, r *http.Request) {
	left, err := h.Accounts.RemoveUser(r.Context(), r.PathValue("user"))
	h.answer(w, r, http.StatusAccepted, left, err)
}
