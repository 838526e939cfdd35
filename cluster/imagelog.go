package cluster

import (
	"fmt"
	"strings"
	"sync/atomic"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"

	"imgcluster/cluster/image"
	"imgcluster/cluster/ingest"
	"imgcluster/cluster/printable"
	"imgcluster/cluster/wire"
)

// imageLog logs at info the images that this node owns: a line for each, up to so many a second, and after
// every hundredth its share of all images. A console shows each line as the sentence of its String.
type imageLog struct {
	o       imageLogOptions
	logger  *zap.Logger
	lines   *zap.Logger // logger with the bound
	owned   atomic.Int64
	dropped atomic.Int64 // images without a line that no line has counted yet
}

// shareEvery is how many images a node owns from one line about its share to the next.
const shareEvery = 100

// imageLogOptions are what an imageLog works with.
type imageLogOptions struct {
	self      image.NodeID
	live      func() []image.NodeID // the nodes that take on work
	cluster   func() wire.ClusterStatus
	logger    *zap.Logger
	perSecond int // lines, 0 for no log at all
}

func newImageLog(o imageLogOptions) *imageLog {
	l := &imageLog{o: o, logger: o.logger}
	if o.perSecond == 0 {
		l.logger = zap.NewNop()
	}
	l.lines = atMost(o.perSecond, l.logger, zapcore.SamplerHook(l.sampled))
	return l
}

// sampled counts the lines that were dropped. The sampler calls it before a line is written.
func (l *imageLog) sampled(_ zapcore.Entry, d zapcore.SamplingDecision) {
	if d&zapcore.LogDropped != 0 {
		l.dropped.Add(1)
		return
	}
	l.logDropped()
}

func (l *imageLog) logDropped() {
	if n := l.dropped.Swap(0); n > 0 {
		l.logger.Info("images owned without a line: more came than log.images_per_second", zap.Int64("images", n))
	}
}

// add logs an image that this node has become the owner of.
func (l *imageLog) add(o ingest.Owned) {
	if line := l.lines.Check(zap.InfoLevel, "image owned"); line != nil {
		line.Write(zap.Inline(ownedLine{o, l.o.live()}))
	}
	if l.owned.Add(1)%shareEvery != 0 {
		return
	}
	if line := l.logger.Check(zap.InfoLevel, "share of images"); line != nil {
		line.Write(zap.Inline(l.share()))
	}
}

// ownedLine is an image that the node owns, and the nodes that took on work then.
type ownedLine struct {
	ingest.Owned
	live []image.NodeID
}

func (o ownedLine) copies() (nodes []image.NodeID) {
	for _, c := range o.Copies {
		nodes = append(nodes, c.Node)
	}
	return nodes
}

func (o ownedLine) delivery() string {
	switch {
	case o.Relayed:
		return "relay"
	case o.Announced:
		return "announce"
	}
	return "broadcast"
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (o ownedLine) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddString("image", o.User+"/"+o.Name)
	e.AddInt64("bytes", o.Bytes)
	zap.Uint32s("copies", numbers(o.copies())).AddTo(e)
	zap.Uint32s("live", numbers(o.live)).AddTo(e)
	e.AddFloat64("took_s", o.Took.Round(time.Millisecond).Seconds())
	e.AddString("delivery", o.delivery())
	o.Trace.Field().AddTo(e)
	if o.From != 0 {
		e.AddUint32("taken_over_from", uint32(o.From))
	}
	return nil
}

// String is the line as a sentence.
func (o ownedLine) String() string {
	s := fmt.Sprintf("owns %s: %s on %s, live %s, %v, %s", printable.Text(o.User+"/"+o.Name), size(o.Bytes),
		list(o.copies()), list(o.live), o.Took.Round(time.Millisecond), o.delivery())
	if o.From != 0 {
		s += fmt.Sprintf(", taken over from node %d", o.From)
	}
	return s
}

// shareLine is what a node owns of all images that the catalog has.
type shareLine struct{ images, allImages, bytes, allBytes int64 }

// share adds up what the shards say.
func (l *imageLog) share() (s shareLine) {
	for _, x := range l.o.cluster().Nodes {
		s.allImages += x.OwnedImages
		s.allBytes += x.OwnedBytes
		if x.ID == l.o.self {
			s.images, s.bytes = x.OwnedImages, x.OwnedBytes
		}
	}
	return s
}

// MarshalLogObject implements zapcore.ObjectMarshaler.
func (s shareLine) MarshalLogObject(e zapcore.ObjectEncoder) error {
	e.AddInt64("images", s.images)
	e.AddInt64("of_images", s.allImages)
	e.AddInt64("bytes", s.bytes)
	e.AddInt64("of_bytes", s.allBytes)
	return nil
}

// String is the line as a sentence.
func (s shareLine) String() string {
	return fmt.Sprintf("owns %d of %d images (%s), %s of %s (%s)", s.images, s.allImages,
		percent(s.images, s.allImages),
		size(s.bytes), size(s.allBytes), percent(s.bytes, s.allBytes))
}

func percent(part, all int64) string {
	return fmt.Sprintf("%.1f %%", 100*float64(part)/float64(max(all, 1)))
}

// size writes bytes for people.
func size(n int64) string {
	switch v := float64(n); {
	case v >= 1e9:
		return fmt.Sprintf("%.1f GB", v/1e9)
	case v >= 1e6:
		return fmt.Sprintf("%.1f MB", v/1e6)
	case v >= 100:
		return fmt.Sprintf("%.1f kB", v/1e3)
	}
	return fmt.Sprintf("%d B", n)
}

func numbers(ids []image.NodeID) []uint32 {
	list := make([]uint32, len(ids))
	for i, id := range ids {
		list[i] = uint32(id)
	}
	return list
}

func list(ids []image.NodeID) string {
	return strings.ReplaceAll(strings.Trim(fmt.Sprint(ids), "[]"), " ", ",")
}
