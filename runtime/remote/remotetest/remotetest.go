// Package remotetest is what every repository.Remote must do.
package remotetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
)

// Place is an empty place; each call gives another client of it, as if in another process.
type Place func(testing.TB) repository.Remote

// Test holds a Remote to its contract. fresh makes a place; it is called many times.
func Test(t *testing.T, fresh func(testing.TB) Place) {
	for _, test := range []struct {
		name string
		run  func(*testing.T, Place)
	}{
		{"PutAndGet", testPutAndGet},
		{"Ranges", testRanges},
		{"PutOfWhatIsThere", testPutOfWhatIsThere},
		{"PutThatFails", testPutThatFails},
		{"PutAtOnce", testPutAtOnce},
		{"NotThere", testNotThere},
		{"List", testList},
		{"ListEnds", testListEnds},
		{"Delete", testDelete},
		{"Names", testNames},
		{"Cancelled", testCancelled},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, fresh(t)) })
	}
}

func put(t testing.TB, r repository.Remote, name string, content []byte) {
	t.Helper()
	if err := r.Put(t.Context(), name, bytes.NewReader(content), int64(len(content))); err != nil {
		t.Fatalf("Put %s: %v", name, err)
	}
}

func get(t testing.TB, r repository.Remote, name string, offset, length int64) []byte {
	t.Helper()
	rc, err := r.Get(t.Context(), name, offset, length)
	if err != nil {
		t.Fatalf("Get %s: %v", name, err)
	}
	b, err := io.ReadAll(rc)
	if err = errors.Join(err, rc.Close()); err != nil {
		t.Fatalf("Get %s: %v", name, err)
	}
	return b
}

func list(t testing.TB, r repository.Remote, prefix string) (names []string) {
	t.Helper()
	err := r.List(t.Context(), prefix, func(b repository.Blob) error {
		names = append(names, b.Name)
		return nil
	})
	if err != nil {
		t.Fatalf("List %q: %v", prefix, err)
	}
	return names
}

// content is n bytes that no part of is like another.
func content(n int) []byte {
	b := make([]byte, 0, n+8)
	for i := 0; len(b) < n; i++ {
		b = fmt.Appendf(b, "%x.", i)
	}
	return b[:n]
}

func testPutAndGet(t *testing.T, place Place) {
	r, other := place(t), place(t)
	for _, size := range []int{0, 1, 1000, 5 << 20} {
		name, want := fmt.Sprint("packs/of-", size), content(size)
		put(t, r, name, want)
		for _, client := range []repository.Remote{r, other} {
			if got := get(t, client, name, 0, -1); !bytes.Equal(got, want) {
				t.Errorf("%s: got %d other bytes", name, len(got))
			}
			b, err := client.Stat(t.Context(), name)
			if err != nil || b.Name != name || b.Size != int64(size) {
				t.Errorf("Stat %s = %+v, %v", name, b, err)
			}
		}
	}
}

func testRanges(t *testing.T, place Place) {
	r, want := place(t), content(1000)
	put(t, r, "commits/a/1", want)
	for _, c := range []struct{ offset, length, from, to int64 }{
		{0, -1, 0, 1000}, {0, 1000, 0, 1000}, {0, 1, 0, 1}, {999, 1, 999, 1000}, {100, 50, 100, 150}, {10, -1, 10, 1000},
		{10, 0, 10, 10}, {990, 100, 990, 1000}, {1000, 5, 1000, 1000}, {2000, -1, 1000, 1000},
	} {
		if got := get(t, r, "commits/a/1", c.offset, c.length); !bytes.Equal(got, want[c.from:c.to]) {
			t.Errorf("%d bytes from %d: got %q", c.length, c.offset, got)
		}
	}
}

func testPutOfWhatIsThere(t *testing.T, place Place) {
	r, other := place(t), place(t)
	put(t, r, "commits/a/1", []byte("first"))
	for _, client := range []repository.Remote{r, other} {
		if err := client.Put(t.Context(), "commits/a/1", strings.NewReader("other"), 5); !errors.Is(err, fs.ErrExist) {
			t.Errorf("putting it again: %v", err)
		}
		if got := get(t, client, "commits/a/1", 0, -1); string(got) != "first" {
			t.Errorf("then it holds %q", got)
		}
	}
}

func testPutThatFails(t *testing.T, place Place) {
	r := place(t)
	broken := errors.New("broken")
	for what, c := range map[string]struct {
		r    io.Reader
		want error
	}{
		"too few":  {bytes.NewReader(content(99)), nil},
		"none":     {bytes.NewReader(nil), nil},
		"too many": {bytes.NewReader(content(101)), nil},
		"broken":   {io.MultiReader(bytes.NewReader(content(50)), iotest.ErrReader(broken)), broken},
	} {
		err := r.Put(t.Context(), "packs/x", c.r, 100)
		if err == nil || errors.Is(err, fs.ErrExist) || !errors.Is(err, c.want) && c.want != nil {
			t.Errorf("%s bytes: %v", what, err)
		}
		if _, err := r.Stat(t.Context(), "packs/x"); !errors.Is(err, abi.ErrNotFound) {
			t.Errorf("%s bytes: the blob is there: %v", what, err)
		}
	}
	if names := list(t, r, ""); len(names) > 0 {
		t.Errorf("there is %q", names)
	}
	put(t, r, "packs/x", content(100))
}

func testPutAtOnce(t *testing.T, place Place) {
	const clients, each = 4, 8
	var remotes []repository.Remote
	for range clients {
		remotes = append(remotes, place(t))
	}
	for round := range 5 {
		name := fmt.Sprint("commits/a/", round)
		var (
			wg   sync.WaitGroup
			mu   sync.Mutex
			wins []string
		)
		for i := range clients * each {
			wg.Go(func() {
				mine := fmt.Sprintf("%05d", i)
				err := remotes[i%clients].Put(t.Context(), name, strings.NewReader(mine), 5)
				mu.Lock()
				defer mu.Unlock()
				if err == nil {
					wins = append(wins, mine)
				} else if !errors.Is(err, fs.ErrExist) {
					t.Errorf("Put: %v", err)
				}
			})
		}
		wg.Wait()
		if len(wins) != 1 {
			t.Fatalf("of %d who put it at once %q were told that they did", clients*each, wins)
		}
		if got := get(t, remotes[0], name, 0, -1); string(got) != wins[0] {
			t.Fatalf("%s was told that it put it, and it holds %q", wins[0], got)
		}
	}
}

func testNotThere(t *testing.T, place Place) {
	r := place(t)
	for _, fill := range []bool{false, true} {
		if fill {
			put(t, r, "packs/there", nil)
			put(t, r, "commits/a/there", nil)
		}
		for _, name := range []string{"packs/no", "commits/no/1", "commits/a/1", "commits/a"} {
			if _, err := r.Stat(t.Context(), name); !errors.Is(err, abi.ErrNotFound) {
				t.Errorf("Stat %s: %v", name, err)
			}
			rc, err := r.Get(t.Context(), name, 0, -1)
			if err == nil {
				_, err = io.ReadAll(rc)
				rc.Close()
			}
			if !errors.Is(err, abi.ErrNotFound) {
				t.Errorf("Get %s: %v", name, err)
			}
		}
		for _, prefix := range []string{"packs/no", "other/", "commits/no/"} {
			if names := list(t, r, prefix); len(names) > 0 {
				t.Errorf("List %q: %q", prefix, names)
			}
		}
	}
}

func testList(t *testing.T, place Place) {
	r, other := place(t), place(t)
	all := []string{
		"commits/a-b/1", "commits/a.b/1", "commits/a/1", "commits/a/10", "commits/a/2", "commits/a0/1", "commits/a=1/1",
		"commits/b/1", "packs/0", "packs/1", "removals/a/1",
	}
	if !slices.IsSorted(all) {
		t.Fatal("the test is wrong")
	}
	for i := range all { // in another order
		put(t, r, all[i*7%len(all)], []byte(all[i*7%len(all)]))
	}
	for _, prefix := range []string{"", "c", "commits", "commits/", "commits/a", "commits/a/", "commits/a/1", "packs/", "x"} {
		var want []string
		for _, name := range all {
			if strings.HasPrefix(name, prefix) {
				want = append(want, name)
			}
		}
		if got := list(t, other, prefix); !slices.Equal(got, want) {
			t.Errorf("List %q: %q\nwant %q", prefix, got, want)
		}
	}
	err := r.List(t.Context(), "", func(b repository.Blob) error {
		if b.Size != int64(len(b.Name)) {
			t.Errorf("List says that %s has %d bytes", b.Name, b.Size)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

func testListEnds(t *testing.T, place Place) {
	r := place(t)
	for i := range 10 {
		put(t, r, fmt.Sprint("packs/", i), nil)
	}
	enough, seen := errors.New("enough"), 0
	err := r.List(t.Context(), "packs/", func(repository.Blob) error {
		if seen++; seen == 3 {
			return enough
		}
		return nil
	})
	if !errors.Is(err, enough) || seen != 3 {
		t.Errorf("List told of %d and returned %v", seen, err)
	}
}

func testDelete(t *testing.T, place Place) {
	r, other := place(t), place(t)
	for _, name := range []string{"packs/a", "packs/b", "commits/a/1", "removals/a/1"} {
		put(t, r, name, []byte("x"))
	}
	for range 2 { // what is not there is deleted already
		if err := other.Delete(t.Context(), "packs/a"); err != nil {
			t.Errorf("Delete: %v", err)
		}
	}
	for _, name := range []string{"commits/a/1", "removals/a/1", "commits/a/2", "other/a"} {
		if err := r.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete %s: no error", name)
		}
	}
	if got, want := list(t, r, ""), []string{"commits/a/1", "packs/b", "removals/a/1"}; !slices.Equal(got, want) {
		t.Errorf("then there is %q, want %q", got, want)
	}
	put(t, r, "packs/a", []byte("again"))
	if got := get(t, other, "packs/a", 0, -1); string(got) != "again" {
		t.Errorf("put again it holds %q", got)
	}
}

func testNames(t *testing.T, place Place) {
	r := place(t)
	for _, name := range []string{"", "packs", "packs/", "/packs/a", "packs//a", "packs/../a", "packs/./a", "packs/.a", "Packs/a",
		"packs/a b", "packs/a\\b", "packs/é", "a/b/c/d", "packs/" + strings.Repeat("a", 201), "packs/a/"} {
		if err := r.Put(t.Context(), name, strings.NewReader("x"), 1); err == nil {
			t.Errorf("Put %q: no error", name)
		}
		if _, err := r.Stat(t.Context(), name); err == nil {
			t.Errorf("Stat %q: no error", name)
		}
		if rc, err := r.Get(t.Context(), name, 0, -1); err == nil {
			rc.Close()
			t.Errorf("Get %q: no error", name)
		}
		if err := r.Delete(t.Context(), name); err == nil {
			t.Errorf("Delete %q: no error", name)
		}
	}
	if names := list(t, r, ""); len(names) > 0 {
		t.Errorf("then there is %q", names)
	}
	for _, name := range []string{"commits/" + strings.Repeat("a", 200) + "/000000000001", "packs/" + strings.Repeat("0f", 32), "a/0-._="} {
		put(t, r, name, []byte(name))
		if got := get(t, r, name, 0, -1); string(got) != name {
			t.Errorf("%s holds %q", name, got)
		}
	}
}

func testCancelled(t *testing.T, place Place) {
	r := place(t)
	put(t, r, "packs/a", []byte("x"))
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, stat := r.Stat(ctx, "packs/a")
	_, get := r.Get(ctx, "packs/a", 0, -1)
	for what, err := range map[string]error{
		"Put":    r.Put(ctx, "packs/b", strings.NewReader("x"), 1),
		"Stat":   stat,
		"Get":    get,
		"List":   r.List(ctx, "packs/", func(repository.Blob) error { return nil }),
		"Delete": r.Delete(ctx, "packs/a"),
	} {
		if !errors.Is(err, context.Canceled) {
			t.Errorf("%s with a context that has ended: %v", what, err)
		}
	}
	if got := list(t, r, ""); !slices.Equal(got, []string{"packs/a"}) {
		t.Errorf("then there is %q", got)
	}
}
