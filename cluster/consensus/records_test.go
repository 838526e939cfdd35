package consensus

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	sm "github.com/lni/dragonboat/v4/statemachine"
	"go.uber.org/zap"

	"imgcluster/cluster/catalog"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/hostinfo"
	"imgcluster/cluster/image"
)

// commandOf is the command of one upload with two copies, reported as of an entry.
func commandOf(i int, index uint64) catalog.Command {
	stored := func(node int) catalog.Reported {
		return catalog.Reported{
			Copy: image.Copy{Node: image.NodeID(node%3 + 1), Attempt: image.NewAttempt(), Key: 1}, Index: index,
		}
	}
	return catalog.Command{Commit: &catalog.Commit{
		ID: image.NewID(), User: "alice", Name: fmt.Sprintf("holiday/image-%08d.png", i), Bytes: 12_600_000,
		Type: "image/png", Copies: []catalog.Reported{stored(i), stored(i + 1)}, Check: image.Check{Key: 1},
		Wanted: 2, Created: time.Now().UTC(),
	}}
}

// rowsCommand leads a command of this benchmark, in place of the version of the catalog's: the rows that
// commits leave in the end, once their answers are forgotten, of the records From to To.
const rowsCommand = 0xfb

type rows struct{ From, To int }

func (r rows) apply(tx catalog.Tx) {
	totals, err := catalog.GetTotals(tx)
	for i := r.From; i < r.To && err == nil; i++ {
		c := commandOf(i, 1).Commit
		rec := &image.Record{
			User: c.User, Name: c.Name, Version: uint64(i), ID: c.ID, Bytes: c.Bytes, Check: c.Check, Type: c.Type,
			Owner: c.Copies[0].Node, Copies: []image.Copy{c.Copies[0].Copy, c.Copies[1].Copy}, Shard: 2,
			Wanted: c.Wanted, Created: c.Created,
		}
		key := []byte("r" + rec.User + "\x00" + rec.Name)
		err = errors.Join(
			tx.Set(key, catalog.EncodeRecord(rec)), tx.Set(append([]byte{'i'}, rec.ID[:]...), key))
		totals.Images++
	}
	sums, failed := json.Marshal(totals)
	if err = errors.Join(err, failed, tx.Set([]byte("t"), sums)); err != nil {
		panic(err)
	}
}

// batchEntries are the commands that are applied together, about as many as under load.
const batchEntries = 96

const (
	recordsApplied = 200_000
	rowsAtOnce     = 10_000
)

// BenchmarkRecords gives one shard on the disk IMGCLUSTER_RECORDS records, by default few, the first
// recordsApplied of them by the commands of as many uploads; opens it again, writes its snapshot, and reads
// that into another database.
func BenchmarkRecords(b *testing.B) {
	records := env.Number(b, "IMGCLUSTER_RECORDS", 5000)
	root := b.TempDir()
	inFolder := func(name string) *stateMachine {
		o := &Options{Disk: sealerOf("disk"), Snapshots: sealerOf("snapshots")}
		db, err := openDatabase(vfs.Default, filepath.Join(root, name), o, zap.NewNop())
		must(b, err)
		b.Cleanup(func() {
			if !db.readers.closed {
				must(b, db.close())
			}
		})
		m, _ := openStateMachine(b, db, 2)
		m.apply = func(tx catalog.Tx, index uint64, cmd []byte) ([]byte, []catalog.Event) {
			if cmd[0] == rowsCommand {
				var r rows
				must(b, json.Unmarshal(cmd[1:], &r))
				r.apply(tx)
				return nil, nil
			}
			result, events, err := catalog.Apply(tx, 2, index, cmd)
			must(b, err)
			return result, events
		}
		return m
	}
	m := inFolder("first")
	for b.Loop() { // once: -benchtime 1x
		began, index := cpuTime(), uint64(0)
		var batch []sm.Entry
		applied := min(records, recordsApplied)
		for i := range applied {
			index++
			batch = append(batch, sm.Entry{Index: index, Cmd: commandOf(i, index-1).Encode()})
			if len(batch) >= batchEntries || i == applied-1 {
				update(b, m, batch)
				batch = batch[:0]
			}
		}
		each := func(d time.Duration, of int) float64 { return float64(d.Nanoseconds()) / 1000 / float64(of) }
		b.ReportMetric(each(cpuTime()-began, applied), "apply-CPU-µs/record")
		for from := applied; from < records; from += rowsAtOnce {
			index++
			r, err := json.Marshal(rows{from, min(from+rowsAtOnce, records)})
			must(b, err)
			update(b, m, []sm.Entry{{Index: index, Cmd: append([]byte{rowsCommand}, r...)}})
		}
		totals, err := catalog.ViewTotals(func(shard uint64, fn func(catalog.Reader) error) error {
			failed, err := m.db.view(shard, fn)
			must(b, failed)
			return err
		}, 2)
		if err != nil || totals.Images != int64(records) {
			b.Fatalf("%d images, %v", totals.Images, err)
		}
		must(b, m.db.close())
		b.ReportMetric(float64(folderBytes(b, filepath.Join(root, "first")))/float64(records), "disk-B/record")

		opened := time.Now()
		m = inFolder("first")
		b.ReportMetric(float64(time.Since(opened).Milliseconds()), "restart-ms")
		b.ReportMetric(float64(heapBytes())/1e6, "heap-MB")

		file, err := os.Create(filepath.Join(root, "snapshot"))
		must(b, err)
		began = cpuTime()
		must(b, save(m, file))
		b.ReportMetric(each(cpuTime()-began, records), "snapshot-CPU-µs/record")
		size, err := file.Seek(0, io.SeekCurrent)
		must(b, err)
		b.ReportMetric(float64(size)/float64(records), "snapshot-B/record")
		_, err = file.Seek(0, io.SeekStart)
		must(b, err)
		other := inFolder("other")
		began = cpuTime()
		must(b, other.RecoverFromSnapshot(file, nil))
		b.ReportMetric(each(cpuTime()-began, records), "restore-CPU-µs/record")
		b.ReportMetric(float64(heapBytes())/1e6, "heap-restored-MB")
	}
}

func cpuTime() time.Duration {
	_, cpu := hostinfo.Process()
	return cpu
}

func save(m *stateMachine, w io.Writer) error {
	pinned, err := m.PrepareSnapshot()
	if err != nil {
		return err
	}
	return m.SaveSnapshot(pinned, w, nil)
}

func folderBytes(b *testing.B, dir string) (sum int64) {
	must(b, filepath.WalkDir(dir, func(_ string, e fs.DirEntry, err error) error {
		if err == nil && e.Type().IsRegular() {
			info, failed := e.Info()
			if err = failed; err == nil {
				sum += info.Size()
			}
		}
		return err
	}))
	return sum
}

// heapBytes is the live heap.
func heapBytes() uint64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}
