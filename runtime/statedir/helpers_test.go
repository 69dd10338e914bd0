package statedir_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

const (
	service = "s3"
	store   = "store"
	folder  = "state/api_states/s3"
	current = folder + "/store.state"
)

func rng(seed int) *rand.Rand { return rand.New(rand.NewPCG(uint64(seed), 2)) }

func check(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func open(t testing.TB, fsys vfs.FS, opt statedir.Options) *statedir.Dir {
	t.Helper()
	d, err := statedir.Open(fsys, opt)
	check(t, err)
	return d
}

// encoded remembers what encode has written: crash tests write the same states thousands of times, and
// a statefile.Writer has large buffers.
var encoded sync.Map // encodeArgs to pieces

type encodeArgs struct {
	service, part string
	generation    uint64
	content       string
}

// pieces takes down what is written, write by write.
type pieces [][]byte

func (p *pieces) Write(b []byte) (int, error) {
	*p = append(*p, bytes.Clone(b))
	return len(b), nil
}

// encode writes the state file of one generation, in as many writes as a statefile.Writer makes.
func encode(w io.Writer, service, part string, generation uint64, content string) error {
	args := encodeArgs{service, part, generation, content}
	writes, found := encoded.Load(args)
	if !found {
		var p pieces
		if err := encodeAnew(&p, service, part, generation, content); err != nil {
			return err
		}
		writes = p
		encoded.Store(args, writes)
	}
	for _, b := range writes.(pieces) {
		if _, err := w.Write(b); err != nil {
			return err
		}
	}
	return nil
}

// encodeAnew puts content into one record, padded so that the file takes more than one page.
func encodeAnew(w io.Writer, service, part string, generation uint64, content string) error {
	sw, err := statefile.NewWriter(w, statefile.Header{Service: service, Part: part, Generation: generation,
		Created: time.Date(2026, 11, 22, 17, 42, 3, 0, time.UTC),
		Serializer: statefile.Serializer{Name: "records", Version: "1.0.0",
			Digest: sha256.Sum256([]byte("module")), Schema: 1}})
	if err != nil {
		return err
	}
	var data []byte
	for _, kv := range [][2]string{{"content", content}, {"padding", strings.Repeat(content+";", 1+1000/(len(content)+1))}} {
		data = record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(data), ""), kv[0]), kv[1])
	}
	var scan record.Scanner
	refs, err := scan.Scan(data, nil)
	if err != nil {
		return err
	}
	if err := sw.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
		return err
	}
	_, err = sw.Close()
	return err
}

// save commits content as the next generation and returns its number, also with an error.
func save(d *statedir.Dir, service, part, content string) (generation uint64, err error) {
	p, err := d.Begin(service, part)
	if err != nil {
		return 0, err
	}
	defer p.Abort()
	if err := encode(p, service, part, p.Generation(), content); err != nil {
		return p.Generation(), err
	}
	return p.Generation(), p.Commit()
}

func mustSave(t testing.TB, d *statedir.Dir, content string) uint64 {
	t.Helper()
	g, err := save(d, service, store, content)
	check(t, err)
	return g
}

// contentOf reads an opened generation whole, checking every chunk.
func contentOf(o *statedir.Opened) (string, error) {
	if err := o.File().Verify(context.Background()); err != nil {
		return "", err
	}
	b, err := o.File().Records().ReadBatch()
	if err != nil {
		return "", err
	}
	item := record.NewPull(b.Value(0))
	content := string(item.Text())
	return content, item.Err()
}

// load returns what the newest generation holds; damage found on the way is set aside, as the runtime
// does.
func load(d *statedir.Dir, service, part string) (content string, generation uint64, set []statedir.Quarantine, err error) {
	for {
		o, err := d.OpenNewest(service, part)
		if de := (*statedir.DamagedError)(nil); errors.As(err, &de) {
			return "", 0, append(set, de.Quarantined...), err
		}
		if err != nil {
			return "", 0, set, err
		}
		set = append(set, o.Quarantined...)
		content, err := contentOf(o)
		if errors.Is(err, abi.ErrCorrupt) {
			if q := d.Quarantine(o, err); q.MoveErr == nil {
				set = append(set, q) // else OpenNewest tells of it
			}
			err = o.Close()
			if err == nil {
				continue
			}
		}
		return content, o.Generation, set, errors.Join(err, o.Close())
	}
}

func wantNewest(t testing.TB, d *statedir.Dir, content string, generation uint64) {
	t.Helper()
	got, g, _, err := load(d, service, store)
	if err != nil {
		t.Fatalf("loading: %v; want %q of generation %d", err, content, generation)
	}
	if got != content || generation != 0 && g != generation {
		t.Fatalf("loaded %q of generation %d; want %q of generation %d", got, g, content, generation)
	}
}

// names lists a folder; a missing one is empty.
func names(t testing.TB, fsys vfs.FS, folder string) []string {
	t.Helper()
	entries, err := fsys.ReadDir(folder)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	check(t, err)
	var out []string
	for _, e := range entries {
		out = append(out, e.Name)
	}
	return out
}

func wantNames(t testing.TB, fsys vfs.FS, folder string, want ...string) {
	t.Helper()
	if got := names(t, fsys, folder); strings.Join(got, " ") != strings.Join(want, " ") {
		t.Fatalf("%s has\n  %s\nwant\n  %s", folder, strings.Join(got, "\n  "), strings.Join(want, "\n  "))
	}
}

func readFile(t testing.TB, fsys vfs.FS, name string) []byte {
	t.Helper()
	f, err := fsys.OpenFile(name, vfs.Read)
	check(t, err)
	defer f.Close()
	size, err := f.Size()
	check(t, err)
	b := make([]byte, size)
	_, err = io.ReadFull(io.NewSectionReader(f, 0, size), b)
	check(t, err)
	return b
}

// writeFile puts a file there from outside, durably.
func writeFile(t testing.TB, fsys vfs.FS, name string, b []byte) {
	t.Helper()
	if err := fsys.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile(name, vfs.Create)
	check(t, err)
	_, err = f.Write(b)
	check(t, err)
	check(t, f.Sync())
	check(t, f.Close())
	dir, err := fsys.OpenFile(path.Dir(name), vfs.Read)
	check(t, err)
	check(t, dir.Sync())
	check(t, dir.Close())
}

// damage changes a file: its trailer, so that it does not open, or a chunk, so that it opens and does
// not verify. It returns the bytes the file then has.
func damage(t testing.TB, fsys vfs.FS, name string, trailer bool) []byte {
	t.Helper()
	b := readFile(t, fsys, name)
	if trailer {
		b[len(b)-1] ^= 0x40
	} else {
		i := bytes.Index(b, []byte("padding"))
		if i < 0 {
			t.Fatal("no record to damage")
		}
		b[i] ^= 0x01
	}
	writeFile(t, fsys, name, b)
	return b
}

// logs collects what is logged.
type logs struct{ bytes.Buffer }

func (l *logs) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(&l.Buffer, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// want fails unless a line of the level holds all words.
func (l *logs) want(t testing.TB, level slog.Level, words ...string) {
	t.Helper()
lines:
	for line := range strings.Lines(l.String()) {
		for _, w := range append(words, fmt.Sprintf("level=%v", level)) {
			if !strings.Contains(line, w) {
				continue lines
			}
		}
		return
	}
	t.Errorf("no %v line with %q in the log:\n%s", level, words, l.String())
}

// at is a clock that stands still.
func at(s string) func() time.Time {
	t, err := time.Parse(time.RFC3339, s)
	if err != nil {
		panic(err)
	}
	return func() time.Time { return t }
}
