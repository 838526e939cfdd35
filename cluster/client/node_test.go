package client_test

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"time"

	"imgcluster/cluster/client"
	"imgcluster/cluster/image"
	"imgcluster/cluster/wire"
)

// pretender holds images in memory and answers as all nodes of a cluster do. It is for the examples: it
// checks nothing.
type pretender struct {
	mu     sync.Mutex
	images map[string]held // by user/name
}

type held struct {
	record image.Record
	body   []byte
}

// pretend starts nodes that share their images, until the process ends.
func pretend(count int) []client.Node {
	p := &pretender{images: map[string]held{}}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT "+wire.ListPattern+"/{name...}", p.put)
	mux.HandleFunc("GET "+wire.ListPattern+"/{name...}", p.get)
	mux.HandleFunc("GET "+wire.ListPattern, p.list)
	nodes := make([]client.Node, count)
	for i := range nodes {
		addr := httptest.NewServer(mux).Listener.Addr().String()
		nodes[i] = client.Node{ID: image.NodeID(i + 1), Addr: addr}
	}
	return nodes
}

func (p *pretender) put(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body) // what is missing fails the example
	id, _ := wire.UploadID(r.Header)
	key := r.PathValue("user") + "/" + r.PathValue("name")
	p.mu.Lock()
	defer p.mu.Unlock()
	if old, taken := p.images[key]; taken && old.record.ID != id && r.Header.Get("If-None-Match") != "" {
		problem(w, image.KindExists)
		return
	}
	rec := image.Record{
		User: r.PathValue("user"), Name: r.PathValue("name"), Version: 1, ID: id, Bytes: int64(len(body)),
		Owner: 1, Copies: []image.Copy{{Node: 1}, {Node: 2}}, Created: time.Unix(0, 0),
	}
	p.images[key] = held{rec, body}
	json.NewEncoder(w).Encode(image.Receipt{
		User: rec.User, Name: rec.Name, Version: 1, Bytes: rec.Bytes, Owner: 1, Replicas: rec.Replicas(),
		Committed: true,
	})
}

func (p *pretender) get(w http.ResponseWriter, r *http.Request) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found, ok := p.images[r.PathValue("user")+"/"+r.PathValue("name")]
	if !ok {
		problem(w, image.KindNotFound)
		return
	}
	wire.SetRecord(w.Header(), &found.record)
	w.Write(found.body)
}

func (p *pretender) list(w http.ResponseWriter, r *http.Request) {
	const pageMax = 2
	query, _ := wire.ParseList(r.URL.Query(), pageMax)
	p.mu.Lock()
	defer p.mu.Unlock()
	var list wire.List
	for _, i := range p.images {
		if i.record.User == r.PathValue("user") && strings.HasPrefix(i.record.Name, query.Prefix) &&
			i.record.Name > query.After {
			list.Images = append(list.Images, wire.InfoOf(&i.record))
		}
	}
	slices.SortFunc(list.Images, func(a, b wire.Info) int { return strings.Compare(a.Name, b.Name) })
	if len(list.Images) > pageMax {
		list.Images = list.Images[:pageMax]
		list.Next = list.Images[pageMax-1].Name
	}
	json.NewEncoder(w).Encode(list)
}

func problem(w http.ResponseWriter, kind image.Kind) {
	p, body := wire.Problem(w.Header(), image.Errorf(kind, "refused"))
	w.WriteHeader(p.Status)
	w.Write(body)
}
