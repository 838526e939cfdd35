package client

import (
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
)

// Choice is what Auto has decided by the first images.
type Choice struct {
	Delivery Delivery
	// The median rates of an upload by each, bytes/s, among as many others at once as there were.
	Announce, Broadcast float64
}

func (c Choice) String() string {
	const mega = 1e6
	return fmt.Sprintf("%s from here on: the first images went at %.1f MB/s each by announce, %.1f by broadcast",
		c.Delivery, c.Announce/mega, c.Broadcast/mega)
}

// trial measures the deliveries of the first images. An image counts when none of the other delivery was on
// its way beside it: they would share the link.
type trial struct {
	mu     sync.Mutex
	choice *Choice // nil: not decided
	tries  [2]tried
}

// tried is what is known of one delivery.
type tried struct {
	flying map[*put]bool // whether it was alone with its kind so far
	rates  []float64     // bytes/s
}

const triesAnnounce, triesBroadcast = 0, 1

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
	which := triesAnnounce
	if len(t.tries[triesAnnounce].rates) >= trialImages {
		which = triesBroadcast
	}
	other := t.tries[1-which].flying
	for x := range other {
		other[x] = false
	}
	mine := &t.tries[which]
	if mine.flying == nil {
		mine.flying = map[*put]bool{}
	}
	mine.flying[p] = len(other) == 0
	p.began = time.Now()
	if which == triesBroadcast {
		return Broadcast
	}
	return Announce
}

// measure takes an upload that has ended at all nodes, and returns what is decided when it decides, else nil.
func (c *Client) measure(p *put, ok bool) *Choice {
	if c.o.Delivery != Auto {
		return nil
	}
	t := &c.auto
	t.mu.Lock()
	defer t.mu.Unlock()
	which := triesAnnounce
	if p.delivery == Broadcast {
		which = triesBroadcast
	}
	mine := &t.tries[which]
	alone, trying := mine.flying[p]
	delete(mine.flying, p)
	if t.choice != nil || !trying || !alone || !ok || p.attempts > 1 {
		return nil
	}
	mine.rates = append(mine.rates, float64(p.up.Size)/time.Since(p.began).Seconds())
	if len(t.tries[triesBroadcast].rates) < trialImages {
		return nil
	}
	choice := Choice{Broadcast, median(t.tries[triesAnnounce].rates), median(t.tries[triesBroadcast].rates)}
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
