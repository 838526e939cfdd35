//go:build !linux

package bulkio

// Only Linux wakes a reader at once when the mark that it waits for is lowered to what has come: elsewhere
// there is none, and connections have more and smaller reads.

func (c *Conn) readExpected(p []byte, _ int64) (int, error) { return c.read(p) }

func (c *Conn) setMark(int) {}

// fetch leaves it to crypto/tls to read one record at a time.
func (c *Conn) fetch() { c.more = false }
