package client_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"path/filepath"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// nodes stands for the addresses of a cluster. Here they are of three nodes that only pretend: see
// pretender.
var nodes = pretend(3)

// bytesOf returns an upload of bytes in memory.
func bytesOf(user, name string, b []byte) client.Upload {
	return client.Upload{
		User: user, Name: name, Size: int64(len(b)),
		Body: func() io.Reader { return bytes.NewReader(b) },
	}
}

// A client is made of the nodes' addresses. It stores an image on all nodes that are to have it at once, and
// reads it back from any.
func Example() {
	ctx := context.Background()
	c, err := client.New(client.Options{Nodes: nodes})
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()

	r, err := c.Put(ctx, bytesOf("alice", "photo.png", []byte("the bytes of an image")))
	if err != nil {
		log.Fatal(err)
	}
	<-r.Done // nothing reads the bytes any more
	fmt.Println("stored", r.Receipt.Bytes, "bytes on", len(r.Receipt.Replicas), "nodes")

	image, err := c.Get(ctx, "alice", "photo.png", false)
	if err != nil {
		log.Fatal(err)
	}
	defer image.Body.Close()
	b, err := io.ReadAll(image.Body)
	fmt.Printf("%s, %v\n", b, err)
	// Output:
	// stored 21 bytes on 2 nodes
	// the bytes of an image, <nil>
}

// A file is opened once for each node that it is sent to, and closed by the client. One that becomes shorter
// or longer while it is sent is not stored.
func ExampleClient_Put() {
	dir, _ := os.MkdirTemp("", "client")
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "photo.png")
	os.WriteFile(path, []byte("the bytes of an image"), 0o600)

	c, _ := client.New(client.Options{Nodes: nodes})
	defer c.Close()
	info, err := os.Stat(path)
	if err != nil {
		log.Fatal(err)
	}
	r, err := c.Put(context.Background(), client.Upload{
		User: "bob", Name: "photo.png", Size: info.Size(),
		Body: func() io.Reader {
			f, err := os.Open(path)
			if err != nil {
				return unreadable{err}
			}
			return f
		},
	})
	if err != nil {
		log.Fatal(err)
	}
	<-r.Done
	fmt.Println(r.Receipt.User, r.Receipt.Name, r.Attempts)
	// Output: bob photo.png 1
}

// unreadable is a file that cannot be opened.
type unreadable struct{ err error }

func (u unreadable) Read([]byte) (int, error) { return 0, u.err }

// With IfNoneMatch an image is stored only where the name is free, whoever else stores one at the same time.
func ExampleClient_Put_conditional() {
	c, _ := client.New(client.Options{Nodes: nodes})
	defer c.Close()
	for _, text := range []string{"first", "second"} {
		up := bytesOf("carol", "once.png", []byte(text))
		up.IfNoneMatch = true
		r, err := c.Put(context.Background(), up)
		<-r.Done
		if image.KindOf(err) == image.KindExists {
			fmt.Println(text, "is not stored: there is an image of that name")
			continue
		}
		fmt.Println(text, err)
	}
	// Output:
	// first <nil>
	// second is not stored: there is an image of that name
}

// All goes through a list of any length; it asks for its pages as they are needed.
func ExampleClient_All() {
	ctx := context.Background()
	c, _ := client.New(client.Options{Nodes: nodes})
	defer c.Close()
	for _, name := range []string{"2025/a.png", "2026/a.png", "2026/b.png", "2026/c.png"} {
		r, err := c.Put(ctx, bytesOf("dave", name, []byte("image")))
		if err != nil {
			log.Fatal(err)
		}
		<-r.Done
	}
	for i, err := range c.All(ctx, "dave", "2026/") {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(i.Name, i.Bytes)
	}
	// Output:
	// 2026/a.png 5
	// 2026/b.png 5
	// 2026/c.png 5
}

// List gives one page, and the place at which the next one begins: for pages of one's own.
func ExampleClient_List() {
	ctx := context.Background()
	c, _ := client.New(client.Options{Nodes: nodes})
	defer c.Close()
	for _, name := range []string{"a.png", "b.png", "c.png"} {
		r, err := c.Put(ctx, bytesOf("erin", name, []byte("image")))
		if err != nil {
			log.Fatal(err)
		}
		<-r.Done
	}
	query := wire.ListQuery{Limit: 2}
	for {
		page, err := c.List(ctx, "erin", query)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(len(page.Images), "images, next page after", page.Next)
		if query.After = page.Next; query.After == "" {
			break
		}
	}
	// Output:
	// 2 images, next page after b.png
	// 1 images, next page after
}

// What went wrong is told by the error's kind, and what to do by its hint. An error of a cluster of which no
// node answers has a kind and a mark of its own.
func Example_errors() {
	ctx := context.Background()
	c, _ := client.New(client.Options{Nodes: nodes})
	defer c.Close()
	_, err := c.Get(ctx, "alice", "none.png", false)
	switch kind := image.KindOf(err); {
	case kind == image.KindNotFound:
		fmt.Println("there is no such image")
	case kind.Temporary():
		fmt.Println("try again later:", err)
	default:
		fmt.Println(err, image.HintOf(err))
	}

	down, _ := client.New(client.Options{
		Nodes: []client.Node{{ID: 1, Addr: "127.0.0.1:1"}}, Attempts: 1, StartHint: "call the operator",
	})
	defer down.Close()
	_, err = down.Head(ctx, "alice", "photo.png")
	fmt.Println(errors.Is(err, client.ErrNobodyAnswers), image.KindOf(err), image.HintOf(err))
	// Output:
	// there is no such image
	// true no-quorum call the operator
}
