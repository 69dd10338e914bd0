package host_test

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/fuel"
)

// cacheFiles is the files below dir with their contents.
func cacheFiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		files[path], err = os.ReadFile(path)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

// compiledFile is the file with machine code in a cache that holds one module.
func compiledFile(t *testing.T, dir string) (path string, content []byte) {
	t.Helper()
	for p, b := range cacheFiles(t, dir) {
		switch filepath.Base(p) {
		case "SHA256SUMS", "metered.wasm", "fuel.json":
			continue
		}
		if path != "" {
			t.Fatalf("more than one compiled file: %s, %s", path, p)
		}
		path, content = p, b
	}
	if path == "" {
		t.Fatal("no compiled file in the cache")
	}
	return path, content
}

func TestCache(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "made", "here")
	wasm := newGuest().bytes()
	first := compile(t, newHost(t, host.Config{CacheDir: dir}), wasm)
	for p := dir; p != filepath.Dir(filepath.Dir(dir)); p = filepath.Dir(p) {
		if info, err := os.Stat(p); err != nil || info.Mode().Perm() != 0o700 {
			t.Errorf("%s has mode %v, %v", p, info.Mode(), err)
		}
	}
	digest := first.Digest()
	entry := filepath.Join(dir, fmt.Sprintf("%x-fuel%d", digest, fuel.Version))
	path, content := compiledFile(t, entry)
	sums, err := os.ReadFile(filepath.Join(entry, "SHA256SUMS"))
	if err != nil || !strings.Contains(string(sums), "  "+strings.TrimPrefix(filepath.ToSlash(path), filepath.ToSlash(entry)+"/")+"\n") || strings.Count(string(sums), "\n") != 3 {
		t.Errorf("seal %q, %v", sums, err)
	}
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}

	m := compile(t, newHost(t, host.Config{CacheDir: dir}), wasm)
	if out, err := perform(t.Context(), m, abi.OpSave, nil); err != nil || len(out) > 0 {
		t.Error(err)
	}
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) || !after.ModTime().Equal(before.ModTime()) {
		t.Errorf("the second host compiled it again: %v", err)
	}
	if _, again := compiledFile(t, entry); !bytes.Equal(again, content) {
		t.Error("the entry has changed")
	}
}

func TestCacheFolderOthersMayWriteTo(t *testing.T) {
	for _, mode := range []os.FileMode{0o770, 0o707, 0o777} {
		dir := t.TempDir()
		if err := os.Chmod(dir, mode); err != nil {
			t.Fatal(err)
		}
		_, err := host.New(t.Context(), host.Config{CacheDir: dir})
		want := fmt.Sprintf("module cache %s: others may write to it (mode %04o)", dir, mode)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "chmod 0700") {
			t.Errorf("mode %o: %v", mode, err)
		}
		if files := cacheFiles(t, dir); len(files) > 0 {
			t.Errorf("mode %o: %d files written", mode, len(files))
		}
	}
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	newHost(t, host.Config{CacheDir: dir}) // others may read it
}

func TestCacheFolderThatCannotBe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, dir := range []string{file, filepath.Join(file, "cache")} {
		if _, err := host.New(t.Context(), host.Config{CacheDir: dir}); err == nil || !strings.Contains(err.Error(), "module cache") {
			t.Errorf("%s: %v", dir, err)
		}
	}
}

// A damaged entry is never run: it is compiled anew, and the next host finds it whole.
func TestCacheDamaged(t *testing.T) {
	g := newGuest().has(textAt, oneRecord("k")).does(abi.ExportSave, drain, emitFrom(textAt, len(oneRecord("k"))), constI32(0))
	wasm := g.bytes()
	dir := t.TempDir()
	compile(t, newHost(t, host.Config{CacheDir: dir}), wasm)
	path, whole := compiledFile(t, dir)
	seal := filepath.Join(filepath.Dir(filepath.Dir(path)), "SHA256SUMS")
	works := func(t *testing.T) {
		t.Helper()
		j := &journal{}
		m := compile(t, newHost(t, host.Config{CacheDir: dir, Logger: j.logger()}), wasm)
		if out, err := perform(t.Context(), m, abi.OpSave, nil); err != nil || !bytes.Equal(out, oneRecord("k")) {
			t.Fatalf("%q, %v", out, err)
		}
		if p, b := compiledFile(t, dir); p != path || !bytes.Equal(b, whole) {
			t.Fatal("the entry was not made whole again")
		}
		if lines := j.containing("level=WARN"); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
	}
	write := func(t *testing.T, path string, b []byte) {
		t.Helper()
		if err := os.WriteFile(path, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("cut short at every 97th byte", func(t *testing.T) {
		for n := 0; n < len(whole); n += 97 {
			write(t, path, whole[:n])
			works(t)
		}
	})
	t.Run("a flipped bit in every 97th byte", func(t *testing.T) {
		for i := 0; i < len(whole); i += 97 {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 0x10
			write(t, path, damaged)
			works(t)
		}
	})
	t.Run("a flipped bit in every byte of the first hundred", func(t *testing.T) {
		// The header and the table of functions, which wazero's own checksum does not cover.
		for i := range 100 {
			damaged := bytes.Clone(whole)
			damaged[i] ^= 0x40
			write(t, path, damaged)
			works(t)
		}
	})
	t.Run("grown", func(t *testing.T) {
		write(t, path, append(bytes.Clone(whole), 0))
		works(t)
	})
	t.Run("gone", func(t *testing.T) {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		works(t)
	})
	t.Run("without a seal", func(t *testing.T) {
		if err := os.Remove(seal); err != nil {
			t.Fatal(err)
		}
		works(t)
	})
	t.Run("with another seal", func(t *testing.T) {
		write(t, seal, []byte("0000\n"))
		works(t)
	})
	t.Run("with a file too many", func(t *testing.T) {
		write(t, path+".tmp", []byte("left behind"))
		works(t)
	})
}

// The same, in a way that stops root too: a file lies where wazero's folder would.
func TestCacheInTheWay(t *testing.T) {
	dir := t.TempDir()
	wasm := newGuest().bytes()
	compile(t, newHost(t, host.Config{CacheDir: dir}), wasm)
	path, _ := compiledFile(t, dir)
	entry, version := filepath.Dir(filepath.Dir(path)), filepath.Base(filepath.Dir(path))
	// wazero's folder is a file, and the seal vouches for it.
	if err := os.RemoveAll(filepath.Join(entry, version)); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(entry, version), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	seal := filepath.Join(entry, "SHA256SUMS")
	sums, err := os.ReadFile(seal)
	if err != nil {
		t.Fatal(err)
	}
	const empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
	lines := strings.SplitAfter(string(sums), "\n")
	lines[2] = empty + "  " + version + "\n"
	if err := os.WriteFile(seal, []byte(strings.Join(lines, "")), 0o600); err != nil {
		t.Fatal(err)
	}
	j := &journal{}
	m := compile(t, newHost(t, host.Config{CacheDir: dir, Logger: j.logger()}), wasm)
	if _, err := perform(t.Context(), m, abi.OpSave, nil); err != nil {
		t.Error(err)
	}
	if lines := j.containing("compiled module not cached"); len(lines) != 1 {
		t.Errorf("%q", lines)
	}
}

// A bad module is refused the same with a cache as without, and leaves nothing in it.
func TestCacheKeepsNoBadModule(t *testing.T) {
	dir := t.TempDir()
	j := &journal{}
	h := newHost(t, host.Config{CacheDir: dir, Logger: j.logger()})
	_, err := h.Compile(t.Context(), guestName, newGuest().does(abi.ExportSave).bytes())
	wantModuleError(t, err, opCompile, abi.ErrCorrupt, "not enough results")
	if files := cacheFiles(t, dir); len(files) > 0 {
		t.Errorf("left behind: %d files", len(files))
	}
	if lines := j.containing("WARN"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}
