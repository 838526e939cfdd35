package main

import (
	"bytes"
	"encoding/json"
	"os"
	"runtime/debug"
	"testing"
)

// TestBill: every module of the binary, as what replaces it, with its version and checksum, in one order.
func TestBill(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8",
		Main:      debug.Module{Path: "imgcluster", Version: "v0.9.0+dirty"},
		Deps: []*debug.Module{
			{Path: "example.org/b", Version: "v1.0.0", Sum: "h1:b="},
			{Path: "example.org/c", Replace: &debug.Module{Path: "example.org/a", Version: "v2.0.0"}},
		},
		Settings: []debug.BuildSetting{{Key: "GOOS", Value: "linux"}, {Key: "-compiler", Value: "gc"}},
	}
	got, err := json.Marshal(bill("imgcluster-linux", "ab", info))
	if err != nil {
		t.Fatal(err)
	}
	const want = `{"bomFormat":"CycloneDX","specVersion":"1.6","version":1,"metadata":{"component":` +
		`{"bom-ref":"pkg:golang/imgcluster@v0.9.0%2Bdirty","type":"application","name":"imgcluster",` +
		`"version":"v0.9.0+dirty","hashes":[{"alg":"SHA-256","content":"ab"}],` +
		`"purl":"pkg:golang/imgcluster@v0.9.0%2Bdirty","properties":[{"name":"file",` +
		`"value":"imgcluster-linux"},{"name":"GOOS","value":"linux"}]}},"components":[` +
		`{"bom-ref":"pkg:golang/example.org/a@v2.0.0","type":"library","name":"example.org/a",` +
		`"version":"v2.0.0","purl":"pkg:golang/example.org/a@v2.0.0"},` +
		`{"bom-ref":"pkg:golang/example.org/b@v1.0.0","type":"library","name":"example.org/b",` +
		`"version":"v1.0.0","purl":"pkg:golang/example.org/b@v1.0.0",` +
		`"properties":[{"name":"go.sum","value":"h1:b="}]},` +
		`{"bom-ref":"pkg:golang/std@1.26.8","type":"library","name":"std","version":"1.26.8",` +
		`"purl":"pkg:golang/std@1.26.8"}],"dependencies":[{"ref":"pkg:golang/imgcluster@v0.9.0%2Bdirty",` +
		`"dependsOn":["pkg:golang/example.org/a@v2.0.0","pkg:golang/example.org/b@v1.0.0",` +
		`"pkg:golang/std@1.26.8"]}]}`
	if string(got) != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
}

// TestOfThisBinary reads a real binary twice.
func TestOfThisBinary(t *testing.T) {
	var first, second bytes.Buffer
	for _, out := range []*bytes.Buffer{&first, &second} {
		if err := run(os.Args[:1], out); err != nil {
			t.Fatal(err)
		}
	}
	if !bytes.Equal(first.Bytes(), second.Bytes()) || !bytes.Contains(first.Bytes(), []byte(`"name": "std"`)) {
		t.Errorf("the bills are %s and %s", &first, &second)
	}
	if err := run(nil, &first); err == nil {
		t.Error("no binary is no error")
	}
}
