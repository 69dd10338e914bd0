package abi

import "errors"

// The sentinel errors of all floors. A package wraps one of them with %w and says which service,
// part, file and offset it speaks of; the program's exit codes and the server's HTTP statuses are
// derived from them in one place each. They live here because this is the lowest package of the
// house: host and runtime both need them and neither may import the other.
var (
	// ErrCorrupt: bytes are not what they claim to be. Never used for a version that is merely
	// unknown.
	ErrCorrupt = errors.New("corrupt")
	// ErrVersion: sound, but of a version, schema or ABI this program does not know.
	ErrVersion = errors.New("unsupported version")
	// ErrNotFound: the thing named does not exist.
	ErrNotFound = errors.New("not found")
	// ErrLocked: another runtime holds the data folder.
	ErrLocked = errors.New("locked")
	// ErrTooLarge: a named limit was passed.
	ErrTooLarge = errors.New("too large")
)
