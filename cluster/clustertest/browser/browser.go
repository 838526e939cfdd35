// Package browser opens pages in a real browser, for tests: Debian's chromium, without a window.
package browser

import (
	"context"
	"fmt"
	"os/exec"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	cdplog "github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"
)

// timeout is far more than a browser needs, so that only one that hangs is given up.
const timeout = 5 * time.Minute

// Open starts a browser that ends with the test, or skips the test where there is none.
func Open(t *testing.T, flags ...chromedp.ExecAllocatorOption) context.Context {
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
	ctx, cancel := context.WithTimeout(t.Context(), timeout)
	t.Cleanup(cancel)
	opts := append(chromedp.DefaultExecAllocatorOptions[:], chromedp.ExecPath(path), chromedp.NoSandbox,
		chromedp.WSURLReadTimeout(timeout))
	ctx, cancel = chromedp.NewExecAllocator(ctx, append(opts, flags...)...)
	t.Cleanup(cancel)
	ctx, cancel = chromedp.NewContext(ctx)
	t.Cleanup(cancel)
	return ctx
}

// Complaints are what a browser says of the pages that it opens. They are safe for concurrent use.
type Complaints struct {
	mu  sync.Mutex
	all []string
}

// Listen has the browser of ctx tell of errors of scripts, of all that is written to the console, and of
// requests to what is not allowed.
func Listen(ctx context.Context, allowed func(url string) bool) (*Complaints, error) {
	c := &Complaints{}
	return c, chromedp.Listen(ctx, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			c.add("script: %v", ev.ExceptionDetails)
		case *runtime.EventConsoleAPICalled:
			c.add("console: %s", ev.Type)
		case *cdplog.EventEntryAdded:
			c.add("log: %s: %s %s", ev.Entry.Level, ev.Entry.Text, ev.Entry.URL)
		case *network.EventRequestWillBeSent:
			if u := ev.Request.URL; !allowed(u) {
				c.add("a request leaves the page: %s", u)
			}
		}
	})
}

func (c *Complaints) add(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.all = append(c.all, fmt.Sprintf(format, args...))
}

// Take returns what was said since the last call.
func (c *Complaints) Take() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	all := slices.Clone(c.all)
	c.all = nil
	return all
}

// Prefer sets the reader's colour scheme, light or dark.
func Prefer(scheme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}},
		})
		return err
	})
}

// Cold has the browser load all of every page again, and nothing whose address matches a URL pattern.
func Cold(but string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, network.SetCacheDisabled, network.SetCacheDisabledParams{CacheDisabled: true})
		if err == nil {
			_, err = cdp.Call(ctx, t, network.SetBlockedURLs, network.SetBlockedURLsParams{
				URLPatterns: []*network.BlockPattern{{URLPattern: but, Block: true}},
			})
		}
		return err
	})
}
