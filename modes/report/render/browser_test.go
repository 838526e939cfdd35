package render

import (
	_ "embed"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"imgcluster/cluster/clustertest/browser"
	"imgcluster/cluster/sample"
	"imgcluster/modes/runlog"
	"imgcluster/modes/runlog/logtest"
)

// seen.js looks at a page and returns what is wrong with it.
//
//go:embed testdata/seen.js
var seenScript string

// TestPageInABrowser opens the pages of several runs in a real browser, light and dark, wide and narrow, from
// a server that lets no other script run than the page's own.
func TestPageInABrowser(t *testing.T) {
	ctx := browser.Open(t)
	own := ""
	complaints, err := browser.Listen(ctx, func(u string) bool {
		return u == own || strings.HasPrefix(u, "data:")
	})
	if err != nil {
		t.Fatal(err)
	}
	pages := map[string][]byte{} // by path
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy",
			"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src '"+ScriptHash()+"'")
		w.Write(pages[r.URL.Path])
	}))
	defer server.Close()
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
		path := "/" + url.PathEscape(name)
		pages["/"+name] = written(t, reports.WriteHTML)
		own = server.URL + path
		if err := chromedp.Do(ctx, chromedp.Navigate(own)); err != nil {
			t.Fatal(err)
		}
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 800, 390, 320} {
				if err := chromedp.Do(ctx, browser.Prefer(scheme), chromedp.EmulateViewport(width, 900)); err != nil {
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
	for _, c := range complaints.Take() {
		t.Error(c)
	}
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
