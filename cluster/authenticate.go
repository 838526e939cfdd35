package cluster

import (
	"errors"
	"net/http"
	"time"

	"imgcluster/cluster/access"
)

// authenticator finds out who sends a request on the port of the clients.
type authenticator struct {
	open      bool // nobody needs credentials
	authority *access.Authority
	keys      *access.Keys
}

// authenticate returns the sender: the administrator by the certificate, or the holder of an access key; the
// zero Principal when there is neither. A certificate of a node counts as the administrator's: both follow
// from the master key. The error is KindUnauthorized for credentials that are not good.
func (a *authenticator) authenticate(r *http.Request) (access.Principal, error) {
	if a.open {
		return access.Anyone, nil
	}
	who, foreign := a.authority.Identify(r.TLS)
	switch {
	case foreign != nil && !errors.Is(foreign, access.ErrForeign):
		return access.Principal{}, access.ErrCertificate(foreign)
	case who != nil:
		return access.Administrator, nil
	}
	id, secret, ok, err := access.ParseAuthorization(r.Header)
	if err == nil && !ok && foreign != nil { // it meant to be the administrator
		err = access.ErrCertificate(foreign)
	}
	if err != nil {
		return access.Principal{}, err
	}
	if !ok {
		return a.keys.CheckSession(r, time.Now())
	}
	return a.keys.Check(r.Context(), id, secret, time.Now())
}
