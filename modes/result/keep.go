package result

import "fmt"

// This file takes the records of a log apart, one function for each type, and keeps what the
// report needs. Every number is held to its bounds, those that nothing reads too. A field that is absent or
// null is not known, which is never the same as 0: what a check goes by is kept with whether it is known.

func (l *Log) addUpload(c cursor) error {
	var u upload
	var due float64
	var class, reason []byte
	var began, took bool
	u.lacking = true
	for c.known() {
		switch string(c.key) {
		case "seq":
			u.seq = c.whole(countMax)
		case "class":
			class = c.text()
		case "bytes":
			u.bytes = c.whole(bytesMax)
		case "start_s":
			u.start, began = c.number(secondsMax), true
		case "latency_s":
			u.latency, took = c.number(secondsMax), true
		case "ok":
			u.ok, u.lacking = c.flag(), false
		case "error":
			reason = c.text()
		case "owner":
			u.owner = uint32(c.whole(nodeIDMax))
		case "attempts":
			u.attempts = uint32(c.whole(attemptsMax))
		case "sent_bytes":
			u.sent, u.counted = c.whole(bytesMax), true
		case "first_choice":
			u.choice = c.choice()
		case "first_node":
			u.firstNode = uint32(c.whole(nodeIDMax))
		case "scheduled_s":
			due, u.scheduled = c.number(secondsMax), true
		case "warmup":
			u.warm = c.flag()
		}
	}
	if u.timed = began && took; u.timed && u.scheduled {
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
	if c.flag() {
		return choiceFirst
	}
	return choiceOther
}

func (l *Log) addRead(c cursor) error {
	var o readOp
	var due float64
	var reason []byte
	var began, took, decided bool
	for c.known() {
		switch string(c.key) {
		case "bytes":
			o.bytes = c.whole(bytesMax)
		case "start_s":
			o.start, began = c.number(secondsMax), true
		case "latency_s":
			o.latency, took = c.number(secondsMax), true
		case "ok":
			o.ok, decided = c.flag(), true
		case "error":
			reason = c.text()
		case "scheduled_s":
			due, o.scheduled = c.number(secondsMax), true
		case "warmup":
			o.warm = c.flag()
		}
	}
	if o.timed = began && took; o.timed && o.scheduled {
		o.wait = max(0, o.start-due)
	}
	if !o.ok {
		o.reason = l.reasons.index(reason)
	}
	if err := first(c.err, full("read", len(l.reads))); err != nil {
		return err
	}
	if !decided {
		l.unknown++
		return nil
	}
	l.reads = append(l.reads, o)
	return nil
}

func (l *Log) addNode(c cursor) error {
	s := nodeSample{cpu: notTold, diskBusy: notTold, rx: notTold, tx: notTold, dread: notTold, dwritten: notTold}
	var owned load
	var timed, seen, counted bool
	for c.known() {
		switch string(c.key) {
		case "t_s":
			s.t, timed = c.number(secondsMax), true
		case "id":
			s.id = uint32(c.whole(nodeIDMax))
		case "up":
			s.up, seen = c.flag(), true
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
			owned.images, counted = c.whole(countMax), true
		case "owned_bytes":
			owned.bytes = c.whole(sampleMax)
		}
	}
	if err := first(c.err, within("id", int64(s.id), 1, nodeIDMax), l.seen(s.id), full("node", len(l.nodes))); err != nil {
		return err
	}
	if !seen {
		return nil // nothing says that these are figures of a node that runs
	}
	if !timed && len(l.nodes) > 0 {
		s.t = l.nodes[len(l.nodes)-1].t // they come in order
	}
	if _, before := l.owned[s.id]; s.up && counted && !before {
		l.owned[s.id] = ownedAt{owned, s.t}
	}
	if s.up {
		if before, ok := l.latest[s.id]; ok {
			carry(&s.rx, before.rx)
			carry(&s.tx, before.tx)
			carry(&s.dread, before.dread)
			carry(&s.dwritten, before.dwritten)
			carry(&s.cpu, before.cpu)
			carry(&s.diskBusy, before.diskBusy)
		}
		l.latest[s.id] = s
	}
	l.nodes = append(l.nodes, s)
	return nil
}

// carry gives a counter that a sample leaves out its value of before.
func carry[T int64 | float64](v *T, before T) {
	if *v == notTold {
		*v = before
	}
}

func (l *Log) addClient(c cursor) error {
	s := clientSample{cpu: notTold, source: notTold, sent: notTold, read: notTold, flight: notTold}
	timed := false
	for c.known() {
		switch string(c.key) {
		case "t_s":
			s.t, timed = c.number(secondsMax), true
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
	if n := len(l.client); n > 0 {
		before := &l.client[n-1]
		if !timed {
			s.t = before.t // they come in order
		}
		carry(&s.cpu, before.cpu)
		carry(&s.source, before.source)
		carry(&s.sent, before.sent)
		carry(&s.read, before.read)
		carry(&s.flight, before.flight)
	}
	l.client = append(l.client, s)
	return nil
}

func (l *Log) addEvent(c cursor) error {
	var e event
	var kind, detail []byte
	for c.known() {
		switch string(c.key) {
		case "t_s":
			e.t, e.timed = c.number(secondsMax), true
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
	switch string(kind) {
	case EventResumed:
		l.ended = false
	case EventCleaning:
		l.cleaning = true
	}
	if len(kind) == 0 {
		l.unknown++
		return nil
	}
	e.kind, e.detail = l.kinds.index(kind), l.details.index(detail)
	l.events = append(l.events, e)
	return nil
}

func (l *Log) addReadback(c cursor) error {
	b := &Readback{}
	for c.known() {
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

func (l *Log) addCleaned(c cursor) error {
	b := &Cleaned{}
	for c.known() {
		switch string(c.key) {
		case "images":
			b.Images = c.whole(countMax)
		case "bytes":
			b.Bytes = c.whole(sampleMax)
		case "missing":
			b.Missing = c.whole(countMax)
		case "failed":
			b.Failed = c.whole(countMax)
		case "won_back_bytes":
			b.WonBack = c.whole(sampleMax)
		}
	}
	l.cleaned, l.cleaning = b, true
	return c.err
}

func (l *Log) addEnd(c cursor) error {
	for c.known() {
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
