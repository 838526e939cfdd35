package bulkio

import (
	"io"
	"net"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// quietConn is a TCP connection for nodes that are idle most of the time. A system call that Go's scheduler
// knows of wakes its monitor thread, which then looks after the process every 20 µs for a millisecond or
// more: of an idle node with 13 shards, which has some 60 messages of Raft a second, that is half of all
// wake-ups. A socket that does not block needs no such care.
type quietConn struct {
	*net.TCPConn
	raw         syscall.RawConn
	read, write call
}

// NewQuietConn returns a connection whose small reads and writes do not wake Go's monitor thread. Its Read is
// for one goroutine at a time, and so is its Write.
func NewQuietConn(conn net.Conn) net.Conn {
	tcp, ok := conn.(*net.TCPConn)
	if !ok {
		return conn
	}
	raw, err := tcp.SyscallConn()
	if err != nil {
		return conn
	}
	c := &quietConn{TCPConn: tcp, raw: raw}
	c.read.init("read", unix.SYS_READ)
	c.write.init("write", unix.SYS_WRITE)
	return c
}

// call is a system call that reads or writes p.
type call struct {
	name   string
	number uintptr
	p      []byte
	n      int
	err    error
	try    func(fd uintptr) bool // is kept, since to make it takes memory
}

func (c *call) init(name string, number uintptr) {
	c.name, c.number = name, number
	c.try = func(fd uintptr) bool {
		for {
			n, _, errno := unix.RawSyscall(c.number, fd, uintptr(unsafe.Pointer(unsafe.SliceData(c.p))),
				uintptr(len(c.p)))
			switch errno {
			case 0:
				c.n, c.err = int(n), nil
			case unix.EINTR:
				continue
			default:
				c.n, c.err = 0, os.NewSyscallError(c.name, errno)
			}
			return errno != unix.EAGAIN
		}
	}
}

// Read implements net.Conn.
func (c *quietConn) Read(p []byte) (int, error) {
	if len(p) == 0 || len(p) > quietBytesMax {
		return c.TCPConn.Read(p)
	}
	r := &c.read
	r.p = p
	if err := c.raw.Read(r.try); err != nil {
		return 0, err
	}
	r.p = nil
	if r.n == 0 && r.err == nil {
		return 0, io.EOF
	}
	return r.n, c.failed(r)
}

// Write implements net.Conn.
func (c *quietConn) Write(p []byte) (int, error) {
	if len(p) > quietBytesMax {
		return c.TCPConn.Write(p)
	}
	w, n := &c.write, 0
	for n < len(p) {
		w.p = p[n:]
		if err := c.raw.Write(w.try); err != nil {
			return n, err
		}
		if w.err != nil {
			break
		}
		n += w.n
	}
	w.p = nil
	return n, c.failed(w)
}

// failed returns the error of a call as package net does.
func (c *quietConn) failed(of *call) error {
	if of.err == nil {
		return nil
	}
	return &net.OpError{
		Op: of.name, Net: "tcp", Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: of.err,
	}
}
