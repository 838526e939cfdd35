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
	Err    error // ErrSpec or ErrNoRoom
	hint   string
}

func (e *Error) Error() string { return e.Detail }

// Hint returns the next step.
func (e *Error) Hint() string { return e.hint }

// ExitStatus returns the program's exit status: 2 when what was asked has to change, else 1.
func (e *Error) ExitStatus() int {
	if e.Err == ErrSpec {
		return 2
	}
	return 1
}

// Unwrap returns ErrSpec or ErrNoRoom.
func (e *Error) Unwrap() error { return e.Err }

func refuse(hint, format string, args ...any) error {
	return &Error{Detail: fmt.Sprintf(format, args...), Err: ErrSpec, hint: hint}
}
