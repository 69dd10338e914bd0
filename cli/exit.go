package cli

import (
	"errors"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

// Exit codes of the program.
const (
	exitOK = iota
	exitFailure
	exitUsage
	exitCorrupt
	exitVersion
	exitNotFound
	exitLocked
	exitTooLarge
	exitRefused
	exitKey
)

// exitMeanings says what each exit code means. The help shows it, and README.md has the same table.
func exitMeanings() []string {
	return []string{
		exitOK:       "done",
		exitFailure:  "failed; for health: nothing answers, or a service is not served; for diff --exit-code: there is a difference",
		exitUsage:    "a mistaken option, value or configuration",
		exitCorrupt:  "a file is damaged",
		exitVersion:  "a file or module is of a version this program does not know",
		exitNotFound: "the thing named does not exist",
		exitLocked:   "another runtime holds the data folder",
		exitTooLarge: "a limit was passed",
		exitRefused:  "the running torpor does not let this caller control it: no key, a wrong one, or from elsewhere",
		exitKey:      "something is encrypted, and the key for it is missing or not the right one",
	}
}

// errDifferent is the end of a diff that was asked for an exit code. Nothing is said of it.
var errDifferent = errors.New("there is a difference")

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
	case errors.Is(err, errNotAllowed):
		return exitRefused
	case errors.Is(err, seal.ErrKey):
		return exitKey
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
