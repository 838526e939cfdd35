package client

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"
)

const (
	// trialImages are measured of each delivery before Auto decides.
	trialImages = 4
	// trialGain is how many times as fast Announce has to be for Auto to go on with it: it saves the client's
	// link a third, and costs a question before each image.
	trialGain = 1.15
	// trialSpread is how many times as many may be at once beside an image of one delivery as beside those of
	// the other: they share the link, and the last ones of a run have it to themselves.
	trialSpread = 1.25
)

// Choice is what Auto has decided by the first images.
type Choice struct {
	Delivery Delivery
	// The median rates of an upload by each, bytes/s, among as many others at once.
	Announce, Broadcast float64
}

func (c Choice) String() string {
	const mega = 1e6
	return fmt.Sprintf("%s from here on: the first images went at %.1f MB/s each by announce, %.1f by broadcast",
		c.Delivery, c.Announce/mega, c.Broadcast/mega)
}

// trial measures the deliveries of the first images. An image counts when none of the other delivery was on
// its way beside it, and as many of its own as with the other: they share the link.
type trial struct {
	mu     sync.Mutex
	choice *Choice // nil: not decided
	flying map[*put]*tried
	rates  map[Delivery][]float64 // bytes/s
	least  float64                // of Announce: how many were at once, and the most
	most   float64
	flown  float64 // seconds that images were on their way, until at
	at     time.Time
}

// tried is an image that is on its way.
type tried struct {
	delivery Delivery
	began    time.Time
	flown    float64 // of trial, then
	alone    bool    // with its kind, so far
}

// advance brings flown up to now. The caller holds mu.
func (t *trial) advance() {
	now := time.Now()
	t.flown += float64(len(t.flying)) * now.Sub(t.at).Seconds()
	t.at = now
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
		t.flying, t.rates = map[*put]*tried{}, map[Delivery][]float64{}
	}
	t.advance()
	mine := &tried{delivery: Announce, began: t.at, flown: t.flown, alone: true}
	if len(t.rates[Announce]) >= trialImages {
		mine.delivery = Broadcast
	}
	for _, other := range t.flying {
		if other.delivery != mine.delivery {
			other.alone, mine.alone = false, false
		}
	}
	t.flying[p] = mine
	return mine.delivery
}

// measure takes an upload that has ended at all nodes, and returns what is decided when it decides, else nil.
func (c *Client) measure(p *put, ok bool) *Choice {
	t := &c.auto
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.flying[p]
	if mine == nil {
		return nil
	}
	t.advance()
	delete(t.flying, p)
	if t.choice != nil || !mine.alone || !ok || p.attempts > 1 {
		return nil
	}
	took := max(t.at.Sub(mine.began), time.Microsecond).Seconds()
	switch atOnce := (t.flown - mine.flown) / took; {
	case mine.delivery == Announce:
		t.least, t.most = min(cmp.Or(t.least, atOnce), atOnce), max(t.most, atOnce)
	case atOnce < t.least/trialSpread, atOnce > t.most*trialSpread:
		return nil
	}
	t.rates[mine.delivery] = append(t.rates[mine.delivery], float64(p.up.Size)/took)
	if len(t.rates[Broadcast]) < trialImages {
		return nil
	}
	choice := Choice{Broadcast, median(t.rates[Announce]), median(t.rates[Broadcast])}
	if choice.Announce >= trialGain*choice.Broadcast {
		choice.Delivery = Announce
	}
	t.choice = &choice
	return t.choice
}

// median returns the middle of some values, of which there are any.
func median(values []float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	return sorted[len(sorted)/2]
}
