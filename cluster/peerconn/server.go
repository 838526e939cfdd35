package peerconn

import (
	"context"
	"net/http"

	"imgcluster/cluster/access"
	"imgcluster/cluster/bulkio"
)

// Server is an HTTP server on a Port.
type Server struct {
	http     *http.Server
	listener *listener
	done     chan struct{} // closed when it no longer serves
}

// Serve has a server answer the HTTP requests of the other nodes, on at most perPeer connections of each.
func (p *Port) Serve(server *http.Server, perPeer int) *Server {
	server.ConnContext = bulkio.With
	s := &Server{server, p.listen(access.ProtocolHTTP, perPeer), make(chan struct{})}
	go func() {
		defer close(s.done)
		server.Serve(s.listener) // to its end: a Port fails only when it is closed
	}()
	return s
}

// Shutdown lets the requests in progress end, and at the end of ctx closes their connections. It does not
// wait for a node that reads nothing.
func (s *Server) Shutdown(ctx context.Context) (err error) {
	if s.http.Shutdown(ctx) != nil {
		s.listener.closeConnections() // TLS would wait
		err = s.http.Close()
	}
	<-s.done
	return err
}
