//go:build race

package bulkio

// quietBytesMax is 0, so that package net does all calls: from them the race detector learns that what came
// before a write came before the read of it.
const quietBytesMax = 0
