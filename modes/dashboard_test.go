package modes

import (
	"os"
	"path/filepath"
	"regexp"
	"testing"

	"github.com/chromedp/chromedp"

	"imgcluster/cluster/clustertest/browser"
	"imgcluster/modes/runlog/logtest"
)

// TestRunsPage has a node make reports of logs and do a quick run, on its page.
func TestRunsPage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	p := browser.OpenPage(t)
	l := up(t)
	page := regexp.MustCompile(`http://[^/]+/ui/`).FindString(l.out.String())
	p.Do(chromedp.Navigate(page + "runs"))
	p.AwaitText("button", "Start a quick run")
	p.Look("runs")

	give := func(name, text string) {
		path := filepath.Join(l.dir, name)
		must(t, os.WriteFile(path, []byte(text), 0o600))
		p.Do(chromedp.SetUploadFiles("#log", []string{path}))
	}
	shown := `!document.querySelector("iframe").hidden && !document.querySelector("main .error, form[action]")`
	give("no log.jsonl", "no log")
	p.AwaitText("main .error", "line 1")
	p.AwaitText("main .error", "Give the log that stress wrote")
	p.Look("runs-error")
	p.Quiet("400")
	give("packed.jsonl.gz", logtest.Gzip(t, goodLog))
	p.Await("the report", shown)
	p.Look("runs-report")
	give("good.jsonl", goodLog)
	p.Await("the report", shown)
	p.Quiet()

	p.Click("Start a quick run")
	p.AwaitText("dialog[open] code", "imgcluster stress --profile quick")
	p.Look("runs-question")
	p.Click("Start")
	p.AwaitText("main .soft", "begins…")
	took := p.Await("progress", `
		/^[1-9]\d* of 30 images/.test(document.querySelector("main .note .soft")?.innerText)`)
	t.Logf("the first image is uploaded after %v", took)
	p.Look("runs-quick")
	p.Click("Start a quick run")
	p.Click("Start")
	p.AwaitText("dialog[open] .error", "a run is in progress")
	p.Quiet("409")
	p.Click("Cancel")
	p.AwaitText(".toast", "The run has ended")
	p.Await("its report", shown)
	p.Look("runs-ended")
	p.Quiet()
}
