package statedir

import (
	"errors"
	"io/fs"
	"log/slog"
	"path"
	"strings"

	"github.com/torpor-run/torpor/runtime/vfs"
)

// draft is a file on its way to a name: a temporary file in the same folder. Every file this package
// writes is one, and publish is the only way it gets its name.
type draft struct {
	fs     vfs.FS
	log    *slog.Logger
	folder string
	name   string // in folder: the name it is to have
	temp   string // in folder: the name it has
	file   vfs.File
	size   int64
	err    error // of the first write that failed
}

// newDraft begins a file that is to be called name in folder, which must exist.
func (d *Dir) newDraft(folder, name string) (*draft, error) {
	t := &draft{fs: d.fs, log: d.log, folder: folder, name: name}
	base := name
	if f, ok := parseName(name); ok { // whatever is to become of a part's temporary file, Open knows it
		base = stateFile{part: f.part, kind: newest}.name()
	}
	for {
		t.temp = tempName(base, d.serial.Add(1))
		f, err := d.fs.OpenFile(t.path(t.temp), vfs.Create)
		if errors.Is(err, fs.ErrExist) {
			continue // left by a crash and could not be removed by Open
		}
		if err != nil {
			return nil, err
		}
		t.file = f
		return t, nil
	}
}

func (t *draft) path(name string) string { return path.Join(t.folder, name) }

// Write appends. After an error the draft can only be discarded.
func (t *draft) Write(b []byte) (int, error) {
	if t.err != nil {
		return 0, t.err
	}
	n, err := t.file.Write(b)
	t.size += int64(n)
	t.err = err
	return n, err
}

// publish makes the draft durable and gives it its name. A file that has that name is renamed to keep
// first, or replaced where keep is "". It takes the draft's file in every case.
//
// When it returns nil, the file has its name whatever happens next. When it returns an error, the file
// that had the name has it still or, if the error came in between the renames and could not be undone
// (a crash is such), is found as keep. Only if the sync of the folder failed, the new file has the name:
// durable itself, but not certain to be found there after a power cut.
func (t *draft) publish(keep string) error {
	if t.err != nil {
		t.discard()
		return t.err
	}
	if err := t.file.Sync(); err != nil {
		// What was written may be lost although another sync would succeed: begin anew.
		t.discard()
		return err
	}
	if err := t.close(); err != nil {
		t.discard()
		return err
	}
	if keep != "" {
		if err := t.fs.Rename(t.path(t.name), t.path(keep)); err != nil {
			t.discard()
			return err
		}
	}
	if err := t.fs.Rename(t.path(t.temp), t.path(t.name)); err != nil {
		if keep != "" {
			if uerr := t.fs.Rename(t.path(keep), t.path(t.name)); uerr != nil {
				t.log.Warn("a file could not get its name back; it is found by its generation name",
					"path", vfs.Path(t.fs, t.path(keep)), "error", uerr)
			}
		}
		t.discard()
		return err
	}
	return syncFolder(t.fs, t.folder)
}

// discard removes the temporary file. If that fails, the next Open of the folder does it.
func (t *draft) discard() {
	if err := t.close(); err != nil {
		t.log.Warn("closing a temporary file failed", "path", vfs.Path(t.fs, t.path(t.temp)), "error", err)
	}
	if err := t.fs.Remove(t.path(t.temp)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.log.Warn("a temporary file could not be removed; the next start tries again",
			"path", vfs.Path(t.fs, t.path(t.temp)), "error", err)
	}
}

// close closes the file once.
func (t *draft) close() error {
	if t.file == nil {
		return nil
	}
	f := t.file
	t.file = nil
	return f.Close()
}

// syncFolder makes the entries of a folder durable.
func syncFolder(fsys vfs.FS, folder string) error {
	f, err := fsys.OpenFile(folder, vfs.Read)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// makeFolder makes a folder and its parents and sees to it that all are durable. A folder that is there
// already is synced into its parent once: who made it may have died before doing so.
func (d *Dir) makeFolder(folder string) error {
	d.foldersMu.Lock()
	defer d.foldersMu.Unlock()
	parent, made := ".", ""
	for element := range strings.SplitSeq(folder, "/") {
		made = path.Join(made, element)
		switch err := d.fs.Mkdir(made); {
		case err == nil:
			delete(d.folders, made)
		case !errors.Is(err, fs.ErrExist):
			return err
		}
		if !d.folders[made] {
			if err := syncFolder(d.fs, parent); err != nil {
				return err
			}
			d.folders[made] = true
		}
		parent = made
	}
	return nil
}
