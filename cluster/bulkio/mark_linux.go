package bulkio

import (
	"time"

	"golang.org/x/sys/unix"
)

// readExpected reads bytes of a body, of which so many are expected.
func (c *Conn) readExpected(p []byte, expected int64) (int, error) {
	within := time.Duration(c.within.Load())
	c.flow.begin(time.Now())
	room := len(p)
	if c.secure {
		room = bufferBytes
	}
	// The last read of a body waits for its end exactly; other marks stay the same for a while.
	mark := int(min(int64(room), expected, markBytesMax, c.flow.in(within/2)&^(markBytesMin-1)))
	if mark < markBytesMin || !c.flow.small() {
		c.setMark(1)
		n, err := c.read(p)
		c.flow.bytes += int64(n + len(c.rest))
		if !c.secure {
			c.flow.try(n, room)
		}
		return n, err
	}
	c.startTimer(within)
	defer c.low.Stop() // after the read, which so waits for no more than the timer lets it
	c.await(mark)
	c.more = true
	n, err := c.read(p)
	c.flow.bytes += int64(n + len(c.rest))
	return n, err
}

// await waits until so many bytes have come, the other end has closed, the timer has lowered the mark and
// something has come, or the deadline is over. Errors are left to the read.
func (c *Conn) await(mark int) {
	c.setMark(mark)
	c.raw.Read(func(fd uintptr) bool {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
		return err != nil && err != unix.EINTR || ready > 0
	})
}

func (c *Conn) startTimer(within time.Duration) {
	if c.low == nil {
		c.low = time.AfterFunc(within, func() { c.setMark(1) })
		return
	}
	c.low.Reset(within)
}

// setMark sets how many bytes must have come before the kernel wakes Read. Where they have come it does so
// now.
func (c *Conn) setMark(n int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.mark == n {
		return
	}
	c.mark = n
	c.raw.Control(func(fd uintptr) {
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVLOWAT, n)
	})
}

// fetch reads what has come, without waiting: nobody holds a buffer for a sender that is slow. The end and
// the errors are left to the next Read.
func (c *Conn) fetch() {
	buf := buffers.Get().(*[bufferBytes]byte)
	n := 0
	err := c.raw.Read(func(fd uintptr) bool {
		n, _ = unix.Read(int(fd), buf[:])
		return true
	})
	if err != nil || n <= 0 {
		buffers.Put(buf)
		c.more = false
		return
	}
	c.buf, c.rest, c.more = buf, buf[:n], n == len(buf)
	c.flow.try(n, len(buf))
}
