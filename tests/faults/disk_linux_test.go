package faults

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// small mounts a file system of size bytes, in memory, for the data of a world.
func small(w *world, size int) {
	w.t.Helper()
	need.Root(w.t, "mount a small file system")
	if err := os.Mkdir(w.data, 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := syscall.Mount("tmpfs", w.data, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		need.Missing(w.t, fmt.Sprintf("the right to mount a small file system (%v)", err))
	}
	w.t.Cleanup(func() {
		if err := syscall.Unmount(w.data, syscall.MNT_DETACH); err != nil {
			w.t.Errorf("unmount: %v", err)
		}
	})
}

// fill writes a file until there is no room, but for what left needs, and gives its name.
func fill(w *world, left int) string {
	w.t.Helper()
	name, room := filepath.Join(w.data, "filler"), filepath.Join(w.data, "room")
	if err := os.WriteFile(room, make([]byte, left), 0o600); err != nil {
		w.t.Fatal(err)
	}
	f, err := os.Create(name)
	if err != nil {
		w.t.Fatal(err)
	}
	for err == nil {
		_, err = f.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		w.t.Fatal(err)
	}
	if err := errors.Join(f.Close(), os.Remove(room)); err != nil {
		w.t.Fatal(err)
	}
	return name
}

// TestFullDisk: the service has room for what it writes, and the runtime has none to save it.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	const large = 400_000
	for i, c := range []struct {
		name string
		act  func(h *house)
	}{
		{"barrier", func(h *house) {
			h.fails("sync", h.order("sync"), "no space left on device")
			h.is("running", "degraded", "no space left on device")
			h.has()
		}},
		{"killed service", func(h *house) {
			h.fails("sync", h.order("sync"), "no space left on device")
			h.killService()
			h.hasSafe()
		}},
		// With files the process is gone when it is found out; what it has written must stay.
		{"sleep", func(h *house) {
			h.fails("sleep", h.order("sleep"), "no space left on device")
			if h.kind.memory() {
				h.is("running", "degraded", "no space left on device")
			} else {
				h.is("available", "degraded", "no space left on device")
			}
			h.has()
		}},
		{"sleep, twice", func(h *house) {
			h.fails("sleep", h.order("sleep"), "no space left on device")
			_ = h.order("sleep") // one that sleeps already need not say it again
			h.has()
		}},
	} {
		for _, k := range some(i, nil) {
			t.Run(c.name+"/"+k.String(), func(t *testing.T) {
				t.Parallel()
				w := newWorld(t, k, nil)
				small(w, 8<<20)
				h := w.start()
				h.put("kept", "is saved")
				h.sync()
				filler := fill(w, 2*large)
				value := strings.Repeat("no room for it. ", large/16)
				if k.memory() {
					value = strings.Repeat(value, 3)
				}
				for _, part := range k {
					v := value
					if part == inFiles {
						v = value[:large]
					}
					if a := h.do(http.MethodPut, "/"+part+"/large", v); a.status != http.StatusOK {
						t.Fatalf("PUT: %d %s", a.status, a.body)
					}
					h.noted(part, "large", v)
				}
				c.act(h)
				for _, p := range h.health().Parts {
					if p.Generation != h.generation {
						t.Errorf("part %s: generation %d, want %d", p.Name, p.Generation, h.generation)
					}
				}
				if err := os.Remove(filler); err != nil {
					t.Fatal(err)
				}
				h.recovers()
			})
		}
	}
}
