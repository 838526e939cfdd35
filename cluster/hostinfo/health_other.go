//go:build !linux

package hostinfo

// ClockSynced reports that this is not known.
func ClockSynced() (synced, known bool) { return false, false }

// Volatile reports that this is not known.
func Volatile(string) string { return "" }
