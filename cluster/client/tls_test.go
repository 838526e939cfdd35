package client

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/access"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
	"imgcluster/crypto"
)

// Two master keys, made once by crypto.CreateMasterKey.
const (
	lineOne = "imgcluster-master-key-v1 f5fac8af2578f500 t07xfydFS4K+p5aN+DoOfwMzq1jI34v53IKaZ6+7L+U="
	lineTwo = "imgcluster-master-key-v1 dd59aaed7bc449db IeCf6/S+Z6ZSgit6+dEaQUefYj4XWmp2OGB4CmBRLfI="
)

func authority(t *testing.T, line string) (*access.Authority, *x509.CertPool) {
	t.Helper()
	master, err := crypto.MasterKeyFromEnv(line)
	if err != nil {
		t.Fatal(err)
	}
	a, err := access.NewAuthority(master, "photos")
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(a.CertificatePEM())
	return a, roots
}

// secure has a server speak TLS as a node of the authority does, before it is started.
func secure(a *access.Authority, id image.NodeID) func(s *httptest.Server) {
	return func(s *httptest.Server) {
		own := a.Node(id, "127.0.0.1")
		s.Listener = tls.NewListener(s.Listener, a.ClientServer(own.Get))
		s.Config.ErrorLog = log.New(io.Discard, "", 0)
	}
}

// TestTLS: uploads and reads over TLS with the administrator's certificate; connections are kept.
func TestTLS(t *testing.T) {
	a, roots := authority(t, lineOne)
	data := noise(5 << 20)
	f := newFleet(t, 3, Options{TLS: access.Client(roots, a.Admin())},
		func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			if who, err := a.Identify(r.TLS); err != nil || who == nil || who.Node != 0 {
				t.Errorf("node %d takes the client for %v, %v", id, who, err)
			}
			if r.Method == http.MethodGet {
				w.Header().Set("Content-Length", strconv.Itoa(len(data)))
				w.Write(data)
				return
			}
			accept(f, id, w, r)
		}, func(f *fleet) { f.before = secure(a, 1) })
	for range 2 {
		for _, up := range []Upload{upload(data), streamed(data)} {
			res, err := f.Put(t.Context(), up)
			if err != nil {
				t.Fatal(err)
			}
			<-res.Done
			if res.SentBytes() != 3*int64(len(data)) {
				t.Errorf("%d bytes counted", res.SentBytes())
			}
		}
	}
	for _, r := range f.received() {
		if !bytes.Equal(r.body, data) {
			t.Errorf("node %d got other bytes", r.node)
		}
	}
	obj, err := f.Get(t.Context(), "u", "n", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(obj.Body)
	obj.Body.Close()
	if err != nil || !bytes.Equal(got, data) {
		t.Errorf("read %d bytes: %v", len(got), err)
	}
	if n := f.conns.Load(); n != 3 {
		t.Errorf("%d connections, want 3", n)
	}
}

// streamed is an upload whose body is not in memory.
func streamed(data []byte) Upload {
	up := upload(data)
	up.Body = func() io.Reader { return io.MultiReader(bytes.NewReader(data)) }
	return up
}

// TestMistrusted: what is no node of the cluster gets nothing, the client says why, and does not try again.
func TestMistrusted(t *testing.T) {
	a, roots := authority(t, lineOne)
	foreign, foreignRoots := authority(t, lineTwo)
	for what, tc := range map[string]struct {
		server *access.Authority // nil: plain HTTP
		client *tls.Config
		text   string
	}{
		"another cluster's node": {foreign, access.Client(roots, a.Admin()), "not from an authority"},
		"ca.crt of another":      {a, access.Client(foreignRoots, nil), "not from an authority"},
		"plain HTTP":             {nil, access.Client(roots, a.Admin()), "does not speak TLS"},
		"TLS to plain HTTP":      {a, nil, "speaks TLS, and this command plain HTTP"},
	} {
		t.Run(what, func(t *testing.T) {
			began := time.Now()
			f := newFleet(t, 2, Options{TLS: tc.client},
				func(f *fleet, _ int, w http.ResponseWriter, r *http.Request) {
					t.Error("a request arrives")
				}, func(f *fleet) {
					if tc.server != nil {
						f.before = secure(tc.server, 1)
					}
				})
			res, err := f.Put(t.Context(), upload(noise(1<<20)))
			<-res.Done
			_, listErr := f.Cluster(t.Context())
			for _, err := range []error{err, listErr} {
				if errors.Is(err, ErrMistrusted) != (tc.client != nil) || !strings.Contains(err.Error(), tc.text) ||
					!strings.Contains(err.Error(), " at 127.0.0.1:") || image.HintOf(err) == "" {
					t.Errorf("%v (hint: %s)", err, image.HintOf(err))
				}
			}
			// Of plain HTTP a node cuts the body off, which may be what the client notices.
			if res.Attempts != 1 && tc.client != nil || time.Since(began) > 10*time.Second {
				t.Errorf("%d attempts in %v", res.Attempts, time.Since(began))
			}
		})
	}
}

// TestOneMistrusted: one address that is no node's does not keep the others from answering.
func TestOneMistrusted(t *testing.T) {
	a, roots := authority(t, lineOne)
	foreign, _ := authority(t, lineTwo)
	servers := 0
	f := newFleet(t, 3, Options{TLS: access.Client(roots, nil)}, accept, func(f *fleet) {
		f.before = func(s *httptest.Server) {
			if servers++; servers == 1 {
				secure(foreign, 1)(s)
				return
			}
			secure(a, 2)(s)
		}
	})
	res, err := f.Put(t.Context(), upload(noise(1<<20)))
	if err != nil || res.Attempts != 1 {
		t.Errorf("%d attempts: %v", res.Attempts, err)
	}
	<-res.Done
}

// TestSomeMistrusted: where the nodes that are trusted cannot serve a request alone, the error names both,
// and what to do about those that are not trusted.
func TestSomeMistrusted(t *testing.T) {
	a, roots := authority(t, lineOne)
	foreign, _ := authority(t, lineTwo)
	servers := 0
	f := newFleet(t, 3, Options{TLS: access.Client(roots, nil), Attempts: 2},
		func(_ *fleet, _ int, w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body)
			e := image.Errorf(image.KindNoQuorum, "the upload did not reach node 2").WithHint("send it again")
			problem, text := wire.Problem(w.Header(), e)
			w.WriteHeader(problem.Status)
			w.Write(text)
		}, func(f *fleet) {
			f.before = func(s *httptest.Server) {
				if servers++; servers == 1 {
					secure(a, 1)(s)
					return
				}
				secure(foreign, 2)(s)
			}
		})
	res, err := f.Put(t.Context(), upload(noise(1<<20)))
	<-res.Done
	if image.KindOf(err) != image.KindNoQuorum || res.Attempts != 2 ||
		!strings.Contains(err.Error(), "did not reach node 2; and node ") ||
		!strings.Contains(err.Error(), "is not from an authority that is trusted here") ||
		!strings.Contains(image.HintOf(err), "ca.crt") {
		t.Errorf("%d attempts: %v (hint: %s)", res.Attempts, err, image.HintOf(err))
	}
}

// TestSilentHandshake: a node that accepts connections and says nothing has ReadTimeout.
func TestSilentHandshake(t *testing.T) {
	_, roots := authority(t, lineOne)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := New(Options{
		Nodes: []Node{{1, l.Addr().String()}}, TLS: access.Client(roots, nil),
		ReadTimeout: 50 * time.Millisecond, Attempts: 1,
	})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	res, err := c.Put(t.Context(), upload(noise(1<<10)))
	<-res.Done
	if !errors.Is(err, ErrNobodyAnswers) || !errors.Is(err, errTimeout) {
		t.Error(err)
	}
}
