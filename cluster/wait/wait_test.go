package wait

import "testing"

func TestClosed(t *testing.T) {
	c := make(chan struct{})
	if Closed(c) {
		t.Error("an open channel is closed")
	}
	close(c)
	if !Closed(c) {
		t.Error("a closed channel is open")
	}
}
