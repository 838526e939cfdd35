// Command imgcluster stores large images, encrypted, on a small cluster of machines, and carries its
// own stress test and report.
package main

import (
	"context"
	"os"

	"imgcluster/modes"
)

func main() {
	os.Exit(modes.Main(context.Background(), os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}
