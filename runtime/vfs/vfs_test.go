package vfs_test

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/runtime/vfs/vfstest"
)

func newOS(t testing.TB) *vfs.OSFS {
	t.Helper()
	o, err := vfs.OS(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := o.Close(); err != nil {
			t.Error(err)
		}
	})
	return o
}

func TestConformance(t *testing.T) {
	for name, newFS := range map[string]func(testing.TB) vfs.FS{
		"OS":             func(t testing.TB) vfs.FS { return newOS(t) },
		"Mem":            func(testing.TB) vfs.FS { return vfs.NewMem() },
		"Mem after Kill": func(testing.TB) vfs.FS { return vfs.NewMem().Kill() },
		"Faulty on OS":   func(t testing.TB) vfs.FS { return vfs.Faulty(newOS(t), vfs.Fault{}) },
		"Faulty on Mem":  func(testing.TB) vfs.FS { return vfs.Faulty(vfs.NewMem(), vfs.Fault{}) },
	} {
		t.Run(name, func(t *testing.T) { vfstest.Run(t, newFS) })
	}
}

// noLocks hides the locks of a file system.
type noLocks struct{ vfs.FS }

func TestLockUnsupported(t *testing.T) {
	if _, err := vfs.Lock(noLocks{vfs.NewMem()}, "LOCK", nil); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("Lock without a Locker: %v, want ErrUnsupported", err)
	}
}

// noCuts hides that a file can be cut.
type noCuts struct{ vfs.File }

func TestTruncateUnsupported(t *testing.T) {
	f := create(t, vfs.NewMem(), "f", []byte("kept"))
	if err := vfs.Truncate(noCuts{f}, 0); !errors.Is(err, errors.ErrUnsupported) {
		t.Fatalf("Truncate without a Truncater: %v, want ErrUnsupported", err)
	}
}

func TestOSPermissions(t *testing.T) {
	root := filepath.Join(t.TempDir(), "new", "data")
	o, err := vfs.OS(root)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if err := o.Mkdir("d"); err != nil {
		t.Fatal(err)
	}
	f, err := o.OpenFile("d/f", vfs.Create)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	l, err := o.Lock("LOCK", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for name, want := range map[string]os.FileMode{
		filepath.Dir(root): 0o700, root: 0o700, o.Path("d"): 0o700, o.Path("d/f"): 0o600, o.Path("LOCK"): 0o600,
	} {
		info, err := os.Stat(name)
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("%s has permissions %o, want %o", name, got, want)
		}
	}
}

func TestOSStaysInside(t *testing.T) {
	outside := t.TempDir()
	secret := filepath.Join(outside, "secret")
	if err := os.WriteFile(secret, []byte("outside"), 0o600); err != nil {
		t.Fatal(err)
	}
	o := newOS(t)
	for link, target := range map[string]string{"file": secret, "folder": outside} {
		if err := os.Symlink(target, o.Path(link)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := o.OpenFile("file", vfs.Read); err == nil {
		t.Error("a link to a file outside was opened")
	}
	if _, err := o.OpenFile("folder/secret", vfs.Read); err == nil {
		t.Error("a file outside was opened through a link")
	}
	if _, err := o.OpenFile("folder/new", vfs.Create); err == nil {
		t.Error("a file was made outside through a link")
	}
	if _, err := o.OpenFile("file", vfs.Append); err == nil {
		t.Error("a file outside was opened for appending through a link")
	}
	if _, err := o.ReadDir("folder"); err == nil {
		t.Error("a folder outside was listed through a link")
	}
	if err := o.Remove("folder/secret"); err == nil {
		t.Error("a file outside was removed through a link")
	}
	if _, err := o.Lock("file", []byte("overwritten")); err == nil {
		t.Error("a file outside was locked through a link")
	}
	if got, err := os.ReadFile(secret); err != nil || string(got) != "outside" {
		t.Errorf("the file outside now holds %q, %v", got, err)
	}
	// A link is neither a file nor a folder to those who list.
	entries, err := o.ReadDir(".")
	if err != nil || len(entries) != 2 || entries[0].Type != os.ModeSymlink {
		t.Errorf("ReadDir = %v, %v", entries, err)
	}
}

func TestOSRootIsFile(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := vfs.OS(file); err == nil {
		t.Error("a file was opened as a root")
	}
	if _, err := vfs.OS(filepath.Join(file, "below")); err == nil {
		t.Error("a folder was made below a file")
	}
}

func TestOSErrorsNameWholePath(t *testing.T) {
	o := newOS(t)
	_, err := o.OpenFile("d/f", vfs.Read)
	pe := (*os.PathError)(nil)
	if !errors.As(err, &pe) || pe.Path != o.Path("d/f") || !filepath.IsAbs(pe.Path) {
		t.Errorf("the error of a missing file is %v", err)
	}
	le := (*os.LinkError)(nil)
	if err := o.Rename("a", "b"); !errors.As(err, &le) || le.Old != o.Path("a") || le.New != o.Path("b") {
		t.Errorf("the error of a rename is %v", err)
	}
}
