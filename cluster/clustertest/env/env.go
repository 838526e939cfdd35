// Package env reads from the environment how long a test is to run, and with which random numbers.
package env

import (
	"os"
	"strconv"
	"testing"
)

// Number returns the variable's number, from 1 up, or otherwise when it is not set.
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
