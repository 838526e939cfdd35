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
	modelFiles   = 3 // that a node may have of an upload
)

type modelRun struct {
	*shard
	rt    *rapid.T
	m     *model
	nodes []image.NodeID
	cmds  []Command
}

func newModelRun(t testing.TB, rt *rapid.T, nodes int) *modelRun {
	r := &modelRun{shard: newShard(t), rt: rt, m: newModel()}
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
		"commit":   func(rt *rapid.T) { r.step(r.drawCommit(rt)) },
		"commit 2": func(rt *rapid.T) { r.step(r.drawCommit(rt)) }, // there should be images
		"commit 3": func(rt *rapid.T) { r.step(r.drawCommit(rt)) },
		"end":      func(rt *rapid.T) { r.step(r.drawEnd(rt)) },
		"abort": func(rt *rapid.T) {
			n := r.drawID(rt)
			c := abortOf(n, r.drawCopy(rt))
			c.Abort.User, c.Abort.Created = modelUser(r.drawName(rt, n)), r.drawCreated(rt)
			r.step(c)
		},
		"recopy":   func(rt *rapid.T) { r.step(r.drawRecopy(rt)) },
		"recopy 2": func(rt *rapid.T) { r.step(r.drawRecopy(rt)) },
		"restart or purge": func(rt *rapid.T) { // both seldom, for they make much stale
			switch rapid.IntRange(0, 5).Draw(rt, "which") {
			case 0:
				r.step(Command{Restart: &Restart{Node: rapid.SampledFrom(r.nodes).Draw(rt, "node")}})
			case 1:
				removal := r.m.removal + rapid.Uint64Range(0, 2).Draw(rt, "removal")
				r.step(purge(removal, modelUser(rapid.IntRange(0, modelNames-1).Draw(rt, "user"))))
			}
		},
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

// drawName draws the name of an upload, seldom another one.
func (r *modelRun) drawName(rt *rapid.T, n byte) int {
	name := int(n)
	if rapid.IntRange(0, 9).Draw(rt, "other name") == 9 {
		name++
	}
	return name % modelNames
}

// drawCopy draws a copy of any node, reported as of now or of an earlier entry.
func (r *modelRun) drawCopy(rt *rapid.T) Reported {
	return r.drawCopyOn(rt, rapid.SampledFrom(r.nodes).Draw(rt, "node"))
}

func (r *modelRun) drawCopyOn(rt *rapid.T, node image.NodeID) Reported {
	index := r.m.index
	if rapid.IntRange(0, 4).Draw(rt, "late") == 4 {
		index -= min(index, rapid.Uint64Range(0, 12).Draw(rt, "by"))
	}
	return Reported{file(node, rapid.ByteRange(1, modelFiles).Draw(rt, "file")), index}
}

func (r *modelRun) drawCommit(rt *rapid.T) Command {
	n := r.drawID(rt)
	name := r.drawName(rt, n)
	order := rapid.Permutation(r.nodes).Draw(rt, "order")
	c := commitOf(n, modelName(name))
	c.Commit.User, c.Commit.Created = modelUser(name), r.drawCreated(rt)
	c.Commit.Bytes = 100 * int64(n)
	c.Commit.Wanted = rapid.IntRange(1, 3).Draw(rt, "wanted")
	most := min(c.Commit.Wanted+1, len(order)) // one too many
	for _, node := range order[:min(most, rapid.IntRange(0, 9).Draw(rt, "copies"))] {
		c.Commit.Copies = append(c.Commit.Copies, r.drawCopyOn(rt, node))
	}
	if len(c.Commit.Copies) > c.Commit.Wanted && rapid.IntRange(0, 4).Draw(rt, "too many") < 4 {
		c.Commit.Copies = c.Commit.Copies[:c.Commit.Wanted]
	}
	c.Commit.If = drawConditions(rt, id(r.drawID(rt)))
	c.Commit.Type = rapid.SampledFrom([]string{"", "image/png"}).Draw(rt, "type")
	c.Commit.Check = rapid.SampledFrom([]image.Check{sumA, sumA, sumA, sumB}).Draw(rt, "sum")
	c.Commit.Sealed = rapid.SampledFrom([]*image.SealedDigest{nil, {1}, {1}, {2}}).Draw(rt, "digest")
	return c
}

func (r *modelRun) drawEnd(rt *rapid.T) Command {
	n := r.drawID(rt)
	name := r.drawName(rt, n)
	c := endOf(n, modelName(name))
	c.End.User, c.End.Created = modelUser(name), r.drawCreated(rt)
	c.End.Round = rapid.Uint64Range(0, 3).Draw(rt, "round")
	c.End.If = drawConditions(rt, id(r.drawID(rt)))
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
		c.Recopy.Add = append(c.Recopy.Add, r.drawCopy(rt))
	}
	for _, x := range now {
		if rapid.Bool().Draw(rt, "drops") {
			c.Recopy.Drop = append(c.Recopy.Drop, x)
		}
	}
	if rapid.IntRange(0, 4).Draw(rt, "any drop") == 4 {
		c.Recopy.Drop = append(c.Recopy.Drop, r.drawCopy(rt).Copy)
	}
	return c
}

// step executes a command, twice: a proposal without an answer is made again.
func (r *modelRun) step(c Command) {
	r.rt.Helper()
	r.cmds = append(r.cmds, c)
	named := r.m.files()
	want := r.m.do(c)
	before := maps.Clone(r.db)
	r.events = nil
	got := r.do(c)
	if image.KindOf(got.Err()) != want {
		r.rt.Fatalf("%s\nwas answered with %q (%v), want %q",
			c.Encode(), image.KindOf(got.Err()), got.Err(), want)
	}
	r.compareEvents(c, named)
	r.forget(before)
	if c.Restart != nil || c.End != nil && r.m.ended && !got.Upload.Refused() {
		return // done again, it is as of that entry
	}
	again := maps.Clone(r.db)
	if _, _, err := ApplyKeeping(r.kept, again, 2, r.index+1, c.Encode()); err != nil || !again.Equal(r.db) {
		r.rt.Fatalf("%s\nhas another effect the second time (%v)", c.Encode(), err)
	}
}

// compareEvents expects that the events of a command say what it did: which files are garbage, that were
// named before, which upload it ended, and which copy it took back.
func (r *modelRun) compareEvents(c Command, named map[modelFile]bool) {
	r.rt.Helper()
	maps.DeleteFunc(named, func(f modelFile, _ bool) bool { return r.m.files()[f] })
	garbage := map[modelFile]bool{}
	uploads, aborted, purges := 0, 0, 0
	for _, e := range r.events {
		switch {
		case e.Removed != nil:
			for _, x := range e.Removed.Copies {
				garbage[modelFile{x.Node, e.Removed.File(x)}] = true
			}
		case e.Upload != nil:
			uploads++
			r.same("index of the upload that ended", e.Upload.Index, r.m.index)
		case e.Aborted != nil:
			aborted++
		case e.Purge != nil:
			purges++
		}
	}
	r.same("garbage", garbage, named)
	r.same("an upload ended", uploads, map[bool]int{true: 1}[r.m.ended])
	if c.Abort == nil {
		r.same("copies taken back", aborted, 0)
	} else {
		f := image.FileID{Image: c.Abort.File.Image, Attempt: c.Abort.File.Attempt}
		r.same("copies taken back", aborted == 1, r.m.taken[f])
	}
	purged := c.Purge != nil && c.Purge.Removal == r.m.removal && r.m.forgotten == r.m.index
	r.same("purges", purges == 1, purged)
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
			r.rt.Fatalf("the answer %x of %s is forgotten at %s, with %d bytes of the user's and %d in all",
				a.key, a.user, r.m.clock, users[a.user], all)
		}
		bytes := int64(len(before[a.key])+2*len(a.user)) + finishedRowBytes
		users[a.user] -= bytes
		all -= bytes
		r.m.forget(a)
	}
	var queue finishedQueue
	if _, err := get(r.db, []byte{queueKey}, &queue); err != nil {
		r.rt.Fatal(err)
	}
	r.same("bytes of the answers", queue.Bytes, all)
	r.same("the newest entry that is forgotten", queue.Floor, r.m.forgotten)
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
	r.same("name", got.User+"/"+got.Name, want.user+"/"+want.name)
	r.same("record", got.Record, want.rec)
	r.same("state", got.State == Committed, want.rec != nil)
	r.same("round and index", []uint64{got.Round, got.Index}, []uint64{want.round, want.index})
	if got.State == Failed {
		r.same("cause", got.Problem.Code, want.cause)
	}
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
		for i := range byte(modelFiles + 2) {
			if got, want := r.names(id[15], file(n, i)), r.m.names(id, file(n, i)); got != want {
				r.rt.Fatalf("file %d of %s on node %d is named: %v, want %v", i, id, n, got, want)
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
