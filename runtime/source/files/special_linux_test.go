package files

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSpecial: pipes are refused by name, or left out where that is asked for; nothing waits for one.
func TestSpecial(t *testing.T) {
	s := open(t, Config{})
	put(t, s, "f", "state")
	must(t, unix.Mkfifo(filepath.Join(s.cfg.Root, "p"), 0o600))
	if _, err := s.Capture(t.Context()); err == nil || !strings.Contains(err.Error(), `"p" is a pipe`) {
		t.Errorf("a folder with a pipe: %v", err)
	}
	s.cfg.SkipSpecial = true
	restore(t, s, native(t, s))
	found, err := os.ReadDir(s.cfg.Root)
	if err != nil || len(found) != 1 || found[0].Name() != "f" {
		t.Errorf("%v %v", found, err)
	}
}

// TestMapped: what a service writes through a memory map is captured, though only the first change of a dirty page
// shows in the file's times.
func TestMapped(t *testing.T) {
	s := open(t, Config{Root: filepath.Join(t.TempDir(), "data")})
	var fs unix.Statfs_t
	must(t, unix.Statfs(s.cfg.Root, &fs))
	if fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.OVERLAYFS_SUPER_MAGIC {
		t.Skip("temporary files lie where changes through a memory map do not show")
	}
	put(t, s, "f", "0000000000")
	f, err := os.OpenFile(filepath.Join(s.cfg.Root, "f"), os.O_RDWR, 0)
	must(t, err)
	defer f.Close()
	m, err := unix.Mmap(int(f.Fd()), 0, 10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(t, err)
	defer func() { must(t, unix.Munmap(m)) }()
	for i := byte('1'); i < '6'; i++ {
		want := bytes.Repeat([]byte{i}, len(m))
		copy(m, want)
		if !bytes.Contains(native(t, s), want) {
			t.Errorf("%q is not captured", want)
		}
	}
}
