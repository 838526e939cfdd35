// Package env reads the settings of long tests, such as counts and seeds, from the environment.
package env

import (
	"os"
	"strconv"
	"testing"
)

// Number returns the value of a variable, a number from 1 up, or otherwise when it is not set.
func Number(t testing.TB, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s=%q is not a number from 1", name, text)
	}
	return n
}
