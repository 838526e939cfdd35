package api

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// TestBodyThatDoesNotCome announces a body and sends nothing: no path waits for it for long, whether it has
// a use for a body or not.
func TestBodyThatDoesNotCome(t *testing.T) {
	h, server := serve(t, &shelf{rec: image.Record{Bytes: 1}, contents: []wire.Content{newFlaky(1, 1, nil)}})
	h.BodyIdle = 100 * time.Millisecond
	nodes := servePeers(t, h)
	for _, request := range []string{
		"GET /livez", "GET /nothing", "POST /internal/v1/hello", "POST /internal/v1/join", "POST /v1/members",
		"POST /livez", "GET /v1/images/a/b",
	} {
		t.Run(request, func(t *testing.T) {
			t.Parallel()
			to := server
			if strings.Contains(request, wire.InternalPath) {
				to = nodes
			}
			conn, err := net.Dial("tcp", to.Listener.Addr().String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			fmt.Fprintf(conn, "%s HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n", request)
			conn.SetReadDeadline(time.Now().Add(5 * time.Second))
			resp, err := http.ReadResponse(bufio.NewReader(conn), nil)
			if err == nil {
				_, err = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			if e, ok := err.(net.Error); ok && e.Timeout() {
				t.Errorf("no answer, and the connection stays: %v", err)
			}
		})
	}
}
