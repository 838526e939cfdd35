package client

import (
	"encoding/json"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// announcing answers announcements with nodes, by their number from 1 on, and has h take the uploads.
func announcing(nodes func(n int64, r *http.Request) ([]image.NodeID, error), h handler) handler {
	var announced atomic.Int64
	return func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodPost {
			h(f, id, w, r)
			return
		}
		ids, err := nodes(announced.Add(1), r)
		if err != nil {
			refuse(w, err)
			return
		}
		json.NewEncoder(w).Encode(wire.Announcement{Nodes: ids})
	}
}

func (f *fleet) nodes() (ids []int) {
	for _, r := range f.received() {
		ids = append(ids, r.node)
	}
	slices.Sort(ids)
	return ids
}

// TestAnnounce: the nodes that the answer names, and no other, get the upload, with what says so.
func TestAnnounce(t *testing.T) {
	data := noise(1 << 20)
	digest := image.Digest{1}
	up := upload(data)
	up.ID, up.IfNoneMatch, up.Digest = image.NewID(), true, &digest
	named := func(_ int64, r *http.Request) ([]image.NodeID, error) {
		q, err := wire.ParseAnnounce(r.URL.Query())
		if err != nil || q.Bytes != up.Size || q.Without != nil ||
			r.Header.Get(wire.UploadField) != up.ID.String() || r.Header.Get("If-None-Match") != "*" ||
			r.Header.Get("Content-Digest") != "" || r.ContentLength != 0 {
			t.Errorf("announced %+v by %v, %v", q, r.Header, err)
		}
		return []image.NodeID{3, 1}, nil
	}
	f := newFleet(t, 3, Options{Delivery: Announce}, announcing(named, accept))
	res, err := f.Put(t.Context(), up)
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	if res.Attempts != 1 || res.SentBytes() != 2*up.Size || res.AgainBytes() != 0 || res.Delivery != Announce {
		t.Errorf("%+v, %d bytes sent", res, res.SentBytes())
	}
	if got := f.nodes(); !slices.Equal(got, []int{1, 3}) {
		t.Errorf("sent to %v", got)
	}
	for _, r := range f.received() {
		if r.header.Get("Imgcluster-Broadcast") != "3,1" || r.header.Get("Imgcluster-Announced") != "true" ||
			r.header.Get("Content-Digest") == "" {
			t.Errorf("node %d got %v", r.node, r.header)
		}
	}
}

// TestAnnounceAgain: when all nodes that get an announced upload fail, it is announced once more in the same
// attempt, without those, and what is sent then is counted apart.
func TestAnnounceAgain(t *testing.T) {
	data := noise(1 << 20)
	f := newFleet(t, 3, Options{Delivery: Announce, Attempts: 1},
		announcing(func(n int64, r *http.Request) ([]image.NodeID, error) {
			q, err := wire.ParseAnnounce(r.URL.Query())
			if n == 1 {
				return []image.NodeID{1, 2}, err
			}
			if !slices.Equal(q.Without, []image.NodeID{1, 2}) {
				t.Errorf("announced without %v", q.Without)
			}
			return []image.NodeID{3}, err
		}, func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			if id == 3 {
				accept(f, id, w, r)
				return
			}
			r.Body.Read(make([]byte, 1))
			panic(http.ErrAbortHandler)
		}))
	res, err := f.Put(t.Context(), upload(data))
	if err != nil {
		t.Fatal(err)
	}
	<-res.Done
	again := res.AgainBytes()
	if res.Attempts != 1 || res.Node != 3 || again != int64(len(data)) || res.SentBytes() <= again {
		t.Errorf("%+v, %d bytes sent, %d of them again", res, res.SentBytes(), again)
	}
}

// TestAnnounceRefused: what is refused when it is announced is not sent.
func TestAnnounceRefused(t *testing.T) {
	refusing := func(int64, *http.Request) ([]image.NodeID, error) {
		return nil, image.Errorf(image.KindExists, "there is one").WithHint("choose another name")
	}
	f := newFleet(t, 3, Options{Delivery: Announce}, announcing(refusing, accept))
	res, err := f.Put(t.Context(), upload(noise(1000)))
	expectKind(t, err, image.KindExists)
	if res.SentBytes() != 0 || res.Attempts != 1 {
		t.Errorf("%d attempts, %d bytes sent", res.Attempts, res.SentBytes())
	}
}

// TestAnnounceHedged: a node that does not answer an announcement holds up the first upload for a moment, and
// the next ones not at all.
func TestAnnounceHedged(t *testing.T) {
	asked := make([]atomic.Int64, 4)
	f := newFleet(t, 3, Options{Delivery: Announce},
		func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			if r.Method == http.MethodPut {
				accept(f, id, w, r)
				return
			}
			if asked[id].Add(1); id == 1 {
				<-r.Context().Done()
				return
			}
			json.NewEncoder(w).Encode(wire.Announcement{Nodes: []image.NodeID{2, 3}})
		})
	for range 3 {
		if _, err := f.Put(t.Context(), upload(noise(1000))); err != nil {
			t.Fatal(err)
		}
	}
	if asked[1].Load() != 1 || asked[2].Load() != 3 {
		t.Errorf("node 1 was asked %d times, node 2 %d times", asked[1].Load(), asked[2].Load())
	}
}

// TestAnnouncedToUnknownNodes: an answer that names no node of the shard is as one of a shard that has moved.
func TestAnnouncedToUnknownNodes(t *testing.T) {
	f := newFleet(t, 3, Options{Delivery: Announce, Attempts: 2},
		func(f *fleet, id int, w http.ResponseWriter, r *http.Request) {
			switch r.Method {
			case http.MethodPost:
				io.WriteString(w, `{"nodes":[7,8]}`)
			case http.MethodPut:
				accept(f, id, w, r)
			default:
				refuse(w, image.Errorf(image.KindNotFound, "nothing"))
			}
		})
	_, err := f.Put(t.Context(), upload(noise(1000)))
	expectKind(t, err, image.KindMisplaced)
	if len(f.nodes()) != 0 {
		t.Errorf("sent to %v", f.nodes())
	}
}

// TestAuto decides by how fast the first images end, and says so once.
func TestAuto(t *testing.T) {
	for _, x := range []struct {
		what                string
		announce, broadcast time.Duration // an image takes
		want                Delivery
	}{
		{"a slow link", 2 * time.Second, 3 * time.Second, Announce},
		{"a fast link", time.Second, time.Second, Broadcast},
		{"a little faster", 10 * time.Second, 11 * time.Second, Broadcast},
	} {
		t.Run(x.what, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				c := &Client{o: Options{Delivery: Auto}}
				var chosen []*Choice
				took := func(p *put) {
					if p.delivery == Announce {
						time.Sleep(x.announce)
					} else {
						time.Sleep(x.broadcast)
					}
					if choice := c.measure(p, true); choice != nil {
						chosen = append(chosen, choice)
					}
				}
				begin := func() *put {
					p := &put{up: Upload{Size: 1 << 20}, attempts: 1}
					p.delivery = c.choose(p)
					return p
				}
				failed := begin()
				c.measure(failed, false)
				var after []Delivery
				for range (2*trialRounds + 1) * (trialSkipped + trialImages) {
					p := begin()
					if len(chosen) > 0 {
						after = append(after, p.delivery)
					}
					took(p)
				}
				if len(chosen) != 1 || chosen[0].Delivery != x.want ||
					!strings.HasPrefix(chosen[0].String(), string(x.want)) {
					t.Fatalf("chose %v", chosen)
				}
				if len(after) == 0 || slices.ContainsFunc(after, func(d Delivery) bool { return d != x.want }) {
					t.Errorf("went on with %v", after)
				}
			})
		})
	}
}

// TestAutoByLink: on a link that is what limits, Auto chooses Announce, also by images of different sizes and
// many at once, of which the last have the link to themselves.
func TestAutoByLink(t *testing.T) {
	const (
		runs = 200
		step = 20 * time.Millisecond
		link = 12.5e6 // bytes/s
	)
	copies := map[Delivery]float64{Announce: 2, Broadcast: 3}
	var decided, wrong int
	for seed := range uint64(runs) {
		count := 90 // some of which are decided by
		if seed%2 == 0 {
			count = 120
		}
		synctest.Test(t, func(t *testing.T) {
			dice := rand.New(rand.NewPCG(seed, 0))
			c := &Client{o: Options{Delivery: Auto}}
			left := map[*put]float64{} // bytes that the link has to carry yet
			for begun := 0; begun < count || len(left) > 0; time.Sleep(step) {
				for ; begun < count && len(left) < 8; begun++ {
					p := &put{up: Upload{Size: 5e6 + dice.Int64N(20e6)}, attempts: 1}
					p.delivery = c.choose(p)
					left[p] = float64(p.up.Size) * copies[p.delivery]
				}
				streams := 0.0
				for p := range left {
					streams += copies[p.delivery]
				}
				for p := range left {
					if left[p] -= link * step.Seconds() * copies[p.delivery] / streams; left[p] > 0 {
						continue
					}
					delete(left, p)
					if choice := c.measure(p, true); choice != nil {
						if decided++; choice.Delivery != Announce {
							wrong++
							t.Logf("seed %d: %v", seed, choice)
						}
					}
				}
			}
		})
	}
	if decided < runs/2 || wrong > 0 {
		t.Errorf("decided in %d of %d runs, %d of them wrong", decided, runs, wrong)
	}
}

// TestAutoMixed: an image of the other delivery or one that failed begins the measurement anew, and so do
// images of which fewer are at once.
func TestAutoMixed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := &Client{o: Options{Delivery: Auto}}
		start := func() *put {
			p := &put{up: Upload{Size: 1 << 20}, attempts: 1}
			p.delivery = c.choose(p)
			return p
		}
		// together has some be at once, of which each takes a second.
		together := func(count, atOnce int) (chosen *Choice) {
			for range count / atOnce {
				var flying []*put
				for range atOnce {
					flying = append(flying, start())
				}
				time.Sleep(time.Second)
				for _, p := range flying {
					if choice := c.measure(p, true); choice != nil {
						chosen = choice
					}
				}
			}
			return chosen
		}
		last := start()
		together(trialSkipped+trialImages, 1)
		if p := start(); p.delivery != Broadcast {
			t.Fatalf("%s after %d images", p.delivery, trialSkipped+trialImages)
		} else {
			c.measure(p, true)
		}
		together(trialImages, 2)
		c.measure(last, true)
		if c.auto.now != (window{}) {
			t.Errorf("%+v counts beside one of the other delivery", c.auto.now)
		}
		if choice := together(trialSkipped+trialImages, 8); choice != nil {
			t.Errorf("%v by eight at once, and two at once", choice)
		}
		together(trialSkipped+trialImages/2, 2)
		c.measure(start(), false)
		if choice := together(trialImages, 2); choice != nil {
			t.Errorf("%v though one failed", choice)
		}
		if choice := together(trialSkipped+trialImages, 2); choice != nil {
			t.Errorf("%v after a single round", choice)
		}
		together(trialSkipped+trialImages, 2) // by announce, again
		choice := together(trialSkipped+trialImages, 2)
		if choice == nil || choice.Delivery != Broadcast {
			t.Errorf("chose %v", choice)
		}
	})
}

// TestDeliveries: what there is not is refused with what there is.
func TestDeliveries(t *testing.T) {
	for _, d := range Deliveries {
		if err := d.Check(); err != nil {
			t.Error(err)
		}
	}
	expectKind(t, Delivery("carrier pigeon").Check(), image.KindInvalid)
}
