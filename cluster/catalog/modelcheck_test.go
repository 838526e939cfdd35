package catalog

import (
	"fmt"
	"maps"
	"reflect"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// TestModel drives the catalog and the model with the same random commands, more than 10,000 in all,
// and compares all that can be asked after each. Run more with -rapid.checks=10000; a failure prints
// the seed that shows it again.
func TestModel(t *testing.T) {
	for _, nodes := range []int{3, 5} {
		t.Run(fmt.Sprintf("%d nodes", nodes), func(t *testing.T) {
			steps := 0
			for steps == 0 || !testing.Short() && steps < modelStepsMin/2 {
				rapid.Check(t, func(rt *rapid.T) {
					steps += newModelRun(t, rt, nodes).repeat(rt)
				})
				if t.Failed() {
					return
				}
			}
			t.Logf("%d commands", steps)
		})
	}
}

// modelStepsMin is how many commands TestModel executes at least, over its subtests.
const modelStepsMin = 10_000

// The alphabets are small, so that commands concern the same images.
const (
	modelUploads = 5
	modelNames   = 2
	modelEpochs  = 6
)

type modelRun struct {
	*shard
	rt     *rapid.T
	m      *model
	nodes  []image.NodeID
	cmds   []Command
	epochs map[image.ID]uint32 // the latest seen
}

func newModelRun(t testing.TB, rt *rapid.T, nodes int) *modelRun {
	r := &modelRun{shard: newShard(t), rt: rt, m: newModel(), epochs: map[image.ID]uint32{}}
	for n := range nodes {
		r.nodes = append(r.nodes, image.NodeID(n+1))
	}
	if rapid.Bool().Draw(rt, "short memory") {
		r.kept = shortMemory
	}
	r.m.step = r.kept.Step
	return r
}

// shortMemory has room for a few answers of a user.
var shortMemory = Retention{Time: time.Minute, Step: 20 * time.Second, User: 3000, Total: 4500}

func (r *modelRun) repeat(rt *rapid.T) int {
	rt.Repeat(map[string]func(*rapid.T){
		"assign":   func(rt *rapid.T) { r.step(r.drawAssign(rt)) },
		"stored":   func(rt *rapid.T) { r.step(r.drawStored(rt)) },
		"stored 2": func(rt *rapid.T) { r.step(r.drawStored(rt)) }, // most uploads should end
		"reassign": func(rt *rapid.T) { r.step(r.drawReassign(rt)) },
		"recopy":   func(rt *rapid.T) { r.step(r.drawRecopy(rt)) },
		"delete": func(rt *rapid.T) {
			n := byte(len(r.cmds)) // a fresh ID in most runs
			name := int(n) % modelNames
			d := &Delete{ID: image.ID{0: 1, 15: n}, User: modelUser(name), Name: modelName(name)}
			d.Created = r.drawCreated(rt)
			d.If = drawConditions(rt, id(r.drawID(rt)))
			r.step(Command{Delete: d})
		},
		"an old command again": func(rt *rapid.T) {
			if len(r.cmds) == 0 {
				rt.Skip("there is none")
			}
			r.step(rapid.SampledFrom(r.cmds).Draw(rt, "command"))
		},
		"restore": func(*rapid.T) { r.restore() },
		"":        func(*rapid.T) { r.compare() },
	})
	return len(r.cmds)
}

func modelName(n int) string { return fmt.Sprintf("name%d", n) }

// modelUser returns whose image a name is.
func modelUser(name int) string { return []string{"alice", "bob"}[name] }

// drawCreated draws a time near the shard's, or one of a node whose clock is wrong.
func (r *modelRun) drawCreated(rt *rapid.T) time.Time {
	now := r.m.clock
	if now.IsZero() {
		now = clock
	}
	return now.Add(rapid.SampledFrom([]time.Duration{
		0, time.Millisecond, time.Second, 10 * time.Second, -time.Hour, 1000 * time.Hour,
	}).Draw(rt, "created"))
}

func (r *modelRun) drawID(rt *rapid.T) byte {
	return rapid.ByteRange(1, modelUploads).Draw(rt, "upload")
}

func (r *modelRun) drawAssign(rt *rapid.T) Command {
	n := r.drawID(rt)
	name := int(n) % modelNames
	if rapid.IntRange(0, 9).Draw(rt, "other name") == 9 {
		name++
	}
	order := rapid.Permutation(r.nodes).Draw(rt, "order")
	holders := order[:rapid.IntRange(0, len(r.nodes)).Draw(rt, "holders")]
	name %= modelNames
	c := assign(n, modelName(name), slices.Clone(holders)...)
	c.Assign.User, c.Assign.Created = modelUser(name), r.drawCreated(rt)
	c.Assign.Bytes = 100 * int64(n)
	c.Assign.Replicas = rapid.IntRange(0, 3).Draw(rt, "replicas")
	c.Assign.If = drawConditions(rt, id(r.drawID(rt)))
	c.Assign.Type = rapid.SampledFrom([]string{"", "image/png"}).Draw(rt, "type")
	return c
}

// drawConditions draws none, or some that name every image, one upload, or one digest.
func drawConditions(rt *rapid.T, upload image.ID) (c image.Conditions) {
	tags := rapid.SampledFrom([]image.Tags{
		nil, nil, nil,
		{"*"},
		{`"` + upload.String() + `"`},
		{`"other"`, `"` + sealedTag(1) + `"`},
		{`"other"`},
	})
	if rapid.Bool().Draw(rt, "match or not") {
		return image.Conditions{Match: tags.Draw(rt, "match")}
	}
	return image.Conditions{NoneMatch: tags.Draw(rt, "none match")}
}

// drawEpoch draws the epoch of an upload, an earlier or later one, or any.
func (r *modelRun) drawEpoch(rt *rapid.T, n byte) uint32 {
	epoch := rapid.Uint32Range(0, modelEpochs).Draw(rt, "epoch")
	if u := r.m.upload(id(n)); u != nil && epoch > 1 {
		return u.epoch
	}
	return epoch
}

// modelFiles is how many files a node may have of an upload in one epoch.
const modelFiles = 2

func (r *modelRun) drawCopy(rt *rapid.T, n byte) StoredCopy {
	return file(rapid.SampledFrom(r.nodes).Draw(rt, "node"), r.drawEpoch(rt, n),
		rapid.ByteRange(1, modelFiles).Draw(rt, "file"))
}

func (r *modelRun) drawStored(rt *rapid.T) Command {
	n := r.drawID(rt)
	var copies []StoredCopy
	if u := r.m.upload(id(n)); u != nil {
		for _, p := range u.parts {
			if rapid.Bool().Draw(rt, "part") {
				c := at(p.Node, p.Epoch)
				if p.Stored() { // reported again
					c.Attempt = p.Attempt
				}
				copies = append(copies, c)
			}
		}
	}
	if len(copies) == 0 || rapid.IntRange(0, 4).Draw(rt, "any") == 4 {
		copies = append(copies, r.drawCopy(rt, n))
	}
	// Twice the same sum: a wrong one ends an upload.
	c := stored(n, rapid.SampledFrom([]image.Check{sumA, sumA, sumA, sumB}).Draw(rt, "sum"), copies...)
	c.Stored.Sealed = rapid.SampledFrom([]*image.SealedDigest{nil, {1}, {1}, {2}}).Draw(rt, "digest")
	return c
}

func (r *modelRun) drawReassign(rt *rapid.T) Command {
	n := r.drawID(rt)
	lost := rapid.Permutation(r.nodes).Draw(rt, "order")[:rapid.IntRange(0, len(r.nodes)).Draw(rt, "lost")]
	return drop(n, r.drawEpoch(rt, n), rapid.IntRange(0, 3).Draw(rt, "min"), slices.Clone(lost)...)
}

func (r *modelRun) drawRecopy(rt *rapid.T) Command {
	number := rapid.IntRange(0, modelNames-1).Draw(rt, "name")
	name := modelName(number)
	n := r.drawID(rt)
	var now []image.Copy
	if rec := r.m.images[name]; rec != nil && rapid.IntRange(0, 4).Draw(rt, "other upload") < 4 {
		n = rec.ID[15]
		now = rec.Copies
	}
	c := recopy(n, name, nil)
	c.Recopy.User = modelUser(number)
	for range rapid.IntRange(0, 2).Draw(rt, "adds") {
		c.Recopy.Add = append(c.Recopy.Add, r.drawCopy(rt, n).Copy)
	}
	for _, x := range now {
		if rapid.Bool().Draw(rt, "drops") {
			c.Recopy.Drop = append(c.Recopy.Drop, x)
		}
	}
	if rapid.IntRange(0, 4).Draw(rt, "any drop") == 4 {
		c.Recopy.Drop = append(c.Recopy.Drop, r.drawCopy(rt, n).Copy)
	}
	return c
}

// step executes a command, twice: a proposal without an answer is made again.
func (r *modelRun) step(c Command) {
	r.rt.Helper()
	r.cmds = append(r.cmds, c)
	want := r.m.do(c)
	before := maps.Clone(r.db)
	got := r.do(c)
	if image.KindOf(got.Err()) != want {
		r.rt.Fatalf("%s\nwas answered with %q (%v), want %q",
			c.Encode(), image.KindOf(got.Err()), got.Err(), want)
	}
	r.forget(before)
	again := maps.Clone(r.db)
	if _, _, err := ApplyKeeping(r.kept, again, 2, r.index+1, c.Encode()); err != nil || !again.Equal(r.db) {
		r.rt.Fatalf("%s\nhas another effect the second time (%v)", c.Encode(), err)
	}
}

// forget has the model forget what the catalog did with a command, if it may: an answer goes when it is too
// old, and its user's oldest when that user has too much, or all have and nobody has four times as much.
func (r *modelRun) forget(before memkv.KV) {
	r.rt.Helper()
	users, all := map[string]int64{}, int64(0)
	for _, a := range r.m.answers {
		value := r.db[a.key]
		if value == nil {
			value = before[a.key]
		}
		bytes := int64(len(value)+2*len(a.user)) + finishedRowBytes
		users[a.user] += bytes
		all += bytes
	}
	kept := map[string]bool{}
	for _, a := range slices.Clone(r.m.answers) {
		if r.db[a.key] != nil {
			kept[a.user] = true
			continue
		}
		old := !a.at.After(r.m.clock.Add(-r.kept.Time))
		heavy := 4*users[a.user] > slices.Max(slices.Collect(maps.Values(users)))
		if !old && (kept[a.user] || users[a.user] <= r.kept.User && (all <= r.kept.Total || !heavy)) {
			r.rt.Fatalf("the answer to %s of %s is forgotten at %s, with %d bytes of the user's and %d in all",
				a.id, a.user, r.m.clock, users[a.user], all)
		}
		bytes := int64(len(before[a.key])+2*len(a.user)) + finishedRowBytes
		users[a.user] -= bytes
		all -= bytes
		r.m.forget(a)
		delete(r.epochs, a.id)
	}
	var queue finishedQueue
	if _, err := get(r.db, []byte{queueKey}, &queue); err != nil {
		r.rt.Fatal(err)
	}
	r.same("bytes of the answers", queue.Bytes, all)
	for user, bytes := range users {
		var u userQueue
		if _, err := get(r.db, userQueueKey(user), &u); err != nil {
			r.rt.Fatal(err)
		}
		r.same("bytes of the user", u.Bytes, bytes)
		if bytes > r.kept.User || all > r.kept.Total {
			r.rt.Fatalf("%s has %d bytes of answers, all have %d", user, bytes, all)
		}
	}
}

// restore continues with a copy of the keys, as a replica does that gets a snapshot; it must be what a
// replica has that executed the whole log.
func (r *modelRun) restore() {
	r.rt.Helper()
	copied := memkv.KV{}
	replayed := memkv.KV{}
	r.db.Scan(nil, nil, func(k, v []byte) bool { return copied.Set(k, v) == nil })
	for i, c := range r.log {
		if _, _, err := ApplyKeeping(r.kept, replayed, 2, uint64(i+1), c); err != nil {
			r.rt.Fatal(err)
		}
	}
	if !copied.Equal(replayed) {
		r.rt.Fatal("the log applied again gives another state")
	}
	r.db = copied
}

// compare asks the catalog and the model the same.
func (r *modelRun) compare() {
	r.rt.Helper()
	for n := range modelNames {
		rec, err := GetRecord(r.db, modelUser(n), modelName(n))
		r.same("record of "+modelName(n), rec, r.m.images[modelName(n)])
		r.same("error of the record", err, error(nil))
	}
	for n := range byte(modelUploads + 1) {
		r.compareUpload(id(n))
	}
	var listed []string
	for n := range modelNames {
		err := ListRecords(r.db, modelUser(n), "", "",
			func(rec *image.Record) bool { listed = append(listed, rec.Name); return true })
		r.same("list's error", err, error(nil))
	}
	r.same("list", listed, slices.Sorted(maps.Keys(r.m.images)))
	r.compareTotals()
}

func (r *modelRun) compareUpload(id image.ID) {
	r.rt.Helper()
	got, err := GetUpload(r.db, id)
	want := r.m.upload(id)
	if err != nil || (got != nil) != (want != nil) {
		r.rt.Fatalf("upload %s is %+v (%v), want %+v", id, got, err, want)
	}
	if got == nil {
		return
	}
	r.same("upload", fmt.Sprint(got.State, got.Epoch, got.Holders, got.Storing),
		fmt.Sprint(want.state, want.epoch, want.holders, want.parts))
	if got.State != Failed {
		r.same("owner", got.Owner, want.owner)
	}
	if got.Epoch < r.epochs[id] {
		r.rt.Fatalf("the epoch of upload %s fell from %d to %d", id, r.epochs[id], got.Epoch)
	}
	r.epochs[id] = got.Epoch
	names := 0
	for n := range modelNames {
		if rec := r.m.images[modelName(n)]; rec != nil && rec.ID == id {
			names++
		}
	}
	if names > 1 || names == 1 && got.State != Committed {
		r.rt.Fatalf("upload %s is %s and has %d records", id, got.State, names)
	}
	for _, n := range r.nodes {
		for i := range modelFiles * (modelEpochs + 2) {
			c := file(n, uint32(i/modelFiles), byte(1+i%modelFiles))
			if got, want := r.wants(id[15], c), r.m.wants(id, c.Copy); got != want {
				r.rt.Fatalf("%+v of %s is wanted: %v, want %v", c, id, got, want)
			}
		}
	}
}

func (r *modelRun) compareTotals() {
	r.rt.Helper()
	got := r.totals()
	var sum, under int64
	for _, rec := range r.m.images {
		sum += rec.Bytes
		if len(rec.Copies) < rec.Wanted {
			under++
		}
	}
	for n := range modelNames {
		for least := range uint32(modelFiles + 2) {
			old, err := OldCopies(r.db, modelUser(n), least)
			r.same("error of the old copies", err, error(nil))
			r.same("old copies of "+modelUser(n), old, r.m.oldCopies(modelUser(n), least))
		}
	}
	r.same("totals", []int64{got.Images, got.Bytes, got.UnderReplicated},
		[]int64{int64(len(r.m.images)), sum, under})
	for _, n := range r.nodes {
		r.same(fmt.Sprintf("load of node %d", n), *got.node(n), r.m.load(n))
	}
}

func (r *modelRun) same(what string, got, want any) {
	r.rt.Helper()
	if !reflect.DeepEqual(got, want) {
		r.rt.Fatalf("%s is\n%+v, want\n%+v", what, got, want)
	}
}
