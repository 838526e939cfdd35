package client

import (
	"context"
	"io"
	"iter"
	"net/http"
	"strconv"
	"sync"
	"time"

	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// Info is what is known of one image: its size in bytes, its nodes, its SHA-256 where it is recorded.
type Info struct {
	User string `json:"user"`
	wire.Info
	Shard uint64 `json:"shard"`
}

// Object is an image being read.
type Object struct {
	Info Info
	// Body must be closed. It fails with an *image.Error when the image ends before Size bytes.
	Body io.ReadCloser
	Size int64        // of Body
	Node image.NodeID // the node that sends it
}

// Get opens an image at the first node that can serve it; encrypted: the stored file instead. The node has
// authenticated every byte that it sends; what is cut short fails when it is read. The read does not go on at
// another node then: call Get again. Kinds of errors: KindNotFound, KindDamaged when no good copy is reached.
func (c *Client) Get(ctx context.Context, user, name string, encrypted bool) (*Object, error) {
	path, err := imagePath(user, name)
	if err != nil {
		return nil, err
	}
	if encrypted {
		path += "?" + wire.EncryptedForm
	}
	r, err := c.ask(ctx, http.MethodGet, path, nil, nil)
	if err != nil {
		return nil, err
	}
	return c.object(user, name, r)
}

// GetFrom opens an image at one node, which the client was given or Cluster returned, without trying again.
func (c *Client) GetFrom(ctx context.Context, id image.NodeID, user, name string) (*Object, error) {
	path, err := imagePath(user, name)
	if err != nil {
		return nil, err
	}
	n, err := c.node(id)
	if err != nil {
		return nil, err
	}
	r, f := c.askNode(ctx, n, http.MethodGet, path, nil, nil)
	if f != nil {
		err, _ = c.summarize([]failure{*f})
		return nil, err
	}
	return c.object(user, name, r)
}

// object is the image in an answer.
func (c *Client) object(user, name string, r *reply) (*Object, error) {
	obj := &Object{Info: info(user, name, r.resp), Size: r.resp.ContentLength, Node: r.node.ID}
	if obj.Size < 0 {
		r.close()
		return nil, badAnswer(r.node, "an image without its length")
	}
	obj.Body = &objectBody{reply: r, c: c, left: obj.Size, size: obj.Size, stall: c.o.ResponseTimeout}
	return obj, nil
}

// objectBody checks that all of the image comes, and ends a stream that stalls.
type objectBody struct {
	*reply
	c          *Client
	left, size int64
	stall      time.Duration
}

func (b *objectBody) Read(p []byte) (int, error) {
	w := b.c.wait(nil)
	defer w.end()
	w.asked(b.node)
	timer := time.AfterFunc(b.stall, b.cancel) // the read then fails
	n, err := b.resp.Body.Read(p)
	timer.Stop()
	b.left -= int64(n)
	if err == nil || err == io.EOF && b.left == 0 {
		return n, err
	}
	return n, image.Errorf(image.KindAborted,
		"node %d ended the image after %d of %d bytes: %w", b.node.ID, b.size-b.left, b.size, err).
		WithHint("get it again: another node is asked when this one is down")
}

func (b *objectBody) Close() error {
	b.cancel() // what was not read costs the connection, not the time to read it
	return b.resp.Body.Close()
}

// Head returns what is known of an image, without its bytes: KindNotFound when there is none.
func (c *Client) Head(ctx context.Context, user, name string) (Info, error) {
	path, err := imagePath(user, name)
	if err != nil {
		return Info{}, err
	}
	r, err := c.ask(ctx, http.MethodHead, path, nil, nil)
	if err != nil {
		return Info{}, err
	}
	defer r.close()
	return info(user, name, r.resp), nil
}

// info reads the headers that a node sends with an image; what is missing stays zero.
func info(user, name string, resp *http.Response) Info {
	i := Info{User: user}
	i.Info, i.Shard = wire.ReadRecord(resp.Header)
	i.Name = name
	i.Bytes = resp.ContentLength
	return i
}

// Delete removes an image. It sends the request again when there is no answer, under the same ID: the
// answer is that of the first that arrived. With a tag, an upload ID or a SHA-256, it removes only an image
// that has it: KindChanged when another one has the name by now. KindNotFound when there is none.
func (c *Client) Delete(ctx context.Context, user, name, tag string) error {
	path, err := imagePath(user, name)
	if err != nil {
		return err
	}
	header := http.Header{wire.UploadField: {image.NewID().String()}}
	if tag != "" {
		wire.SetConditions(header, image.Conditions{Match: image.Tags{strconv.Quote(tag)}})
	}
	r, err := c.ask(ctx, http.MethodDelete, path, header, nil)
	if err != nil {
		return err
	}
	r.close()
	return nil
}

// List returns one page of a user's images, by name in byte order. The page after it begins after page.Next,
// which is empty on the last. A user that is not there has no images.
func (c *Client) List(ctx context.Context, user string, o wire.ListQuery) (wire.List, error) {
	if err := image.CheckUser(user); err != nil {
		return wire.List{}, err
	}
	path := wire.UserPath(user)
	if query := o.Values(); len(query) > 0 {
		path += "?" + query.Encode()
	}
	var list wire.List
	err := c.call(ctx, http.MethodGet, path, nil, &list)
	return list, err
}

// All yields all images of a user whose names begin with the prefix, by name in byte order. It asks for each
// page while the one before is used. It ends after an error. Images that are stored or deleted meanwhile may
// or may not be among them.
func (c *Client) All(ctx context.Context, user, prefix string) iter.Seq2[wire.Info, error] {
	type answer struct {
		page wire.List
		err  error
	}
	return func(yield func(wire.Info, error) bool) {
		ctx, cancel := context.WithCancel(ctx)
		var asking sync.WaitGroup
		defer asking.Wait()
		defer cancel()
		ask := func(after string) <-chan answer {
			next := make(chan answer, 1)
			asking.Go(func() {
				page, err := c.List(ctx, user, wire.ListQuery{Prefix: prefix, After: after})
				next <- answer{page, err}
			})
			return next
		}
		next := ask("")
		pages(strconv.Quote(user), true, func(string) ([]wire.Info, string, error) {
			a := <-next
			if a.err == nil && a.page.Next != "" {
				next = ask(a.page.Next)
			}
			return a.page.Images, a.page.Next, a.err
		})(yield)
	}
}
