package oserr

import (
	"syscall"
	"testing"
)

func TestInconsistentFileSystem(t *testing.T) {
	if ClassOf(syscall.EUCLEAN) != Broken || Hint(syscall.EUCLEAN, "/dir") != Hint(syscall.EBADMSG, "/dir") {
		t.Errorf("EUCLEAN has the class %d and the hint %q", ClassOf(syscall.EUCLEAN), Hint(syscall.EUCLEAN, "/dir"))
	}
}
