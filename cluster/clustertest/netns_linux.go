package clustertest

import (
	"fmt"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// inside calls fn on a thread in the host's namespace: sockets that fn opens belong to the host.
func (h *host) inside(fn func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread()
		own, err := os.Open("/proc/thread-self/ns/net")
		if err == nil {
			defer own.Close()
			err = unix.Setns(int(h.ns.Fd()), unix.CLONE_NEWNET)
		}
		if err != nil {
			done <- fmt.Errorf("enter namespace %s: %w", h.name, err)
			return // the locked thread ends with the goroutine
		}
		err = fn()
		if unix.Setns(int(own.Fd()), unix.CLONE_NEWNET) == nil {
			runtime.UnlockOSThread()
		}
		done <- err
	}()
	return <-done
}
