// Lets a function without a body be in this package: see linkname.go.
