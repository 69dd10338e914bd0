package host_test

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/fuel"
	"github.com/torpor-run/torpor/modules"
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
		_, err := host.New(t.Context(), host.Config{CacheDir: dir, Logger: slog.New(slog.DiscardHandler)})
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
		if _, err := host.New(t.Context(), host.Config{CacheDir: dir, Logger: slog.New(slog.DiscardHandler)}); err == nil || !strings.Contains(err.Error(), "module cache") {
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

// What package fuel made is part of an entry: damage to it is no less found, and an entry of another
// version, or of before there were versions, is none of this host's.
func TestCacheOfInstrumentedModules(t *testing.T) {
	g := newGuest().has(textAt, oneRecord("k")).does(abi.ExportSave, drain, emitFrom(textAt, len(oneRecord("k"))), constI32(0))
	wasm := g.bytes()
	dir := t.TempDir()
	w := &watcher{}
	digest := compile(t, newHost(t, host.Config{CacheDir: dir}), wasm).Digest()
	entry := filepath.Join(dir, fmt.Sprintf("%x-fuel%d", digest, fuel.Version))
	whole := cacheFiles(t, entry)
	works := func(t *testing.T) {
		t.Helper()
		j := &journal{}
		m := compile(t, newHost(t, host.Config{CacheDir: dir, Logger: j.logger(), Observer: w}), wasm)
		for range 2 { // and the instance can be used again
			if out, err := perform(t.Context(), m, abi.OpSave, nil); err != nil || !bytes.Equal(out, oneRecord("k")) {
				t.Fatalf("%q, %v", out, err)
			}
		}
		for path, content := range cacheFiles(t, entry) {
			if !bytes.Equal(whole[path], content) {
				t.Errorf("%s is not as it was", path)
			}
		}
		if lines := j.containing("level=WARN"); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
	}
	for _, name := range []string{"metered.wasm", "fuel.json"} {
		path := filepath.Join(entry, name)
		for what, content := range map[string][]byte{
			"cut short": whole[path][:len(whole[path])/2], "empty": nil, "another": []byte("{}"), "longer": append(bytes.Clone(whole[path]), ' '),
		} {
			t.Run(name+" "+what, func(t *testing.T) {
				if err := os.WriteFile(path, content, 0o600); err != nil {
					t.Fatal(err)
				}
				works(t)
			})
		}
		t.Run(name+" gone", func(t *testing.T) {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
			works(t)
		})
	}
	// seals the entry as it is, as someone who knows how might.
	seal := func(t *testing.T) {
		t.Helper()
		var sums []string
		for path, content := range cacheFiles(t, entry) {
			if name, _ := filepath.Rel(entry, path); name != "SHA256SUMS" {
				sums = append(sums, fmt.Sprintf("%x  %s\n", sha256.Sum256(content), filepath.ToSlash(name)))
			}
		}
		slices.SortFunc(sums, func(a, b string) int { return strings.Compare(a[66:], b[66:]) })
		if err := os.WriteFile(filepath.Join(entry, "SHA256SUMS"), []byte(strings.Join(sums, "")), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Run("sealed with no JSON", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(entry, "fuel.json"), []byte("]"), 0o600); err != nil {
			t.Fatal(err)
		}
		seal(t)
		works(t)
	})
	t.Run("sealed with what wazero refuses", func(t *testing.T) {
		if err := os.WriteFile(filepath.Join(entry, "metered.wasm"), []byte("no module"), 0o600); err != nil {
			t.Fatal(err)
		}
		seal(t)
		j := &journal{}
		m := compile(t, newHost(t, host.Config{CacheDir: dir, Logger: j.logger()}), wasm)
		if out, err := perform(t.Context(), m, abi.OpSave, nil); err != nil || !bytes.Equal(out, oneRecord("k")) {
			t.Fatalf("%q, %v", out, err)
		}
		if lines := j.containing("compiled module not cached"); len(lines) != 1 {
			t.Errorf("%q", lines)
		}
		works(t) // and the next process makes it anew
	})
	for _, name := range []string{fmt.Sprintf("%x", digest), fmt.Sprintf("%x-fuel%d", digest, fuel.Version+1)} {
		t.Run("beside one named "+name[64:], func(t *testing.T) {
			other := filepath.Join(dir, name)
			if err := os.MkdirAll(other, 0o700); err != nil {
				t.Fatal(err)
			}
			content := []byte("of another version")
			for _, file := range []string{"SHA256SUMS", "metered.wasm", "fuel.json"} {
				if err := os.WriteFile(filepath.Join(other, file), content, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			works(t)
			for path, b := range cacheFiles(t, other) {
				if !bytes.Equal(b, content) {
					t.Errorf("%s was changed", path)
				}
			}
		})
	}
}

// Hosts, also of other processes, can share a folder: one's entry stays, nobody compiles in vain for long,
// and nothing is left of the others'.
func TestCacheShared(t *testing.T) {
	dir := t.TempDir()
	wasm := modules.Records()
	j := &journal{}
	var all sync.WaitGroup
	for range 4 {
		h := newHost(t, host.Config{CacheDir: dir, Logger: j.logger(), Modules: map[string]host.Limits{"other": {LogLines: 7}}})
		for _, name := range []string{"records", "other"} { // with other limits it is compiled for itself
			all.Go(func() {
				if _, err := h.Compile(t.Context(), name, wasm); err != nil {
					t.Error(err)
				}
			})
		}
	}
	all.Wait()
	if lines := j.containing("WARN"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("%v, %v", entries, err)
	}
	compiledFile(t, dir)
}

// Where another wazero's code is in an entry that is whole, this one's comes beside it, and is found.
func TestCacheOfAnotherWazero(t *testing.T) {
	dir := t.TempDir()
	wasm := newGuest().bytes()
	compile(t, newHost(t, host.Config{CacheDir: dir}), wasm)
	path, content := compiledFile(t, dir)
	entry, version := filepath.Dir(filepath.Dir(path)), filepath.Base(filepath.Dir(path))
	if err := os.Rename(filepath.Dir(path), filepath.Join(entry, "wazero-v0.0.1-other")); err != nil {
		t.Fatal(err)
	}
	seal := filepath.Join(entry, "SHA256SUMS")
	sums, err := os.ReadFile(seal)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(seal, []byte(strings.Replace(string(sums), version, "wazero-v0.0.1-other", 1)), 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		compile(t, newHost(t, host.Config{CacheDir: dir}), wasm)
		if b, err := os.ReadFile(path); err != nil || !bytes.Equal(b, content) {
			t.Fatalf("not compiled into the entry: %v", err)
		}
		if _, err := os.Stat(filepath.Join(entry, "wazero-v0.0.1-other")); err != nil {
			t.Fatalf("the other one's is gone: %v", err)
		}
	}
}

// What a process left that ended while it made an entry is removed when nobody can be at it any more.
func TestCacheLeftovers(t *testing.T) {
	dir := t.TempDir()
	old, fresh := filepath.Join(dir, "aa-fuel1.making-1"), filepath.Join(dir, "bb-fuel1.making-2")
	for _, p := range []string{old, fresh} {
		if err := os.Mkdir(p, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chtimes(old, time.Time{}, time.Now().Add(-2*time.Hour)); err != nil {
		t.Fatal(err)
	}
	newHost(t, host.Config{CacheDir: dir})
	if _, err := os.Stat(old); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("an old one is still there: %v", err)
	}
	if _, err := os.Stat(fresh); err != nil {
		t.Errorf("a fresh one is gone: %v", err)
	}
}
