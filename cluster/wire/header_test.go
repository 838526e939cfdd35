package wire

import (
	"net/http"
	"net/url"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

func TestParseBroadcast(t *testing.T) {
	for header, want := range map[string][]image.NodeID{
		"": nil, "2": {2}, "1,2,3": {1, 2, 3}, " 3 , 2 ": {3, 2}, "4294967295,2": {4294967295, 2},
	} {
		if got, err := Broadcast(http.Header{BroadcastField: {header}}, 2); err != nil ||
			!slices.Equal(got, want) {
			t.Errorf("%q: %v, %v", header, got, err)
		}
	}
	many := "2"
	for i := range nodesMax {
		many += "," + strconv.Itoa(10+i)
	}
	for _, header := range []string{
		"1,3", "0,2", "2,2", "2,", ",2", "2,x", "-2,2", "2,4294967296", "2;3", many,
		strings.Repeat("2,", 8000),
	} {
		_, err := Broadcast(http.Header{BroadcastField: {header}}, 2)
		expectInvalid(t, header, err)
	}
}

// TestUploadHeader: what one end sets the other one reads, and no more than that.
func TestUploadHeader(t *testing.T) {
	id := image.NewID()
	sum := image.Digest{1, 2, 3}
	for _, x := range []struct {
		up     image.Request
		fields int
	}{
		{image.Request{ID: id}, 1},
		{image.Request{ID: id, Broadcast: []image.NodeID{1, 2, 3}}, 2},
		{image.Request{ID: id, Broadcast: []image.NodeID{2, 4294967295}, Relayed: true, WantDigest: true}, 4},
		{image.Request{ID: id, Digest: &sum}, 2},
		{image.Request{ID: id, If: image.Conditions{NoneMatch: image.Tags{image.AnyTag}}}, 2},
		{image.Request{
			ID: id, If: image.Conditions{Match: image.Tags{`"a"`, `W/"b"`}, NoneMatch: image.Tags{`"c"`}},
		}, 3},
		{image.Request{
			ID: id, Digest: &sum, Broadcast: []image.NodeID{2}, WantDigest: true, Relayed: true,
			If: image.Conditions{Match: image.Tags{`""`}},
		}, 6},
	} {
		h := http.Header{}
		SetUpload(h, x.up)
		got := image.Request{Relayed: Relayed(h), WantDigest: WantsDigest(h)}
		var errs [4]error
		got.ID, errs[0] = UploadID(h)
		got.Broadcast, errs[1] = Broadcast(h, 2)
		got.Digest, errs[2] = ParseDigests(h)
		got.If, errs[3] = ParseConditions(h)
		if errs != [4]error{} || !reflect.DeepEqual(got, x.up) || len(h) != x.fields {
			t.Errorf("%+v: %v became %+v, %v", x.up, h, got, errs)
		}
		if FromNode(&http.Request{Header: h, URL: &url.URL{Path: ImagePath("a", "b")}}) != x.up.Relayed {
			t.Errorf("%v: from a node: %v", h, !x.up.Relayed)
		}
	}
	for _, path := range []string{
		HelloPath, JoinPath, GroupPath, StatusPath, SuspectPath, ShardListPath,
		CopyPath(image.FileID{Image: id, Shard: 2, Attempt: image.NewAttempt()}),
	} {
		if !FromNode(&http.Request{Header: http.Header{}, URL: &url.URL{Path: path}}) {
			t.Errorf("%s is not between nodes", path)
		}
	}
}

// TestUploadHeaderText has the header of an upload, byte for byte: nodes of other versions and foreign
// clients write the same.
func TestUploadHeaderText(t *testing.T) {
	h := http.Header{}
	SetUpload(h, image.Request{
		ID: image.ID{15: 1}, Broadcast: []image.NodeID{1, 2}, Relayed: true, WantDigest: true,
		Digest: &image.Digest{},
		If:     image.Conditions{Match: image.Tags{`"a"`, `"b"`}, NoneMatch: image.Tags{"*"}},
	})
	want := http.Header{
		"Idempotency-Key": {"00000000-0000-0000-0000-000000000001"}, "Imgcluster-Broadcast": {"1,2"},
		"Imgcluster-Relayed":  {"true"},
		"Want-Content-Digest": {"sha-256=1"},
		"Content-Digest":      {"sha-256=:" + strings.Repeat("A", 43) + "=:"},
		"If-Match":            {`"a", "b"`}, "If-None-Match": {"*"},
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%v\nwant %v", h, want)
	}
}

func TestUploadID(t *testing.T) {
	const text = "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2"
	for _, key := range []string{text, `"` + text + `"`} {
		if id, err := UploadID(http.Header{UploadField: {key}}); err != nil || id.String() != text {
			t.Errorf("%s: %v, %v", key, id, err)
		}
	}
	if id, err := UploadID(http.Header{}); err != nil || id == (image.ID{}) {
		t.Errorf("without one: %v, %v", id, err)
	}
	_, err := UploadID(http.Header{UploadField: {"7"}})
	expectInvalid(t, "7", err)
}

func TestRecordHeader(t *testing.T) {
	rec := &image.Record{
		User: "alice", Name: "a.png", ID: image.ID{15: 1}, Version: 1<<64 - 1, Bytes: 3,
		SHA256: &image.Digest{}, Type: "image/x", Owner: 4294967295, Shard: 4,
		Copies:  []image.Copy{{Node: 3, Attempt: image.Attempt{1}}, {Node: 4294967295, Attempt: image.Attempt{2}}},
		Created: time.Date(2026, 1, 2, 3, 4, 5, 67, time.UTC),
	}
	h := http.Header{}
	SetRecord(h, rec)
	zeros := strings.Repeat("0", 64)
	want := http.Header{
		"Etag": {`"` + zeros + `"`}, "Imgcluster-Version": {"18446744073709551615"},
		"Imgcluster-Owner":    {"4294967295"},
		"Imgcluster-Replicas": {"3,4294967295"}, "Imgcluster-Shard": {"4"},
		"Imgcluster-Created": {"2026-01-02T03:04:05.000000067Z"},
		"Imgcluster-Sha256":  {zeros}, "Imgcluster-Upload": {"00000000-0000-0000-0000-000000000001"},
	}
	if !reflect.DeepEqual(h, want) {
		t.Errorf("%v\nwant %v", h, want)
	}
	h.Set("Content-Type", rec.MediaType())
	got, shard := ReadRecord(h)
	got.Name = rec.Name
	got.Bytes = rec.Bytes // which the path and the length say
	if !reflect.DeepEqual(got, InfoOf(rec)) || shard != rec.Shard {
		t.Errorf("%+v in shard %d\nwant %+v", got, shard, InfoOf(rec))
	}
	if got, shard := ReadRecord(http.Header{
		"Imgcluster-Version": {"x"}, "Imgcluster-Replicas": {"2,x"},
	}); !reflect.DeepEqual(got, Info{}) || shard != 0 {
		t.Errorf("nothing to read became %+v in shard %d", got, shard)
	}
}

func TestRequestID(t *testing.T) {
	long := strings.Repeat("x", requestIDMax+1)
	for _, good := range []string{"a", "0190b6a0-7c1e-7cc0-a1f4-5d6e7f8091a2", long[1:]} {
		if got := RequestID(http.Header{RequestField: {good}}); got != good {
			t.Errorf("%q became %q", good, got)
		}
	}
	seen := map[string]bool{}
	for _, bad := range []string{"", "two words", "line\nbreak", "ä", "<b>", long} {
		got := RequestID(http.Header{RequestField: {bad}})
		if _, err := image.ParseID(got); err != nil || seen[got] {
			t.Errorf("%q became %q", bad, got)
		}
		seen[got] = true
	}
}
