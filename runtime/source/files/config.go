package files

import (
	"fmt"
	"path"
	"path/filepath"
	"time"
)

// Config says which folder, and how it is kept. A zero field means its default.
type Config struct {
	// Root is the folder. It is made if it is not there.
	Root string

	// Spool is the folder for copies of what was captured, which has a folder for each Root. On the file system of
	// Root, files can be cloned there, where it knows how. By default they are in ".NAME.torpor" beside Root, where
	// Restore also puts a new folder together, or in ".torpor-restore" inside Root if that is a mount point.
	Spool string

	// Include are patterns of the files and links that belong to the state; none means all. Exclude are
	// patterns of what does not, folders with all that is in them. A pattern with a slash is held against the
	// whole path, one without against the name, as [path.Match] does. What is not included does not survive
	// Restore and Reset: they replace the whole folder.
	Include, Exclude []string

	// SkipSpecial leaves out pipes, sockets and devices. Otherwise Capture refuses a folder that has one.
	SkipSpecial bool

	// OutsideLinks keeps symbolic links that point out of the folder, as they are. Otherwise they are refused,
	// by Capture and by Restore: what they point to is not saved.
	OutsideLinks bool

	// SetID keeps files that run with their owner's or group's rights (setuid, setgid). Otherwise they are
	// refused, by Capture and by Restore.
	SetID bool

	// IgnoreOwner leaves owners and groups out. Otherwise they are kept if the process is the superuser's.
	IgnoreOwner bool

	// Settle is how long a file must have been left alone before it is read, so that a later change shows in
	// its times: the step of the file system's clock. Default 20 ms, from 1 ms to 10 s; network file systems
	// and FAT may need 2 s.
	Settle time.Duration

	// Tries is how often a folder that changes is listed and read before Capture gives up. Default 5, 1 to 100.
	Tries int

	// MaxFiles bounds the entries of the folder. Default 1,000,000, 1 to 100,000,000.
	MaxFiles int64
	// MaxBytes bounds the content of all files together, without holes. Default 64 GiB, 1 to 2⁶².
	MaxBytes int64
	// MaxPath bounds a path, in bytes. Default 4,096, 1 to 16,384.
	MaxPath int64
	// MaxXattrBytes bounds names and values of one entry's extended attributes. Default and most 64 KiB, least 1.
	MaxXattrBytes int64
}

// withDefaults checks and completes it.
func (c Config) withDefaults() (Config, error) {
	if c.Root == "" {
		return c, fmt.Errorf("files: Root is missing: name the folder")
	}
	var err error
	if c.Root, err = filepath.Abs(c.Root); err != nil {
		return c, fmt.Errorf("files: %w", err)
	}
	if filepath.Dir(c.Root) == c.Root {
		return c, fmt.Errorf("files: Root is %s: the whole file system cannot be replaced", c.Root)
	}
	if c.Spool != "" {
		if c.Spool, err = filepath.Abs(c.Spool); err != nil {
			return c, fmt.Errorf("files: %w", err)
		}
	}
	tries, settle := int64(c.Tries), int64(c.Settle)
	for _, b := range []struct {
		name                  string
		value                 *int64
		standard, least, most int64
	}{
		{"Settle", &settle, int64(20 * time.Millisecond), int64(time.Millisecond), int64(10 * time.Second)},
		{"Tries", &tries, 5, 1, 100},
		{"MaxFiles", &c.MaxFiles, 1_000_000, 1, 100_000_000},
		{"MaxBytes", &c.MaxBytes, 64 << 30, 1, 1 << 62},
		{"MaxPath", &c.MaxPath, 4096, 1, 16 << 10},
		{"MaxXattrBytes", &c.MaxXattrBytes, 64 << 10, 1, 64 << 10},
	} {
		if *b.value == 0 {
			*b.value = b.standard
		}
		if *b.value < b.least || *b.value > b.most {
			return c, fmt.Errorf("files: %s is %d; it may be %d to %d", b.name, *b.value, b.least, b.most)
		}
	}
	c.Tries, c.Settle = int(tries), time.Duration(settle)
	for _, p := range append(append([]string(nil), c.Include...), c.Exclude...) {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return c, fmt.Errorf("files: %q is no pattern", p)
		}
	}
	return c, nil
}

// matches tells whether one of the patterns is of a path.
func matches(patterns []string, p string) bool {
	for _, pattern := range patterns {
		name := p
		if path.Base(pattern) == pattern {
			name = path.Base(p)
		}
		if ok, _ := path.Match(pattern, name); ok {
			return true
		}
	}
	return false
}
