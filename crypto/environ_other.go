//go:build !linux

package crypto

// wipeEnviron does nothing: elsewhere than on Linux the environment that a process was started with stays
// visible to its user and to root (ps -E on macOS). Give the key in a file there.
func wipeEnviron(string) error { return nil }
