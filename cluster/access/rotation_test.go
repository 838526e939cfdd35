package access

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/image"
	"imgcluster/crypto"
)

// rotating is one side of a connection at some point of a rotation.
type rotating struct {
	ring      *crypto.Ring
	authority *Authority
}

func newRotating(t *testing.T, keys ...*crypto.MasterKey) *rotating {
	t.Helper()
	r := &rotating{ring: crypto.NewRing(keys...)}
	var err error
	if r.authority, err = NewAuthority(r.ring, "photos"); err != nil {
		t.Fatal(err)
	}
	return r
}

func masterOf(t *testing.T, line string) *crypto.MasterKey {
	t.Helper()
	m, err := crypto.MasterKeyFromEnv(line)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// TestPeersDuringRotation connects nodes that are at different points of a rotation, one server after the
// other with the same TLS configuration, as a running node has it.
func TestPeersDuringRotation(t *testing.T) {
	old, next := masterOf(t, lineOne), masterOf(t, lineTwo)
	before, during, after := []*crypto.MasterKey{old}, []*crypto.MasterKey{next, old}, []*crypto.MasterKey{next}
	server := newRotating(t, before...)
	one := server.authority.Node(1, "127.0.0.1")
	serves := server.authority.PeerServer(one)
	for _, c := range []struct {
		name           string
		server, client []*crypto.MasterKey
		good           bool
	}{
		{"before it", before, before, true},
		{"the client has not heard of it", during, before, true},
		{"both have", during, during, true},
		{"the server has not heard of it", before, during, true},
		{"the server has not heard of its end", during, after, true},
		{"the client has not heard of its end", after, during, true},
		{"after it", after, after, true},
		{"the client has the old key alone", after, before, false},
		{"the server has the old key alone", before, after, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			server.ring.Use(c.server...)
			client := newRotating(t, c.client...).authority
			config := client.PeerClient(client.Node(2, "127.0.0.1"), 1, ProtocolRaft)
			s, _, serverErr, clientErr := handshake(t, serves, config)
			if good := serverErr == nil && clientErr == nil; good != c.good {
				t.Fatal(serverErr, clientErr)
			}
			if from, ok := PeerOf(s); c.good && (from != 2 || !ok) {
				t.Errorf("the server takes its peer for %d", from)
			}
			if refused := (*CertificateError)(nil); !c.good && !errors.As(clientErr, &refused) {
				t.Errorf("the client is refused with %v", clientErr)
			}
			// A client that does not mind who answers gets no further.
			config.VerifyConnection = nil
			if s, _, _, _ := handshake(t, serves, config); s.HandshakeComplete != c.good {
				t.Errorf("the server takes the client: %v", s.HandshakeComplete)
			}
		})
	}
}

// TestClientsDuringRotation: clients with either ca.crt, and administrators with either key, are served from
// the start of a rotation to its end.
func TestClientsDuringRotation(t *testing.T) {
	old, next := masterOf(t, lineOne), masterOf(t, lineTwo)
	server := newRotating(t, old)
	own := server.authority.Node(1, "127.0.0.1")
	config := server.authority.ClientServer(own.Get)
	for _, c := range []struct {
		name     string
		keys     []*crypto.MasterKey
		old, new bool // who is served
	}{
		{"before", []*crypto.MasterKey{old}, true, false},
		{"during", []*crypto.MasterKey{next, old}, true, true},
		{"after", []*crypto.MasterKey{next}, false, true},
	} {
		server.ring.Use(c.keys...)
		for m, good := range map[*crypto.MasterKey]bool{old: c.old, next: c.new} {
			a := newRotating(t, m).authority
			roots := x509.NewCertPool()
			roots.AppendCertsFromPEM(a.CertificatePEM())
			client := Client(roots, a.Admin())
			client.ServerName = "127.0.0.1"
			s, _, _, err := handshake(t, config, client)
			if (err == nil) != good {
				t.Errorf("%s, %v: %v", c.name, m, err)
			}
			if i, err := server.authority.Identify(&s); good && (err != nil || i == nil || i.Node != 0) {
				t.Errorf("%s, %v: the administrator is %v, %v", c.name, m, i, err)
			}
			// Of an administrator on a connection from before the end, too.
			admin, err := a.Admin().Get()
			if err != nil {
				t.Fatal(err)
			}
			state := &tls.ConnectionState{PeerCertificates: []*x509.Certificate{admin.Leaf}}
			if i, _ := server.authority.Identify(state); (i != nil) != good {
				t.Errorf("%s, %v: the administrator of before is %v", c.name, m, i)
			}
		}
	}
}

// TestNothingElseIsCrossed: a chain makes no authority of what is none.
func TestNothingElseIsCrossed(t *testing.T) {
	a := newRotating(t, masterOf(t, lineOne)).authority
	foreign := newRotating(t, masterOf(t, lineTwo)).authority
	theirs, ours := issuerOf(t, foreign), issuerOf(t, a)
	leaf, err := foreign.Node(2, "127.0.0.1").Get()
	if err != nil {
		t.Fatal(err)
	}
	node, err := a.Node(3, "127.0.0.1").Get()
	if err != nil {
		t.Fatal(err)
	}
	crossed, err := a.cross(theirs, ours)
	if err != nil {
		t.Fatal(err)
	}
	chain := []*x509.Certificate{leaf.Leaf, crossed}
	if i, err := a.verify(chain, x509.ExtKeyUsageServerAuth); err != nil || i.Node != 2 {
		t.Fatalf("the chain of a rotation: %v, %v", i, err)
	}
	for what, chain := range map[string][]*x509.Certificate{
		"signed by itself":               {leaf.Leaf, theirs.certificate},
		"beside the true authority":      {leaf.Leaf, ours.certificate},
		"beside a node":                  {leaf.Leaf, node.Leaf},
		"behind many":                    {leaf.Leaf, node.Leaf, node.Leaf, node.Leaf, crossed},
		"an authority in a leaf's place": {crossed, ours.certificate},
	} {
		if _, err := a.verify(chain, x509.ExtKeyUsageServerAuth); !errors.Is(err, ErrForeign) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// TestAccessKeysDuringRotation: keys of before the rotation are good until its end, those sealed again beyond
// it, and a key that there is not takes as long as one that there is, whoever seals.
func TestAccessKeysDuringRotation(t *testing.T) {
	old, next := masterOf(t, lineOne), masterOf(t, lineTwo)
	ring := crypto.NewRing(old)
	s, err := NewSealer(ring)
	if err != nil {
		t.Fatal(err)
	}
	searched := 0
	keys := NewKeys(s, func(context.Context, string) (*catalog.AccessKey, error) { searched++; return nil, nil })
	now := time.Now()
	k, secret := s.New("", image.RoleAdmin, now, time.Time{})
	if err := keys.Load(func(fn func(*catalog.AccessKey)) error { fn(&k); return nil }); err != nil {
		t.Fatal(err)
	}
	expect := func(good bool) {
		t.Helper()
		if _, err := keys.Check(t.Context(), k.ID, secret.Reveal(), now); (err == nil) != good {
			t.Errorf("the key is answered with %v", err)
		}
		if !s.current(keys.standIn()) {
			t.Error("the decoy is not sealed by the key that seals")
		}
	}
	expect(true)
	ring.Use(next, old)
	expect(true)
	other, _ := s.New("", image.RoleAdmin, now, time.Time{})
	for _, id := range []string{k.ID, other.ID} { // both are searched for where they are not known
		if !s.genuine(id) {
			t.Errorf("%s is not taken for one that was made here", id)
		}
	}
	before := k
	sealed, ok := s.Reseal(&k)
	if !ok || catalog.SealedBy(sealed) != next.ID() || catalog.SealedBy(k.Sealed) != old.ID() {
		t.Fatalf("sealed again: %v, by %s, from %s", ok, catalog.SealedBy(sealed), catalog.SealedBy(k.Sealed))
	}
	ring.Use(next)
	expect(false)
	if _, ok := s.Reseal(&before); ok {
		t.Error("what the old key has sealed opens after the rotation")
	}
	again := before
	again.Sealed = sealed
	keys.Apply([]catalog.Event{{AccessKey: &again}})
	expect(true)
}
