package ui_test

import (
	"crypto/tls"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/chromedp/chromedp/kb"

	"imgcluster/cluster/client"
	"imgcluster/cluster/clustertest"
	"imgcluster/cluster/clustertest/browser"
	"imgcluster/cluster/image"
	"imgcluster/cluster/placement"
	"imgcluster/cluster/wire"
)

// TestUsersPage makes and removes users and access keys on their page, as an administrator.
func TestUsersPage(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	c := clustertest.Start(t, clustertest.Options{Secured: true})
	c.Put(t, 1, "alice", "a.png", picture(t, 1), nil)
	admin, err := c.Client(t, client.Broadcast).AddAccessKey(t.Context(), wire.KeyRequest{Role: image.RoleAdmin})
	if err != nil {
		t.Fatal(err)
	}
	p := openPages(t, c)
	p.open(2, "users")
	p.Await("the form", "document.querySelector('#login input[name=id]') !== null")
	p.Quiet("401")
	p.Look("login")
	p.Type("Access key ID", admin.ID)
	p.Type("Secret", admin.Secret)
	p.Click("Log in")
	p.AwaitText("td", "alice")
	t.Run("AddUser", func(t *testing.T) { p.part(t).addUser() })
	t.Run("AddKey", func(t *testing.T) { p.part(t).addKey() })
	t.Run("RemoveKey", func(t *testing.T) { p.part(t).removeKey() })
	t.Run("RemoveUser", func(t *testing.T) { p.part(t).removeUser() })
}

// addUser makes a user, after a try with a name that no user can have.
func (p *pages) addUser() {
	p.Type("Name", "b/ob")
	p.Click("Add user")
	p.AwaitText(".error", "contains a slash")
	p.Look("users-error")
	p.Quiet("400")
	if kept := browser.Eval[string](p.Page, `document.querySelector("input[name=name]").value`); kept != "b/ob" {
		p.T.Errorf("what was typed is %q after an error", kept)
	}
	p.Type("Name", "bob")
	p.Click("Add user")
	p.AwaitText(".toast", "User bob is there")
	p.AwaitText("td", "bob")
	p.Quiet()
}

// addKey makes an access key, whose secret is seen once and is good.
func (p *pages) addKey() {
	p.Choose("Role", "write")
	p.Type("Of user", "bob")
	p.Look("users")
	p.Click("Make key")
	p.AwaitText("dialog[open]", "shown this once")
	p.Look("key-shown")
	secrets := browser.Eval[[]string](p.Page, `
		[...document.querySelectorAll(".secret")].map(e => e.textContent)`)
	if len(secrets) != 2 {
		p.T.Fatalf("an ID and a secret, and not %q", secrets)
	}
	p.Click("Copy both")
	p.Await("the answer", `/^Copied|^This browser/.test(document.querySelector("dialog button").textContent)`)
	p.Click("Close")
	p.AwaitText("td", secrets[0])
	p.AwaitFocus("Make key")
	p.Await("the secret to go", `!document.documentElement.outerHTML.includes("`+secrets[1]+`")`)
	stranger := p.c.HTTP.Transport.(*http.Transport).Clone() // who has the key, and no certificate
	stranger.TLSClientConfig = &tls.Config{RootCAs: stranger.TLSClientConfig.RootCAs}
	defer stranger.CloseIdleConnections()
	bobs := func(user string) int {
		req, err := http.NewRequest(http.MethodGet, p.c.URL(1, "/v1/images/"+user), nil)
		if err != nil {
			p.T.Fatal(err)
		}
		req.Header.Set("Authorization", "Bearer "+secrets[0]+"."+secrets[1])
		resp, err := stranger.RoundTrip(req)
		if err != nil {
			p.T.Fatal(err)
		}
		return clustertest.ReadResponse(resp).Status
	}
	if own, other := bobs("bob"), bobs("alice"); own != http.StatusOK || other != http.StatusForbidden {
		p.T.Errorf("the new key for bob's images %d, for alice's %d", own, other)
	}
	p.Quiet()
}

// removeKey removes bob's key, after a second thought.
func (p *pages) removeKey() {
	id := browser.Eval[string](p.Page, `[...document.querySelectorAll("tr")]
		.find(r => r.textContent.includes("bob") && r.textContent.includes("write")).cells[0].textContent`)
	p.Click("Remove key " + id)
	p.AwaitText("dialog[open] code", "imgcluster key rm "+id)
	p.Press(kb.Escape)
	p.AwaitFocus("Remove key " + id)
	p.Press(kb.Enter)
	p.Click("Remove")
	p.AwaitText(".toast", "is removed")
	p.AwaitGone("td", id)
	p.AwaitFocus("Remove key") // of the one that is left
	p.Quiet()
}

// removeUser removes bob, once the name is typed.
func (p *pages) removeUser() {
	p.Click("Remove user bob")
	p.AwaitText("dialog[open] code", "imgcluster user rm bob")
	p.Look("remove-user")
	p.Type("To go on", "alice")
	p.Click("Remove")
	p.Await("a complaint", `document.querySelector("dialog[open] input:invalid") !== null`)
	p.Type("To go on", "bob")
	p.Press(kb.Enter)
	p.AwaitText(".toast", "User bob is removed")
	p.AwaitGone("td", "bob")
	p.AwaitText("td", "alice")
	p.AwaitFocus("Remove user alice")
	p.Quiet()
}

// nodes drains a node, has it take on work again, and verifies copies, one of which is damaged.
func (p *pages) nodes() {
	p.open(1, "nodes")
	p.AwaitText("#node-2 .pill", "up")
	p.Click("Add a node")
	p.Type("ID", "2")
	p.Type("Host", "127.0.0.1")
	p.Press(kb.Enter)
	p.AwaitText("dialog[open] .error", "is or was another node")
	p.Look("nodes-add")
	p.Quiet("400", "409", "412")
	p.Press(kb.Escape)
	p.AwaitFocus("Add a node")
	p.change(2, "Drain", "imgcluster member drain 2")
	p.AwaitText("#node-2 .pill", "draining")
	p.AwaitText("#node-2 td", "Has no copies left")
	p.Look("nodes-draining")
	p.change(3, "Drain", "imgcluster member drain 3")
	p.AwaitText("dialog[open] .error", "too few active members")
	p.Look("nodes-refused")
	p.Quiet("409", "400")
	p.Click("Cancel")
	p.change(2, "Resume", "imgcluster member drain 2 --undo")
	p.AwaitText("#node-2 .pill", "up")
	p.AwaitFocus("Drain")
	p.Quiet()

	p.Click("Verify node 1")
	p.AwaitText("main code", "imgcluster verify --node 1")
	p.AwaitText("[role=status]", "All is well")
	clustertest.FlipByte(p.T, p.c.Files(p.T, 1, ".img")[0], 200)
	p.Click("Verify node 1")
	p.AwaitText("[role=status]", "A copy is bad")
	p.AwaitText("main li", "alice/")
	p.Look("nodes-bad")
	p.Click("Verify and repair")
	p.AwaitText("main code", "imgcluster verify --node 1 --repair")
	p.AwaitText("[role=status]", "what was bad is repaired")

	browser.Eval[bool](p.Page, slowVerify)
	p.Click("Verify node 1")
	p.AwaitText("main .soft", "3 of 6 copies read")
	p.Look("nodes-verify")
	p.Click("Stop")
	p.AwaitText("[role=status]", "Stopped before the end")
	browser.Eval[bool](p.Page, cutVerify)
	p.Click("Verify node 1")
	p.AwaitText("main .error", "ended before it had read all")
	p.Quiet()
}

// Answers of a node that verifies, in place of the real ones: one that takes for ever, one that is cut off.
const (
	slowVerify = `(line => {
		const real = fetch;
		window.fetch = (url, options) => !url.includes("/verify") ? real(url, options) :
			Promise.resolve(new Response(new ReadableStream({start(c) {
				c.enqueue(new TextEncoder().encode(line));
				options.signal.addEventListener("abort", () => c.error(options.signal.reason));
			}})));
		return true;
	})('{"type":"progress","images":3,"of_images":6,"bytes":500,"of_bytes":1000,"bad":0,"repaired":0}\n')`
	cutVerify = `(() => {
		const real = fetch;
		window.fetch = (url, options) => !url.includes("/verify") ? real(url, options) :
			Promise.resolve(new Response(""));
		return true;
	})()`
)

// change asks for a change of a node, which is said to be a command.
func (p *pages) change(id image.NodeID, button, command string) {
	p.T.Helper()
	browser.Eval[bool](p.Page, fmt.Sprintf("document.querySelector('#node-%d button').focus() || true", id))
	p.AwaitFocus(button)
	p.Press(kb.Enter)
	p.Await(command, fmt.Sprintf("document.querySelector('dialog[open] code')?.textContent === %q", command))
	p.Click(button)
}

// TestImagesOfFiveNodes: the page of a node shows new images of a shard that the node does not hold.
func TestImagesOfFiveNodes(t *testing.T) {
	if testing.Short() {
		t.Skip("starts a browser")
	}
	c := clustertest.Start(t, clustertest.Options{Nodes: 5})
	data := c.Status(1).Shards[1:] // the first one is the system shard
	name := ""
	for i := 0; name == "" && i < 1000; i++ {
		n := fmt.Sprintf("%d.png", i)
		if !slices.Contains(data[placement.Shard("alice", n, len(data))].Nodes, 1) {
			name = n
		}
	}
	if name == "" {
		t.Fatalf("node 1 holds all shards: %v", data)
	}
	c.Put(t, 1, "alice", "first.png", picture(t, 0), nil)
	p := openPages(t, c)
	p.open(1, "images?user=alice")
	p.Await("the wall", "document.querySelectorAll('.wall li').length === 1")
	c.Put(t, 2, "alice", name, picture(t, 1), nil)
	took := p.Await(name, "document.querySelectorAll('.wall li').length === 2")
	t.Logf("%s is there %v later", name, took.Round(time.Millisecond))
	p.Quiet()
}
