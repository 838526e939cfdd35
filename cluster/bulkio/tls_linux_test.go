package bulkio

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// counted counts the writes of a TCP connection.
type counted struct {
	*net.TCPConn
	writes atomic.Int64
}

func (c *counted) Write(p []byte) (int, error) {
	c.writes.Add(1)
	return c.TCPConn.Write(p)
}

// pair returns both ends of a TLS connection, and what is under the client's.
func pair(t *testing.T) (client *TLS, server *tls.Conn, under *counted) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	must(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(1), DNSNames: []string{"node"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	must(t, err)
	dialed, accepted := tcpPair(t)
	under = &counted{TCPConn: dialed}
	client = Client(under, &tls.Config{InsecureSkipVerify: true, DynamicRecordSizingDisabled: true})
	server = tls.Server(NewSecureConn(accepted), &tls.Config{
		Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}},
	})
	var wg sync.WaitGroup
	wg.Go(func() { must(t, server.Handshake()) })
	must(t, client.Handshake())
	wg.Wait()
	return client, server, under
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Error(err)
	}
}

// TestManyRecordsAtOnce: what is sent arrives, both ways and in pieces of any size, and a large piece takes
// few writes.
func TestManyRecordsAtOnce(t *testing.T) {
	client, server, under := pair(t)
	sent := make([]byte, 3<<20+12345)
	rand.Read(sent)
	for _, piece := range []int{1 << 20, recordBytes, 70_000, 999} {
		before := under.writes.Load()
		var wg sync.WaitGroup
		wg.Go(func() {
			for rest := sent; len(rest) > 0; {
				n, err := client.Write(rest[:min(piece, len(rest))])
				must(t, err)
				rest = rest[n:]
			}
		})
		got := make([]byte, len(sent))
		_, err := io.ReadFull(server, got)
		wg.Wait()
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("in pieces of %d something else arrives: %v", piece, err)
		}
		writes, records := under.writes.Load()-before, int64(len(sent)/recordBytes)
		if piece == 1<<20 && writes > records/4 {
			t.Errorf("%d writes of %d records", writes, records)
		}
		wg.Go(func() { _, err := server.Write(sent); must(t, err) })
		_, err = io.ReadFull(client, got)
		wg.Wait()
		if err != nil || !bytes.Equal(got, sent) {
			t.Fatalf("something else comes back: %v", err)
		}
	}
}

// TestNothingIsKeptBack: a message that ends where a record does arrives although nothing follows, and the
// reader holds no buffer while it waits for more.
func TestNothingIsKeptBack(t *testing.T) {
	client, server, _ := pair(t)
	r := server.NetConn().(*Conn)
	for _, size := range []int{1, recordBytes, 4 * recordBytes, bufferBytes, 5 * bufferBytes} {
		got := make([]byte, size)
		var wg sync.WaitGroup
		wg.Go(func() {
			must(t, server.SetReadDeadline(time.Now().Add(10*time.Second)))
			_, err := io.ReadFull(server, got)
			must(t, err)
		})
		_, err := client.Write(make([]byte, size))
		must(t, err)
		wg.Wait()
	}
	must(t, server.SetReadDeadline(time.Now().Add(20*time.Millisecond)))
	if _, err := server.Read(make([]byte, 1)); !errors.As(err, new(net.Error)) {
		t.Errorf("a read with nothing to read ends with %v", err)
	}
	if r.buf != nil {
		t.Error("a connection that waits holds a buffer")
	}
}

// TestEnd: the end of the other side is the end here, also when it comes with the last bytes.
func TestEnd(t *testing.T) {
	client, server, _ := pair(t)
	sent := make([]byte, 9*recordBytes+1)
	rand.Read(sent)
	_, err := client.Write(sent)
	must(t, err)
	must(t, client.Close())
	got, err := io.ReadAll(server)
	if err != nil || !bytes.Equal(got, sent) {
		t.Errorf("%d bytes of %d, %v", len(got), len(sent), err)
	}
	if _, err := client.Write(sent); err == nil {
		t.Error("a closed connection takes bytes")
	}
}

// TestHold: a server's answer that is held takes one write, and nothing follows one that failed.
func TestHold(t *testing.T) {
	client, server, _ := pair(t)
	accepted := server.NetConn().(*Conn)
	under := &counted{TCPConn: accepted.Conn.(*net.TCPConn)}
	accepted.Conn = under
	conn := From(With(t.Context(), server))
	if conn != accepted {
		t.Fatal("the connection under TLS is not found")
	}
	sent := make([]byte, 7*recordBytes)
	rand.Read(sent)
	conn.Hold()
	_, err := server.Write(sent)
	must(t, err)
	if n := under.writes.Load(); n != 0 {
		t.Errorf("%d writes before Release", n)
	}
	must(t, conn.Release())
	got := make([]byte, len(sent))
	must(t, client.SetReadDeadline(time.Now().Add(soon)))
	if _, err := io.ReadFull(client, got); err != nil || !bytes.Equal(got, sent) || under.writes.Load() != 1 {
		t.Errorf("after %d writes something else arrives, %v", under.writes.Load(), err)
	}

	must(t, server.SetWriteDeadline(time.Unix(1, 0)))
	conn.Hold()
	_, err = server.Write(sent)
	must(t, err)
	if err := conn.Release(); err == nil {
		t.Error("a write after its deadline succeeds")
	}
	must(t, server.SetWriteDeadline(time.Time{}))
	if _, err := server.Write(sent); err == nil {
		t.Error("what follows a failed write is sent")
	}

	var none *Conn // such as in a test of a handler
	none.Hold()
	none.Expect(1, time.Second)
	must(t, none.Release())
}
