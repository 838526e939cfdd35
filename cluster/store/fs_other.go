//go:build !linux

package store

import "os"

// On other systems than Linux files are written through the page cache, and only the check of free bytes
// finds a full disk early.
const directFlag = 0

func dropCache(*os.File) error { return nil }

func (o osFile) allocate(int64) error         { return nil }
func (o osFile) writeBack(int64, int64) error { return nil }
func (o osFile) endDirect() error             { return nil }
