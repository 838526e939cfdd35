package render

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"imgcluster/modes/report"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// million is the size of log that must be reported in under 10 s and 512 MiB.
const million = 1_000_000

// BenchmarkMillion reports a log of a million uploads, from the file to the text.
func BenchmarkMillion(b *testing.B) {
	path := filepath.Join(b.TempDir(), "log.jsonl")
	if err := writeMillion(path); err != nil {
		b.Fatal(err)
	}
	info, err := os.Stat(path)
	if err != nil {
		b.Fatal(err)
	}
	b.SetBytes(info.Size())
	b.ReportAllocs()
	for b.Loop() {
		f, err := os.Open(path)
		if err != nil {
			b.Fatal(err)
		}
		l, err := runlog.Read(f)
		if err != nil {
			b.Fatal(err)
		}
		all := Reports{report.Compute(l, report.DefaultLimits())}
		if err := all.WriteText(io.Discard, TextOptions{}); err != nil {
			b.Fatal(err)
		}
		f.Close()
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	b.ReportMetric(float64(m.Sys)/(1<<20), "MiB-sys") // of the whole process, the log's making included
}

// BenchmarkWrite writes one upload record.
func BenchmarkWrite(b *testing.B) {
	w := runlog.NewWriter(io.Discard)
	u := logtest.EvenUpload(1)
	b.ReportAllocs()
	for b.Loop() {
		if err := w.Write(u); err != nil {
			b.Fatal(err)
		}
	}
}

func writeMillion(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	w := runlog.NewWriter(f)
	if err := w.Write(logtest.EvenRun(million)); err != nil {
		return err
	}
	for i := range million {
		u := logtest.EvenUpload(int64(i) ^ 5 + 1) // finished out of order, as with eight at once
		u.Name = fmt.Sprintf("stress_image_%d.png", i)
		if err := w.Write(u); err != nil {
			return err
		}
	}
	return w.Close()
}
