package vfs_test

import (
	"errors"
	"io"
	"io/fs"
	"math/rand/v2"
	"testing"

	"github.com/torpor-run/torpor/runtime/vfs"
)

// put publishes content as name.
func put(fsys vfs.FS, name, content, keep string) error {
	f, err := fsys.OpenFile(name+".tmp", vfs.Create)
	if err != nil {
		return err
	}
	if _, err := f.Write([]byte(content)); err != nil {
		return errors.Join(err, f.Close())
	}
	return vfs.Publish(fsys, f, vfs.Publication{Temp: name + ".tmp", Name: name, Keep: keep})
}

// content is what a file holds; "" if there is none.
func content(t *testing.T, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	if errors.Is(err, fs.ErrNotExist) {
		return ""
	}
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		t.Fatal(err)
	}
	b := make([]byte, size)
	if _, err := f.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		t.Fatal(err)
	}
	return string(b)
}

// TestPublishAtEveryOperation: whatever fails, and wherever the power is cut, the name has the old file or the new
// one, or the old one is found as what it is kept as; and what was published stays.
func TestPublishAtEveryOperation(t *testing.T) {
	for _, keep := range []string{"", "kept"} {
		for _, crash := range []bool{true, false} {
			for k := 1; ; k++ {
				mem := vfs.NewMem()
				if err := put(mem, "name", "old", ""); err != nil {
					t.Fatal(err)
				}
				fault := vfs.Fault{At: k, Err: io.ErrUnexpectedEOF}
				if crash {
					fault = vfs.Crash(k)
				}
				faulty := vfs.Faulty(mem, fault)
				err := put(faulty, "name", "new", keep)
				if !faulty.Fired() {
					if err != nil || k < 5 {
						t.Fatalf("%d operations, error %v", k-1, err)
					}
					break
				}
				var unsynced *vfs.UnsyncedError
				for cut := range 20 {
					after := mem.PowerCut(rand.New(rand.NewPCG(uint64(k), uint64(cut))))
					got, kept := content(t, after, "name"), ""
					if keep != "" {
						kept = content(t, after, keep)
					}
					if got != "old" && got != "new" && !(got == "" && kept == "old") {
						t.Fatalf("operation %d, crash %v: %q, kept %q", k, crash, got, kept)
					}
					if err == nil && got != "new" {
						t.Fatalf("operation %d: published, and %q is there", k, got)
					}
				}
				if got := content(t, mem, "name"); !crash && err != nil && got != "old" && !errors.As(err, &unsynced) {
					t.Fatalf("operation %d: error %v, and the name has %q", k, err, got)
				} else if errors.As(err, &unsynced) && got != "new" {
					t.Fatalf("operation %d: error %v, and the name has %q", k, err, got)
				}
			}
		}
	}
}
