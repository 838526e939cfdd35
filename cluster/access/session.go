package access

import (
	"context"
	"crypto/hmac"
	"encoding/base64"
	"net/http"
	"strconv"
	"strings"
	"time"

	"imgcluster/cluster/image"
)

// A session is an access key's in a browser: a cookie in place of the key, which no script of a page can
// read, good for SessionMax and at every node. It ends with its key.
const (
	// SessionCookie has a prefix that has browsers take it over TLS alone, for this host and all its paths.
	SessionCookie = "__Host-imgcluster"
	// SessionMax is how long a session lasts.
	SessionMax = 12 * time.Hour

	purposeSession = "imgcluster v1 session"
	sessionMax     = 256 // bytes of the cookie's value
)

// NewSession returns the cookie of a session of who sends these credentials, and who that is. The errors are
// Check's.
func (k *Keys) NewSession(
	ctx context.Context, id, secret string, now time.Time,
) (*http.Cookie, Principal, error) {
	p, err := k.Check(ctx, id, secret, now)
	if err != nil {
		return nil, Principal{}, err
	}
	text := id + "." + strconv.FormatInt(now.Add(SessionMax).Unix(), 10)
	mac := k.sealer.must()[0].sessionMAC(text)
	return SessionOf(text+"."+base64.RawURLEncoding.EncodeToString(mac), SessionMax), p, nil
}

// SessionOf returns the cookie with this value, which browsers keep for so long; 0 has them forget it.
func SessionOf(value string, keep time.Duration) *http.Cookie {
	c := &http.Cookie{
		Name: SessionCookie, Value: value, Path: "/", Secure: true, HttpOnly: true,
		SameSite: http.SameSiteStrictMode, MaxAge: int(keep / time.Second),
	}
	if keep == 0 {
		c.MaxAge = -1
	}
	return c
}

// CheckSession returns whose session a request's cookie is, the zero Principal when it has none. The error is
// KindUnauthorized for one that is over or of another cluster, or that of looking the key up.
func (k *Keys) CheckSession(r *http.Request, now time.Time) (Principal, error) {
	c, err := r.Cookie(SessionCookie)
	if err != nil {
		return Principal{}, nil
	}
	cut := strings.LastIndexByte(c.Value, '.')
	if cut < 0 || len(c.Value) > sessionMax {
		return Principal{}, errSession(ReasonMalformed)
	}
	text := c.Value[:cut]
	mac, _ := base64.RawURLEncoding.DecodeString(c.Value[cut+1:])
	good := false
	for _, one := range k.sealer.must() {
		good = hmac.Equal(mac, one.sessionMAC(text)) || good
	}
	id, end, _ := strings.Cut(text, ".")
	until, err := strconv.ParseInt(end, 10, 64)
	switch {
	case !good || err != nil:
		return Principal{}, errSession(ReasonUnknown)
	case now.Unix() >= until:
		return Principal{}, errSession(ReasonExpired)
	}
	key, _, err := k.lookUp(r.Context(), id)
	switch {
	case err != nil:
		return Principal{}, err
	case key == nil:
		return Principal{}, errSession(ReasonRemoved)
	case expired(key, now):
		return Principal{}, errSession(ReasonExpired)
	}
	return Principal{Key: id, User: key.User, Role: key.Role}, nil
}

func errSession(why Reason) error {
	return why.refuse(image.Errorf(image.KindUnauthorized, "the session is over, or its access key was removed").
		WithHint("log in again with an access key"))
}

func (s *masterSealer) sessionMAC(text string) []byte { return macOf(s.session, []byte(text)) }
