package cluster_test

import (
	"bytes"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// remote is a machine during a rotation that has one ca.crt. There are a user with an access key and no
// master key, and an administrator with the master key of that ca.crt alone.
type remote struct {
	c         *clustertest.Cluster
	what      string
	authority *access.Authority
	key       access.Credentials
	puts      int
}

func newRemote(
	t *testing.T, c *clustertest.Cluster, what string, m *crypto.MasterKey, k wire.NewKey,
) *remote {
	t.Helper()
	r := &remote{c: c, what: what}
	var err error
	if r.authority, err = access.NewAuthority(m, c.Config.Cluster.Name); err != nil {
		t.Fatal(err)
	}
	if r.key, err = access.NewCredentials(k.ID, k.Secret); err != nil {
		t.Fatal(err)
	}
	return r
}

// use runs fn with the user and the administrator as clients of one node, on connections of their own: what
// was agreed on before does not count.
func (r *remote) use(t *testing.T, id image.NodeID, fn func(user, admin *client.Client) error) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(r.authority.CertificatePEM())
	var both []*client.Client
	for _, o := range []client.Options{
		{TLS: access.Client(roots, nil), Key: r.key}, {TLS: access.Client(roots, r.authority.Admin())},
	} {
		o.Delivery, o.Attempts, o.BackoffMax = client.Relay, 100, 500*time.Millisecond
		o.Nodes = []client.Node{{ID: id, Addr: r.c.Addr(id)}}
		cl, err := client.New(o)
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		both = append(both, cl)
	}
	return fn(both[0], both[1])
}

// try has a node store an image and give it back, and the administrator ask for something.
func (r *remote) try(t *testing.T, id image.NodeID) error {
	t.Helper()
	return r.use(t, id, func(user, admin *client.Client) error {
		r.puts++
		name := fmt.Sprintf("%s-%d.png", r.what, r.puts)
		body := clustertest.Image(uint64(r.puts), 20_000+r.puts)
		res, err := user.Put(t.Context(), uploadOf(name, body))
		if err != nil {
			return err
		}
		<-res.Done
		o, err := user.Get(t.Context(), "alice", name, false)
		if err != nil {
			return err
		}
		defer o.Body.Close()
		if got, err := io.ReadAll(o.Body); err != nil || !bytes.Equal(got, body) {
			return fmt.Errorf("%s comes back with %d bytes of %d: %w", name, len(got), len(body), err)
		}
		_, err = admin.MasterKey(t.Context())
		return err
	})
}

// served expects that the nodes serve user and administrator.
func (r *remote) served(t *testing.T, when string, ids ...image.NodeID) {
	t.Helper()
	for _, id := range ids {
		if err := r.try(t, id); err != nil {
			t.Errorf("%s: node %d does not serve who has the %s ca.crt: %v", when, id, r.what, err)
		}
	}
}

// refused expects that neither user nor administrator takes a node for one of the cluster, and that both are
// told what to do.
func (r *remote) refused(t *testing.T, when string, ids ...image.NodeID) {
	t.Helper()
	for _, id := range ids {
		r.use(t, id, func(user, admin *client.Client) error {
			_, one := user.Head(t.Context(), "alice", "before-0.png")
			_, other := admin.MasterKey(t.Context())
			for who, err := range map[string]error{"a user": one, "an administrator": other} {
				if !errors.Is(err, client.ErrMistrusted) || !errors.Is(err, access.ErrForeign) ||
					!strings.Contains(err.Error(), "is not from an authority that is trusted here") ||
					!strings.Contains(image.HintOf(err), "copy ca.crt from a node") {
					t.Errorf("%s: node %d, %s with the %s ca.crt: %v\nhint: %s", when, id, who, r.what, err,
						image.HintOf(err))
				}
			}
			return nil
		})
	}
}

// asks asks a node as the administrator.
func (r *remote) asks(t *testing.T, id image.NodeID) error {
	t.Helper()
	return r.use(t, id, func(_, admin *client.Client) error {
		_, err := admin.MasterKey(t.Context())
		return err
	})
}

// TestClientsOfBothKeys rotates the master key of a cluster with TLS: who has the old ca.crt alone, and who
// has the new one alone, is served by every node until the end of the rotation, and by one that restarts on
// the way. After that the old one is refused.
func TestClientsOfBothKeys(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a cluster")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{Secured: true})
	first := c.Client(t, client.Relay)
	key, err := first.AddAccessKey(t.Context(), wire.KeyRequest{User: "alice", Role: image.RoleWrite})
	if err != nil {
		t.Fatal(err)
	}
	before := putImages(t, c, "before", 3)
	load := startUploads(t, c, "meanwhile") // by connections of the old ca.crt
	was, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile)
	if err != nil {
		t.Fatal(err)
	}
	next := prepare(t, c)
	oldCA, newCA := newRemote(t, c, "old", was, key), newRemote(t, c, "new", next, key)
	oldCA.served(t, "before the rotation", c.IDs()...)
	newCA.refused(t, "before the rotation", c.IDs()...)

	rotate(t, first)
	oldCA.served(t, "at once", c.IDs()...)
	for _, id := range c.IDs() {
		clustertest.Poll(t, fmt.Sprintf("node %d knows of the rotation", id),
			func() bool { return newCA.asks(t, id) == nil })
	}
	both := func(when string) {
		t.Helper()
		oldCA.served(t, when, c.IDs()...)
		newCA.served(t, when, c.IDs()...)
	}
	both("during the rotation")
	awaitResealed(t, first)
	both("when all is sealed again")
	load.end()
	c.Restart(2)
	both("after a restart of node 2")
	c.Restart(c.IDs()...)
	both("after a restart of all")

	if err := newCA.use(t, 1, func(_, admin *client.Client) error { finish(t, admin); return nil }); err != nil {
		t.Fatal(err)
	}
	for _, id := range c.IDs() {
		clustertest.Poll(t, fmt.Sprintf("node %d knows of the end", id),
			func() bool { return oldCA.asks(t, id) != nil })
	}
	oldCA.refused(t, "after the end", c.IDs()...)
	newCA.served(t, "after the end", c.IDs()...)
	clustertest.Poll(t, "the new key is in its place", func() bool {
		m, err := crypto.LoadMasterKey(c.Config.Local.MasterKeyFile)
		return err == nil && m.ID() == next.ID()
	})
	c.TrustAgain(t)
	c.Restart(c.IDs()...)
	oldCA.refused(t, "after the end and a restart", c.IDs()...)
	newCA.served(t, "after the end and a restart", c.IDs()...)
	expectImages(t, c, slices.Concat(before, load.all), c.IDs()...)
}
