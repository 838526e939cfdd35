package ui_test

import (
	"bytes"
	"encoding/binary"
	"fmt"
	goimage "image"
	"image/jpeg"
	"math/rand/v2"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/browser"
	"imgcluster/cluster/clustertest/camera"
	"imgcluster/cluster/clustertest/env"
	"imgcluster/cluster/wire"
	"imgcluster/config"
)

// pageBytesMax is how much a page may load.
const pageBytesMax = 300_000

// TestDashboardFigures measures the pages, and the list of a user with many images: IMGCLUSTER_IMAGES is the
// number.
func TestDashboardFigures(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	images := env.Number(t, "IMGCLUSTER_IMAGES", 1300)
	c := clustertest.Start(t, clustertest.Options{Change: func(cfg *config.Config) {
		cfg.Cluster.DataShards = config.Default().Cluster.DataShards
	}})
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(16)
	small := picture(t, 1)
	for i := range images {
		g.Go(func() error {
			path := clustertest.Path("alice", fmt.Sprintf("holiday/image-%08d.png", i))
			r := c.Do(http.MethodPut, c.IDs()[i%3], path, bytes.NewReader(small), nil)
			if r.Err == nil && r.Status != http.StatusCreated {
				return fmt.Errorf("image %d: status %d: %s", i, r.Status, r.Body)
			}
			return r.Err
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d images, uploaded in %v", images, time.Since(began).Round(time.Second))
	t.Logf("/metrics with %d shards and %d nodes: %v", c.Config.Cluster.DataShards, len(c.IDs()),
		median(t, func() error { return c.Do(http.MethodGet, 1, wire.MetricsPath, nil, nil).Err }))

	p := openPages(t, c)
	p.Do(browser.Cold(`*://*:*/v1/images/*\?form=thumbnail*`)) // nothing is in the files
	for page, there := range dashboardPages {
		p.open(1, page)
		p.Await(page, fmt.Sprintf("document.querySelector(%q) !== null", there))
		p.AwaitText("#state", "healthy")
		f := browser.Eval[struct{ Paint, Bytes float64 }](p.Page, pageFigures)
		t.Logf("page %q: first paint after %.0f ms, %.0f bytes", page, f.Paint, f.Bytes)
		if f.Bytes == 0 || f.Bytes > pageBytesMax {
			t.Errorf("page %q loads %.0f bytes", page, f.Bytes)
		}
	}
	p.Quiet("ERR_BLOCKED")
	p.manyImages(images)
	p.Quiet("ERR_BLOCKED")
}

// pageFigures returns when something of a page was painted first, in ms, and the bytes that it has loaded.
const pageFigures = `(() => {
	const all = [...performance.getEntriesByType("navigation"), ...performance.getEntriesByType("resource")];
	return {
		Paint: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? -1,
		Bytes: all.reduce((sum, e) => sum + e.transferSize, 0),
	};
})()`

// manyImages measures the list of alice's images at its beginning and its end, and the page that shows it.
func (p *pages) manyImages(images int) {
	c, t := p.c, p.T
	for what, query := range map[string]string{
		"the first page":   "",
		"the last page":    fmt.Sprintf("&after=holiday/image-%08d.png", images-60),
		"a search":         "&prefix=holiday/image-0000",
		"a search for one": fmt.Sprintf("&prefix=holiday/image-%08d", images-1),
	} {
		path := "/v1/images/alice?limit=60" + query
		t.Logf("%s of the list: %v", what, median(t, func() error {
			r := c.Do(http.MethodGet, 1, path, nil, nil)
			if r.Status != http.StatusOK {
				return fmt.Errorf("%s: %d", path, r.Status)
			}
			return r.Err
		}))
	}

	p.open(1, "images?user=alice")
	browser.Eval[bool](p.Page, `
		window.longTasks = [];
		new PerformanceObserver(list => longTasks.push(...list.getEntries().map(e => e.duration)))
			.observe({type: "longtask"}) || true`)
	tiles := func(n int) string { return fmt.Sprintf("document.querySelectorAll('.wall li').length === %d", n) }
	p.Await("the wall", tiles(60))
	var more []time.Duration
	for n := range 20 {
		began := time.Now()
		p.Click("Show more")
		p.Await("the next ones", tiles(60*(n+2)))
		more = append(more, time.Since(began).Round(time.Millisecond))
	}
	t.Logf("20 times more of the wall: %v", more)
	browser.Eval[bool](p.Page, scrollThrough)
	p.Await("the end of the wall", "window.worstFrame !== undefined")
	gap := browser.Eval[float64](p.Page, "worstFrame")
	t.Logf("scrolled through %d tiles: at most %.0f ms between two frames", 60*21, gap)
	began := time.Now()
	p.Type("Name", fmt.Sprintf("holiday/image-%08d", images-1))
	p.Await("the image", tiles(1))
	t.Logf("typed and found in %v", time.Since(began).Round(time.Millisecond))
	long := browser.Eval[[]float64](p.Page, "longTasks")
	t.Logf("%d tasks of more than 50 ms in the browser: %.0f", len(long), long)
}

// scrollThrough scrolls through a page in 2 s. worstFrame is then the longest time between two frames in ms.
const scrollThrough = `(() => {
	let began, last, worst = 0;
	const step = now => {
		began ??= now;
		worst = Math.max(worst, now - (last ?? now));
		last = now;
		scrollTo(0, (document.documentElement.scrollHeight - innerHeight) * (now - began) / 2000);
		if (now - began < 2000) requestAnimationFrame(step); else window.worstFrame = worst;
	};
	requestAnimationFrame(step);
	return true;
})()`

// median returns the median of the times that something takes.
func median(t *testing.T, do func() error) time.Duration {
	t.Helper()
	times := make([]time.Duration, 21)
	for i := range times {
		began := time.Now()
		if err := do(); err != nil {
			t.Fatal(err)
		}
		times[i] = time.Since(began)
	}
	slices.Sort(times)
	return times[len(times)/2].Round(10 * time.Microsecond)
}

// TestPhotographs makes the thumbnails of photographs that have a preview: IMGCLUSTER_PHOTOS is the number.
func TestPhotographs(t *testing.T) {
	photos := env.Number(t, "IMGCLUSTER_PHOTOS", 20)
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	photo := noise(t, 4000, 3000, 2, 255)
	bytesOf := 0
	for i := range photos {
		text := camera.WithEXIF(photo, 6, noise(t, 320, 240, 8, uint8(i)), binary.LittleEndian)
		bytesOf = len(text)
		c.Put(t, 1, "alice", fmt.Sprintf("%04d.jpeg", i), text, nil)
	}
	began := time.Now()
	var g errgroup.Group
	g.SetLimit(6) // as a browser does
	for i := range photos {
		g.Go(func() error {
			path := clustertest.Path("alice", fmt.Sprintf("%04d.jpeg", i)) + "?form=thumbnail"
			r := c.Do(http.MethodGet, 1, path, nil, nil)
			m, err := jpeg.Decode(bytes.NewReader(r.Body))
			if err == nil && m.Bounds().Size() != goimage.Pt(192, 256) {
				err = fmt.Errorf("it is of %v", m.Bounds())
			}
			if err != nil {
				return fmt.Errorf("%d: status %d: %w", i, r.Status, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		t.Fatal(err)
	}
	t.Logf("%d thumbnails of photographs of %d bytes in %v", photos, bytesOf, time.Since(began))
}

// noise is a JPEG of squares of so many pixels.
func noise(t *testing.T, w, h, square int, seed uint8) []byte {
	t.Helper()
	r := rand.NewChaCha8([32]byte{seed})
	m := goimage.NewGray(goimage.Rect(0, 0, w/square, h/square))
	r.Read(m.Pix)
	large := goimage.NewRGBA(goimage.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			large.Set(x, y, m.GrayAt(x/square, y/square))
		}
	}
	var b bytes.Buffer
	if err := jpeg.Encode(&b, large, nil); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
