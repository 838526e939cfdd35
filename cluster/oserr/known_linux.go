package oserr

import "syscall"

func init() { known[syscall.EUCLEAN] = meaning{Broken, fsckHint} }
