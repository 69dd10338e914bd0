package statedir

import (
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// collect removes modules that no state file needs any more and no name is pinned to. It removes nothing
// unless every state file, set aside or not, says which module wrote it, and the pins are whole. Modules that this process has kept are needed by what it
// is about to save; where there are no others no file is opened.
//
// The removals are not synced: a module that a power cut gives back is removed by a later collect. But
// first the folders of states are, so that no state file comes back whose module does not.
func (d *Dir) collect() {
	if err := d.enter(); err != nil {
		return
	}
	defer d.life.RUnlock()
	d.modulesMu.Lock()
	defer d.modulesMu.Unlock()
	garbage, err := d.unprotected()
	if err == nil && len(garbage) > 0 {
		if err := d.sparePinned(garbage); err != nil {
			d.log.Warn("no module is removed, for it is not known which are pinned", "error", err)
			return
		}
	}
	if err == nil && len(garbage) > 0 {
		err = d.spareNeeded(garbage)
	}
	if err != nil {
		d.log.Debug("no module is removed, for it is not known which are needed", "error", err)
		return
	}
	for digest := range garbage {
		name := modulePath(digest)
		if err := d.fs.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			d.log.Warn("a module that no state needs could not be removed", "path", vfs.Path(d.fs, name), "error", err)
			continue
		}
		d.log.Info("removed a module that no state needs", "path", vfs.Path(d.fs, name))
	}
}

// unprotected lists the modules that this process has not kept.
func (d *Dir) unprotected() (map[moduleDigest]bool, error) {
	all, err := d.listModules()
	if err != nil {
		return nil, err
	}
	found := map[moduleDigest]bool{}
	for _, digest := range all {
		if !d.modules[digest] {
			found[digest] = true
		}
	}
	return found, nil
}

// listModules gives the digests of all modules, in their order.
func (d *Dir) listModules() (found []moduleDigest, err error) {
	entries, err := d.fs.ReadDir(modulesPlace)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		digits, ok := strings.CutSuffix(e.Name, moduleSuffix)
		b, err := hex.DecodeString(digits)
		if !ok || err != nil || len(b) != len(moduleDigest{}) || !e.Type.IsRegular() {
			continue
		}
		if digest := moduleDigest(b); modulePath(digest) == path.Join(modulesPlace, e.Name) {
			found = append(found, digest)
		}
	}
	return found, nil
}

// spareNeeded takes out of garbage what a state file needs, and sees to it that files removed before stay
// removed.
func (d *Dir) spareNeeded(garbage map[moduleDigest]bool) error {
	services, err := d.fs.ReadDir(statesFolder)
	if err != nil {
		return err
	}
	for _, s := range services {
		if !s.Type.IsDir() || CheckName(s.Name) != nil {
			continue
		}
		folder := path.Join(statesFolder, s.Name)
		entries, err := d.fs.ReadDir(folder)
		if err != nil {
			return err
		}
		seen := map[string]bool{}
		for _, e := range entries {
			f, ok := parseName(e.Name)
			if !ok || f.kind == temp || seen[f.part] {
				continue
			}
			seen[f.part] = true
			if err := d.spareNeededBy(PartID{Service: s.Name, Part: f.part}, garbage); err != nil {
				return err
			}
			if len(garbage) == 0 {
				return nil
			}
		}
		if err := vfs.SyncFolder(d.fs, folder); err != nil {
			return err
		}
	}
	return nil
}

// spareNeededBy is spareNeeded for one part, whose files stay as they are meanwhile.
func (d *Dir) spareNeededBy(id PartID, garbage map[moduleDigest]bool) error {
	p := d.lockPart(id)
	defer p.mu.Unlock()
	files, err := d.list(id)
	if err != nil {
		return err
	}
	for _, f := range files {
		digest, err := d.writtenBy(id, p, f)
		if err != nil {
			return err
		}
		delete(garbage, digest)
	}
	return nil
}

// writtenBy is the module that a state file names. Of one that is damaged, and of an end that was cut off,
// it is not known.
func (d *Dir) writtenBy(id PartID, p *part, f stateFile) (moduleDigest, error) {
	name := path.Join(id.folder(), f.name())
	if f.tail {
		return moduleDigest{}, fmt.Errorf("%s has no header", vfs.Path(d.fs, name))
	}
	handle, err := d.fs.OpenFile(name, vfs.Read)
	if err != nil {
		return moduleDigest{}, err
	}
	defer handle.Close()
	size, err := handle.Size()
	if err != nil {
		return moduleDigest{}, err
	}
	if f.kind == newest && p.limit != 0 {
		size = min(size, p.limit)
	}
	file, err := statefile.Open(handle, size, vfs.Path(d.fs, name))
	if err != nil {
		return moduleDigest{}, err
	}
	return file.Header().Serializer.Digest, nil
}
