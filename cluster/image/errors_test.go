package image

import (
	"errors"
	"io"
	"io/fs"
	"testing"
)

// TestErrorfKeepsCauses holds that errors.Is finds every cause that a message was made with.
func TestErrorfKeepsCauses(t *testing.T) {
	none := Errorf(KindDamaged, "nothing wrapped: %v", io.EOF)
	one := Errorf(KindDamaged, "one: %w", io.EOF)
	two := Errorf(KindDamaged, "two: %w and %w", io.EOF, fs.ErrPermission)
	for _, c := range []struct {
		err    *Error
		cause  error
		wanted bool
	}{
		{none, io.EOF, false},
		{one, io.EOF, true},
		{two, io.EOF, true},
		{two, fs.ErrPermission, true},
	} {
		if errors.Is(c.err, c.cause) != c.wanted {
			t.Errorf("%v: is it %v: %t, want %t", c.err, c.cause, !c.wanted, c.wanted)
		}
	}
	if two.Error() != "two: EOF and permission denied" {
		t.Errorf("%v", two)
	}
}
