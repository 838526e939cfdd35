package catalog

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"reflect"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

var update = flag.Bool("update", false, "write the golden files again")

// TestFormats compares what nodes write into the log and the catalog with testdata/formats.txt. What differs
// from the last release there is not known to its program, and needs a higher newestVersion or recordVersion:
// see Versions and upgrades in CONTRIBUTING.md. go test ./cluster/catalog -run TestFormats -update remakes
// the file.
func TestFormats(t *testing.T) {
	var b strings.Builder
	fmt.Fprintf(&b, "# Commands of the log up to version %d, records of version %d; see TestFormats.\n",
		newestVersion, recordVersion)
	fields(&b, "", reflect.TypeFor[Command]())
	commit := commitOf(5, "a.png", reported(1, 1), reported(2, 3))
	fmt.Fprintf(&b, "commit %x\n", commit.Encode())
	created := time.Date(2026, 1, 2, 3, 4, 5, 6, time.UTC)
	fmt.Fprintf(&b, "record %x\n", EncodeRecord(&image.Record{
		ID: id(1), User: "alice", Name: "a.png", Bytes: 300, Type: "image/png", Owner: 1, Shard: 2, Wanted: 2,
		Version: 7, Created: created, Copies: []image.Copy{{Node: 1, Key: 1, Attempt: image.Attempt{3}}},
	}))
	const path = "testdata/formats.txt"
	if *update {
		if err := os.WriteFile(path, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("what nodes keep is no longer what %s has: an older program does not know it. Raise the "+
			"version if a release has the other, then -update; got\n%s", path, &b)
	}
}

// fields writes the path of each field of a type as JSON has it.
func fields(b *strings.Builder, path string, of reflect.Type) {
	for of.Kind() == reflect.Pointer || of.Kind() == reflect.Slice && of.Elem().Kind() != reflect.Uint8 {
		of = of.Elem()
	}
	_, marshals := reflect.Zero(of).Interface().(json.Marshaler)
	if of.Kind() != reflect.Struct || marshals {
		fmt.Fprintf(b, "%s %s\n", strings.TrimPrefix(path, "."), of.Kind())
		return
	}
	for i := range of.NumField() {
		f := of.Field(i)
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			fields(b, path, f.Type)
			continue
		}
		if name == "" {
			name = f.Name
		}
		if name != "-" {
			fields(b, path+"."+name, f.Type)
		}
	}
}
