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
	l, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	defer l.Close()
	dialed, err := net.Dial("tcp", l.Addr().String())
	must(t, err)
	accepted, err := l.Accept()
	must(t, err)
	under = &counted{TCPConn: dialed.(*net.TCPConn)}
	t.Cleanup(func() { dialed.Close(); accepted.Close() })
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
