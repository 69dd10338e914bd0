package repository_test

import (
	"bytes"
	"flag"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"testing"

	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

var update = flag.Bool("update", false, "write the golden files anew")

// goldenStates are the three versions of the golden snapshot.
func goldenStates(t testing.TB) (all []*snapshot.Snapshot) {
	s := newState(400, 30, 7)
	for i := range uint64(3) {
		all = append(all, shot(t, encode(t, header("orders", "store"), s.records()), encode(t, header("orders", "backend"), nil)))
		s.change(0.02, i)
	}
	return all
}

// goldenRepository saves them as "Golden.1", removes the second, and saves one of another name.
func goldenRepository(t testing.TB, lock seal.Lock) *vfs.Mem {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	for _, s := range goldenStates(t) {
		save(t, r, "Golden.1", s, lock)
	}
	if err := r.Remove(t.Context(), "Golden.1", 2); err != nil {
		t.Fatal(err)
	}
	save(t, r, "other", small(t, "other"), lock)
	return m
}

func TestGolden(t *testing.T) {
	for name, lock := range map[string]seal.Lock{"v1": {}, "v1-encrypted": cheap("golden")} {
		root := filepath.Join("testdata", name)
		// What is encrypted is other bytes each time; of it, reading is what counts.
		if *update {
			if err := os.RemoveAll(root); err != nil {
				t.Fatal(err)
			}
			for blob, b := range blobs(t, goldenRepository(t, lock), "") {
				file := filepath.Join(root, filepath.FromSlash(blob))
				if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
					t.Fatal(err)
				}
				if err := os.WriteFile(file, b, 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		m := vfs.NewMem()
		golden := map[string][]byte{}
		err := fs.WalkDir(os.DirFS(root), ".", func(blob string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() {
				return err
			}
			b, err := os.ReadFile(filepath.Join(root, filepath.FromSlash(blob)))
			if err != nil {
				return err
			}
			golden[path.Clean(blob)] = b
			return folder.Open(m).Put(t.Context(), blob, bytes.NewReader(b), int64(len(b)))
		})
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, m, newClock())
		key := seal.Key{Passphrase: lock.Passphrase}
		states := goldenStates(t)
		wantLoaded(t, r, "Golden.1", 1, key, states[0])
		wantLoaded(t, r, "Golden.1", 0, key, states[2])
		wantLoaded(t, r, "other", 1, key, small(t, "other"))
		wantSound(t, name, r)
		if versions, err := r.Versions(t.Context(), "Golden.1"); err != nil || len(versions) != 2 || versions[1].Number != 3 || versions[1].Encrypted != !lock.IsZero() {
			t.Errorf("%s: versions %+v, %v", name, versions, err)
		}
		collect(t, r, repository.CollectOptions{Grace: -1})
		wantLoaded(t, r, "Golden.1", 3, key, states[2])
		if !lock.IsZero() {
			continue
		}
		written := blobs(t, goldenRepository(t, lock), "")
		if got, want := slices.Sorted(maps.Keys(written)), slices.Sorted(maps.Keys(golden)); !slices.Equal(got, want) {
			t.Fatalf("written are %q\nwant %q", got, want)
		}
		for blob, b := range written {
			if !bytes.Equal(b, golden[blob]) {
				t.Errorf("%s is written as other bytes", blob)
			}
		}
	}
}
