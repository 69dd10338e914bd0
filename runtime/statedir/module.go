package statedir

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// MaxModuleBytes is the largest module that is kept.
const MaxModuleBytes = 64 << 20

type moduleDigest = [sha256.Size]byte

const moduleSuffix = ".wasm"

func modulePath(digest moduleDigest) string {
	return path.Join(modulesPlace, hex.EncodeToString(digest[:])+moduleSuffix)
}

// isModuleTemp tells the temporary files of modules.
func isModuleTemp(name string) bool {
	digest, serial, found := strings.Cut(name, moduleSuffix+tempInfix)
	_, err := hex.DecodeString(digest)
	_, ok := parseSerial(serial)
	return found && ok && err == nil && len(digest) == hex.EncodedLen(sha256.Size)
}

// KeepModule sees to it that a serializer's module is kept, durably, under its SHA-256. It is to be
// called before a generation is committed that the module is needed to read; when it is kept already
// that costs next to nothing. A damaged file of that name is replaced. Errors wrap abi.ErrCorrupt if
// wasm is not what digest says, abi.ErrTooLarge beyond [MaxModuleBytes].
func (d *Dir) KeepModule(digest [sha256.Size]byte, wasm []byte) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.life.RUnlock()
	d.modulesMu.Lock()
	defer d.modulesMu.Unlock()
	if d.modules[digest] && d.size(modulePath(digest)) == int64(len(wasm)) {
		return nil
	}
	delete(d.modules, digest)
	if err := d.keepModule(digest, wasm); err != nil {
		return fmt.Errorf("keep module %x: %w", digest, err)
	}
	d.modules[digest] = true
	return nil
}

func (d *Dir) keepModule(digest moduleDigest, wasm []byte) error {
	if len(wasm) > MaxModuleBytes {
		return fmt.Errorf("%w: %d bytes; the limit is %d", abi.ErrTooLarge, len(wasm), MaxModuleBytes)
	}
	if sum := sha256.Sum256(wasm); sum != digest {
		return fmt.Errorf("%w: its SHA-256 is %x", abi.ErrCorrupt, sum)
	}
	if err := d.makeFolder(modulesPlace); err != nil {
		return err
	}
	_, err := d.readModule(digest)
	switch {
	case err == nil:
		// Who wrote it may have died before making its name durable.
		return vfs.SyncFolder(d.fs, modulesPlace)
	case errors.Is(err, abi.ErrNotFound):
	case errors.Is(err, abi.ErrCorrupt), errors.Is(err, abi.ErrTooLarge):
		d.log.Warn("a kept module is damaged and is written anew", "path", vfs.Path(d.fs, modulePath(digest)), "error", err)
	default:
		return err
	}
	folder, name := path.Split(modulePath(digest))
	t, err := d.newDraft(path.Clean(folder), name)
	if err != nil {
		return err
	}
	_, _ = t.Write(wasm) // publish returns the error
	return t.publish("")
}

// Modules gives the digests of all modules that are kept, whether a state needs them or a person added
// them. What lies under a digest may be damaged: Module tells.
func (d *Dir) Modules() ([][sha256.Size]byte, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.life.RUnlock()
	return d.listModules()
}

// Module reads a kept module. The error wraps abi.ErrNotFound if it is not kept, abi.ErrCorrupt if the
// file does not hold what its name says, abi.ErrTooLarge beyond [MaxModuleBytes].
func (d *Dir) Module(digest [sha256.Size]byte) ([]byte, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.life.RUnlock()
	return d.readModule(digest)
}

func (d *Dir) readModule(digest moduleDigest) ([]byte, error) {
	name := modulePath(digest)
	full := vfs.Path(d.fs, name)
	f, err := d.fs.OpenFile(name, vfs.Read)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("module %s: %w", full, abi.ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, err
	}
	if size > MaxModuleBytes {
		return nil, fmt.Errorf("module %s: %w: %d bytes; the limit is %d", full, abi.ErrTooLarge, size, MaxModuleBytes)
	}
	wasm := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), wasm); err != nil {
		return nil, fmt.Errorf("module %s: read %d bytes: %w", full, size, err)
	}
	if sum := sha256.Sum256(wasm); sum != digest {
		return nil, fmt.Errorf("module %s: %w: its SHA-256 is %x", full, abi.ErrCorrupt, sum)
	}
	return wasm, nil
}
