package oserr

import (
	"syscall"
	"testing"
)

func TestInconsistentFileSystem(t *testing.T) {
	class, hint := ClassOf(syscall.EUCLEAN), Hint(syscall.EUCLEAN, "/dir")
	if class != Broken || hint != Hint(syscall.EBADMSG, "/dir") {
		t.Errorf("EUCLEAN has the class %d and the hint %q", class, hint)
	}
}
