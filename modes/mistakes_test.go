package modes

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/config"
	"imgcluster/crypto"
)

// guest is a machine that has no master key: a folder with the configuration and ca.crt of a cluster, and an
// access key in the environment.
type guest struct {
	t   *testing.T
	dir string
	env []string
}

func newGuest(t *testing.T, l *upCluster) *guest {
	t.Helper()
	g := &guest{t: t, dir: t.TempDir()}
	for _, name := range []string{"imgcluster.yaml", "ca.crt"} {
		g.write(name, string(read(t, filepath.Join(l.dir, name))), 0o644)
	}
	return g
}

func (g *guest) write(name, text string, mode os.FileMode) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	must(g.t, os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(text), mode),
		os.Chmod(path, mode))
}

// with returns the guest with an access key.
func (g *guest) with(id, secret string) *guest {
	return &guest{g.t, g.dir, []string{config.EnvAccessKey + "=" + id, config.EnvSecretKey + "=" + secret}}
}

func (g *guest) run(args ...string) ended {
	g.t.Helper()
	cmd := program(g.t, g.dir, args...)
	cmd.Env = append(append(os.Environ(), "XDG_CONFIG_HOME="+g.dir), g.env...)
	return finish(g.t, cmd)
}

// TestMistakes makes the mistakes that there are with keys, certificates and files on a running cluster with
// TLS. Each is refused with what is wrong and what to do, and changes nothing. Then the master key changes,
// and with it ca.crt.
func TestMistakes(t *testing.T) {
	t.Parallel()
	l := up(t, "security: {always: true}")
	own := func(args ...string) ended { return finish(t, program(t, l.dir, args...)) }
	own("init").expectOut(t, 0, "ca.crt")
	photo := photos(t)[0]
	own("put", "--user", "alice", "--name", "one", photo).expectErr(t, 0)
	add := func(args ...string) (made wire.NewKey) {
		t.Helper()
		e := own(append([]string{"key", "add", "--json"}, args...)...)
		if err := json.Unmarshal([]byte(e.out), &made); err != nil {
			t.Fatal(err, e)
		}
		return made
	}
	g := newGuest(t, l)
	as := func(k wire.NewKey) *guest { return g.with(k.ID, k.Secret) }
	write := add("--user", "alice", "--role", "write")
	bob := add("--user", "bob", "--role", "read")
	removed := add("--user", "alice", "--role", "write")
	expired := add("--user", "alice", "--role", "write", "--expires", "1s")
	own("key", "rm", removed.ID).expectErr(t, 0)
	eventually(t, "the key is refused", func() bool { return as(removed).run("ls", "alice").status != 0 })
	eventually(t, "the key expires", func() bool { return as(expired).run("ls", "alice").status != 0 })
	as(write).run("ls", "alice").expectOut(t, 0, "one")
	state := func() string {
		return own("ls", "alice").out + own("ls", "bob").out + own("key", "list").out + own("user", "list").out
	}
	before := state()

	t.Run("keys", func(t *testing.T) {
		g := *g
		g.t = t
		const unknown = "is not known, or was removed, or the secret is not its own"
		swapped := bob
		swapped.Secret = write.Secret
		for _, args := range [][]string{
			{"ls", "alice"},
			{"put", "--user", "alice", "--name", "two", photo},
			{"rm", "alice/one"},
			{"status"},
			{"key", "list"},
		} {
			g.run(args...).expectRefused(t, exitFailed, "this cluster asks for an access key", "key add")
			as(removed).run(args...).expectRefused(t, exitFailed, unknown, "imgcluster key list")
			as(swapped).run(args...).expectRefused(t, exitFailed, unknown, "imgcluster key list")
			as(expired).run(args...).
				expectRefused(t, exitFailed, "expired at", "this node's clock says", "key add")
			as(wire.NewKey{AccessKey: wire.AccessKey{ID: write.ID + "A"}, Secret: write.Secret}).run(args...).
				expectRefused(t, exitUsage, "has 20 characters", "copy both")
		}
		as(expired).run("stat", "alice/one").
			expectRefused(t, exitFailed, "does not take this one", "status says which")
		as(bob).run("stat", "alice/one").
			expectRefused(t, exitFailed, "not for this access key", "key of the user")
		for _, args := range [][]string{
			{"ls", "alice"},
			{"put", "--user", "bob", photo},
			{"rm", "alice/one"},
			{"member", "list"},
			{"user", "rm", "alice", "--yes"},
			{"keys", "rotate", "--user", "bob"},
		} {
			as(bob).run(args...).expectRefused(t, exitFailed, bob.ID, "user and role that it needs")
		}
		as(bob).run("key", "rm", write.ID).expectRefused(t, exitFailed, "can remove itself alone", "administrator")
		e := as(write).run("stress", "--count", "1")
		e.expectErr(t, exitFailed, "reads the state of the nodes' machines", write.ID,
			"hint: use an administrator's access key")
	})
	t.Run("files", func(t *testing.T) {
		g := newGuest(t, l).with("", "")
		const credentials = "imgcluster/credentials.yaml"
		text := "access_key: " + write.ID + "\nsecret_key: " + write.Secret + "\n"
		g.write(credentials, text, 0o640)
		g.run("ls", "alice").expectRefused(t, exitUsage, "is open to others (mode 0640)", "hint: chmod 600 ")
		g.write(credentials, text, 0o600)
		g.run("ls", "alice").expectOut(t, 0, "one")
		g.write(keyPath, string(read(t, filepath.Join(l.dir, keyPath))), 0o604)
		g.run("ls", "alice").expectRefused(t, exitUsage, "has mode 0604", "hint: chmod 400 ./"+keyPath)
		g.run("server", "--id", "2").expectRefused(t, exitUsage, "has mode 0604", "hint: chmod 400 ./"+keyPath)
		g.write("ca.crt", "nothing", 0o644)
		must(t, os.Remove(filepath.Join(g.dir, keyPath)))
		g.run("ls", "alice").expectRefused(t, exitUsage, "ca.crt has no certificate", "copy ca.crt")
	})
	t.Run("another cluster", func(t *testing.T) {
		g := newGuest(t, l)
		master, err := crypto.CreateMasterKey(filepath.Join(g.dir, keyPath))
		must(t, err)
		// The administrator of another one, who has this one's ca.crt, and then its own.
		for _, args := range [][]string{{"ls", "alice"}, {"put", "--user", "alice", photo}, {"status"}} {
			g.run(args...).expectRefused(t, exitFailed, "with this master key", "the same master key file")
		}
		foreign, err := access.NewAuthority(master, config.Default().Cluster.Name)
		must(t, err)
		g.write("ca.crt", string(foreign.CertificatePEM()), 0o644)
		for _, args := range [][]string{
			{"ls", "alice"}, {"put", "--user", "alice", photo}, {"stress", "--count", "1"},
		} {
			g.run(args...).expectRefused(t, exitUsage, "is not from an authority that is trusted here",
				"copy ca.crt from a node", "another cluster answers at this address")
		}
		yaml := string(read(t, filepath.Join(l.dir, "imgcluster.yaml")))
		ports, err := config.FreePorts(2)
		must(t, err)
		elsewhere := fmt.Sprintf("${1}api_port: %d, raft_port: %d", ports[0], ports[1])
		node2 := regexp.MustCompile(`(id: 2, .*)api_port: \d+, raft_port: \d+`)
		g.write("imgcluster.yaml", node2.ReplaceAllString(yaml, elsewhere), 0o644)
		g.run("server", "--id", "2", "--set", "node.data_dir=d{id}").
			expectErr(t, exitUsage, master.ID(), "hint: give both sides the same master key file and cluster.name")
		if _, err := os.Stat(filepath.Join(g.dir, "d2")); err == nil {
			t.Error("a refused node left a data directory")
		}
		g.write("imgcluster.yaml", strings.ReplaceAll(yaml, "always: true", "always: false"), 0o644)
		g.run("ls", "alice").expectRefused(t, exitUsage, "speaks TLS, and this command plain HTTP",
			"the same cluster.nodes and security")
	})
	if after := state(); after != before {
		t.Errorf("changed from\n%s\nto\n%s", before, after)
	}

	own("keys", "rotate", "--prepare").expectOut(t, 0, "ca.crt.next")
	eventually(t, "all nodes have the next key", func() bool { return own("keys", "rotate").status == 0 })
	later := newGuest(t, l)
	later.write("ca.crt", string(read(t, filepath.Join(l.dir, "ca.crt.next"))), 0o644)
	later.env = as(write).env
	eventually(t, "all nodes know of the change", func() bool { return later.run("ls", "alice").status == 0 })
	as(write).run("put", "--user", "alice", "--name", "two", photo).expectErr(t, 0)
	later.run("put", "--user", "alice", "--name", "three", photo).expectErr(t, 0)
	own("keys", "rotate", "--finish").expectErr(t, 0, "every machine that uses the cluster needs it")
	later.run("ls", "alice").expectOut(t, 0, "one", "two", "three")
	own("status").expectOut(t, 0, "3 images")
	eventually(t, "the old ca.crt is refused", func() bool { return as(write).run("ls", "alice").status != 0 })
	as(write).run("put", "--user", "alice", photo).expectRefused(t, exitUsage,
		"is not from an authority that is trusted here", "copy ca.crt from a node")
}

// impostors serve, at the addresses of all nodes, a certificate.
func impostors(
	t *testing.T, cfg *config.Config, a *access.Authority, of func(image.NodeID) *tls.Certificate,
) {
	t.Helper()
	for _, n := range cfg.Cluster.Nodes {
		c := of(n.ID)
		serves := a.ClientServer(func() (*tls.Certificate, error) { return c, nil })
		l, err := tls.Listen("tcp", n.APIAddr(), serves)
		must(t, err)
		s := &http.Server{
			ErrorLog: log.New(io.Discard, "", 0),
			Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
				t.Error("a request comes through")
			}),
		}
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
	}
}

// TestClockOff: commands on a host whose clock is two days off say that it is the clock, and where the
// operator's own certificate is over, that it is this. Nothing is sent.
func TestClockOff(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	photo := photos(t)[0]
	for _, off := range []time.Duration{48 * time.Hour, -48 * time.Hour} {
		writeConfig(t, dir, "security: {always: true}")
		cfg, err := config.Load(config.Options{})
		must(t, err)
		call(t, "init").expectOut(t, 0, "ca.crt")
		master, err := crypto.LoadMasterKey(cfg.Local.MasterKeyFile)
		must(t, err)
		a, err := access.NewAuthority(master, cfg.Cluster.Name)
		must(t, err)
		impostors(t, cfg, a, func(id image.NodeID) *tls.Certificate {
			return clustertest.CertificateAt(t, a.Node(id, "127.0.0.1"), off)
		})
		for _, args := range [][]string{
			{"status"},
			{"ls", "alice"},
			{"put", "--user", "alice", photo},
			{"get", "alice/one", "-o", "one"},
			{"member", "list"},
			{"stress", "--count", "1"},
		} {
			call(t, args...).expectRefused(t, exitUsage, "the clocks of this host and of node ",
				"differ by about 48h: its certificate is valid from", "hint: set the clocks of both hosts")
		}
	}

	writeConfig(t, dir, "security: {always: true}\nclient: {ca_file: own.crt}\n")
	text := strings.Replace(string(read(t, "imgcluster.yaml")), "client: {attempts: 2}\n", "", 1)
	must(t, os.WriteFile("imgcluster.yaml", []byte(text), 0o644))
	cfg, err := config.Load(config.Options{})
	must(t, err)
	master, err := crypto.LoadMasterKey(cfg.Local.MasterKeyFile)
	must(t, err)
	a, err := access.NewAuthority(master, cfg.Cluster.Name)
	must(t, err)
	expired := expiredCertificate(t)
	must(t, os.WriteFile("own.crt",
		pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: expired.Certificate[0]}), 0o644))
	impostors(t, cfg, a, func(image.NodeID) *tls.Certificate { return expired })
	call(t, "status").expectRefused(t, exitUsage, `the certificate of "photos.example" is valid from `,
		"hint: renew it (tls.cert_file of the node)")
}

// expiredCertificate is an operator's own for 127.0.0.1, which was good until an hour ago.
func expiredCertificate(t *testing.T) *tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "photos.example"},
		NotBefore: time.Now().Add(-48 * time.Hour), NotAfter: time.Now().Add(-time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	must(t, err)
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}
