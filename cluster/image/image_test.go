package image_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"imgcluster/cluster/image"
)

func TestNewIDs(t *testing.T) {
	seen := map[image.ID]bool{}
	before := time.Now().UnixMilli()
	for range 10_000 {
		id := image.NewID()
		ms := int64(0)
		for _, b := range id[:6] {
			ms = ms<<8 | int64(b)
		}
		if seen[id] || id[6]>>4 != 7 || id[8]>>6 != 2 || ms < before || ms > time.Now().UnixMilli() {
			t.Fatalf("%v: seen before %v", id, seen[id])
		}
		seen[id] = true
	}
}

func TestParseID(t *testing.T) {
	id := image.NewID()
	for _, s := range []string{id.String(), strings.ToUpper(id.String())} {
		if got, err := image.ParseID(s); err != nil || got != id {
			t.Errorf("%s: %v, %v", s, got, err)
		}
	}
	var back struct{ ID image.ID }
	b, err := json.Marshal(map[string]any{"ID": id})
	if err = errors.Join(err, json.Unmarshal(b, &back)); err != nil || back.ID != id {
		t.Errorf("%s: %v", b, err)
	}
	for _, s := range []string{
		"", "x", id.String()[1:], id.String() + "0", strings.ReplaceAll(id.String(), "-", "_"),
		"{" + id.String()[:34] + "}",
		"00000000-0000-0000-0000-000000000000", "g" + id.String()[1:], strings.Repeat("0", 36),
		strings.Repeat("1", 100_000),
	} {
		_, err := image.ParseID(s)
		var e *image.Error
		if !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Hint() == "" || len(e.Detail) > 200 {
			t.Errorf("%.50q: %v", s, err)
		}
	}
}

func TestNames(t *testing.T) {
	for _, s := range []string{
		"a", "a b", "ä/☃", "...", "a..b", ".a", "a.", "%2F", strings.Repeat("n", 1024), "a/b/c",
	} {
		if err := image.CheckName(s); err != nil {
			t.Errorf("%q: %v", s, err)
		}
	}
	for _, s := range []string{
		"", "/", "a/", "/a", "a//b", ".", "..", "a/../b", "a/.", "\x00", "a\nb", "\x7f", "\u0085", "\u009f",
		"\xff", "a\xc0\xaf", strings.Repeat("n", 1025),
	} {
		var e *image.Error
		if err := image.CheckName(s); !errors.As(err, &e) || e.Kind != image.KindInvalid || e.Hint() == "" {
			t.Errorf("%q: %v", s, err)
		}
	}
	for s, good := range map[string]bool{
		"a":                      true,
		"a b":                    true,
		strings.Repeat("u", 128): true,
		strings.Repeat("u", 129): false,
		"a/b":                    false,
		"..":                     false,
		"":                       false,
	} {
		if err := image.CheckUser(s); (err == nil) != good ||
			err != nil && image.KindOf(err) != image.KindInvalid {
			t.Errorf("user %q: %v", s, err)
		}
	}
}

func FuzzNames(f *testing.F) {
	for _, s := range []string{"a/b", "..", "\xff", "a\u0085"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		err := image.CheckName(s)
		bad := s == "" || len(s) > 1024 ||
			!bytes.Equal(bytes.ToValidUTF8([]byte(s), []byte("?")), []byte(s)) ||
			slices.ContainsFunc([]rune(s), func(r rune) bool { return r < ' ' || r >= 0x7f && r <= 0x9f }) ||
			slices.ContainsFunc(strings.Split(s, "/"),
				func(p string) bool { return p == "" || p == "." || p == ".." })
		if bad != (err != nil) {
			t.Fatalf("%q: %v", s, err)
		}
	})
}

// kinds are all kinds with their HTTP status.
var kinds = map[image.Kind]int{
	image.KindInvalid:        400,
	image.KindDigest:         400,
	image.KindIncomplete:     400,
	image.KindForbidden:      403,
	image.KindNotFound:       404,
	image.KindMethod:         405,
	image.KindTooSlow:        408,
	image.KindConflict:       409,
	image.KindStale:          409,
	image.KindLengthRequired: 411,
	image.KindExists:         412,
	image.KindChanged:        412,
	image.KindTooLarge:       413,
	image.KindMedia:          415,
	image.KindRange:          416,
	image.KindMisplaced:      421,
	image.KindOverload:       429,
	image.KindInternal:       500,
	image.KindNoQuorum:       503,
	image.KindAborted:        503,
	image.KindDamaged:        503,
	image.KindDiskFull:       507,
}

func TestErrorsBetweenNodes(t *testing.T) {
	for kind, status := range kinds {
		if kind.Status() != status {
			t.Errorf("%s has status %d", kind, kind.Status())
		}
		if kind.Temporary() != slices.Contains([]int{429, 503}, status) {
			t.Errorf("%s is temporary: %v", kind, kind.Temporary())
		}
		e := image.Errorf(kind, "node %d: %w", 3, io.ErrUnexpectedEOF).
			WithHint("do this").WithRetry(1100 * time.Millisecond)
		wrapped := fmt.Errorf("put: %w", e)
		if !errors.Is(wrapped, io.ErrUnexpectedEOF) || !errors.Is(wrapped, &image.Error{Kind: kind}) ||
			image.KindOf(wrapped) != kind {
			t.Errorf("%s: the chain is broken", kind)
		}
		b, err := json.Marshal(e)
		var p image.Problem
		if err = errors.Join(err, json.Unmarshal(b, &p)); err != nil || p.Status != status ||
			p.RetryAfter != 2 {
			t.Errorf("%s: %s, %v", kind, b, err)
		}
		back := p.Err()
		if back.Kind != kind || back.Detail != e.Detail || back.Hint() != "do this" ||
			back.RetryAfter != 2*time.Second || back.Err != nil {
			t.Errorf("%s was decoded as %+v", kind, back)
		}
	}
	if k := image.Kind("of a newer node"); k.Status() != 500 || k.Temporary() {
		t.Errorf("an unknown kind: %d", k.Status())
	}
}

func TestOtherErrorsAreInternal(t *testing.T) {
	p := image.AsProblem(fmt.Errorf("open /secret/path: %w", context.Canceled))
	if p.Status != 500 || strings.Contains(p.Detail, "secret") || p.Hint == "" {
		t.Errorf("%+v", p)
	}
	if image.KindOf(nil) != "" || image.KindOf(io.EOF) != image.KindInternal {
		t.Error("kinds of other errors")
	}
	if errors.Is(image.Errorf(image.KindInvalid, "x"), image.Errorf(image.KindStale, "x")) {
		t.Error("two kinds are the same")
	}
}

func TestReceiptDocument(t *testing.T) {
	r := &image.Record{
		User: "alice", Name: "a.png", Version: 7, Bytes: 3, SHA256: &image.Digest{}, Owner: 2, Shard: 4,
		Wanted:  2,
		Copies:  []image.Copy{{Node: 3, Attempt: image.Attempt{1}}, {Node: 2, Attempt: image.Attempt{2}}},
		Created: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC),
	}
	zeros := strings.Repeat("0", 64)
	want := `{"user":"alice","name":"a.png","version":7,"bytes":3,"sha256":"` + zeros + `",` +
		`"owner":2,"replicas":[3,2],"shard":4,"committed":true}`
	if b, err := json.Marshal(r.Receipt()); err != nil || string(b) != want {
		t.Errorf("%s, %v\nwant %s", b, err, want)
	}
	r.SHA256 = nil // nobody asked for it
	if b, err := json.Marshal(r.Receipt()); err != nil || strings.Contains(string(b), "sha256") {
		t.Errorf("%s, %v", b, err)
	}
	var d image.Digest
	for _, bad := range []string{"", zeros[1:], zeros + "0", "x" + zeros[1:]} {
		if d.UnmarshalText([]byte(bad)) == nil {
			t.Errorf("%q is a digest", bad)
		}
	}
}
