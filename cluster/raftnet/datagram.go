package raftnet

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/tls"
	"encoding/binary"
	"sync"
	"sync/atomic"
	"time"

	"github.com/lni/dragonboat/v4/raftpb"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wait"
)

// A datagram is a MessageBatch, sealed with AES-256-GCM under a key that both ends of a TLS connection export
// from it (RFC 8446, section 7.5): the connection's session ID, a counter, and what is sealed, which binds
// both. The counter is the nonce. One that is of no session, was changed, or came before is dropped before
// anything is allocated for it.
const (
	exportLabel     = "EXPORTER-imgcluster-raft-datagram"
	sessionIDBytes  = 8
	datagramKey     = 32
	datagramHeader  = sessionIDBytes + 8
	datagramTag     = 16
	datagramAddends = datagramHeader + datagramTag // what sealing adds
)

// sessionKey exports the session ID and the cipher of a connection. They are for the direction from the end
// that has connected.
func sessionKey(s tls.ConnectionState) (id [sessionIDBytes]byte, aead cipher.AEAD, err error) {
	secret, err := s.ExportKeyingMaterial(exportLabel, nil, sessionIDBytes+datagramKey)
	if err != nil {
		return id, nil, err
	}
	defer clear(secret)
	copy(id[:], secret)
	block, err := aes.NewCipher(secret[sessionIDBytes:])
	if err != nil {
		return id, nil, err
	}
	aead, err = cipher.NewGCM(block)
	return id, aead, err
}

// sealer makes datagrams. It is safe for concurrent use.
type sealer struct {
	id   [sessionIDBytes]byte
	aead cipher.AEAD
	last atomic.Uint64 // counter
}

func newSealer(s tls.ConnectionState) (*sealer, error) {
	id, aead, err := sessionKey(s)
	return &sealer{id: id, aead: aead}, err
}

// seal appends a datagram with this message to dst.
func (s *sealer) seal(dst, message []byte) []byte {
	at := len(dst)
	dst = append(dst, s.id[:]...)
	dst = binary.BigEndian.AppendUint64(dst, s.last.Add(1))
	header := dst[at:]
	return s.aead.Seal(dst, nonce(header), message, header)
}

// nonce returns the nonce of a datagram with this header.
func nonce(header []byte) []byte {
	var n [12]byte
	copy(n[4:], header[sessionIDBytes:])
	return n[:]
}

const (
	// sessionsPerPeer bounds the sessions of one node: those of its connections, and of some that broke.
	sessionsPerPeer = 16
	// sessionKept is how long a session outlives its connection: datagrams are of use while it is made again.
	sessionKept = time.Minute
)

// session opens the datagrams of one connection.
type session struct {
	peer   image.NodeID
	aead   cipher.AEAD
	window window
	opened uint64    // order among the sessions
	ended  time.Time // when its connection ended; zero while it has not
}

// sessions are those of all connections that other nodes have made. They are safe for concurrent use.
type sessions struct {
	mu    sync.Mutex
	byID  map[[sessionIDBytes]byte]*session
	count uint64 // of all that were opened
}

func newSessions() *sessions { return &sessions{byID: map[[sessionIDBytes]byte]*session{}} }

// add opens the session of a connection that a node has made. The caller calls ended when the connection has
// ended.
func (s *sessions) add(peer image.NodeID, state tls.ConnectionState) (ended func(), err error) {
	id, aead, err := sessionKey(state)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.trim(peer)
	s.count++
	added := &session{peer: peer, aead: aead, opened: s.count}
	s.byID[id] = added
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		added.ended = time.Now()
	}, nil
}

// trim makes room for one more session of a node. The caller holds mu.
func (s *sessions) trim(peer image.NodeID) {
	var oldest [sessionIDBytes]byte
	n := 0
	for id, x := range s.byID {
		switch {
		case !x.ended.IsZero() && time.Since(x.ended) > sessionKept:
			delete(s.byID, id)
		case x.peer == peer:
			if n++; n == 1 || x.opened < s.byID[oldest].opened {
				oldest = id
			}
		}
	}
	if n >= sessionsPerPeer {
		delete(s.byID, oldest)
	}
}

// open opens a datagram into dst, and returns the message and who has sent it; ok is false for one that
// counts as not received.
func (s *sessions) open(dst, datagram []byte) (peer image.NodeID, message []byte, ok bool) {
	if len(datagram) < datagramAddends {
		return 0, nil, false
	}
	header := datagram[:datagramHeader]
	counter := binary.BigEndian.Uint64(header[sessionIDBytes:])
	s.mu.Lock()
	defer s.mu.Unlock()
	x := s.byID[[sessionIDBytes]byte(header)]
	if x == nil || !x.window.fresh(counter) || !x.ended.IsZero() && time.Since(x.ended) > sessionKept {
		return 0, nil, false
	}
	message, err := x.aead.Open(dst, nonce(header), datagram[datagramHeader:], header)
	if err != nil {
		return 0, nil, false
	}
	x.window.take(counter)
	return x.peer, message, true
}

// window is the counters that have come lately (RFC 4303, section 3.4.3).
type window struct {
	last uint64 // the largest
	seen uint64 // bit i: last-i has come
}

// fresh reports whether a counter has not come yet, and is not too old to know.
func (w *window) fresh(counter uint64) bool {
	if counter > w.last {
		return true
	}
	age := w.last - counter
	return age < 64 && w.seen>>age&1 == 0
}

func (w *window) take(counter uint64) {
	if counter > w.last {
		w.seen = w.seen<<(counter-w.last) | 1 // shifts by 64 and more give 0
		w.last = counter
		return
	}
	w.seen |= 1 << (w.last - counter)
}

// serveDatagrams takes what comes as datagrams.
func (t *Transport) serveDatagrams() {
	var packet, opened [2 * datagramBytesMax]byte
	for t.ctx.Err() == nil {
		n, _, err := t.udp.ReadFrom(packet[:])
		if err != nil {
			wait.For(t.ctx, 100*time.Millisecond)
			continue
		}
		from, message, ok := t.sessions.open(opened[:0], packet[:n])
		if !ok {
			continue
		}
		var m raftpb.MessageBatch
		if decode(&m, message) == nil {
			t.receive(from, m) // a wrong one is lost; its like on a connection ends that
		}
	}
}
