package pack

import (
	"testing"
	"time"
)

// TestPack reads back what was written, and finds each end that is too early.
func TestPack(t *testing.T) {
	at := time.Date(2026, 11, 29, 1, 2, 3, 4, time.UTC)
	b := Text(Time(Text(Numbers(nil, 0, 1<<63), "text"), at), []byte{})
	b = append(append(b, 7, 1, 2), JSON([]int{3})...)
	read := func(b []byte) bool {
		r := Read(b)
		zero, big, text, then, empty := r.Number(), r.Number(), r.Text(), r.Time(), r.Text()
		other, begins, two := r.Begins(8), r.Begins(7), r.Bytes(2)
		var list []int
		left := r.Len()
		r.JSON(&list)
		return zero == 0 && big == 1<<63 && text == "text" && then.Equal(at) && empty == "" && !other && begins &&
			two[0] == 1 && two[1] == 2 && left == 3 && len(list) == 1 && list[0] == 3 && r.Done()
	}
	if !read(b) {
		t.Error("it is not read back as it was")
	}
	for n := range len(b) {
		if read(b[:n]) {
			t.Errorf("%d of %d bytes are taken for all", n, len(b))
		}
	}
	if r := Read([]byte{0xff, 0xff, 3}); r.Count() != 0 || r.Done() {
		t.Error("a count beyond the value is taken")
	}
	if r := Read([]byte{1, 2}); r.Number() != 1 || r.Done() {
		t.Error("a value that is longer is taken")
	}
}
