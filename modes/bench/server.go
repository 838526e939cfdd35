//go:build linux

package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"

	"imgcluster/cluster/image"
)

// childEnv makes this program, or its test, a process of a measurement: the load, or a server to compare
// with.
const childEnv = "IMGCLUSTER_BENCH_PART"

// child does the part that this process has, if it is one, and ends it then.
func child() {
	part, args := os.Getenv(childEnv), os.Args[1:]
	var err error
	switch part {
	case "":
		return
	case "load":
		err = loadMain()
	case onBare:
		err = bareMain(args[0], args[1])
	case onFiles:
		err = filesMain(args[0], args[1], args[2])
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "bench:", part+":", err)
		os.Exit(1)
	}
	os.Exit(0)
}

// bareMain serves uploads on an address. It discards the images, or writes them to new files in a folder and
// fsyncs these.
func bareMain(addr, dir string) error {
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		n, err := receive(r.Body, dir)
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		json.NewEncoder(w).Encode(image.Receipt{
			User: user, Name: "n", Bytes: n, Owner: 1, Replicas: []image.NodeID{1}, Committed: true,
		})
	}))
}

func receive(body io.Reader, dir string) (int64, error) {
	if dir == "" {
		return discard(body)
	}
	f, err := os.CreateTemp(dir, "image-")
	if err != nil {
		return 0, err
	}
	defer f.Close()
	n, err := io.CopyBuffer(struct{ io.Writer }{f}, struct{ io.Reader }{body}, make([]byte, 256<<10))
	if err == nil {
		err = f.Sync()
	}
	return n, err
}

// filesMain makes images of a size in a folder and serves them with net/http.
func filesMain(addr, dir, size string) error {
	var bytes int
	if _, err := fmt.Sscan(size, &bytes); err != nil {
		return err
	}
	for i, b := range images(bytes) {
		if err := os.WriteFile(filepath.Join(dir, fmt.Sprint(i)), b, 0o600); err != nil {
			return err
		}
	}
	return http.ListenAndServe(addr, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.ServeFile(w, r, filepath.Join(dir, filepath.Base(strings.TrimPrefix(r.URL.Path, "/"))))
	}))
}
