package e2e

import (
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// These tests mount small file systems, which is done in another way on every system.

// disk mounts a file system of size bytes, in memory.
func disk(t *testing.T, size int) string {
	t.Helper()
	need.Root(t, "mount a small file system")
	dir := t.TempDir()
	if err := syscall.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprint("size=", size)); err != nil {
		need.Missing(t, fmt.Sprintf("the right to mount a small file system (%v)", err))
	}
	t.Cleanup(func() {
		if err := syscall.Unmount(dir, 0); err != nil {
			t.Errorf("unmount: %v", err)
		}
	})
	return dir
}

// fill writes a file until there is no room, and gives its name.
func fill(t *testing.T, dir string) string {
	t.Helper()
	f, err := os.Create(filepath.Join(dir, "filler"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for block := 1 << 20; block > 0; block /= 2 {
		for err == nil {
			_, err = f.Write(make([]byte, block))
		}
		if !isFull(err) {
			t.Fatal(err)
		}
		err = nil
	}
	return f.Name()
}

func isFull(err error) bool { return strings.Contains(err.Error(), syscall.ENOSPC.Error()) }

func TestReadOnlyDisk(t *testing.T) {
	root := disk(t, 16<<20)
	data := filepath.Join(root, "data")
	c := start(t, on(data))
	c.put("/bucket/key", "content")
	c.stop()
	before := tree(t, data)
	remount := func(flags uintptr) {
		if err := syscall.Mount("", root, "", syscall.MS_REMOUNT|flags, "size=16m"); err != nil {
			t.Fatal(err)
		}
	}
	remount(syscall.MS_RDONLY)
	stderr, code := refuses(t, on(data))
	if code != 1 || !strings.Contains(stderr, data) || !strings.Contains(stderr, "read-only file system") || !strings.Contains(stderr, "mount it writable") {
		t.Errorf("exit code %d: %s", code, stderr)
	}
	remount(0)
	sameTree(t, before, tree(t, data))
	c = start(t, on(data))
	c.has("/bucket/key", "content")
	c.stop()
}

func TestFullDisk(t *testing.T) {
	data := filepath.Join(disk(t, 4<<20), "data")
	o := on(data).with("SNAPSHOT_FLUSH_INTERVAL=0.1")
	c := start(t, o)
	c.put("/bucket/first", "saved while there was room")
	c.save()
	good := c.part()
	filler := fill(t, filepath.Dir(data))

	// The service goes on, health says that it is not saved and why, the last good generation stays.
	second := string(noise(6, 300_000))
	c.put("/bucket/second", second)
	eventually(t, "health tells of the full disk", func() bool { return c.part().LastError != "" })
	status, h := c.health()
	p := h.Services[0].Parts[0]
	if status != http.StatusOK || h.Status != "degraded" || h.Services[0].Status != "running" || !strings.Contains(p.LastError, "no space left on device") ||
		p.Status != "error" || p.DirtySeconds <= 0 || p.Generation != good.Generation || !p.LastGoodSave.Equal(*good.LastGoodSave) {
		t.Errorf("health %d %+v", status, h)
	}
	c.has("/bucket/first", "saved while there was room")
	c.has("/bucket/second", second)
	if a := c.do(http.MethodPost, "/_localstack/state/s3/save", ""); a.status != http.StatusInternalServerError || !strings.Contains(a.body, "no space left on device") {
		t.Errorf("a save by hand: %d %s", a.status, a.body)
	}
	if n := c.metric(`torpor_failures_total{operation="save",part="store",reason="no_space",service="s3"}`); n < 1 {
		t.Errorf("%v failed saves are counted", n)
	}
	c.says("no space left on device")

	// Killed now, it has lost what was not saved and nothing else, and starts on a full disk too.
	c.kill()
	c = start(t, o)
	c.has("/bucket/first", "saved while there was room")
	c.lacks("/bucket/second")
	c.put("/bucket/second", second)
	eventually(t, "health tells of the full disk", func() bool { return c.part().LastError != "" })

	// When there is room again, it saves by itself.
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is saved", func() bool { return c.part().Generation > good.Generation })
	c.healthy()
	c.kill()
	c = start(t, o)
	c.has("/bucket/first", "saved while there was room")
	c.has("/bucket/second", second)
	noLeftovers(t, data)
	c.stop()
}

// TestStopOnAFullDisk: what cannot be saved at the end is said, by the exit code too.
func TestStopOnAFullDisk(t *testing.T) {
	data := filepath.Join(disk(t, 4<<20), "data")
	c := start(t, on(data, "--flush-interval", "1h"))
	c.put("/bucket/first", "saved")
	c.save()
	fill(t, filepath.Dir(data))
	c.put("/bucket/second", string(noise(7, 300_000))) // more than the last block of the file has room for
	c.signal(syscall.SIGTERM)
	if code := c.wait(); code != 1 || !c.log.Contains("not everything could be saved") || !c.log.Contains("no space left on device") {
		t.Errorf("exit code %d: %s", code, c.log)
	}
}
