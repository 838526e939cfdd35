package commit

import (
	"encoding/binary"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"runtime"
	"slices"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/memkv"
	"imgcluster/cluster/image"
)

// A simulation runs three nodes of one shard, their coordinators and participants, on a log, a network, disks
// and clients that misbehave as a seed says: one event after the other, so that the same seed is the same
// run. After each event all that the promises say of uploads is checked.
//
// The log is real: each node applies it with package catalog. An entry is committed when it is appended.
// Messages and proposals may come late, twice or never. A node's coordinator runs while the node believes
// that it leads the shard, which several may at a time.
type simulation struct {
	r       *rand.Rand
	now     time.Time
	log     [][]byte
	truth   memkv.KV // all of the log applied
	nodes   []*simNode
	leader  image.NodeID
	flying  []message
	pending []proposal
	clients []*simClient
	calm    bool // nothing fails any more
	changed bool // something that check looks at
	trace   []string
	tracing bool
}

const (
	simShard   = 2
	simNodes   = 3
	simUploads = 3
	simSteps   = 900
)

var (
	simTimes = Times{Report: 300 * time.Millisecond, Takeover: time.Second, Upload: 8 * time.Second}
	// simKeeps little, so that shards forget within a run.
	simKeeps = catalog.Retention{Time: time.Minute, Step: time.Second, User: 900, Total: 2000}
)

// message is a report or decision on its way.
type message struct {
	from, to image.NodeID
	what     Action
}

// proposal is a command on its way to the log. For a coordinator, run is its node's process.
type proposal struct {
	from    image.NodeID
	run     int
	id      image.ID
	command []byte
	answers bool         // the coordinator waits for the answer
	restart bool         // its node serves the shard from there on
	repairs image.FileID // the copy that a repair waits to be named, or taken back
	slow    bool         // it comes late, when its proposer has given up
}

// simNode is a node: its disk, and the process that runs on it.
type simNode struct {
	s       *simulation
	id      image.NodeID
	db      memkv.KV // that has applied so much of the log
	applied uint64
	peak    uint64                // what it has ever applied: files that it deleted for that stay deleted
	files   map[image.FileID]bool // durable copies
	wiped   bool                  // the disk was lost, and it has not been taken back

	down, paused bool
	run          int // counts its processes
	believes     image.NodeID
	acted        uint64
	coordinator  *Coordinator
	parts        map[image.ID]*simPart
	unacted      []ended // of the log, that participants were not told of yet
	restarted    uint64  // the entry with the Restart of this process; 0: there is none yet
	// pins are copies of repairs, and the entry that says what becomes of each; 0: there is none yet.
	pins map[image.FileID]uint64
}

// ended is an upload or a copy that an entry of the log ended, and the last entry that was acted on before;
// without both: all of an entry was acted on.
type ended struct {
	index   uint64
	upload  *catalog.Upload
	aborted *image.FileID
}

// simPart is a participant with its bytes and its file.
type simPart struct {
	*Participant
	node    *simNode
	run     int
	client  *simClient
	source  *simPart       // that relays the upload to this one; nil: the client sends it
	sent    []image.NodeID // that this one relays the upload to
	got     int            // parts of the body, of simParts
	attempt image.Attempt  // that is being stored
	writing bool
	cut     bool // the body ended early
	file    image.FileID
	began   time.Time
}

const simParts = 3

// over reports whether nothing comes of a participant any more.
func (p *simPart) over() bool {
	return p.node.down || p.node.run != p.run || p.node.parts[p.req.ID] != p
}

// header is that of an upload which a node relays to another one.
type header struct{ source *simPart }

func (header) action() {}

// simClient is one upload by one client.
type simClient struct {
	req     image.Request
	check   image.Check
	toStart []image.NodeID // of this try, that have not had the header yet
	tries   int
	acked   bool
	refused *image.Problem // for good
}

// triesMax bounds how often a client sends an upload, and calmTries how often when nothing fails any more:
// and once more for each proposal and message of before, which may end it.
const triesMax, calmTries = 3, 4

func newSimulation(seed uint64) *simulation {
	s := &simulation{
		r: rand.New(rand.NewPCG(seed, 2)), now: time.UnixMilli(1_700_000_000_000), truth: memkv.KV{}, leader: 1,
	}
	for id := range image.NodeID(simNodes) {
		n := &simNode{s: s, id: id + 1, db: memkv.KV{}, files: map[image.FileID]bool{}}
		n.start()
		s.nodes = append(s.nodes, n)
		n.restart()
	}
	names := 1 + s.r.IntN(2)
	for i := range simUploads {
		s.addClient(i, fmt.Sprint("image", s.r.IntN(names)), byte(i), byte(i))
	}
	if s.r.IntN(3) == 0 { // an ID that is used for two images
		s.addClient(simUploads, fmt.Sprint("image", s.r.IntN(3)), 0, 9)
	}
	return s
}

func (s *simulation) addClient(i int, name string, id, content byte) {
	c := &simClient{}
	c.req = image.Request{ID: image.ID{15: id + 1}, User: "alice", Name: name, Size: 100}
	c.check = image.Check{Key: 1, MAC: image.MAC{content}}
	c.req.Broadcast = []image.NodeID{1, 2, 3}
	if s.r.IntN(8) == 0 {
		c.req.If = image.Conditions{NoneMatch: image.Tags{"*"}}
	}
	s.clients = append(s.clients, c)
}

func (s *simulation) note(format string, args ...any) {
	if s.tracing {
		s.trace = append(s.trace, fmt.Sprintf(format, args...))
	}
}

func (n *simNode) start() {
	n.run++
	n.coordinator = nil
	n.parts = map[image.ID]*simPart{}
	n.unacted, n.acted = nil, n.applied
	n.believes, n.restarted, n.pins = 0, 0, map[image.FileID]uint64{}
}

// restart has the node announce that it does not know what an earlier process of it has reported.
func (n *simNode) restart() {
	c := catalog.Command{Restart: &catalog.Restart{Node: n.id}}
	n.s.pending = append(n.s.pending, proposal{from: n.id, run: n.run, command: c.Encode(), restart: true})
}

func (n *simNode) remove(f image.FileID) {
	delete(n.files, f)
	n.s.changed = true
}

func (n *simNode) runs() bool { return !n.down && !n.paused }

func (n *simNode) moment() Moment { return Moment{Now: n.s.now, Acted: n.acted, Leader: n.believes} }

func (s *simulation) node(id image.NodeID) *simNode { return s.nodes[id-1] }

// view is what a node's coordinator sees.
func (n *simNode) view() View {
	v := View{Now: n.s.now, Wanted: 2, Needed: 1}
	for _, o := range n.s.nodes {
		if !o.down && !o.wiped {
			v.Up = append(v.Up, o.id)
		}
	}
	v.Needed = max(1, min(2, len(v.Up)))
	v.Lookup = func(id image.ID) *catalog.Upload {
		u, _ := catalog.GetUpload(n.db, id)
		return u
	}
	v.Random = n.s.r.Uint64
	v.Receives = func(node image.NodeID, id image.ID) bool {
		p := n.s.node(node).parts[id]
		return p != nil && !p.cut && p.got < simParts && n.s.node(node).runs()
	}
	v.Place = func(req image.Request, keep, out []image.NodeID) ([]image.NodeID, int, error) {
		order := slices.Clone(keep)
		add := func(c image.NodeID) {
			if slices.Contains(v.Up, c) && !slices.Contains(order, c) && !slices.Contains(out, c) {
				order = append(order, c)
			}
		}
		if req.Announced {
			for _, c := range req.Broadcast {
				add(c)
			}
		}
		for i := range v.Up {
			add(v.Up[(i+int(req.ID[15]))%len(v.Up)])
		}
		if len(order) < v.Needed {
			return nil, 0, image.Errorf(image.KindNoQuorum, "%d nodes are left", len(order))
		}
		return order, min(2, len(order)), nil
	}
	return v
}

// do does what a node's coordinator, or participant of part, wants done.
func (n *simNode) do(part *simPart, actions []Action) {
	s := n.s
	for _, a := range actions {
		switch a := a.(type) {
		case Tell:
			s.flying = append(s.flying, message{n.id, a.To, a})
		case Send:
			s.flying = append(s.flying, message{n.id, a.To, a})
		case Propose:
			s.pending = append(s.pending, proposal{
				from: n.id, run: n.run, id: a.ID, command: a.Command.Encode(), answers: part == nil,
				slow: s.r.IntN(6) == 0,
			})
		case Pass:
			s.flying = append(s.flying, message{n.id, a.To, header{part}})
		case Store:
			part.writing, part.attempt = true, s.attempt()
		case StopStoring:
			part.writing = false
			n.remove(image.FileID{Image: part.req.ID, Shard: simShard, Attempt: part.attempt})
		case DeleteCopy:
			s.note("node %d deletes its copy of %v", n.id, part.req.ID[15])
			n.remove(part.file)
		case Finish:
			delete(n.parts, part.req.ID)
			switch {
			case part.source != nil && (a.Upload == nil || a.Upload.State == catalog.Failed):
				part.source.cannotSend(n.id)
			case part.source == nil && a.Upload != nil:
				part.client.answered(a.Upload)
			case part.source == nil && a.Problem.Code == image.KindConflict:
				part.client.refused = a.Problem
			}
		}
	}
}

func (s *simulation) attempt() (a image.Attempt) {
	for i := range a {
		a[i] = byte(s.r.Uint32())
	}
	return a
}

// step lets one thing happen.
func (s *simulation) step() {
	n := s.nodes[s.r.IntN(len(s.nodes))]
	switch k := s.r.IntN(112); {
	case k < 22:
		s.deliver()
	case k < 32:
		s.appendOne()
	case k < 48:
		for range 1 + s.r.IntN(4) {
			n.apply()
		}
	case k < 56:
		n.act()
	case k < 72:
		s.body(n)
	case k < 78:
		n.store()
	case k < 84:
		most := 80
		if s.calm && !slices.ContainsFunc(s.nodes, func(n *simNode) bool { return len(n.parts) > 0 }) {
			most = 400
		}
		s.now = s.now.Add(time.Duration(s.r.IntN(most)) * time.Millisecond)
		n.tick()
	case k < 86:
		n.tick()
	case k < 90:
		n.learnLeader()
	case s.calm:
	case k < 92:
		if s.r.IntN(4) == 0 {
			s.leader = image.NodeID(1 + s.r.IntN(simNodes))
			s.note("node %d leads", s.leader)
		}
	case k < 94:
		if s.r.IntN(3) == 0 {
			n.fault()
		}
	case k < 95:
		if s.r.IntN(3) == 0 {
			s.now = s.now.Add(time.Duration(s.r.IntN(3000)) * time.Millisecond)
		}
	case k < 96:
		n.snapshot()
	case k < 97:
		if s.r.IntN(3) == 0 {
			s.delete()
		}
	case k < 98:
		if s.r.IntN(3) == 0 {
			s.noise()
		}
	case k < 106:
		hurt := slices.DeleteFunc(slices.Clone(s.nodes), func(n *simNode) bool { return n.runs() && !n.wiped })
		if len(hurt) > 0 {
			hurt[s.r.IntN(len(hurt))].recover()
		}
	default:
		n.repair()
	}
}

// deliver takes a message off the network, in any order; it may get lost, or come again.
func (s *simulation) deliver() {
	if len(s.flying) == 0 {
		return
	}
	i := s.r.IntN(len(s.flying))
	m := s.flying[i]
	n := s.node(m.to)
	if h, ok := m.what.(header); ok {
		s.relay(i, n, h.source)
		return
	}
	if fate := s.r.IntN(20); s.calm || fate > 0 {
		s.flying = slices.Delete(s.flying, i, i+1)
		if !s.calm && fate == 1 {
			return
		}
	}
	if n.paused {
		s.flying = append(s.flying, m)
		return
	}
	if n.down {
		return
	}
	switch a := m.what.(type) {
	case Tell:
		if p := n.parts[a.Decision.ID]; p != nil {
			s.note("node %d is told by %d: %v stored by %v, problem %v", n.id, m.from, a.Decision.ID[15],
				a.Decision.Storing, a.Decision.Problem != nil)
			n.do(p, p.Decide(n.moment(), m.from, a.Decision))
			relays := len(p.client.req.Broadcast) == 0 && p.source == nil
			if relays && m.from == n.believes && a.Decision.Problem == nil {
				p.relay(a.Decision.Storing)
			}
		}
	case Send:
		if n.believes == n.id {
			if n.coordinator == nil {
				n.coordinator = NewCoordinator(simTimes)
			}
			s.note("node %d hears from %d: %v, copy %v at %d", n.id, m.from, a.Report.Request.ID[15],
				a.Report.Copy != nil, a.Report.Index)
			n.do(nil, n.coordinator.Heard(n.view(), a.Report))
		}
	}
}

// appendOne commits a proposal.
func (s *simulation) appendOne() {
	if len(s.pending) == 0 {
		return
	}
	i := s.r.IntN(len(s.pending))
	p := s.pending[i]
	if p.slow && !s.calm {
		s.pending[i].slow = s.r.IntN(12) > 0
		if s.r.IntN(3) == 0 {
			s.unanswered(p)
		}
		return
	}
	fate := s.r.IntN(12)
	if s.calm || fate > 0 {
		s.pending = slices.Delete(s.pending, i, i+1)
	}
	proposer := s.node(p.from)
	alive := proposer.run == p.run && !proposer.down
	if !s.calm && fate == 1 { // lost: the proposer does not know
		s.unanswered(p)
		return
	}
	result := s.append(p.command)
	if alive && p.restart {
		proposer.restarted = uint64(len(s.log))
	}
	if at, ok := proposer.pins[p.repairs]; ok && at == 0 && alive {
		if s.calm || s.r.IntN(4) > 0 {
			proposer.pins[p.repairs] = uint64(len(s.log))
		} else {
			proposer.takeBack(p.repairs)
		}
	}
	s.note("entry %d by node %d: %.300s: %v", len(s.log), p.from, p.command[1:], result.Err())
	if alive && p.answers && proposer.coordinator != nil && (s.calm || s.r.IntN(4) > 0) {
		proposer.do(nil, proposer.coordinator.Proposed(proposer.view(), p.id, result, nil))
	}
}

// unanswered tells the proposer that it is not known what became of a proposal.
func (s *simulation) unanswered(p proposal) {
	n := s.node(p.from)
	switch alive := n.run == p.run && !n.down; {
	case !alive:
	case p.answers && n.coordinator != nil:
		n.do(nil, n.coordinator.Proposed(n.view(), p.id, catalog.Result{}, errors.New("no answer")))
	case p.repairs != (image.FileID{}):
		n.takeBack(p.repairs)
	}
}

func (s *simulation) append(command []byte) catalog.Result {
	s.log, s.changed = append(s.log, command), true
	b, _, err := catalog.ApplyKeeping(simKeeps, s.truth, simShard, uint64(len(s.log)), command)
	if err != nil {
		panic(err)
	}
	r, err := catalog.DecodeResult(b)
	if err != nil {
		panic(err)
	}
	return r
}

// apply applies the next entry on a node.
func (n *simNode) apply() {
	if n.down || n.paused && n.s.r.IntN(2) == 0 || n.applied == uint64(len(n.s.log)) {
		return
	}
	n.s.changed = true
	n.applied++
	n.peak = max(n.peak, n.applied)
	_, events, err := catalog.ApplyKeeping(simKeeps, n.db, simShard, n.applied, n.s.log[n.applied-1])
	if err != nil {
		panic(err)
	}
	for _, e := range events {
		if e.Upload != nil {
			n.unacted = append(n.unacted, ended{index: n.applied - 1, upload: e.Upload})
		}
		if e.Aborted != nil {
			n.unacted = append(n.unacted, ended{index: n.applied - 1, aborted: &e.Aborted.File})
		}
		if e.Removed != nil {
			for _, c := range e.Removed.Copies {
				if c.Node == n.id {
					n.s.note("node %d at %d deletes a removed copy of %v", n.id, n.applied, e.Removed.ID[15])
					n.remove(e.Removed.File(c))
				}
			}
		}
	}
	n.unacted = append(n.unacted, ended{index: n.applied})
}

// act tells participants and the coordinator what the log says.
func (n *simNode) act() {
	if !n.runs() || len(n.unacted) == 0 {
		return
	}
	for len(n.unacted) > 0 {
		e := n.unacted[0]
		n.unacted = n.unacted[1:]
		n.acted = e.index
		if u := e.upload; u != nil {
			if n.coordinator != nil {
				n.coordinator.Ended(u)
			}
			if p := n.parts[u.ID]; p != nil {
				n.do(p, p.Ended(n.moment(), u))
			}
		}
		if f := e.aborted; f != nil {
			if p := n.parts[f.Image]; p != nil {
				n.do(p, p.Aborted(n.moment(), *f))
			}
		}
		if n.s.r.IntN(3) == 0 {
			return
		}
	}
}

// body lets a client begin, go on or end early.
func (s *simulation) body(n *simNode) {
	if !n.runs() || n.wiped {
		return
	}
	var busy []*simClient
	for _, c := range s.clients {
		p := n.parts[c.req.ID]
		if p == nil && slices.Contains(c.toStart, n.id) || p != nil && p.client == c && !p.cut && p.got < simParts {
			busy = append(busy, c)
		}
	}
	if len(busy) == 0 {
		s.try(s.clients[s.r.IntN(len(s.clients))])
		return
	}
	c := busy[s.r.IntN(len(busy))]
	p := n.parts[c.req.ID]
	switch {
	case c.req.Announced && !s.calm && s.r.IntN(40) == 0:
		s.announceAgain(c)
	case p != nil && p.source != nil && !p.fed():
	case p == nil:
		c.toStart = slices.DeleteFunc(c.toStart, func(id image.NodeID) bool { return id == n.id })
		n.begin(c, nil)
	case !s.calm && s.r.IntN(60) == 0:
		p.cut = true
		problem := image.AsProblem(image.Errorf(image.KindIncomplete, "the body ended early"))
		s.note("node %d: the body of %v ends early", n.id, c.req.ID[15])
		n.do(p, p.CannotStore(n.moment(), &problem, false))
	default:
		if p.got++; p.got == simParts {
			p.Whole(n.moment())
		}
	}
}

// try has a client send its upload, when it has no answer and nobody has to do with it any more.
func (s *simulation) try(c *simClient) {
	if c.acked || c.refused != nil || c.tries >= triesMax && !s.calm || s.busy(c.req.ID) {
		return
	}
	c.tries++
	c.toStart = nil
	for _, n := range s.nodes {
		if n.runs() && !n.wiped && (s.calm || s.r.IntN(8) > 0) {
			c.toStart = append(c.toStart, n.id)
		}
	}
	c.req.Broadcast, c.req.Announced = slices.Clone(c.toStart), false
	switch i := s.r.IntN(max(1, len(c.toStart))); {
	case len(c.toStart) == 0:
	case s.r.IntN(4) == 0:
		c.toStart, c.req.Broadcast = c.toStart[i:i+1], nil
	case s.r.IntN(3) == 0:
		c.announce(i)
	}
	s.note("client of upload %d tries, broadcast to %v", c.req.ID[15], c.req.Broadcast)
}

// announce has a client send its upload to the nodes that one has chosen, but for the i-th, and sometimes not
// to all of these.
func (c *simClient) announce(i int) {
	if c.req.Announced = true; len(c.toStart) > 1 {
		c.toStart = slices.Delete(c.toStart, i, i+1)
	}
	c.req.Broadcast = slices.Clone(c.toStart)
}

// announceAgain has the client of an announced upload send it to one more node, too.
func (s *simulation) announceAgain(c *simClient) {
	n := s.nodes[s.r.IntN(len(s.nodes))]
	if n.runs() && !n.wiped && n.parts[c.req.ID] == nil && !slices.Contains(c.toStart, n.id) {
		s.note("the client of upload %d announces it again, to node %d", c.req.ID[15], n.id)
		c.toStart, c.req.Broadcast = append(c.toStart, n.id), []image.NodeID{n.id}
	}
}

// relay begins to send an upload to the nodes that are to store it.
func (p *simPart) relay(storing []image.NodeID) {
	for _, to := range storing {
		if to != p.node.id && !slices.Contains(p.sent, to) {
			p.sent = append(p.sent, to)
			p.node.s.flying = append(p.node.s.flying, message{p.node.id, to, header{p}})
		}
	}
}

// relay delivers the header of a relayed upload, which is the i-th of the flying messages, to a node.
func (s *simulation) relay(i int, n *simNode, source *simPart) {
	if n.paused && s.r.IntN(4) > 0 {
		return
	}
	s.flying = slices.Delete(s.flying, i, i+1)
	p := n.parts[source.req.ID]
	switch {
	case source.over():
	case !n.runs() || n.wiped || p != nil && !isOf(p.req, source.req.User, source.req.Name):
		source.cannotSend(n.id)
	case p == nil:
		n.begin(source.client, source)
	}
}

// cannotSend says that a node does not take what is relayed to it.
func (p *simPart) cannotSend(to image.NodeID) {
	if p.over() {
		return
	}
	problem := image.AsProblem(image.Errorf(image.KindAborted, "node %d does not take it", to))
	p.node.s.note("node %d cannot relay %v to node %d", p.node.id, p.req.ID[15], to)
	p.node.do(p, p.CannotSend(p.node.moment(), to, &problem))
}

// fed reports whether more of a relayed body can come, and ends it where none will.
func (p *simPart) fed() bool {
	n := p.node
	if p.source.over() || p.source.cut {
		p.cut = true
		problem := image.AsProblem(image.Errorf(image.KindIncomplete, "the relayed body ended early"))
		n.s.note("node %d: the relayed body of %v ends early", n.id, p.req.ID[15])
		n.do(p, p.CannotStore(n.moment(), &problem, false))
		return false
	}
	return p.source.node.runs() && p.got < p.source.got
}

// busy reports whether a node has to do with an upload, or is about to.
func (s *simulation) busy(id image.ID) bool {
	return slices.ContainsFunc(s.nodes, func(n *simNode) bool { return !n.down && n.parts[id] != nil }) ||
		slices.ContainsFunc(s.clients, func(c *simClient) bool {
			there := func(n image.NodeID) bool { return !s.node(n).down }
			return c.req.ID == id && slices.ContainsFunc(c.toStart, there)
		})
}

// begin gives a node the header of an upload, from its client or from a node that relays it.
func (n *simNode) begin(c *simClient, source *simPart) {
	u, _ := catalog.GetUpload(n.db, c.req.ID)
	if u != nil && u.Final() {
		if source == nil {
			c.answered(u)
		}
		return
	}
	req := c.req
	if source != nil {
		req.Broadcast, req.Relayed = slices.Clone(source.decision.Storing), true
	}
	p := &simPart{
		Participant: NewParticipant(n.id, n.s.r.Uint64(), simShard, req, simTimes), node: n, run: n.run, client: c,
		source: source, began: n.s.now,
	}
	n.parts[c.req.ID] = p
	n.s.note("node %d begins %v", n.id, c.req.ID[15])
	n.do(p, p.Begin(n.moment()))
}

// answered takes what a node says of an upload that has ended.
func (c *simClient) answered(u *catalog.Upload) {
	conflict := image.AsProblem(image.Errorf(image.KindConflict, "other bytes"))
	switch {
	case u.State == catalog.Failed && u.Refused():
		c.refused = u.Problem
	case u.State == catalog.Failed:
	case u.User == c.req.User && u.Name == c.req.Name && u.Record.Check == c.check:
		c.acked = true
	default:
		c.refused = &conflict
	}
}

// store makes a copy durable, or fails.
func (n *simNode) store() {
	if !n.runs() {
		return
	}
	for _, id := range n.ids() {
		p := n.parts[id]
		if !p.writing || p.got < simParts || n.s.r.IntN(2) == 0 {
			continue
		}
		if !n.s.calm && n.s.r.IntN(15) == 0 {
			problem := image.AsProblem(image.Errorf(image.KindDiskFull, "the disk is full"))
			n.do(p, p.CannotStore(n.moment(), &problem, false))
			return
		}
		p.file = image.FileID{Image: id, Shard: simShard, Attempt: p.attempt}
		if !n.files[p.file] { // durable first, and told later
			n.files[p.file] = true
			return
		}
		p.writing = false
		c := Copy{Copy: image.Copy{Node: n.id, Attempt: p.attempt, Key: 1}, Check: p.client.check}
		n.s.note("node %d has stored %v", n.id, id[15])
		n.do(p, p.Stored(n.moment(), c))
		return
	}
}

func (n *simNode) ids() []image.ID {
	return slices.SortedFunc(maps.Keys(n.parts), func(a, b image.ID) int { return int(a[15]) - int(b[15]) })
}

func (n *simNode) tick() {
	if !n.runs() {
		return
	}
	if n.believes == n.id && n.coordinator != nil {
		n.do(nil, n.coordinator.Tick(n.view()))
	}
	for _, id := range n.ids() {
		p := n.parts[id]
		if n.s.now.Sub(p.began) > 3*simTimes.Upload {
			problem := image.AsProblem(image.Errorf(image.KindAborted, "no progress"))
			n.do(p, p.GiveUp(n.moment(), &problem))
		} else {
			n.do(p, p.Tick(n.moment()))
		}
	}
	if n.restarted == 0 && !n.wiped {
		n.restart()
	}
	n.sweep()
}

// sweep deletes files that no participant has and no record names. Those that an earlier process reported may
// be committed until the Restart of this one is in the log.
func (n *simNode) sweep() {
	for _, f := range slices.SortedFunc(maps.Keys(n.files), func(a, b image.FileID) int {
		return slices.Compare(a.Attempt[:], b.Attempt[:])
	}) {
		if p := n.parts[f.Image]; p != nil && (p.file == f || p.attempt == f.Attempt) {
			continue
		}
		if at, pinned := n.pins[f]; pinned && (at == 0 || n.applied < at) {
			continue
		}
		rec := n.record(f.Image)
		if n.restarted > 0 && n.acted >= n.restarted && (rec == nil || !rec.Has(n.id, f.Attempt)) {
			n.s.note("node %d sweeps a copy of %v", n.id, f.Image[15])
			n.remove(f)
		}
	}
}

// repair makes a copy of an image here, in place of this node's or of another one, or of none where there are
// too few.
func (n *simNode) repair() {
	recs, _, _ := catalog.Records(n.db, nil, 100)
	if !n.runs() || n.wiped || n.restarted == 0 || n.acted < n.restarted || len(recs) == 0 {
		return
	}
	rec := recs[n.s.r.IntN(len(recs))]
	f := image.FileID{Image: rec.ID, Shard: simShard, Attempt: n.s.attempt()}
	n.files[f], n.pins[f] = true, 0
	c := &catalog.Recopy{User: rec.User, Name: rec.Name, ID: rec.ID, Add: []catalog.Reported{
		{Copy: image.Copy{Node: n.id, Attempt: f.Attempt, Key: 1}, Index: n.acted},
	}}
	if own := slices.Index(rec.Replicas(), n.id); own >= 0 {
		c.Drop = rec.Copies[own : own+1]
	} else if len(rec.Copies) == rec.Wanted {
		i := n.s.r.IntN(len(rec.Copies))
		c.Drop = rec.Copies[i : i+1]
	}
	n.s.note("node %d makes a copy of %v in place of %v", n.id, rec.ID[15], c.Drop)
	n.s.pending = append(n.s.pending, proposal{
		from: n.id, run: n.run, id: rec.ID, command: catalog.Command{Recopy: c}.Encode(), repairs: f,
		slow: n.s.r.IntN(2) == 0,
	})
}

// takeBack has the log say that it will not name a copy of a repair of which it is not known whether it does.
func (n *simNode) takeBack(f image.FileID) {
	abort := catalog.Command{Abort: &catalog.Abort{File: f, User: "alice", Created: n.s.now}}
	n.s.pending = append(n.s.pending, proposal{
		from: n.id, run: n.run, id: f.Image, command: abort.Encode(), repairs: f,
	})
}

func (n *simNode) record(id image.ID) *image.Record {
	u, _ := catalog.GetUpload(n.db, id)
	if u == nil || u.State != catalog.Committed {
		return nil
	}
	rec, _ := catalog.GetRecord(n.db, u.User, u.Name)
	if rec == nil || rec.ID != id {
		return nil
	}
	return rec
}

// learnLeader lets a node know who leads now.
func (n *simNode) learnLeader() {
	if !n.runs() || n.wiped || n.believes == n.s.leader || n.s.node(n.s.leader).wiped {
		return
	}
	if n.believes == n.id {
		n.coordinator = nil
	}
	n.believes = n.s.leader
	for _, id := range n.ids() {
		p := n.parts[id]
		n.do(p, p.Led(n.moment()))
	}
}

// fault stops a node, its process or its disk.
func (n *simNode) fault() {
	if n.down || n.paused {
		return
	}
	switch n.s.r.IntN(5) {
	case 0, 1:
		n.s.note("node %d pauses", n.id)
		n.paused = true
	case 2, 3:
		n.crash()
	case 4:
		if slices.ContainsFunc(n.s.nodes, func(o *simNode) bool { return o.wiped || o.down && o != n }) {
			return
		}
		n.crash()
		n.s.note("node %d loses its disk", n.id)
		n.files, n.db, n.applied, n.wiped = map[image.FileID]bool{}, memkv.KV{}, 0, true
		n.peak = 0
	}
}

func (n *simNode) crash() {
	n.s.note("node %d is killed", n.id)
	n.down = true
	n.parts = map[image.ID]*simPart{} // unfinished files are deleted at the start
}

// recover brings a node back.
func (n *simNode) recover() {
	switch {
	case n.paused:
		n.s.note("node %d goes on", n.id)
		n.paused = false
	case n.down:
		n.replay(n.applied - min(n.applied, uint64(n.s.r.IntN(4))))
		n.s.note("node %d starts at %d", n.id, n.applied)
		n.down = false
		n.start()
		if !n.wiped {
			n.restart()
		}
	case n.wiped && n.applied == uint64(len(n.s.log)):
		// Up to date, it announces that it has lost its disk, and is taken back when it has applied that.
		n.s.append(catalog.Command{Restart: &catalog.Restart{Node: n.id}}.Encode())
		for n.applied < uint64(len(n.s.log)) {
			n.apply()
		}
		n.wiped, n.s.changed, n.restarted = false, true, n.applied
		n.s.note("node %d is taken back at %d", n.id, n.applied)
		recs, _, _ := catalog.Records(n.db, nil, 100)
		for _, rec := range recs {
			for _, c := range rec.Copies {
				if c.Node == n.id {
					n.files[rec.File(c)] = true
				}
			}
		}
	}
}

// replay sets a node's state back to that of an entry: what it had applied after that was not on its disk
// yet.
func (n *simNode) replay(to uint64) {
	n.s.changed = true
	n.db, n.applied = memkv.KV{}, 0
	for n.applied < to {
		n.applied++
		_, _, err := catalog.ApplyKeeping(simKeeps, n.db, simShard, n.applied, n.s.log[n.applied-1])
		if err != nil {
			panic(err)
		}
	}
}

// snapshot brings a node up to date without the events of the entries.
func (n *simNode) snapshot() {
	if !n.runs() || n.applied == uint64(len(n.s.log)) {
		return
	}
	old, _, _ := catalog.Records(n.db, nil, 100)
	n.s.changed = true
	n.db, n.applied = maps.Clone(n.s.truth), uint64(len(n.s.log))
	n.peak = n.applied
	n.unacted, n.acted = nil, n.applied
	n.s.note("node %d installs a snapshot at %d", n.id, n.applied)
	for _, rec := range old { // their files are the sweep's
		if now := n.record(rec.ID); now == nil {
			for _, c := range rec.Copies {
				if c.Node == n.id {
					n.remove(rec.File(c))
				}
			}
		}
	}
	for _, id := range n.ids() {
		p := n.parts[id]
		if u, _ := catalog.GetUpload(n.db, id); u != nil {
			n.do(p, p.Ended(n.moment(), u))
		}
		n.do(p, p.Skipped(n.moment()))
	}
}

func (s *simulation) delete() {
	c := s.clients[s.r.IntN(len(s.clients))]
	s.note("delete %s", c.req.Name)
	s.append(catalog.Command{Delete: &catalog.Delete{User: "alice", Name: c.req.Name, Created: s.now}}.Encode())
}

// noise has the shard forget answers.
func (s *simulation) noise() {
	for range 8 {
		var id image.ID
		binary.BigEndian.PutUint64(id[:], s.r.Uint64())
		id[15] = 0xff
		d := &catalog.Delete{ID: id, User: "alice", Name: "nothing", Created: s.now}
		s.append(catalog.Command{Delete: d}.Encode())
	}
	s.note("8 answers of others")
}

// check returns what is wrong.
func (s *simulation) check() error {
	if !s.changed {
		return nil
	}
	s.changed = false
	states := []struct {
		name string
		db   memkv.KV
		of   *simNode
	}{{"the log", s.truth, nil}}
	for _, n := range s.nodes {
		states = append(states, struct {
			name string
			db   memkv.KV
			of   *simNode
		}{fmt.Sprint("node ", n.id), n.db, n})
	}
	for _, state := range states {
		recs, _, err := catalog.Records(state.db, nil, 100)
		if err != nil {
			return err
		}
		for _, rec := range recs {
			owned := false
			for _, c := range rec.Copies {
				owned = owned || c.Node == rec.Owner
				n := s.node(c.Node)
				if n.wiped || state.of != nil && (state.of != n || n.applied < n.peak) {
					continue
				}
				if !n.files[rec.File(c)] {
					return fmt.Errorf("%s names a copy of upload %d on node %d, which is gone",
						state.name, rec.ID[15], c.Node)
				}
			}
			if !owned {
				return fmt.Errorf("the owner of upload %d is node %d, which has no copy", rec.ID[15], rec.Owner)
			}
		}
	}
	return nil
}

// settle lets all faults end and everybody finish, and returns what is left undone.
func (s *simulation) settle() error {
	s.calm = true
	most, tries := calmTries+len(s.pending)+len(s.flying), map[*simClient]int{}
	for _, c := range s.clients {
		tries[c] = c.tries
	}
	for range 60000 {
		for _, n := range s.nodes {
			if n.down || n.paused || n.wiped {
				n.recover()
			}
		}
		s.step()
		if err := s.check(); err != nil {
			return err
		}
		if s.settled() {
			break
		}
	}
	for _, c := range s.clients {
		if p := c.refused; p != nil && p.Code == image.KindConflict && !s.shared(c) {
			return fmt.Errorf("upload %d, whose ID has no other use, is refused: %+v", c.req.ID[15], p)
		}
		if c.tries > tries[c]+most {
			return fmt.Errorf("the client of upload %d tried %d times when nothing failed", c.req.ID[15],
				c.tries-tries[c])
		}
	}
	for _, n := range s.nodes {
		for id, p := range n.parts {
			return fmt.Errorf("node %d never ends upload %d: %+v", n.id, id[15], p.Participant)
		}
		for f := range n.files {
			if rec := n.record(f.Image); rec == nil || !rec.Has(n.id, f.Attempt) {
				return fmt.Errorf("node %d keeps a copy of upload %d that no record names", n.id, f.Image[15])
			}
		}
		if n.coordinator != nil && len(n.coordinator.uploads) > 0 {
			return fmt.Errorf("the coordinator on node %d still has %d uploads", n.id, len(n.coordinator.uploads))
		}
	}
	return nil
}

// shared reports whether an upload's ID is used for another one too.
func (s *simulation) shared(c *simClient) bool {
	return slices.ContainsFunc(s.clients, func(o *simClient) bool { return o != c && o.req.ID == c.req.ID })
}

func (s *simulation) settled() bool {
	for _, c := range s.clients {
		if !c.acked && c.refused == nil {
			return false
		}
	}
	for _, n := range s.nodes {
		if n.applied < uint64(len(s.log)) || len(n.unacted) > 0 || len(n.parts) > 0 ||
			n.coordinator != nil && len(n.coordinator.uploads) > 0 {
			return false
		}
		for f := range n.files {
			if rec := n.record(f.Image); rec == nil || !rec.Has(n.id, f.Attempt) {
				return false
			}
		}
	}
	return len(s.pending) == 0
}

// simulate runs one seed and returns how it went.
func simulate(seed uint64, tracing bool) (s *simulation, err error) {
	s = newSimulation(seed)
	s.tracing = tracing
	for range simSteps {
		s.step()
		if err := s.check(); err != nil {
			return s, err
		}
	}
	return s, s.settle()
}

// TestSameSeedSameRun: what a seed found can be looked at again.
func TestSameSeedSameRun(t *testing.T) {
	for seed := range uint64(20) {
		one, _ := simulate(seed, true)
		two, _ := simulate(seed, true)
		if !slices.Equal(one.trace, two.trace) || !one.truth.Equal(two.truth) || len(one.trace) == 0 {
			t.Fatalf("seed %d went two ways", seed)
		}
	}
}

// TestSimulation runs many seeds. SIMULATE is how many, from SIMULATE_FROM on: make simulate.
func TestSimulation(t *testing.T) {
	runs, from := uint64(500), uint64(1)
	if n, err := strconv.ParseUint(os.Getenv("SIMULATE"), 10, 32); err == nil {
		runs = n
	}
	if n, err := strconv.ParseUint(os.Getenv("SIMULATE_FROM"), 10, 64); err == nil {
		from = n
	}
	var next, acked, failed, entries atomic.Uint64
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for i := next.Add(1); i <= runs && failed.Load() == 0; i = next.Add(1) {
				seed := from + i - 1
				s, err := simulate(seed, false)
				if err != nil {
					failed.Add(1)
					again, _ := simulate(seed, true)
					t.Errorf("seed %d: %v\n", seed, err)
					for _, line := range again.trace {
						t.Log(line)
					}
					return
				}
				for _, c := range s.clients {
					if c.acked {
						acked.Add(1)
					}
				}
				entries.Add(uint64(len(s.log)))
			}
		})
	}
	wg.Wait()
	t.Logf("%d runs, %d uploads acknowledged, %d entries", runs, acked.Load(), entries.Load())
	if acked.Load() < runs/2 {
		t.Errorf("only %d uploads were acknowledged in %d runs", acked.Load(), runs)
	}
}
