package bulkio

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"syscall"
)

type contextKey struct{}

// With returns a context with the Conn that a server's connection is, or has under its TLS, for From. It is
// for http.Server.ConnContext.
func With(ctx context.Context, conn net.Conn) context.Context {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if b, ok := conn.(interface{ bulk() *Conn }); ok {
		return context.WithValue(ctx, contextKey{}, b.bulk())
	}
	return ctx
}

// From returns the connection that a request came on, nil where it is not known: its Expect, Hold and Release
// do nothing.
func From(ctx context.Context) *Conn {
	c, _ := ctx.Value(contextKey{}).(*Conn)
	return c
}

// bulk is for types that have a Conn in them.
func (c *Conn) bulk() *Conn { return c }

// SyscallConn implements syscall.Conn.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	if c.raw == nil {
		return nil, errors.ErrUnsupported
	}
	return c.raw, nil
}
