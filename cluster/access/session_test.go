package access

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
)

// request returns a request with a session.
func request(value string) *http.Request {
	r, _ := http.NewRequest(http.MethodGet, "https://127.0.0.1/", nil)
	if value != "" {
		r.AddCookie(SessionOf(value, time.Hour))
	}
	return r
}

// TestSessions: a session is its key's, for so long, and nobody can make one.
func TestSessions(t *testing.T) {
	ctx := t.Context()
	s := sealerOf(t, lineOne)
	find := func(context.Context, string) (*catalog.AccessKey, error) { return nil, nil }
	keys := NewKeys(s, find)
	key, secret := s.New("alice", image.RoleRead, now, now.Add(time.Hour))
	long, longSecret := s.New("", image.RoleAdmin, now, time.Time{})
	err := keys.Load(func(add func(*catalog.AccessKey)) error { add(&key); add(&long); return nil })
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := keys.NewSession(ctx, key.ID, longSecret.Reveal(), now); !errors.Is(err, ReasonSecret) {
		t.Errorf("another key's secret: %v", err)
	}
	cookie, who, err := keys.NewSession(ctx, key.ID, secret.Reveal(), now)
	if err != nil || who.User != "alice" || who.Role != image.RoleRead {
		t.Fatalf("%v, %v", who, err)
	}
	if !cookie.HttpOnly || !cookie.Secure || cookie.SameSite != http.SameSiteStrictMode || cookie.Path != "/" ||
		cookie.Domain != "" || cookie.MaxAge != int(SessionMax/time.Second) {
		t.Errorf("%+v", cookie)
	}
	got, err := keys.CheckSession(request(cookie.Value), now.Add(time.Minute))
	if err != nil || got != who {
		t.Errorf("%v, %v", got, err)
	}
	if got, err := keys.CheckSession(request(""), now); err != nil || got != (Principal{}) {
		t.Errorf("without a session: %v, %v", got, err)
	}
	forever, _, err := keys.NewSession(ctx, long.ID, longSecret.Reveal(), now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := keys.CheckSession(request(forever.Value), now.Add(SessionMax-time.Second)); err != nil {
		t.Error(err)
	}
	flipped := []byte(cookie.Value)
	flipped[len(flipped)-2] ^= 1
	for name, c := range map[string]struct {
		value string
		at    time.Time
		want  Reason
	}{
		"the key has expired":    {cookie.Value, now.Add(time.Hour), ReasonExpired},
		"the session is over":    {forever.Value, now.Add(SessionMax), ReasonExpired},
		"a bit is flipped":       {string(flipped), now, ReasonUnknown},
		"another key":            {long.ID + cookie.Value[idChars:], now, ReasonUnknown},
		"a later end":            {cookie.Value[:idChars+1] + "9" + cookie.Value[idChars+2:], now, ReasonUnknown},
		"no dot":                 {"x", now, ReasonMalformed},
		"three at once":          {cookie.Value + "." + cookie.Value + "." + cookie.Value, now, ReasonUnknown},
		"an ID and nothing else": {key.ID + ".", now, ReasonUnknown},
	} {
		if got, err := keys.CheckSession(request(c.value), c.at); got != (Principal{}) || !errors.Is(err, c.want) {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	other := NewKeys(sealerOf(t, lineTwo), find)
	if _, err := other.CheckSession(request(cookie.Value), now); !errors.Is(err, ReasonUnknown) {
		t.Errorf("of another cluster: %v", err)
	}
	keys.Apply([]catalog.Event{{AccessKeyRemoved: key.ID}})
	if _, err := keys.CheckSession(request(cookie.Value), now); !errors.Is(err, ReasonRemoved) {
		t.Errorf("of a removed key: %v", err)
	}
}
