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

// publish gives the draft its name: see [vfs.Publish]. It takes the draft's file in every case.
func (t *draft) publish(keep string) error {
	if t.err != nil {
		t.discard()
		return t.err
	}
	f := t.file
	t.file = nil
	p := vfs.Publication{Temp: t.path(t.temp), Name: t.path(t.name)}
	if keep != "" {
		p.Keep = t.path(keep)
	}
	err := vfs.Publish(t.fs, f, p)
	if unsynced := (*vfs.UnsyncedError)(nil); err != nil && !errors.As(err, &unsynced) {
		t.discard()
	}
	return err
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
			if err := vfs.SyncFolder(d.fs, parent); err != nil {
				return err
			}
			d.folders[made] = true
		}
		parent = made
	}
	return nil
}
