package cluster

import (
	"net/http"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
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
	who, err := a.authority.Identify(r.TLS)
	if err != nil {
		return access.Principal{}, image.Errorf(image.KindUnauthorized, "%w", err).WithHint(image.HintOf(err))
	}
	if who != nil {
		return access.Administrator, nil
	}
	id, secret, ok, err := access.ParseAuthorization(r.Header)
	if err != nil || !ok {
		return access.Principal{}, err
	}
	return a.keys.Check(r.Context(), id, secret, time.Now())
}
