package browser

import (
	"context"
	_ "embed"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"imgcluster/cluster/clustertest/poll"
)

// wait is the limit of every wait for something on a page.
const wait = 30 * time.Second

// lookScript looks at a page and returns what is wrong with it.
//
//go:embed look.js
var lookScript string

// screenshots is a folder for pictures of the pages that tests look at; empty: none. It is read before a
// test's TestMain may remove the variable.
var screenshots = os.Getenv("IMGCLUSTER_SCREENSHOTS")

// Page is a tab of a browser that shows the dashboard, to be used as a person uses it.
type Page struct {
	T          *testing.T
	Ctx        context.Context
	complaints *Complaints
}

// OpenPage starts a browser for pages of nodes on the loopback address.
func OpenPage(t *testing.T) *Page {
	t.Helper()
	ctx := Open(t, chromedp.IgnoreCertErrors)
	complaints, err := Listen(ctx, func(u string) bool {
		return strings.Contains(u, "://127.0.0.1:") || strings.HasPrefix(u, "blob:") || u == "about:blank" ||
			strings.HasPrefix(u, "data:image/svg") // the browser's own, of an input
	})
	if err != nil {
		t.Fatal(err)
	}
	return &Page{t, ctx, complaints}
}

// In returns the same tab for a part of the test.
func (p *Page) In(t *testing.T) *Page { return &Page{t, p.Ctx, p.complaints} }

// Tab opens another tab of the browser.
func (p *Page) Tab() *Page {
	ctx, cancel := chromedp.NewContext(p.Ctx)
	p.T.Cleanup(cancel)
	return &Page{p.T, ctx, p.complaints}
}

// Do runs actions on the page.
func (p *Page) Do(actions ...chromedp.Action[chromedp.Void]) {
	p.T.Helper()
	if err := chromedp.Do(p.Ctx, actions...); err != nil {
		p.T.Fatal(err)
	}
}

// Eval runs a script on the page.
func Eval[V any](p *Page, script string) V {
	p.T.Helper()
	v, err := chromedp.Run(p.Ctx, chromedp.Evaluate[V](script))
	if err != nil {
		p.T.Fatalf("%s: %v", script, err)
	}
	return v
}

// Await waits until a script says true, and returns how long that took.
func (p *Page) Await(what, script string) time.Duration {
	p.T.Helper()
	since := time.Now()
	poll.Until(p.T, wait, what, func() bool { return Eval[bool](p, script) })
	return time.Since(since)
}

// AwaitText waits until an element that matches a selector says something.
func (p *Page) AwaitText(selector, text string) time.Duration {
	p.T.Helper()
	return p.Await(selector+" says "+text, fmt.Sprintf(
		"[...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))", selector, text))
}

// AwaitGone waits until no element that matches a selector says something.
func (p *Page) AwaitGone(selector, text string) {
	p.T.Helper()
	p.Await(selector+" says no more "+text, fmt.Sprintf(
		"![...document.querySelectorAll(%q)].some(e => e.innerText.includes(%q))", selector, text))
}

// AwaitFocus waits until the focus is on an element whose name begins like this, as it is after a dialog.
func (p *Page) AwaitFocus(name string) {
	p.T.Helper()
	p.Await("the focus is on "+name, fmt.Sprintf(
		"(f => (f.ariaLabel || f.name || f.textContent).startsWith(%q))(document.activeElement)", name))
}

// inFront is where a user can click: the topmost dialog, else the page.
const inFront = `([...document.querySelectorAll("dialog[open]")].at(-1) || document)`

// Click clicks the first button or link in front whose name begins like this. It waits until it can be seen.
func (p *Page) Click(name string) {
	p.T.Helper()
	p.click(name, fmt.Sprintf(`[...%s.querySelectorAll("button, a, summary")]
		.find(e => (e.ariaLabel || e.textContent).startsWith(%q))`, inFront, name))
}

// Type clicks the field in front whose label begins like this, and types into it, in place of what it has.
func (p *Page) Type(label, text string) {
	p.T.Helper()
	field := fmt.Sprintf(`[...%s.querySelectorAll("label")].find(e => e.textContent.startsWith(%q))
		?.querySelector("input, select")`, inFront, label)
	p.click(label, field)
	Eval[bool](p, fmt.Sprintf("(%s).select?.() || true", field))
	p.Press(text)
}

// Choose chooses the option of a value in the list in front whose label begins like this.
func (p *Page) Choose(label, value string) {
	p.T.Helper()
	Eval[bool](p, fmt.Sprintf(`(list => {
		list.value = %q;
		list.dispatchEvent(new Event("change", {bubbles: true}));
		return true;
	})([...%s.querySelectorAll("label")].find(e => e.textContent.startsWith(%q)).querySelector("select"))`,
		value, inFront, label))
}

// click clicks into the middle of the element that a script finds, once nothing covers it.
func (p *Page) click(name, script string) {
	p.T.Helper()
	var at []float64
	poll.Until(p.T, wait, "click "+name, func() bool {
		at = Eval[[]float64](p, fmt.Sprintf(`(e => {
			if (!e) return [];
			e.scrollIntoView({block: "center"});
			const b = e.getBoundingClientRect(), x = b.x + b.width / 2, y = b.y + b.height / 2;
			return e.contains(document.elementFromPoint(x, y)) ? [x, y] : [];
		})(%s)`, script))
		return len(at) == 2
	})
	p.Do(chromedp.MouseClickXY(at[0], at[1]))
}

// Press sends keys to the page.
func (p *Page) Press(keys string) {
	p.T.Helper()
	p.Do(chromedp.KeyEvent(keys))
}

// TabTo moves the focus by the tabulator alone until a script says true of the focused element f.
func (p *Page) TabTo(what, script string) {
	p.T.Helper()
	for range 80 {
		p.Press(kb.Tab)
		if Eval[bool](p, fmt.Sprintf("(f => !!(%s))(document.activeElement)", script)) {
			return
		}
	}
	p.T.Fatalf("no way to %s by keyboard", what)
}

// Quiet fails the test for what the browser has complained of, but for what matches one of these.
func (p *Page) Quiet(but ...string) {
	p.T.Helper()
next:
	for _, said := range p.complaints.Take() {
		for _, known := range but {
			if strings.Contains(said, known) {
				continue next
			}
		}
		p.T.Error(said)
	}
}

// Look fails the test for what is wrong with the page as it is now, light and dark, wide and narrow. Pictures
// of it are kept in screenshots.
func (p *Page) Look(name string) {
	p.T.Helper()
	for _, scheme := range []string{"light", "dark"} {
		for _, width := range []int64{390, 1280} {
			p.Do(Prefer(scheme), chromedp.EmulateViewport(width, 900))
			for _, w := range Eval[[]string](p, fmt.Sprintf("(%s)(%q)", lookScript, scheme)) {
				p.T.Errorf("%s, %s, %d wide: %s", name, scheme, width, w)
			}
			if screenshots == "" {
				continue
			}
			shot, err := chromedp.Run(p.Ctx, chromedp.FullScreenshot(100))
			if err == nil {
				path := filepath.Join(screenshots, fmt.Sprintf("%s-%s-%d.png", name, scheme, width))
				err = os.WriteFile(path, shot, 0o600)
			}
			if err != nil {
				p.T.Fatal(err)
			}
		}
	}
}
