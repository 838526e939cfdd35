package render

import (
	"context"
	_ "embed"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// browserTimeout is far more than a browser needs, so that only one that hangs is given up.
const browserTimeout = 5 * time.Minute

// seen.js looks at a page and returns what is wrong with it.
//
//go:embed testdata/seen.js
var seenScript string

// openBrowser starts a browser, or skips the test.
func openBrowser(t *testing.T) context.Context {
	t.Helper()
	var path string
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome", "chrome"} {
		if found, err := exec.LookPath(name); err == nil {
			path = found
			break
		}
	}
	if path == "" {
		t.Skip("no browser: install chromium to look at the page")
	}
	ctx, cancel := context.WithTimeout(t.Context(), browserTimeout)
	t.Cleanup(cancel)
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.WSURLReadTimeout(browserTimeout))
	ctx, cancel = chromedp.NewExecAllocator(ctx, opts...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// TestPageInABrowser opens the pages of several runs in a real browser, light and dark, wide and narrow.
func TestPageInABrowser(t *testing.T) {
	ctx := openBrowser(t)
	var mu sync.Mutex
	var complaints []string
	complain := func(format string, args ...any) {
		mu.Lock()
		defer mu.Unlock()
		complaints = append(complaints, fmt.Sprintf(format, args...))
	}
	own := ""
	err := chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			complain("script: %v", ev.ExceptionDetails)
		case *runtime.EventConsoleAPICalled:
			complain("console: %s", ev.Type)
		case *cdplog.EventEntryAdded:
			complain("log: %s: %s", ev.Entry.Level, ev.Entry.Text)
		case *network.EventRequestWillBeSent:
			if u := ev.Request.URL; u != own && !strings.HasPrefix(u, "data:") {
				complain("a request leaves the page: %s", u)
			}
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, reports := range map[string]Reports{
		"mixed":      {compute(t, logtest.Mixed()...)},
		"failing":    {compute(t, logtest.Failing()...)},
		"chaos":      {compute(t, logtest.Chaos()...)},
		"compared":   {compared(t)},
		"evil":       {named(t, evilText, evilRecords())},
		"empty":      {compute(t, logtest.EvenRun(0), runlog.End{})},
		"many nodes": {compute(t, manyNodes()...)},
		"several": {
			named(t, "a.jsonl", logtest.Killed()),
			named(t, "b/"+strings.Repeat("long", 30)+".jsonl", logtest.Mixed()),
		},
	} {
		path := filepath.Join(dir, name+".html")
		if err := os.WriteFile(path, written(t, reports.WriteHTML), 0o600); err != nil {
			t.Fatal(err)
		}
		own = (&url.URL{Scheme: "file", Path: path}).String()
		if err := chromedp.Do(ctx, chromedp.Navigate(own)); err != nil {
			t.Fatal(err)
		}
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 800, 390, 320} {
				if err := chromedp.Do(ctx, prefer(scheme), chromedp.EmulateViewport(width, 900)); err != nil {
					t.Fatal(err)
				}
				wrong, err := chromedp.Run(ctx, chromedp.Evaluate[[]string](fmt.Sprintf("(%s)(%q)", seenScript, scheme)))
				if err != nil {
					t.Fatalf("%s, %s, %d wide: %v", name, scheme, width, err)
				}
				for _, w := range wrong {
					t.Errorf("%s, %s, %d wide: %s", name, scheme, width, w)
				}
			}
		}
	}
	mu.Lock()
	defer mu.Unlock()
	for _, c := range complaints {
		t.Error(c)
	}
}

// prefer sets the reader's colour scheme.
func prefer(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// manyNodes is a run of more nodes than a chart has lines for.
func manyNodes() []runlog.Record {
	recs := logtest.Mutate(logtest.Even(400), func(u *runlog.Upload) { u.Owner = int(u.Seq%40) + 1 })
	for id := 1; id <= 40; id++ {
		for i := range 20 {
			recs = append(recs, runlog.NodeSample{
				TS:   float64(i),
				ID:   id,
				Up:   i%9 != 0,
				Node: sample.Node{RSSBytes: int64(id+i) << 20, CPUS: float64(i) / 2, NetRxBytes: int64(i) * 1e6},
			})
		}
	}
	return logtest.SetRun(recs, func(r *runlog.Run) {
		r.Nodes = nil
		for id := 1; id <= 40; id++ {
			r.Nodes = append(r.Nodes, id)
		}
	})
}
