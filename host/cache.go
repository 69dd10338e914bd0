package host

import (
	"bytes"
	"cmp"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"time"

	"github.com/torpor-run/torpor/host/fuel"
)

// sumsFile lists the files of a cache entry with their SHA-256, in the form sha256sum --check reads.
const sumsFile = "SHA256SUMS"

// openCacheDir makes the cache folder, or refuses one that others may write to.
func openCacheDir(dir string) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("module cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return fmt.Errorf("module cache: %w", err)
	}
	if runtime.GOOS != "windows" && info.Mode().Perm()&0o022 != 0 { // there, modes say nothing
		return fmt.Errorf("module cache %s: others may write to it (mode %04o), and what lies in it is run: chmod 0700 it, or choose another folder", dir, info.Mode().Perm())
	}
	// What processes that ended before their time have left.
	left, _ := filepath.Glob(filepath.Join(dir, "*"+makingInfix+"*"))
	for _, path := range left {
		if info, err := os.Stat(path); err == nil && time.Since(info.ModTime()) > staleAfter {
			_ = os.RemoveAll(path) // it takes room, no more
		}
	}
	return nil
}

// Files of a cache entry, beside what wazero keeps.
const (
	meteredFile = "metered.wasm" // the module with its fuel counter
	infoFile    = "fuel.json"    // what package fuel told of it
)

// cacheEntry is what was made of one module, in a folder named by the module's SHA-256 and the version
// of its instrumentation: the instrumented module, and what wazero compiled of it. wazero's part is keyed
// by its own version and the features of the processor.
//
// wazero maps a compiled module into memory and runs it; its own checksum covers the machine code but
// not the table of where functions begin, so that one flipped bit there crashes the process. So each
// entry is sealed with the digests of its files, and one that does not match its seal is compiled
// anew. The seal is against damage; against malice there is the folder's mode.
//
// An entry is made in a folder of its own and renamed when it is sealed, so that processes and hosts can
// share a cache folder: the first one's stays.
type cacheEntry struct {
	dir    string
	module [sha256.Size]byte
	making string // where it is being made; "" if it is in its place
}

// makingInfix is in the names of entries that are being made, and staleAfter when nobody does any more.
const (
	makingInfix = ".making-"
	staleAfter  = time.Hour
)

func (e cacheEntry) place() string {
	return filepath.Join(e.dir, fmt.Sprintf("%x-fuel%d", e.module, fuel.Version))
}

// path is where the entry's files are.
func (e cacheEntry) path() string { return cmp.Or(e.making, e.place()) }

// begin gives the entry a folder to be made in.
func (e cacheEntry) begin() (cacheEntry, error) {
	making, err := os.MkdirTemp(e.dir, filepath.Base(e.place())+makingInfix)
	return cacheEntry{e.dir, e.module, making}, err
}

// read gives the instrumented module if the entry is whole. It removes one that is not.
func (e cacheEntry) read() (metered []byte, info fuel.Info, whole bool, err error) {
	want, err := os.ReadFile(filepath.Join(e.path(), sumsFile))
	if err == nil {
		var got []byte
		if got, err = e.sums(); err == nil && len(got) > 0 && bytes.Equal(got, want) {
			metered, info, err = e.open()
			if err == nil {
				return metered, info, true, nil
			}
		}
	}
	return nil, fuel.Info{}, false, e.remove()
}

func (e cacheEntry) open() (metered []byte, info fuel.Info, err error) {
	told, err := os.ReadFile(filepath.Join(e.path(), infoFile))
	if err != nil {
		return nil, info, err
	}
	if err := json.Unmarshal(told, &info); err != nil {
		return nil, info, err
	}
	metered, err = os.ReadFile(filepath.Join(e.path(), meteredFile))
	return metered, info, err
}

// seal adds the instrumented module to an entry that was made, writes down the digests of its files and
// puts it in its place. A sealed one it seals again if files have come to it.
func (e cacheEntry) seal(metered []byte, info fuel.Info, sealed bool) error {
	if sealed {
		if seal, err := os.ReadFile(filepath.Join(e.path(), sumsFile)); err != nil || bytes.Count(seal, []byte("\n")) == e.count() {
			return err
		}
	} else {
		told, err := json.Marshal(info)
		if err != nil {
			return errors.Join(err, e.remove())
		}
		for name, content := range map[string][]byte{meteredFile: metered, infoFile: told} {
			if err := os.WriteFile(filepath.Join(e.path(), name), content, 0o600); err != nil {
				return errors.Join(err, e.remove())
			}
		}
	}
	sums, err := e.sums()
	if err == nil {
		err = os.WriteFile(filepath.Join(e.path(), sumsFile), sums, 0o600)
	}
	if sealed || err != nil {
		return err
	}
	if err := os.Rename(e.path(), e.place()); err != nil {
		if _, there := os.Stat(filepath.Join(e.place(), sumsFile)); there == nil {
			err = nil // another was first
		}
		return errors.Join(err, e.remove())
	}
	return nil
}

// count is how many files the entry has, but for its seal.
func (e cacheEntry) count() (n int) {
	_ = filepath.WalkDir(e.path(), func(_ string, d fs.DirEntry, err error) error {
		if err == nil && !d.IsDir() && d.Name() != sumsFile {
			n++
		}
		return nil
	})
	return n
}

func (e cacheEntry) remove() error { return os.RemoveAll(e.path()) }

func (e cacheEntry) sums() ([]byte, error) {
	root, err := os.OpenRoot(e.path())
	if err != nil {
		return nil, err
	}
	defer root.Close()
	var sums bytes.Buffer
	err = fs.WalkDir(root.FS(), ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || name == sumsFile {
			return err
		}
		f, err := root.Open(name)
		if err != nil {
			return err
		}
		defer f.Close()
		sum := sha256.New()
		if _, err := io.Copy(sum, f); err != nil {
			return err
		}
		fmt.Fprintf(&sums, "%x  %s\n", sum.Sum(nil), name)
		return nil
	})
	return sums.Bytes(), err
}
