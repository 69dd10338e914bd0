package host

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
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
	return nil
}

// cacheEntry is what wazero compiled of one module, in a folder named by the module's SHA-256.
//
// wazero maps a compiled module into memory and runs it; its own checksum covers the machine code but
// not the table of where functions begin, so that one flipped bit there crashes the process. So each
// entry is sealed with the digests of its files, and one that does not match its seal is compiled
// anew. The seal is against damage; against malice there is the folder's mode.
type cacheEntry struct {
	dir    string
	module [sha256.Size]byte
}

func (e cacheEntry) path() string { return filepath.Join(e.dir, hex.EncodeToString(e.module[:])) }

// check reports whether the entry is whole. It removes one that is not.
func (e cacheEntry) check() (kept bool, err error) {
	want, err := os.ReadFile(filepath.Join(e.path(), sumsFile))
	if err == nil {
		var got []byte
		if got, err = e.sums(); err == nil && len(got) > 0 && bytes.Equal(got, want) {
			return true, nil
		}
	}
	return false, e.remove()
}

// seal writes down the digests of the entry's files. One that is interrupted leaves a seal that does
// not match.
func (e cacheEntry) seal() error {
	sums, err := e.sums()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(e.path(), sumsFile), sums, 0o600)
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
