package cli

import (
	"errors"

	"github.com/torpor-run/torpor/host/abi"
)

// Exit codes of the program; README.md has the same table.
const (
	exitOK       = 0
	exitFailure  = 1 // something else went wrong
	exitUsage    = 2 // a mistaken option, value or configuration
	exitCorrupt  = 3 // a file is not what it claims to be
	exitVersion  = 4 // a file or module is of a version this program does not know
	exitNotFound = 5
	exitLocked   = 6 // another runtime holds the data folder
	exitTooLarge = 7 // a limit was passed
)

// usageError marks errors that are the caller's words.
type usageError struct{ err error }

func (e usageError) Error() string { return e.err.Error() }
func (e usageError) Unwrap() error { return e.err }

// exitCode is the one place where errors become exit codes.
func exitCode(err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case errors.As(err, &usage):
		return exitUsage
	case errors.Is(err, abi.ErrLocked):
		return exitLocked
	case errors.Is(err, abi.ErrCorrupt):
		return exitCorrupt
	case errors.Is(err, abi.ErrVersion):
		return exitVersion
	case errors.Is(err, abi.ErrNotFound):
		return exitNotFound
	case errors.Is(err, abi.ErrTooLarge):
		return exitTooLarge
	default:
		return exitFailure
	}
}
