package api

import (
	"context"
	"net/http"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Sessions are those of browsers, see access.SessionCookie.
type Sessions interface {
	// NewSession returns the cookie of a session of who has these credentials, and who that is.
	NewSession(ctx context.Context, id, secret string, now time.Time) (*http.Cookie, access.Principal, error)
}

// session answers who sends a request.
func (h *Handler) session(w http.ResponseWriter, r *http.Request) {
	h.answer(w, r, http.StatusOK, h.sessionOf(access.From(r.Context())), nil)
}

func (h *Handler) sessionOf(p access.Principal) wire.Session {
	status := h.Node.Cluster()
	s := wire.Session{
		Key: p.Key, User: p.User, Role: p.Role, Open: p.Open, Node: h.ID, Name: status.Name,
	}
	for _, n := range status.Nodes {
		if n.ID == h.ID {
			s.Version = n.Version
		}
	}
	return s
}

// login begins a session of a browser. It is for HTTPS alone: where there is none, nobody needs a key.
func (h *Handler) login(w http.ResponseWriter, r *http.Request) {
	var login wire.Login
	if !h.decode(w, r, &login, `{"id":"ICQ4C2JXEZ6GYTKN7W5A","secret":"..."}`) {
		return
	}
	if r.TLS == nil {
		h.fail(w, r, image.Errorf(image.KindInvalid, "this cluster asks nobody for an access key").
			WithHint("go on without one"))
		return
	}
	cookie, p, err := h.Sessions.NewSession(r.Context(), login.ID, login.Secret, time.Now())
	if err != nil {
		h.countRefused(err)
		h.fail(w, r, err)
		return
	}
	http.SetCookie(w, cookie)
	h.answer(w, r, http.StatusCreated, h.sessionOf(p), nil)
}

// logout has the browser forget its session.
func (h *Handler) logout(w http.ResponseWriter, _ *http.Request) {
	http.SetCookie(w, access.SessionOf("", 0))
	w.WriteHeader(http.StatusNoContent)
}
