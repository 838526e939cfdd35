package client

import (
	"fmt"
	"sync"
	"time"
)

const (
	// trialSkipped end first of each delivery and do not count: connections are made and become fast, and some
	// were beside images of the other delivery.
	trialSkipped = 8
	// trialImages are measured of each delivery before Auto decides.
	trialImages = 16
	// trialGain is how many times as fast Announce has to be for Auto to go on with it: it saves the client's
	// link a third, and costs a question before each image.
	trialGain = 1.15
	// trialSpread is how many times as many images may be at once in the mean by one delivery as by the other:
	// else they say nothing of each other, and Broadcast is measured again.
	trialSpread = 1.5
	// trialRounds are measured before Auto decides for Broadcast. Announce has to win one: on a slow link
	// a wrong choice costs half as much again, on a fast one next to nothing.
	trialRounds = 2
)

// Choice is what Auto has decided by the first images.
type Choice struct {
	Delivery Delivery
	// How many bytes/s all images had together by each. A link gives its streams very unequal parts, so that
	// the rates of single images say little.
	Announce, Broadcast float64
}

// String says it for a person, with the rates in MB/s.
func (c Choice) String() string {
	const mega = 1e6
	return fmt.Sprintf(
		"%s from here on: the first images went at %.1f MB/s together by announce, %.1f by broadcast",
		c.Delivery, c.Announce/mega, c.Broadcast/mega)
}

// trial measures how fast the first images end: some by Announce, then some by Broadcast.
type trial struct {
	mu       sync.Mutex
	choice   *Choice // nil: not decided
	flying   map[*put]Delivery
	at       time.Time // of the last change of flying
	now      window
	announce *window // nil: not measured
	rounds   int     // in which Announce did not win
}

// window is what ended by one delivery since some time at which something was on its way.
type window struct {
	skipped, images           int
	bytes, busy, imageSeconds float64 // busy: seconds in which something was on its way
}

// rate returns bytes/s.
func (w *window) rate() float64 { return w.bytes / w.busy }

// atOnce returns how many images were on their way in the mean.
func (w *window) atOnce() float64 { return w.imageSeconds / w.busy }

// advance brings the window up to now. The caller holds mu.
func (t *trial) advance() {
	at := time.Now()
	if n := len(t.flying); n > 0 {
		took := max(at.Sub(t.at), time.Nanosecond).Seconds()
		t.now.busy += took
		t.now.imageSeconds += took * float64(n)
	}
	t.at = at
}

// choose returns the delivery of an upload that begins.
func (c *Client) choose(p *put) Delivery {
	if c.o.Delivery != Auto {
		return c.o.Delivery
	}
	t := &c.auto
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.choice != nil {
		return t.choice.Delivery
	}
	if t.flying == nil {
		t.flying = map[*put]Delivery{}
	}
	t.advance()
	t.flying[p] = t.delivery()
	return t.flying[p]
}

// delivery returns that which is measured. The caller holds mu.
func (t *trial) delivery() Delivery {
	if t.announce == nil {
		return Announce
	}
	return Broadcast
}

// measure takes an upload that has ended at all nodes, and returns what is decided when it decides, else nil.
func (c *Client) measure(p *put, ok bool) *Choice {
	t := &c.auto
	t.mu.Lock()
	defer t.mu.Unlock()
	delivery, flew := t.flying[p]
	if !flew {
		return nil
	}
	t.advance()
	delete(t.flying, p)
	switch {
	case t.choice != nil:
	case delivery != t.delivery(), !ok, p.attempts > 1:
		t.now = window{}
	case t.now.skipped < trialSkipped:
		t.now = window{skipped: t.now.skipped + 1}
	default:
		t.now.images++
		t.now.bytes += float64(p.up.Size)
		if t.now.images == trialImages {
			return t.decide()
		}
	}
	return nil
}

// decide ends the window. The caller holds mu.
func (t *trial) decide() *Choice {
	ended := t.now
	t.now = window{}
	if t.announce == nil {
		t.announce = &ended
		return nil
	}
	if spread := ended.atOnce() / t.announce.atOnce(); spread > trialSpread || spread < 1/trialSpread {
		return nil
	}
	choice := Choice{Broadcast, t.announce.rate(), ended.rate()}
	if choice.Announce >= trialGain*choice.Broadcast {
		choice.Delivery = Announce
	} else if t.rounds++; t.rounds < trialRounds {
		t.announce = nil
		return nil
	}
	t.choice = &choice
	return t.choice
}
