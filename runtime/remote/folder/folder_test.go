package folder_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/remote/remotetest"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func onDisk(t testing.TB) remotetest.Place {
	root := t.TempDir()
	return func(t testing.TB) repository.Remote {
		fsys, err := vfs.OS(root)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { fsys.Close() })
		return folder.Open(fsys)
	}
}

func inMemory(testing.TB) remotetest.Place {
	m := vfs.NewMem()
	return func(testing.TB) repository.Remote { return folder.Open(m) }
}

func TestRemote(t *testing.T) {
	t.Run("OS", func(t *testing.T) { remotetest.Test(t, onDisk) })
	t.Run("Mem", func(t *testing.T) { remotetest.Test(t, inMemory) })
}

func put(t testing.TB, r repository.Remote, name, content string) {
	t.Helper()
	if err := r.Put(t.Context(), name, strings.NewReader(content), int64(len(content))); err != nil {
		t.Fatal(err)
	}
}

// What a crash has left under a temporary name is not listed, and not in the way.
func TestTemporaryFileOfACrash(t *testing.T) {
	m := vfs.NewMem()
	r := folder.Open(m)
	put(t, r, "packs/a", "a")
	f, err := m.OpenFile("packs/.tmp", vfs.Create)
	if err == nil {
		_, err = f.Write([]byte("half of"))
	}
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	if err := r.List(t.Context(), "", func(repository.Blob) error { listed++; return nil }); err != nil || listed != 1 {
		t.Errorf("%d blobs are listed, %v", listed, err)
	}
	put(t, r, "packs/b", "b")
	if entries, err := m.ReadDir("packs"); err != nil || len(entries) != 2 {
		t.Errorf("then there is %v, %v", entries, err)
	}
}

// Put waits for another process that puts a blob, as long as its context lasts.
func TestPutWaits(t *testing.T) {
	m := vfs.NewMem()
	lock, err := m.Lock("LOCK", nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	if err := folder.Open(m).Put(ctx, "packs/a", strings.NewReader("a"), 1); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("while another holds the lock: %v", err)
	}
	done := make(chan error)
	go func() { done <- folder.Open(m).Put(t.Context(), "packs/a", strings.NewReader("a"), 1) }()
	time.Sleep(20 * time.Millisecond)
	if err := lock.Close(); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("when the other was done: %v", err)
	}
}

// A blob that Put says is there stays there, also if who put it died before its name was durable.
func TestWhatExistsIsDurable(t *testing.T) {
	for k := 1; ; k++ {
		m := vfs.NewMem()
		fsys := vfs.Faulty(m, vfs.Crash(k))
		_ = folder.Open(fsys).Put(t.Context(), "commits/a/1", strings.NewReader("first"), 5)
		m = m.Kill()
		err := folder.Open(m).Put(t.Context(), "commits/a/1", strings.NewReader("other"), 5)
		want := "other"
		if errors.Is(err, fs.ErrExist) {
			want = "first"
		} else if err != nil {
			t.Fatalf("crash at operation %d: %v", k, err)
		}
		for seed := range uint64(20) {
			rc, err := folder.Open(m.PowerCut(rand.New(rand.NewPCG(seed, 0)))).Get(t.Context(), "commits/a/1", 0, -1)
			if err != nil {
				t.Fatalf("crash at operation %d, power cut %d: %v", k, seed, err)
			}
			if b, err := io.ReadAll(rc); err != nil || string(b) != want {
				t.Fatalf("crash at operation %d, power cut %d: it holds %q, %v; want %q", k, seed, b, err, want)
			}
		}
		if !fsys.Fired() {
			break
		}
	}
}

func Example() {
	r := folder.Open(vfs.NewMem())
	ctx := context.Background()
	for range 2 {
		err := r.Put(ctx, "commits/mine/000000000001", strings.NewReader("what is in it"), 13)
		fmt.Println(err == nil, errors.Is(err, fs.ErrExist))
	}
	// Output:
	// true false
	// false true
}
