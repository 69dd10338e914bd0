package vfs

import (
	"errors"
	"fmt"
	"path"
)

// Publication is a file that was written under a temporary name and is to have another one in the same folder.
type Publication struct {
	Temp, Name string // paths
	// Keep is what the file that has the name is renamed to first; "": it is replaced.
	Keep string
}

// UnsyncedError says that a file has its name, and is durable itself, but is not certain to be found under that name
// after a power cut.
type UnsyncedError struct{ Err error }

// Error implements error.
func (e *UnsyncedError) Error() string {
	return fmt.Sprintf("the file has its name, but may not be found there after a power cut: %v", e.Err)
}

// Unwrap gives the cause.
func (e *UnsyncedError) Unwrap() error { return e.Err }

// Publish makes a file durable and gives it its name. It is the one way in which the house does so: what is written,
// then the name, then the folder that the name is in. It closes f in every case, and the temporary file is the caller's
// to remove after an error that is no [UnsyncedError].
//
// When it returns nil, the file has its name whatever happens next. When it returns an error, the file that had the
// name has it still or, if the error came in between the renames and could not be undone (a crash is such), is found
// as p.Keep. After a failed sync of the file it must be written anew: another sync could succeed although what was
// written is lost.
func Publish(fsys FS, f File, p Publication) error {
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return err
	}
	if p.Keep != "" {
		if err := fsys.Rename(p.Name, p.Keep); err != nil {
			return err
		}
	}
	if err := fsys.Rename(p.Temp, p.Name); err != nil {
		if p.Keep != "" {
			if undo := fsys.Rename(p.Keep, p.Name); undo != nil {
				err = errors.Join(err, fmt.Errorf("what had the name is at %s: %w", Path(fsys, p.Keep), undo))
			}
		}
		return err
	}
	if err := SyncFolder(fsys, path.Dir(p.Name)); err != nil {
		return &UnsyncedError{err}
	}
	return nil
}

// SyncFolder makes the names in a folder durable.
func SyncFolder(fsys FS, folder string) error {
	f, err := fsys.OpenFile(folder, Read)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}
