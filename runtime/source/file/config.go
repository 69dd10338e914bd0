package file

import (
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"time"

	"github.com/torpor-run/torpor/runtime/spool"
)

// Check is a form that a file must have to be whole.
type Check string

const (
	// Unchecked takes any bytes.
	Unchecked Check = ""
	// JSON takes one whole JSON text, with a byte order mark or without, nested 10,000 deep at most. That an
	// empty file is none finds those that were truncated. Whether strings are UTF-8 is for the serializer.
	JSON Check = "json"
)

// Defaults and bounds of [Config].
const (
	MinSettle     = time.Millisecond
	DefaultSettle = 20 * time.Millisecond
	MaxSettle     = 10 * time.Second

	MinTries     = 1
	DefaultTries = 10
	MaxTries     = 1000

	MinBytes     = spool.MinBytes
	DefaultBytes = spool.DefaultBytes
	MaxBytes     = spool.MaxBytes

	DefaultMode = fs.FileMode(0o600)

	// MaxEmpty is how long Config.Empty may be, in bytes.
	MaxEmpty = 1 << 20
)

// Config says which file, and what is known of it. Zero fields mean the defaults.
type Config struct {
	// Path is the file. It need not be there; the folder it lies in is made if need be. Required.
	Path string

	// Check is the form that the file must have to be captured, for services that write into it, and that a state
	// must have to be restored.
	Check Check

	// Empty is what a file that is not there is captured as, such as {} for a serializer that reads JSON. It must pass
	// Check. Restore writes it as any other state: the file is then there. Without Empty, a file that is not there is
	// captured as no bytes at all, and Restore of no bytes removes the file: an empty file and none are then the same.
	Empty []byte

	// Settle is how long the file must have been left alone before it is read, so that a later change shows in
	// its times: the step of the file system's clock. Network file systems and FAT may need 2 s. It is also the
	// pause between tries.
	Settle time.Duration

	// Tries is how often a file that changes, or is torn, is read before Capture gives up.
	Tries int

	// MaxBytes bounds the file: more is abi.ErrTooLarge.
	MaxBytes int64

	// Mode is the permissions of a file that was not there before.
	Mode fs.FileMode

	// Atomic says that any capture is consistent: the service has the file replaced as a whole before it answers a
	// request that changes something. Then requests are not held while it is captured.
	Atomic bool

	// Spool is where captures are kept. Its bound of bytes is MaxBytes.
	Spool spool.Config
}

// withDefaults checks and completes it.
func (c Config) withDefaults() (Config, error) {
	if c.Path == "" {
		return c, errors.New("file source: Path is missing: name the file")
	}
	var err error
	if c.Path, err = filepath.Abs(c.Path); err != nil {
		return c, fmt.Errorf("file source: %w", err)
	}
	if name := filepath.Base(c.Path); filepath.Dir(c.Path) == c.Path || !fs.ValidPath(name) {
		return c, fmt.Errorf("file source: Path is %q, which cannot be a file's", c.Path)
	}
	settle, tries := int64(c.Settle), int64(c.Tries)
	for _, b := range []struct {
		name               string
		value              *int64
		least, usual, most int64
	}{
		{"Settle", &settle, int64(MinSettle), int64(DefaultSettle), int64(MaxSettle)},
		{"Tries", &tries, MinTries, DefaultTries, MaxTries},
		{"MaxBytes", &c.MaxBytes, MinBytes, DefaultBytes, MaxBytes},
	} {
		if *b.value == 0 {
			*b.value = b.usual
		}
		if *b.value < b.least || *b.value > b.most {
			return c, fmt.Errorf("file source: %s is %d; it may be %d to %d", b.name, *b.value, b.least, b.most)
		}
	}
	c.Settle, c.Tries, c.Spool.Bytes = time.Duration(settle), int(tries), c.MaxBytes
	if c.Mode == 0 {
		c.Mode = DefaultMode
	}
	if c.Mode&^fs.ModePerm != 0 {
		return c, fmt.Errorf("file source: Mode is %v; it may have permissions only", c.Mode)
	}
	if c.Check != Unchecked && c.Check != JSON {
		return c, fmt.Errorf("file source: Check is %q; it may be %q or empty", c.Check, JSON)
	}
	if len(c.Empty) > MaxEmpty || int64(len(c.Empty)) > c.MaxBytes {
		return c, fmt.Errorf("file source: Empty has %d bytes; it may have %d", len(c.Empty), min(MaxEmpty, c.MaxBytes))
	}
	if len(c.Empty) > 0 {
		if err := checked(c.Check, c.Empty); err != nil {
			return c, fmt.Errorf("file source: Empty is not what Check asks for: %w", err)
		}
	}
	if c.Spool, err = c.Spool.Check(); err != nil {
		return c, fmt.Errorf("file source: %w", err)
	}
	return c, nil
}
