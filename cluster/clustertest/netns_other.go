//go:build !linux

package clustertest

import "errors"

// inside is not needed: only Linux has namespaces, so elsewhere no test gets a Network.
func (h *host) inside(func() error) error { return errors.ErrUnsupported }
