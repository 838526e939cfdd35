package ui_test

import (
	"bytes"
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
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// pages opens pages of a cluster's nodes in a browser.
type pages struct {
	*browser.Page
	c *clustertest.Cluster
}

func openPages(t *testing.T, c *clustertest.Cluster) *pages {
	t.Helper()
	return &pages{browser.OpenPage(t), c}
}

// part returns the same tab for a part of the test.
func (p *pages) part(t *testing.T) *pages { return &pages{p.In(t), p.c} }

// open shows a page of a node.
func (p *pages) open(node image.NodeID, page string) {
	p.T.Helper()
	p.Do(chromedp.Navigate(p.c.URL(node, wire.UIPath+page)))
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
	t.Run("Looks", func(t *testing.T) { p.part(t).looks() })
	t.Run("Upload", func(t *testing.T) { p.part(t).upload() })
	t.Run("Keyboard", func(t *testing.T) { p.part(t).keyboard() })
	t.Run("Nodes", func(t *testing.T) { p.part(t).nodes() })
	t.Run("KilledNode", func(t *testing.T) { p.part(t).killedNode() })
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
func (p *pages) looks() {
	for page, there := range dashboardPages {
		p.open(1, page)
		p.Await(page, fmt.Sprintf("document.querySelector(%q) !== null", there))
		p.AwaitText("#state", "healthy")
		p.Look("page-" + url.QueryEscape(page))
		p.Quiet("415") // the file that is no picture has no thumbnail
	}
}

// upload stores an image on one node's page, and finds it on another's.
func (p *pages) upload() {
	other := &pages{p.Tab(), p.c}
	other.open(2, "images?user=alice")
	other.Await("the wall", "document.querySelectorAll('.wall li').length === 6")
	p.open(1, "images?user=alice")
	p.Await("the page", "document.querySelector('.wall li') !== null")
	path := filepath.Join(p.T.TempDir(), "new <b>one.png")
	if err := os.WriteFile(path, picture(p.T, 9), 0o600); err != nil {
		p.T.Fatal(err)
	}
	p.Do(chromedp.SetUploadFiles("#files", []string{path}))
	p.AwaitText(".uploads li", "encrypted it")
	took := other.Await("the new image", `
		[...document.querySelectorAll(".wall li")].some(e => e.dataset.name === "new <b>one.png")`)
	p.T.Logf("on the other node's page %v later", took.Round(time.Millisecond))
	large := filepath.Join(p.T.TempDir(), "large.png")
	if err := os.WriteFile(large, make([]byte, 9<<20), 0o600); err != nil {
		p.T.Fatal(err)
	}
	p.Do(chromedp.SetUploadFiles("#files", []string{large}))
	p.AwaitText(".uploads .error", "Send a smaller image")
	p.Look("images-uploaded")
	p.Quiet("415", "413")
}

// keyboard deletes an image without a mouse.
func (p *pages) keyboard() {
	p.open(2, "images?user=alice")
	p.Await("the page", "document.querySelector('.wall li') !== null")
	p.TabTo("the first image", `f.closest(".wall") && f.ariaLabel.startsWith("holiday/0.png")`)
	p.Press(kb.Enter)
	p.Await("its detail", "document.querySelector('dialog[open] .detail') !== null")
	p.Await("its picture", "document.querySelector('dialog img').complete")
	p.Look("images-detail")
	p.TabTo("delete", `f.textContent.startsWith("Delete")`)
	p.Press(kb.Enter)
	p.Await("the question", "document.querySelectorAll('dialog[open]').length === 2")
	p.Look("images-delete")
	p.TabTo("the answer", `f.textContent === "Delete"`)
	p.Press(kb.Enter)
	p.AwaitText("#toasts", "is deleted")
	gone := p.c.Do(http.MethodGet, 3, clustertest.Path("alice", "holiday/0.png"), nil, nil)
	if gone.Status != http.StatusNotFound {
		p.T.Errorf("the image is still there: %d", gone.Status)
	}
	p.Await("the focus", `document.querySelectorAll("dialog[open]").length === 0 &&
		document.activeElement.closest(".wall") !== null`) // on the next image
	p.Type("Name", "holidays")
	p.AwaitText(".empty", "No image of alice begins with")
	p.Look("images-none")
	p.Quiet("415")
}

// killedNode kills a node under a page of another one.
func (p *pages) killedNode() {
	p.open(1, "")
	p.AwaitText("#node-3 .pill", "up")
	p.c.Kill(3)
	red := p.Await("node 3 is down", "document.querySelector('#node-3 .pill.bad') !== null")
	p.AwaitText(".health", "node 3 is down")
	p.Look("overview-degraded")
	p.c.Start(3)
	green := p.Await("node 3 is up", "document.querySelector('#node-3 .pill.good') !== null")
	p.T.Logf("red after %v, green %v after its start", red.Round(time.Millisecond),
		green.Round(time.Millisecond))
	if red > 10*time.Second {
		p.T.Errorf("a killed node was shown as down after %v", red)
	}
	p.AwaitText("#state", "healthy")
	p.Quiet("415")
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
	p.Await("the form", "document.querySelector('#login input[name=id]') !== null")
	p.Quiet("401")
	logIn := func(secret string) {
		p.Press(key.ID + kb.Tab + secret + kb.Enter) // the first field has the focus
	}
	logIn(strings.Repeat("x", len(key.Secret)))
	p.AwaitText("#login .error", "not known")
	p.Look("login-error")
	browser.Eval[bool](p.Page, "document.querySelector('#login form').reset() || true")
	browser.Eval[bool](p.Page, "document.querySelector('#login input[name=id]').focus() || true")
	logIn(key.Secret)
	p.Await("alice's image", "document.querySelectorAll('.wall li').length === 1")
	seen := browser.Eval[string](p.Page, "document.cookie + JSON.stringify(localStorage) + location.href")
	if strings.Contains(seen, key.Secret) || strings.Contains(seen, access.SessionCookie) {
		t.Errorf("a script reads %s", seen)
	}
	status := browser.Eval[int](p.Page, `(() => {
		const r = new XMLHttpRequest();
		r.open("GET", "/v1/images/bob", false);
		r.send();
		return r.status;
	})()`)
	if status != http.StatusForbidden {
		t.Errorf("bob's images for alice: %d", status)
	}
	p.open(2, "") // the session is good at every node
	p.AwaitText("#state", "healthy")
	p.Quiet("401", "403")
	if err := cl.RemoveAccessKey(t.Context(), key.ID); err != nil {
		t.Fatal(err)
	}
	ended := p.Await("the end of the session", "document.querySelector('#login input[name=id]') !== null")
	t.Logf("the page asks for a key %v after its end", ended)
	p.Quiet("401", "ERR_INCOMPLETE")
}
