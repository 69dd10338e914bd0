// Package vfstest is the conformance suite of package vfs: [Run] holds a file system to what vfs.FS,
// vfs.File and vfs.Locker promise. Durability it can not see; for that vfs.Mem has tests of its own.
package vfstest

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"reflect"
	"sync"
	"testing"

	"github.com/torpor-run/torpor/runtime/vfs"
)

// Run runs the suite. newFS returns an empty file system, another one at each call.
func Run(t *testing.T, newFS func(testing.TB) vfs.FS) {
	for _, c := range []struct {
		name string
		test func(*testing.T, vfs.FS)
	}{
		{"CreateWriteRead", createWriteRead},
		{"CreateTakenName", createTakenName},
		{"Append", appending},
		{"AppendRefused", appendRefused},
		{"Truncate", truncate},
		{"TruncateRefused", truncateRefused},
		{"ReadAtEnd", readAtEnd},
		{"ReadOnlyHandle", readOnlyHandle},
		{"FolderHandle", folderHandle},
		{"ClosedHandle", closedHandle},
		{"Rename", rename},
		{"RenameRefused", renameRefused},
		{"HandleOutlivesName", handleOutlivesName},
		{"Remove", remove},
		{"List", list},
		{"Mkdir", mkdir},
		{"Missing", missing},
		{"BelowFile", belowFile},
		{"InvalidNames", invalidNames},
		{"Sync", syncAll},
		{"Parallel", parallel},
		{"Lock", lock},
		{"LockFileStays", lockFileStays},
		{"Path", path},
	} {
		t.Run(c.name, func(t *testing.T) { c.test(t, newFS(t)) })
	}
}

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// wantErr fails unless err is of kind want; a nil want means any error.
func wantErr(t testing.TB, what string, err, want error) {
	t.Helper()
	if err == nil {
		t.Fatalf("%s: no error, want %v", what, want)
	}
	if want != nil && !errors.Is(err, want) {
		t.Fatalf("%s: %v, want %v", what, err, want)
	}
}

func write(t testing.TB, fsys vfs.FS, name, content string) {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Create)
	check(t, err)
	n, err := io.WriteString(f, content)
	check(t, err)
	if n != len(content) {
		t.Fatalf("Write took %d bytes of %d and said nothing", n, len(content))
	}
	check(t, f.Close())
}

func read(t testing.TB, f vfs.File) string {
	t.Helper()
	size, err := f.Size()
	check(t, err)
	b := make([]byte, size)
	if n, err := f.ReadAt(b, 0); int64(n) != size || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("ReadAt: %d bytes of %d, %v", n, size, err)
	}
	return string(b)
}

func content(t testing.TB, fsys vfs.FS, name string) string {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	check(t, err)
	defer f.Close()
	return read(t, f)
}

func wantContent(t testing.TB, fsys vfs.FS, name, want string) {
	t.Helper()
	if got := content(t, fsys, name); got != want {
		t.Fatalf("%s holds %q, want %q", name, got, want)
	}
}

func createWriteRead(t *testing.T, fsys vfs.FS) {
	f, err := fsys.OpenFile("f", vfs.Create)
	check(t, err)
	defer f.Close()
	var want []byte
	for i := range 5_000 { // pieces that end at no boundary of anything
		piece := fmt.Appendf(nil, "piece %d;", i)
		n, err := f.Write(piece)
		check(t, err)
		if n != len(piece) {
			t.Fatalf("Write took %d bytes of %d", n, len(piece))
		}
		want = append(want, piece...)
	}
	if size, err := f.Size(); err != nil || size != int64(len(want)) {
		t.Fatalf("Size = %d, %v; want %d", size, err, len(want))
	}
	if got := read(t, f); got != string(want) {
		t.Fatal("the writing handle reads something else than was written")
	}
	wantContent(t, fsys, "f", string(want))
	for off := 0; off < len(want); off += 977 {
		b := make([]byte, min(33, len(want)-off))
		if n, err := f.ReadAt(b, int64(off)); n != len(b) || err != nil && !errors.Is(err, io.EOF) || !bytes.Equal(b, want[off:off+n]) {
			t.Fatalf("ReadAt(%d): %q, %d, %v", off, b, n, err)
		}
	}
	// Reading has not moved where the next write goes.
	_, err = f.Write([]byte("end"))
	check(t, err)
	wantContent(t, fsys, "f", string(want)+"end")
}

func createTakenName(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "f", "first")
	_, err := fsys.OpenFile("f", vfs.Create)
	wantErr(t, "creating a file that exists", err, fs.ErrExist)
	wantContent(t, fsys, "f", "first")
	check(t, fsys.Mkdir("d"))
	_, err = fsys.OpenFile("d", vfs.Create)
	wantErr(t, "creating a file where a folder is", err, fs.ErrExist)
}

func appending(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("d"))
	write(t, fsys, "d/f", "first")
	want := "first"
	for i := range 3 { // each handle goes on where the file ends
		f, err := fsys.OpenFile("d/f", vfs.Append)
		check(t, err)
		if size, err := f.Size(); err != nil || size != int64(len(want)) {
			t.Fatalf("Size = %d, %v; want %d", size, err, len(want))
		}
		for range 2 {
			piece := fmt.Sprintf(", piece %d", i)
			n, err := f.Write([]byte(piece))
			check(t, err)
			if n != len(piece) {
				t.Fatalf("Write took %d bytes of %d", n, len(piece))
			}
			want += piece
			if got := read(t, f); got != want {
				t.Fatalf("the appending handle reads %q, want %q", got, want)
			}
		}
		check(t, f.Sync())
		wantContent(t, fsys, "d/f", want)
		check(t, f.Close())
	}
	// A handle opened before reads what was appended, and the name may change meanwhile.
	before, err := fsys.OpenFile("d/f", vfs.Read)
	check(t, err)
	defer before.Close()
	f, err := fsys.OpenFile("d/f", vfs.Append)
	check(t, err)
	defer f.Close()
	check(t, fsys.Rename("d/f", "d/g"))
	_, err = f.Write([]byte(" and last"))
	check(t, err)
	if got := read(t, before); got != want+" and last" {
		t.Fatalf("the handle opened before reads %q", got)
	}
	wantContent(t, fsys, "d/g", want+" and last")
}

func appendRefused(t *testing.T, fsys vfs.FS) {
	_, err := fsys.OpenFile("none", vfs.Append)
	wantErr(t, "appending to what is not there", err, fs.ErrNotExist)
	_, err = fsys.OpenFile("none/f", vfs.Append)
	wantErr(t, "appending in a missing folder", err, fs.ErrNotExist)
	check(t, fsys.Mkdir("d"))
	for _, name := range []string{"d", "."} {
		_, err = fsys.OpenFile(name, vfs.Append)
		wantErr(t, "appending to the folder "+name, err, nil)
	}
	wantNames(t, fsys, ".", "d/")
}

func truncate(t *testing.T, fsys vfs.FS) {
	for name, mode := range map[string]vfs.Mode{"created": vfs.Create, "appended": vfs.Append} {
		if mode == vfs.Append {
			write(t, fsys, name, "")
		}
		f, err := fsys.OpenFile(name, mode)
		check(t, err)
		_, err = f.Write([]byte("0123456789"))
		check(t, err)
		check(t, vfs.Truncate(f, 10)) // its own length: nothing happens
		wantContent(t, fsys, name, "0123456789")
		check(t, vfs.Truncate(f, 4))
		if got := read(t, f); got != "0123" {
			t.Fatalf("a file cut to 4 bytes reads %q", got)
		}
		if n, err := f.ReadAt(make([]byte, 1), 4); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt behind the cut: %d, %v; want io.EOF", n, err)
		}
		_, err = f.Write([]byte("abc")) // behind the cut, not where the file ended before
		check(t, err)
		wantContent(t, fsys, name, "0123abc")
		check(t, f.Sync())
		check(t, vfs.Truncate(f, 0))
		check(t, f.Sync())
		wantContent(t, fsys, name, "")
		_, err = f.Write([]byte("anew"))
		check(t, err)
		wantContent(t, fsys, name, "anew")
		check(t, f.Close())
	}
}

func truncateRefused(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "f", "kept")
	f, err := fsys.OpenFile("f", vfs.Append)
	check(t, err)
	defer f.Close()
	wantErr(t, "truncating to more than there is", vfs.Truncate(f, 5), fs.ErrInvalid)
	wantErr(t, "truncating to -1", vfs.Truncate(f, -1), fs.ErrInvalid)
	reader, err := fsys.OpenFile("f", vfs.Read)
	check(t, err)
	defer reader.Close()
	wantErr(t, "truncating a file opened with Read", vfs.Truncate(reader, 2), nil)
	wantContent(t, fsys, "f", "kept")
}

func readAtEnd(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "f", "12345")
	f, err := fsys.OpenFile("f", vfs.Read)
	check(t, err)
	defer f.Close()
	b := make([]byte, 4)
	if n, err := f.ReadAt(b, 3); n != 2 || !errors.Is(err, io.EOF) || string(b[:n]) != "45" {
		t.Fatalf("ReadAt across the end: %d %q %v; want 2 bytes and io.EOF", n, b[:n], err)
	}
	for _, off := range []int64{5, 6, 1 << 40} {
		if n, err := f.ReadAt(b, off); n != 0 || !errors.Is(err, io.EOF) {
			t.Fatalf("ReadAt at %d of 5: %d, %v; want io.EOF", off, n, err)
		}
	}
	if n, err := f.ReadAt(nil, 5); n != 0 || err != nil {
		t.Fatalf("ReadAt of nothing: %d, %v", n, err)
	}
	_, err = f.ReadAt(b, -1)
	wantErr(t, "ReadAt at -1", err, nil)
}

func readOnlyHandle(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "f", "kept")
	f, err := fsys.OpenFile("f", vfs.Read)
	check(t, err)
	defer f.Close()
	_, err = f.Write([]byte("lost"))
	wantErr(t, "writing a file opened with Read", err, nil)
	check(t, f.Sync())
	wantContent(t, fsys, "f", "kept")
}

func folderHandle(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("d"))
	for _, name := range []string{"d", "."} {
		f, err := fsys.OpenFile(name, vfs.Read)
		check(t, err)
		check(t, f.Sync())
		_, err = f.ReadAt(make([]byte, 1), 0)
		wantErr(t, "reading a folder", err, nil)
		if errors.Is(err, io.EOF) {
			t.Fatal("a folder reads as an empty file")
		}
		_, err = f.Write([]byte("x"))
		wantErr(t, "writing a folder", err, nil)
		wantErr(t, "truncating a folder", vfs.Truncate(f, 0), nil)
		check(t, f.Close())
	}
}

func closedHandle(t *testing.T, fsys vfs.FS) {
	f, err := fsys.OpenFile("f", vfs.Create)
	check(t, err)
	check(t, f.Close())
	_, err = f.ReadAt(make([]byte, 1), 0)
	wantErr(t, "ReadAt after Close", err, fs.ErrClosed)
	_, err = f.Write([]byte("x"))
	wantErr(t, "Write after Close", err, fs.ErrClosed)
	wantErr(t, "Truncate after Close", vfs.Truncate(f, 0), fs.ErrClosed)
	wantErr(t, "Sync after Close", f.Sync(), fs.ErrClosed)
	_, err = f.Size()
	wantErr(t, "Size after Close", err, fs.ErrClosed)
	wantErr(t, "Close after Close", f.Close(), fs.ErrClosed)
}

func rename(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("d"))
	write(t, fsys, "a", "A")
	write(t, fsys, "b", "B")
	check(t, fsys.Rename("a", "b"))
	wantContent(t, fsys, "b", "A")
	_, err := fsys.OpenFile("a", vfs.Read)
	wantErr(t, "opening the old name", err, fs.ErrNotExist)
	check(t, fsys.Rename("b", "d/c"))
	wantContent(t, fsys, "d/c", "A")
	check(t, fsys.Rename("d/c", "d/c"))
	wantContent(t, fsys, "d/c", "A")
	wantNames(t, fsys, ".", "d/")
	wantNames(t, fsys, "d", "c")
}

func renameRefused(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("d"))
	write(t, fsys, "f", "F")
	wantErr(t, "renaming what is not there", fsys.Rename("none", "f"), fs.ErrNotExist)
	wantErr(t, "renaming into a missing folder", fsys.Rename("f", "none/f"), fs.ErrNotExist)
	wantErr(t, "renaming over a folder", fsys.Rename("f", "d"), nil)
	wantErr(t, "renaming below a file", fsys.Rename("f", "f/g"), nil)
	wantContent(t, fsys, "f", "F")
	wantNames(t, fsys, ".", "d/", "f")
}

func handleOutlivesName(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "a", "A")
	write(t, fsys, "b", "B")
	a, err := fsys.OpenFile("a", vfs.Read)
	check(t, err)
	defer a.Close()
	b, err := fsys.OpenFile("b", vfs.Read)
	check(t, err)
	defer b.Close()
	check(t, fsys.Rename("a", "b"))
	if got := read(t, a); got != "A" {
		t.Fatalf("the handle of a renamed file reads %q", got)
	}
	if got := read(t, b); got != "B" {
		t.Fatalf("the handle of a replaced file reads %q", got)
	}
	check(t, fsys.Remove("b"))
	if got := read(t, a); got != "A" {
		t.Fatalf("the handle of a removed file reads %q", got)
	}
	check(t, a.Sync())
	write(t, fsys, "b", "new")
	if got := read(t, a); got != "A" {
		t.Fatalf("the handle of a removed file reads the new one of that name: %q", got)
	}
}

func remove(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("d"))
	write(t, fsys, "d/f", "F")
	wantErr(t, "removing a folder that is not empty", fsys.Remove("d"), nil)
	wantContent(t, fsys, "d/f", "F")
	check(t, fsys.Remove("d/f"))
	wantErr(t, "removing again", fsys.Remove("d/f"), fs.ErrNotExist)
	check(t, fsys.Remove("d"))
	wantNames(t, fsys, ".")
}

// wantNames lists a folder; folders are written with a slash.
func wantNames(t testing.TB, fsys vfs.FS, folder string, want ...string) {
	t.Helper()
	entries, err := fsys.ReadDir(folder)
	check(t, err)
	got := make([]string, 0, len(entries))
	for _, e := range entries {
		name := e.Name
		switch e.Type {
		case 0:
		case fs.ModeDir:
			name += "/"
		default:
			t.Fatalf("%s is of type %v", e.Name, e.Type)
		}
		got = append(got, name)
	}
	if len(got) != len(want) || len(want) > 0 && !reflect.DeepEqual(got, want) {
		t.Fatalf("%s lists %q, want %q", folder, got, want)
	}
}

func list(t *testing.T, fsys vfs.FS) {
	wantNames(t, fsys, ".")
	for _, name := range []string{"m", "z", "B", "a-1", "a.b", "ä"} {
		write(t, fsys, name, name)
	}
	check(t, fsys.Mkdir("k"))
	write(t, fsys, "k/inside", "")
	wantNames(t, fsys, ".", "B", "a-1", "a.b", "k/", "m", "z", "ä")
	wantNames(t, fsys, "k", "inside")
}

func mkdir(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("a"))
	check(t, fsys.Mkdir("a/b"))
	write(t, fsys, "a/b/f", "F")
	wantErr(t, "making a folder again", fsys.Mkdir("a/b"), fs.ErrExist)
	wantErr(t, "making a folder where a file is", fsys.Mkdir("a/b/f"), fs.ErrExist)
	wantErr(t, "making a folder in a missing one", fsys.Mkdir("x/y"), fs.ErrNotExist)
	wantErr(t, "making the root", fsys.Mkdir("."), fs.ErrExist)
	wantContent(t, fsys, "a/b/f", "F")
}

func missing(t *testing.T, fsys vfs.FS) {
	for _, name := range []string{"none", "none/f"} {
		_, err := fsys.OpenFile(name, vfs.Read)
		wantErr(t, "opening "+name, err, fs.ErrNotExist)
		_, err = fsys.ReadDir(name)
		wantErr(t, "listing "+name, err, fs.ErrNotExist)
		wantErr(t, "removing "+name, fsys.Remove(name), fs.ErrNotExist)
	}
	_, err := fsys.OpenFile("none/f", vfs.Create)
	wantErr(t, "creating a file in a missing folder", err, fs.ErrNotExist)
}

func belowFile(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "f", "F")
	_, err := fsys.OpenFile("f/g", vfs.Read)
	wantErr(t, "opening below a file", err, nil)
	_, err = fsys.OpenFile("f/g", vfs.Create)
	wantErr(t, "creating below a file", err, nil)
	wantErr(t, "making a folder below a file", fsys.Mkdir("f/g"), nil)
	wantErr(t, "removing below a file", fsys.Remove("f/g"), nil)
	_, err = fsys.ReadDir("f")
	wantErr(t, "listing a file", err, nil)
	wantContent(t, fsys, "f", "F")
}

func invalidNames(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "f", "F")
	for _, name := range []string{"", "/", "/f", "..", "../f", "./f", "a/../f", "a//f", "f/", "a/./f"} {
		_, err := fsys.OpenFile(name, vfs.Read)
		wantErr(t, fmt.Sprintf("opening %q", name), err, fs.ErrInvalid)
		_, err = fsys.OpenFile(name, vfs.Create)
		wantErr(t, fmt.Sprintf("creating %q", name), err, fs.ErrInvalid)
		_, err = fsys.OpenFile(name, vfs.Append)
		wantErr(t, fmt.Sprintf("appending to %q", name), err, fs.ErrInvalid)
		wantErr(t, fmt.Sprintf("renaming %q", name), fsys.Rename(name, "g"), fs.ErrInvalid)
		wantErr(t, fmt.Sprintf("renaming to %q", name), fsys.Rename("f", name), fs.ErrInvalid)
		wantErr(t, fmt.Sprintf("removing %q", name), fsys.Remove(name), fs.ErrInvalid)
		_, err = fsys.ReadDir(name)
		wantErr(t, fmt.Sprintf("listing %q", name), err, fs.ErrInvalid)
		wantErr(t, fmt.Sprintf("making %q", name), fsys.Mkdir(name), fs.ErrInvalid)
		_, err = vfs.Lock(fsys, name, nil)
		wantErr(t, fmt.Sprintf("locking %q", name), err, fs.ErrInvalid)
	}
	wantNames(t, fsys, ".", "f")
}

func syncAll(t *testing.T, fsys vfs.FS) {
	check(t, fsys.Mkdir("d"))
	f, err := fsys.OpenFile("d/f", vfs.Create)
	check(t, err)
	defer f.Close()
	for range 3 {
		_, err = f.Write([]byte("x"))
		check(t, err)
		check(t, f.Sync())
		check(t, f.Sync()) // nothing new: no error
	}
	for _, name := range []string{"d", "."} {
		folder, err := fsys.OpenFile(name, vfs.Read)
		check(t, err)
		check(t, folder.Sync())
		check(t, folder.Close())
	}
	wantContent(t, fsys, "d/f", "xxx")
}

// parallel is for the race detector as much as for what it looks at.
func parallel(t *testing.T, fsys vfs.FS) {
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			dir := fmt.Sprintf("d%d", i)
			if err := fsys.Mkdir(dir); err != nil {
				t.Error(err)
				return
			}
			for j := range 20 {
				if err := writeReadRename(fsys, dir, j); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	wantNames(t, fsys, ".", "d0/", "d1/", "d2/", "d3/")
	wantNames(t, fsys, "d0", "kept")
	wantContent(t, fsys, "d3/kept", "content 19")
}

func writeReadRename(fsys vfs.FS, dir string, i int) (err error) {
	f, err := fsys.OpenFile(dir+"/new", vfs.Create)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	want := fmt.Sprintf("content %d", i)
	var reader sync.WaitGroup
	var rerr error
	defer func() { err = errors.Join(err, rerr) }()
	written := make(chan struct{})
	defer reader.Wait()
	defer close(written)
	reader.Go(func() { // reading is allowed beside writing
		b := make([]byte, len(want))
		for {
			if n, err := f.ReadAt(b, 0); string(b[:n]) != want[:n] || err != nil && !errors.Is(err, io.EOF) {
				rerr = fmt.Errorf("read beside a write: %q, %w", b[:n], err)
				return
			}
			select {
			case <-written:
				return
			default:
			}
		}
	})
	for _, c := range []byte(want) {
		if _, err := f.Write([]byte{c}); err != nil {
			return err
		}
	}
	if _, err := fsys.ReadDir("."); err != nil {
		return err
	}
	return fsys.Rename(dir+"/new", dir+"/kept")
}

func lock(t *testing.T, fsys vfs.FS) {
	first, err := vfs.Lock(fsys, "LOCK", []byte("the first holder, with a long name"))
	check(t, err)
	for range 2 { // being refused changes nothing
		_, err = vfs.Lock(fsys, "LOCK", []byte("another"))
		held := (*vfs.HeldError)(nil)
		if !errors.As(err, &held) {
			t.Fatalf("locking twice: %v, want a HeldError", err)
		}
		if string(held.Content) != "the first holder, with a long name" || held.Path != vfs.Path(fsys, "LOCK") {
			t.Fatalf("the holder of %q is said to be %q", held.Path, held.Content)
		}
	}
	other, err := vfs.Lock(fsys, "OTHER", nil)
	check(t, err)
	check(t, other.Close())
	check(t, first.Close())

	second, err := vfs.Lock(fsys, "LOCK", []byte("the second"))
	check(t, err)
	wantErr(t, "giving a lock back twice", first.Close(), fs.ErrClosed)
	_, err = vfs.Lock(fsys, "LOCK", nil)
	held := (*vfs.HeldError)(nil)
	if !errors.As(err, &held) || string(held.Content) != "the second" {
		t.Fatalf("after the first lock was closed again: %v; want it held by the second", err)
	}
	check(t, second.Close())
}

func lockFileStays(t *testing.T, fsys vfs.FS) {
	write(t, fsys, "LOCK", "left behind by one that crashed, which was a while ago")
	l, err := vfs.Lock(fsys, "LOCK", []byte("now"))
	check(t, err)
	wantContent(t, fsys, "LOCK", "now")
	wantNames(t, fsys, ".", "LOCK")
	check(t, l.Close())
	wantNames(t, fsys, ".", "LOCK")
	wantContent(t, fsys, "LOCK", "")
	check(t, fsys.Mkdir("d"))
	_, err = vfs.Lock(fsys, "d", nil)
	wantErr(t, "locking a folder", err, nil)
	_, err = vfs.Lock(fsys, "none/LOCK", nil)
	wantErr(t, "locking in a missing folder", err, fs.ErrNotExist)
}

func path(t *testing.T, fsys vfs.FS) {
	if p := vfs.Path(fsys, "a/b"); len(p) < len("a/b") || p[len(p)-1] != 'b' {
		t.Fatalf("Path = %q", p)
	}
}
