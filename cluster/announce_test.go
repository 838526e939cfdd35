package cluster_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// writing returns the nodes that write an image now.
func (f *faults) writing(t *testing.T) []image.NodeID {
	return slices.DeleteFunc(f.c.IDs(), func(id image.NodeID) bool { return len(f.c.Files(t, id, ".tmp")) == 0 })
}

// announced returns where an upload goes that was announced, the owner first.
func (f *faults) announced(t *testing.T, up client.Upload) []image.NodeID {
	t.Helper()
	query := wire.AnnounceQuery{Bytes: up.Size}.Values().Encode()
	resp := f.c.Do(http.MethodPost, 1, clustertest.Path(up.User, up.Name)+"?"+query, nil,
		http.Header{wire.UploadField: {up.ID.String()}})
	var a wire.Announcement
	if err := json.Unmarshal(resp.Body, &a); err != nil || resp.Status != http.StatusOK || len(a.Nodes) != 2 {
		t.Fatalf("%d %s", resp.Status, resp.Body)
	}
	return a.Nodes
}

// TestFaultsOfDeliveries: whichever node is killed or paused in the middle of an upload, the client sends
// nothing twice, but where that node relays it. An announced upload is not sent to a third node: that one
// gets the bytes from the replica.
func TestFaultsOfDeliveries(t *testing.T) {
	for _, delivery := range []client.Delivery{client.Broadcast, client.Announce, client.Relay} {
		t.Run(string(delivery), func(t *testing.T) {
			f := startFaults(t)
			for _, fault := range []string{"kill", "pause"} {
				for _, role := range []string{"owner", "replica", "third", "leader"} {
					t.Run(fault+"/"+role, func(t *testing.T) { f.hit(t, delivery, fault, role) })
				}
			}
			f.expectSecrets(t)
		})
	}
}

// hit has a node fail in the middle of an upload. Of broadcast and relay, the owner is one of the two nodes
// that store it, and the replica the other one.
func (f *faults) hit(t *testing.T, delivery client.Delivery, fault, role string) {
	f.cl = f.c.Client(t, delivery) // a relay is by its first node
	relay := image.NodeID(0)
	if delivery == client.Relay {
		relay = f.c.IDs()[0]
	}
	body := clustertest.Image(uint64(700+len(f.bodies)), 3*segment)
	name := fmt.Sprintf("%s-%s.png", fault, role)
	up := uploadOf(name, body)
	up.ID = image.NewID()
	var storing []image.NodeID
	if delivery == client.Announce {
		storing = f.announced(t, up)
	}
	finish := f.sendHalf(t, name, body, func(u *client.Upload) { u.ID = up.ID })
	if storing == nil {
		storing = f.writing(t)
	}
	node := map[string]image.NodeID{
		"owner": storing[0], "replica": storing[1], "third": f.c.Others(storing...)[0],
		"leader": f.leaderOf(t, name),
	}[role]
	if fault == "pause" && node == relay { // its client waits for as long as for a slow node
		finish()
		t.Skip("this node relays the upload")
	}
	if fault == "kill" {
		f.c.Kill(node)
	} else {
		f.c.Pause(node)
	}
	since := time.Now()
	res := finish()
	t.Logf("acknowledged %v after the fault, by %v", time.Since(since).Round(time.Millisecond),
		res.Receipt.Replicas)
	copies := map[client.Delivery]int64{client.Broadcast: 3, client.Announce: 2, client.Relay: 1}[delivery]
	if node != relay && (res.Attempts != 1 || res.AgainBytes() != 0 || res.SentBytes() > copies*up.Size) {
		t.Errorf("sent %d times, %d bytes of %d, %d of them again", res.Attempts, res.SentBytes(), up.Size,
			res.AgainBytes())
	}
	if stored := res.Receipt.Replicas; slices.Contains(stored, node) || len(stored) != 2 {
		t.Errorf("node %d has failed, which was to be one of %v, receipt %+v", node, storing, res.Receipt)
	}
	if fault == "kill" {
		f.c.Start(node)
	} else {
		f.c.Resume(node)
	}
	f.expectAll(t)
}

// leaderOf returns the leader of a name's shard.
func (f *faults) leaderOf(t *testing.T, name string) (leader image.NodeID) {
	t.Helper()
	clustertest.Poll(t, "a leader", func() bool {
		shards := f.c.Status(f.c.IDs()[0]).Shards
		slices.SortFunc(shards, func(a, b wire.ShardStatus) int { return int(a.ID) - int(b.ID) })
		leader = shards[1+placement.Shard("alice", name, len(shards)-1)].Leader
		return leader != 0
	})
	return leader
}

// TestAnnouncedAgain: where the only node that is to store an announced upload is killed, the client sends it
// to another one within the same attempt, and counts the bytes of that.
func TestAnnouncedAgain(t *testing.T) {
	if testing.Short() {
		t.Skip("starts processes")
	}
	t.Parallel()
	c := clustertest.Start(t, clustertest.Options{
		Processes: true, Change: func(cfg *config.Config) { cfg.Cluster.Replicas = 1 },
	})
	f := &faults{c: c, cl: c.Client(t, client.Announce), bodies: map[string][]byte{}}
	body := clustertest.Image(800, 3*segment)
	finish := f.sendUntil(t, "again.png", body, "the owner writes the image", func() bool {
		return len(f.writing(t)) == 1
	})
	owner := f.writing(t)[0]
	c.Kill(owner)
	res := finish()
	if res.Attempts != 1 || res.AgainBytes() != int64(len(body)) {
		t.Errorf("%d attempts, %d bytes sent again", res.Attempts, res.AgainBytes())
	}
	c.Start(owner)
	f.expectAll(t)
}

// TestRefusedWhileOnItsWay: an announcement that is refused ends earlier tries under the same ID too. They
// are not stored after their client was told that they are not, though the name is free again by then.
func TestRefusedWhileOnItsWay(t *testing.T) {
	c := clustertest.Start(t, clustertest.Options{})
	path := clustertest.Path("alice", "taken.png")
	c.Put(t, 1, "alice", "taken.png", clustertest.Image(1, 1000), nil)
	body := clustertest.Image(2, 200_000)
	fields := http.Header{wire.UploadField: {image.NewID().String()}, "If-None-Match": {"*"}}
	conn := c.Dial(t, 1)
	conn.Send(fmt.Sprintf("PUT %s HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: %d\r\n%s: %s\r\n"+
		"If-None-Match: *\r\n\r\n", path, len(body), wire.UploadField, fields.Get(wire.UploadField)),
		body[:100_000])
	clustertest.Poll(t, "the first try is on its way", func() bool { return c.Status(1).Nodes[0].Uploads > 0 })
	query := wire.AnnounceQuery{Bytes: int64(len(body))}.Values().Encode()
	refused := c.Do(http.MethodPost, 2, path+"?"+query, nil, fields)
	clustertest.ExpectProblem(t, refused, image.KindExists)
	if r := c.Do(http.MethodDelete, 3, path, nil, nil); r.Status != http.StatusNoContent {
		t.Fatalf("%d %s", r.Status, r.Body)
	}
	again := c.Do(http.MethodPost, 2, path+"?"+query, nil, fields)
	clustertest.ExpectProblem(t, again, image.KindExists)
	conn.Send(body[100_000:])
	clustertest.ExpectProblem(t, conn.Answer(), image.KindExists)
	if r := c.Do(http.MethodGet, 3, path, nil, nil); r.Status != http.StatusNotFound {
		t.Errorf("the refused image is there: %d", r.Status)
	}
	c.ExpectSettled(t)
}
