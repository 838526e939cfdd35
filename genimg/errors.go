package genimg

import (
	"errors"
	"fmt"
)

// What an *Error can be, for errors.Is.
var (
	ErrSpec   = errors.New("images that cannot be made") // a bound is broken; nothing was done
	ErrNoRoom = errors.New("too little room on the disk")
)

// Error is a refusal, with what to do next.
type Error struct {
	Detail string
	Hint   string
	Err    error // ErrSpec or ErrNoRoom
}

func (e *Error) Error() string { return e.Detail }

// Unwrap returns ErrSpec or ErrNoRoom.
func (e *Error) Unwrap() error { return e.Err }

func refuse(hint, format string, args ...any) error {
	return &Error{Detail: fmt.Sprintf(format, args...), Hint: hint, Err: ErrSpec}
}
