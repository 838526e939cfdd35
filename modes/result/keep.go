package result

import "fmt"

// This file takes the records of a log apart, one function for each type, and keeps what the
// report needs. Every number is held to its bounds, those that nothing reads too.

func (l *Log) addUpload(c cursor) error {
	var u upload
	var due float64
	var class, reason []byte
	for c.next() {
		switch string(c.key) {
		case "seq":
			u.seq = c.whole(countMax)
		case "class":
			class = c.text()
		case "bytes":
			u.bytes = c.whole(bytesMax)
		case "start_s":
			u.start = c.number(secondsMax)
		case "latency_s":
			u.latency = c.number(secondsMax)
		case "ok":
			u.ok = c.flag()
		case "error":
			reason = c.text()
		case "owner":
			u.owner = uint32(c.whole(nodeIDMax))
		case "attempts":
			u.attempts = uint32(c.whole(attemptsMax))
		case "sent_bytes":
			u.sent = c.whole(bytesMax)
		case "first_choice":
			u.choice = c.choice()
		case "first_node":
			u.firstNode = uint32(c.whole(nodeIDMax))
		case "scheduled_s":
			due, u.scheduled = c.number(secondsMax), !c.isNull()
		case "warmup":
			u.warm = c.flag()
		}
	}
	if u.scheduled {
		u.wait = max(0, u.start-due)
	}
	u.class = l.classes.index(class)
	if !u.ok {
		u.reason = l.reasons.index(reason)
	}
	if err := first(c.err, l.seen(u.owner), full("upload", len(l.uploads))); err != nil {
		return err
	}
	l.uploads = append(l.uploads, u)
	return nil
}

func (c *cursor) choice() choice {
	switch {
	case c.isNull():
		return choiceUnknown
	case c.flag():
		return choiceFirst
	}
	return choiceOther
}

func (l *Log) addRead(c cursor) error {
	var o readOp
	var due float64
	var reason []byte
	for c.next() {
		switch string(c.key) {
		case "bytes":
			o.bytes = c.whole(bytesMax)
		case "start_s":
			o.start = c.number(secondsMax)
		case "latency_s":
			o.latency = c.number(secondsMax)
		case "ok":
			o.ok = c.flag()
		case "error":
			reason = c.text()
		case "scheduled_s":
			due, o.scheduled = c.number(secondsMax), !c.isNull()
		case "warmup":
			o.warm = c.flag()
		}
	}
	if o.scheduled {
		o.wait = max(0, o.start-due)
	}
	if !o.ok {
		o.reason = l.reasons.index(reason)
	}
	if err := first(c.err, full("read", len(l.reads))); err != nil {
		return err
	}
	l.reads = append(l.reads, o)
	return nil
}

func (l *Log) addNode(c cursor) error {
	var s nodeSample
	var owned load
	for c.next() {
		switch string(c.key) {
		case "t_s":
			s.t = c.number(secondsMax)
		case "id":
			s.id = uint32(c.whole(nodeIDMax))
		case "up":
			s.up = c.flag()
		case "rss_bytes":
			s.rss = c.whole(sampleMax)
		case "cpu_s":
			s.cpu = c.number(secondsMax)
		case "disk_free_bytes":
			s.free = c.whole(sampleMax)
		case "net_rx_bytes":
			s.rx = c.whole(sampleMax)
		case "net_tx_bytes":
			s.tx = c.whole(sampleMax)
		case "staging_bytes":
			s.staging = c.whole(sampleMax)
		case "disk_read_bytes":
			s.dread = c.whole(sampleMax)
		case "disk_written_bytes":
			s.dwritten = c.whole(sampleMax)
		case "disk_busy_s":
			s.diskBusy = c.number(secondsMax)
		case "owned_images":
			owned.images = c.whole(countMax)
		case "owned_bytes":
			owned.bytes = c.whole(sampleMax)
		}
	}
	if err := first(c.err, within("id", int64(s.id), 1, nodeIDMax), l.seen(s.id), full("node", len(l.nodes))); err != nil {
		return err
	}
	if _, seen := l.owned[s.id]; s.up && !seen {
		l.owned[s.id] = ownedAt{owned, s.t}
	}
	l.nodes = append(l.nodes, s)
	return nil
}

func (l *Log) addClient(c cursor) error {
	var s clientSample
	for c.next() {
		switch string(c.key) {
		case "t_s":
			s.t = c.number(secondsMax)
		case "rss_bytes":
			s.rss = c.whole(sampleMax)
		case "cpu_s":
			s.cpu = c.number(secondsMax)
		case "in_flight":
			s.flight = c.whole(countMax)
		case "late_s":
			s.late = c.number(secondsMax)
		case "source_s":
			s.source = c.number(secondsMax)
		case "net_tx_bytes":
			s.sent = c.whole(sampleMax)
		case "net_rx_bytes":
			s.read = c.whole(sampleMax)
		}
	}
	if err := first(c.err, full("client", len(l.client))); err != nil {
		return err
	}
	l.client = append(l.client, s)
	return nil
}

func (l *Log) addEvent(c cursor) error {
	var e event
	var kind, detail []byte
	for c.next() {
		switch string(c.key) {
		case "t_s":
			e.t = c.number(secondsMax)
		case "kind":
			kind = c.text()
		case "node":
			e.node = uint32(c.whole(nodeIDMax))
		case "detail":
			detail = c.text()
		}
	}
	if err := first(c.err, full("event", len(l.events))); err != nil {
		return err
	}
	e.kind, e.detail = l.kinds.index(kind), l.details.index(detail)
	l.events = append(l.events, e)
	return nil
}

func (l *Log) addReadback(c cursor) error {
	b := &Readback{}
	for c.next() {
		switch string(c.key) {
		case "images":
			b.Images = c.whole(countMax)
		case "matched":
			b.Matched = c.whole(countMax)
		case "mismatched":
			b.Mismatched = c.whole(countMax)
		case "missing":
			b.Missing = c.whole(countMax)
		case "unread":
			b.Unread = c.whole(countMax)
		case "bytes":
			b.Bytes = c.whole(sampleMax)
		case "elapsed_s":
			b.ElapsedS = c.number(secondsMax)
		}
	}
	l.back = b
	return c.err
}

func (l *Log) addEnd(c cursor) error {
	for c.next() {
		if string(c.key) == "elapsed_s" {
			l.elapsed = c.number(secondsMax)
		}
	}
	l.ended = true
	return c.err
}

// seen remembers that node id is in the log; 0 is none.
func (l *Log) seen(id uint32) error {
	if id == 0 || l.ids[id] {
		return nil
	}
	if len(l.ids) == nodesMax {
		return fmt.Errorf("more than %d different nodes", nodesMax)
	}
	l.ids[id] = true
	return nil
}

func full(what string, n int) error {
	if n < recordsMax {
		return nil
	}
	return fmt.Errorf("more than %d records of type %s", recordsMax, what)
}
