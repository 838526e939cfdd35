package access

import (
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

var now = time.Date(2026, 11, 28, 12, 0, 0, 0, time.UTC)

func sealerOf(t *testing.T, line string) *Sealer {
	t.Helper()
	master, err := crypto.MasterKeyFromEnv(line)
	if err != nil {
		t.Fatal(err)
	}
	s, err := NewSealer(master)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// TestSecretsAreNotPrinted prints a secret in every way.
func TestSecretsAreNotPrinted(t *testing.T) {
	_, secret := sealerOf(t, lineOne).New("alice", image.RoleRead, now, time.Time{})
	text := secret.Reveal()
	if len(text) != secretChars || strings.ContainsAny(text, ".:") {
		t.Fatalf("a secret of %d characters", len(text))
	}
	held := struct {
		Secret Secret
		inner  Secret
	}{secret, secret}
	out, err := json.Marshal(held)
	if err != nil {
		t.Fatal(err)
	}
	all := string(out)
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		all += fmt.Sprintf(verb, secret) + fmt.Sprintf(verb, held) + fmt.Sprintf(verb, &held)
	}
	if strings.Contains(all, text) || strings.Contains(all, fmt.Sprintf("%x", text)) {
		t.Error("the secret is printed")
	}
}

// TestSealed: a sealed secret is of one key with one user, role and end, under one master key.
func TestSealed(t *testing.T) {
	s := sealerOf(t, lineOne)
	k, secret := s.New("alice", image.RoleRead, now, now.Add(time.Hour))
	if strings.Contains(string(k.Sealed), secret.Reveal()) {
		t.Fatal("the secret is not sealed")
	}
	if !s.matches(&k, secret.Reveal()) || s.matches(&k, secret.Reveal()+"x") || s.matches(&k, "") {
		t.Fatal("a secret does not match itself, or another one does")
	}
	for what, change := range map[string]func(*catalog.AccessKey){
		"ID":         func(k *catalog.AccessKey) { k.ID = s.newID() },
		"user":       func(k *catalog.AccessKey) { k.User = "bob" },
		"role":       func(k *catalog.AccessKey) { k.Role = image.RoleAdmin },
		"end":        func(k *catalog.AccessKey) { k.Expires = time.Time{} },
		"user, role": func(k *catalog.AccessKey) { k.User, k.Role = "alicer", "ead" },
		"a bit":      func(k *catalog.AccessKey) { k.Sealed[len(k.Sealed)-1] ^= 1 },
		"version":    func(k *catalog.AccessKey) { k.Sealed[0]++ },
		"length":     func(k *catalog.AccessKey) { k.Sealed = k.Sealed[:10] },
	} {
		changed := k
		changed.Sealed = append([]byte{}, k.Sealed...)
		if change(&changed); s.matches(&changed, secret.Reveal()) {
			t.Errorf("another %s, and the secret still matches", what)
		}
	}
	if sealerOf(t, lineTwo).matches(&k, secret.Reveal()) {
		t.Error("another master key opens it")
	}
}

// TestCheck checks keys that are good, and each way in which one is not.
func TestCheck(t *testing.T) {
	s := sealerOf(t, lineOne)
	var searched []string
	var found *catalog.AccessKey
	var failed error
	keys := NewKeys(s, func(_ context.Context, id string) (*catalog.AccessKey, error) {
		searched = append(searched, id)
		return found, failed
	})
	check := func(id, secret string, at time.Time) (Principal, error) {
		return keys.Check(t.Context(), id, secret, at)
	}
	k, secret := s.New("alice", image.RoleRead, now, now.Add(time.Hour))
	other, otherSecret := s.New("", image.RoleAdmin, now, time.Time{})
	keys.Apply([]catalog.Event{{AccessKey: &k}}) // not loaded yet: it may have been removed since
	if _, err := check(k.ID, secret.Reveal(), now); image.KindOf(err) != image.KindUnauthorized ||
		len(searched) != 1 {
		t.Errorf("before the keys are loaded: %v", err)
	}
	searched = nil
	if err := keys.Load(func(func(*catalog.AccessKey)) error { return nil }); err != nil {
		t.Fatal(err)
	}
	keys.Apply([]catalog.Event{{AccessKey: &k}, {AccessKey: &other}})

	p, err := check(k.ID, secret.Reveal(), now)
	if want := (Principal{Key: k.ID, User: "alice", Role: image.RoleRead}); err != nil || p != want {
		t.Errorf("%+v, %v", p, err)
	}
	if p, err := check(other.ID, otherSecret.Reveal(), now.AddDate(99, 0, 0)); err != nil || !p.Admin() {
		t.Errorf("%+v, %v", p, err)
	}
	madeUp := idPrefix + strings.Repeat("A", 18)
	for what, x := range map[string]struct {
		id, secret string
		at         time.Time
		says       string
	}{
		"wrong secret":       {k.ID, otherSecret.Reveal(), now, "not its own"},
		"made up":            {madeUp, secret.Reveal(), now, "not known"},
		"at its end":         {k.ID, secret.Reveal(), now.Add(time.Hour), "expired"},
		"expired, no secret": {k.ID, otherSecret.Reveal(), now.Add(2 * time.Hour), "not its own"},
		"empty":              {"", "", now, "form"},
		"short":              {k.ID[:19], secret.Reveal(), now, "form"},
		"lower case":         {strings.ToLower(k.ID), secret.Reveal(), now, "form"},
		"odd secret":         {k.ID, strings.Repeat("!", secretChars), now, "form"},
	} {
		p, err := check(x.id, x.secret, x.at)
		var e *image.Error
		if p != (Principal{}) || !errors.As(err, &e) || e.Kind != image.KindUnauthorized ||
			!strings.Contains(err.Error(), x.says) || e.Hint() == "" {
			t.Errorf("%s: %+v, %v", what, p, err)
		}
		if err != nil && strings.Contains(err.Error()+e.Hint(), secret.Reveal()) {
			t.Errorf("%s: the error has the secret", what)
		}
	}
	if len(searched) > 0 {
		t.Errorf("the cluster was searched for %v", searched)
	}

	// A node that lags behind asks the cluster for a key that a node has made, and for no other.
	late, lateSecret := s.New("bob", image.RoleWrite, now, time.Time{})
	found = &late
	if p, err := check(late.ID, lateSecret.Reveal(), now); err != nil || p.User != "bob" {
		t.Errorf("%+v, %v", p, err)
	}
	failed = image.Errorf(image.KindNoQuorum, "no majority")
	if _, err := check(late.ID, lateSecret.Reveal(), now); image.KindOf(err) != image.KindNoQuorum {
		t.Errorf("a key that could not be looked up: %v", err)
	}

	found, failed = nil, nil
	keys.Apply([]catalog.Event{{AccessKeyRemoved: k.ID}})
	if p, err := check(k.ID, secret.Reveal(), now); image.KindOf(err) != image.KindUnauthorized {
		t.Errorf("a removed key: %+v, %v", p, err)
	}
	removed, removedSecret := s.New("carol", image.RoleRead, now, time.Time{})
	searched = nil
	for range 3 {
		p, err := check(removed.ID, removedSecret.Reveal(), now)
		if image.KindOf(err) != image.KindUnauthorized {
			t.Errorf("a key that was removed before: %+v, %v", p, err)
		}
	}
	if len(searched) != 1 {
		t.Errorf("the cluster was searched for a removed key %d times", len(searched))
	}
	if err := keys.Load(func(fn func(*catalog.AccessKey)) error { fn(&k); return nil }); err != nil {
		t.Fatal(err)
	}
	if _, err := check(k.ID, secret.Reveal(), now); err != nil {
		t.Error(err)
	}
	if _, err := check(other.ID, otherSecret.Reveal(), now); image.KindOf(err) != image.KindUnauthorized {
		t.Errorf("a key that is not among those that were loaded: %v", err)
	}
}

// TestParseAuthorization reads every form of the field, and none of those that are not one.
func TestParseAuthorization(t *testing.T) {
	basic := func(s string) string { return "Basic " + base64.StdEncoding.EncodeToString([]byte(s)) }
	for _, x := range []struct {
		fields     []string
		id, secret string
		ok, bad    bool
	}{
		{fields: nil},
		{fields: []string{"Bearer ID.SECRET"}, id: "ID", secret: "SECRET", ok: true},
		{fields: []string{"bearer  ID.SECRET "}, id: "ID", secret: "SECRET", ok: true},
		{fields: []string{basic("ID:SECRET")}, id: "ID", secret: "SECRET", ok: true},
		{fields: []string{basic("ID:SE:CRET")}, id: "ID", secret: "SE:CRET", ok: true},
		{fields: []string{""}, bad: true},
		{fields: []string{"Bearer"}, bad: true},
		{fields: []string{"Bearer IDSECRET"}, bad: true},
		{fields: []string{"Basic !!!"}, bad: true},
		{fields: []string{basic("IDSECRET")}, bad: true},
		{fields: []string{"Digest ID.SECRET"}, bad: true},
		{fields: []string{"Bearer ID.SECRET", basic("ID:SECRET")}, bad: true},
		{fields: []string{"Bearer ID." + strings.Repeat("S", authorizationMax)}, bad: true},
	} {
		id, secret, ok, err := ParseAuthorization(http.Header{"Authorization": x.fields})
		bad := image.KindOf(err) == image.KindUnauthorized
		if id != x.id || secret != x.secret || ok != x.ok || x.bad != bad {
			t.Errorf("%q: %q, %q, %v, %v", x.fields, id, secret, ok, err)
		}
		if err != nil && strings.Contains(err.Error()+image.HintOf(err), "SECRET"+"S") {
			t.Errorf("%q: the error quotes it", x.fields)
		}
	}
}

// TestPrincipals: a user's key is for that user's images, and the zero Principal is for nothing.
func TestPrincipals(t *testing.T) {
	for _, x := range []struct {
		p                            Principal
		reads, writes, others, admin bool
	}{
		{Principal{}, false, false, false, false},
		{Principal{Node: 2}, false, false, false, false},
		{Principal{Key: "K", User: "alice", Role: image.RoleRead}, true, false, false, false},
		{Principal{Key: "K", User: "alice", Role: image.RoleWrite}, true, true, false, false},
		{Principal{Key: "K", User: "alice", Role: image.RoleMetrics}, false, false, false, false},
		{Principal{Key: "K", User: "bob", Role: image.RoleAdmin}, true, true, true, true},
		{Principal{Role: image.RoleWrite}, false, false, false, false},
		{Anyone, true, true, true, true},
		{Administrator, true, true, true, true},
	} {
		if x.p.Reads("alice") != x.reads || x.p.Writes("alice") != x.writes ||
			x.p.Reads("carol") != x.others || x.p.Writes("carol") != x.others || x.p.Admin() != x.admin {
			t.Errorf("%+v", x.p)
		}
		if x.p.Reads("") && !x.p.Admin() || From(With(t.Context(), x.p)) != x.p {
			t.Errorf("%+v", x.p)
		}
	}
	if From(t.Context()) != (Principal{}) {
		t.Error("a context without a sender is not a stranger's")
	}
}
