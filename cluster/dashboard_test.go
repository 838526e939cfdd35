package cluster_test

import (
	"bytes"
	"context"
	_ "embed"
	"fmt"
	goimage "image"
	"image/color"
	"image/png"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"imgcluster/cluster/access"
	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/browser"
	"imgcluster/cluster/clustertest/poll"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// dashboardScript looks at a page and returns what is wrong with it.
//
//go:embed testdata/dashboard.js
var dashboardScript string

// pages opens pages of a cluster's nodes in a browser.
type pages struct {
	t          *testing.T
	c          *clustertest.Cluster
	ctx        context.Context
	complaints *browser.Complaints
}

func openPages(t *testing.T, c *clustertest.Cluster) *pages {
	t.Helper()
	ctx := browser.Open(t, chromedp.IgnoreCertErrors)
	complaints, err := browser.Listen(ctx, func(u string) bool {
		return strings.Contains(u, "://127.0.0.1:") || strings.HasPrefix(u, "blob:") || u == "about:blank" ||
			strings.HasPrefix(u, "data:image/svg") // the browser's own, of an input
	})
	if err != nil {
		t.Fatal(err)
	}
	return &pages{t, c, ctx, complaints}
}

// tab opens another tab of the browser.
func (p *pages) tab() *pages {
	ctx, cancel := chromedp.NewContext(p.ctx)
	p.t.Cleanup(cancel)
	other := *p
	other.ctx = ctx
	return &other
}

func (p *pages) open(node image.NodeID, page string) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, chromedp.Navigate(p.c.URL(node, wire.UIPath+page))); err != nil {
		p.t.Fatalf("%s of node %d: %v", page, node, err)
	}
}

// eval runs a script on a page.
func eval[T any](p *pages, script string) T {
	p.t.Helper()
	v, err := chromedp.Run(p.ctx, chromedp.Evaluate[T](script))
	if err != nil {
		p.t.Fatalf("%s: %v", script, err)
	}
	return v
}

// await waits until a script says true, and returns how long that took.
func (p *pages) await(what, script string) time.Duration {
	p.t.Helper()
	since := time.Now()
	poll.Until(p.t, 30*time.Second, what, func() bool { return eval[bool](p, script) })
	return time.Since(since)
}

// awaitText waits until an element that matches a selector says something.
func (p *pages) awaitText(selector, text string) time.Duration {
	p.t.Helper()
	return p.await(selector+" says "+text, fmt.Sprintf(
		"[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))", selector, text))
}

// quiet fails the test for what the browser has complained of, but for what matches one of these.
func (p *pages) quiet(but ...string) {
	p.t.Helper()
next:
	for _, said := range p.complaints.Take() {
		for _, known := range but {
			if strings.Contains(said, known) {
				continue next
			}
		}
		p.t.Error(said)
	}
}

// press sends keys to the page.
func (p *pages) press(keys string) {
	p.t.Helper()
	if err := chromedp.Do(p.ctx, chromedp.KeyEvent(keys)); err != nil {
		p.t.Fatal(err)
	}
}

// tabTo moves the focus by the tabulator alone until a script says true of the focused element f.
func (p *pages) tabTo(what, script string) {
	p.t.Helper()
	for range 80 {
		p.press(kb.Tab)
		if eval[bool](p, fmt.Sprintf("(f => !!(%s))(document.activeElement)", script)) {
			return
		}
	}
	p.t.Fatalf("no way to %s by keyboard", what)
}

// dashboardPages are its pages, and what each shows once it is there.
var dashboardPages = map[string]string{
	"": "#node-3 .pill", "images?user=alice": ".wall li", "users": "tbody tr", "nodes": "tbody tr",
	"runs": ".drop",
}

// TestDashboard opens every page in a browser, light and dark, wide and narrow, and uses it: an upload on one
// node's page is seen on another's, a killed node turns red and is green when it is back.
func TestDashboard(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	c := clustertest.Start(t, clustertest.Options{Processes: true})
	for i := range 5 {
		c.Put(t, 1, "alice", fmt.Sprintf("holiday/%d.png", i), picture(t, i), nil)
	}
	c.Put(t, 1, "alice", "no picture.txt", []byte("no picture"), nil)
	p := openPages(t, c)
	t.Run("Looks", func(t *testing.T) { p.looks(t) })
	t.Run("Upload", func(t *testing.T) { p.upload(t) })
	t.Run("Keyboard", func(t *testing.T) { p.keyboard(t) })
	t.Run("KilledNode", func(t *testing.T) { p.killedNode(t) })
}

// picture is a small PNG that shows something.
func picture(t *testing.T, i int) []byte {
	t.Helper()
	m := goimage.NewRGBA(goimage.Rect(0, 0, 640, 480))
	for y := range 480 {
		for x := range 640 {
			m.Set(x, y, color.RGBA{uint8(x/3 + 40*i), uint8(y / 2), uint8((x+y)/5 + 90*i), 255})
		}
	}
	var b bytes.Buffer
	if err := png.Encode(&b, m); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// looks opens each page.
func (p *pages) looks(t *testing.T) {
	dir := os.Getenv("IMGCLUSTER_SCREENSHOTS") // a folder for pictures of the pages
	for page, there := range dashboardPages {
		p.open(1, page)
		p.await(page, fmt.Sprintf("document.querySelector(%q) !== null", there))
		p.awaitText("#state", "healthy")
		for _, scheme := range []string{"light", "dark"} {
			for _, width := range []int64{1280, 390} {
				err := chromedp.Do(p.ctx, browser.Prefer(scheme), chromedp.EmulateViewport(width, 900))
				if err != nil {
					t.Fatal(err)
				}
				for _, w := range eval[[]string](p, fmt.Sprintf("(%s)(%q)", dashboardScript, scheme)) {
					t.Errorf("%q, %s, %d wide: %s", page, scheme, width, w)
				}
				if dir == "" {
					continue
				}
				shot, err := chromedp.Run(p.ctx, chromedp.FullScreenshot(100))
				if err == nil {
					name := fmt.Sprintf("page-%s-%s-%d.png", url.QueryEscape(page), scheme, width)
					err = os.WriteFile(filepath.Join(dir, name), shot, 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
			}
		}
		p.quiet("415") // the file that is no picture has no thumbnail
	}
}

// upload stores an image on one node's page, and finds it on another's.
func (p *pages) upload(t *testing.T) {
	other := p.tab()
	other.open(2, "images?user=alice")
	other.await("the wall", "document.querySelectorAll('.wall li').length === 6")
	p.open(1, "images?user=alice")
	p.await("the page", "document.querySelector('.wall li') !== null")
	path := filepath.Join(t.TempDir(), "new <b>one.png")
	if err := os.WriteFile(path, picture(t, 9), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := chromedp.Do(p.ctx, chromedp.SetUploadFiles("#files", []string{path})); err != nil {
		t.Fatal(err)
	}
	p.awaitText(".uploads li", "encrypted it")
	took := other.await("the new image", `
		[...document.querySelectorAll(".wall li")].some(e => e.dataset.name === "new <b>one.png")`)
	t.Logf("on the other node's page %v later", took.Round(time.Millisecond))
	p.quiet("415")
}

// keyboard deletes an image without a mouse.
func (p *pages) keyboard(t *testing.T) {
	p.open(2, "images?user=alice")
	p.await("the page", "document.querySelector('.wall li') !== null")
	p.tabTo("the first image", `f.closest(".wall") && f.ariaLabel.startsWith("holiday/0.png")`)
	p.press(kb.Enter)
	p.await("its detail", "document.querySelector('dialog[open] .detail') !== null")
	p.tabTo("delete", `f.textContent.startsWith("Delete")`)
	p.press(kb.Enter)
	p.await("the question", "document.querySelectorAll('dialog[open]').length === 2")
	p.tabTo("the answer", `f.textContent === "Delete"`)
	p.press(kb.Enter)
	p.awaitText("#toasts", "is deleted")
	gone := p.c.Do(http.MethodGet, 3, clustertest.Path("alice", "holiday/0.png"), nil, nil)
	if gone.Status != http.StatusNotFound {
		t.Errorf("the image is still there: %d", gone.Status)
	}
	p.await("the focus", "document.querySelectorAll('dialog[open]').length === 0")
	p.quiet("415")
}

// killedNode kills a node under a page of another one.
func (p *pages) killedNode(t *testing.T) {
	p.open(1, "")
	p.awaitText("#node-3 .pill", "up")
	p.c.Kill(3)
	red := p.await("node 3 is down", "document.querySelector('#node-3 .pill.bad') !== null")
	p.awaitText(".health", "node 3 is down")
	p.c.Start(3)
	green := p.await("node 3 is up", "document.querySelector('#node-3 .pill.good') !== null")
	t.Logf("red after %v, green %v after its start", red.Round(time.Millisecond),
		green.Round(time.Millisecond))
	if red > 10*time.Second {
		t.Errorf("a killed node was shown as down after %v", red)
	}
	p.awaitText("#state", "healthy")
	p.quiet("415")
}

// TestLogin: where clients need a key, the pages ask for one, and keep nothing of it that a script can read.
func TestLogin(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	c := clustertest.Start(t, clustertest.Options{Secured: true})
	cl := c.Client(t, client.Broadcast)
	c.Put(t, 1, "alice", "a.png", picture(t, 1), nil)
	c.Put(t, 1, "bob", "b.png", picture(t, 2), nil)
	key, err := cl.AddAccessKey(t.Context(), wire.KeyRequest{User: "alice", Role: image.RoleRead})
	if err != nil {
		t.Fatal(err)
	}
	p := openPages(t, c)
	p.open(1, "images")
	p.await("the form", "document.querySelector('#login input[name=id]') !== null")
	p.quiet("401")
	logIn := func(secret string) {
		p.press(key.ID + kb.Tab + secret + kb.Enter) // the first field has the focus
	}
	logIn(strings.Repeat("x", len(key.Secret)))
	p.awaitText("#login .error", "not known")
	eval[bool](p, "document.querySelector('#login form').reset() || true")
	eval[bool](p, "document.querySelector('#login input[name=id]').focus() || true")
	logIn(key.Secret)
	p.await("alice's image", "document.querySelectorAll('.wall li').length === 1")
	seen := eval[string](p, "document.cookie + JSON.stringify(localStorage) + location.href")
	if strings.Contains(seen, key.Secret) || strings.Contains(seen, access.SessionCookie) {
		t.Errorf("a script reads %s", seen)
	}
	status := eval[int](p, `(() => {
		const r = new XMLHttpRequest();
		r.open("GET", "/v1/images/bob", false);
		r.send();
		return r.status;
	})()`)
	if status != http.StatusForbidden {
		t.Errorf("bob's images for alice: %d", status)
	}
	p.open(2, "") // the session is good at every node
	p.awaitText("#state", "healthy")
	p.quiet("401", "403")
	if err := cl.RemoveAccessKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	p.await("the end of the session", "document.querySelector('#login input[name=id]') !== null")
	p.quiet("401", "ERR_INCOMPLETE")
}
