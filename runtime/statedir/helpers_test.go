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
	"maps"
	"math/rand/v2"
	"path"
	"slices"
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
	module        string
}

// defaultModule is what states are written by unless a test says otherwise.
const defaultModule = "module"

func serializer(module string) statefile.Serializer {
	return statefile.Serializer{Name: "records", Version: "1.0.0", Digest: sha256.Sum256([]byte(module)), Schema: 1}
}

var created = time.Date(2026, 11, 22, 17, 42, 3, 0, time.UTC)

// What a state holds is written "content+a=1+b=2#b=2": a text, keys by name, and which change of a key was
// the last; a state no key of which was ever changed is the text alone.

// changed is content after a change of a key; the value "" removes it.
func changed(content, key, value string) string {
	text, keys, _ := parts(content)
	if keys[key] = value; value == "" {
		delete(keys, key)
	}
	return joined(text, keys, key+"="+value)
}

func parts(content string) (text string, keys map[string]string, last string) {
	content, last, _ = strings.Cut(content, "#")
	keys = map[string]string{}
	for i, s := range strings.Split(content, "+") {
		if i == 0 {
			text = s
			continue
		}
		key, value, _ := strings.Cut(s, "=")
		keys[key] = value
	}
	return text, keys, last
}

func joined(text string, keys map[string]string, last string) string {
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		text += "+" + key + "=" + keys[key]
	}
	if last != "" {
		text += "#" + last
	}
	return text
}

// pieces takes down what is written, write by write.
type pieces [][]byte

func (p *pieces) Write(b []byte) (int, error) {
	*p = append(*p, bytes.Clone(b))
	return len(b), nil
}

// encode writes the state file of one generation, in as many writes as a statefile.Writer makes.
func encode(w io.Writer, service, part string, generation uint64, content string) error {
	return encodeBy(w, defaultModule, service, part, generation, content)
}

func encodeBy(w io.Writer, module, service, part string, generation uint64, content string) error {
	args := encodeArgs{service, part, generation, content, module}
	writes, found := encoded.Load(args)
	if !found {
		var p pieces
		if err := encodeAnew(&p, module, service, part, generation, content); err != nil {
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

// padded is a text repeated so often that it takes more than one page.
func padded(s string) string { return strings.Repeat(s+";", 1+1000/(len(s)+1)) }

func appendPair(data []byte, key, value string) []byte {
	return record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(data), ""), key), value)
}

func writeRecords(sw *statefile.Writer, data []byte) error {
	scan := record.Scanner{Tombstones: true}
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

// encodeAnew makes records of content, its text padded so that the file takes more than one page.
func encodeAnew(w io.Writer, module, service, part string, generation uint64, content string) error {
	sw, err := statefile.NewWriter(w, statefile.Header{Service: service, Part: part, Generation: generation,
		Created: created, Serializer: serializer(module)})
	if err != nil {
		return err
	}
	text, keys, last := parts(content)
	data := appendPair(appendPair(nil, "content", text), "padding", padded(text))
	for _, key := range slices.Sorted(maps.Keys(keys)) {
		data = appendPair(data, "key "+key, keys[key])
	}
	if last != "" {
		data = appendPair(data, "last", padded(last))
	}
	return writeRecords(sw, data)
}

// encodeDelta writes the change of a key of content; the value "" removes it.
func encodeDelta(w io.Writer, t statefile.Tail, generation uint64, content, key, value string) error {
	sw, err := statefile.NewDeltaWriter(w, t, generation, created)
	if err != nil {
		return err
	}
	data := appendPair(nil, "last", padded(key+"="+value))
	if value == "" {
		data = record.AppendText(record.AppendText(record.AppendTombstone(data), ""), "key "+key)
	} else {
		data = appendPair(data, "key "+key, value)
	}
	_, before, lastBefore := parts(content)
	_, after, _ := parts(changed(content, key, value))
	if sw.Grow(int64(len(after) - len(before))); lastBefore == "" {
		sw.Grow(1)
	}
	return writeRecords(sw, data)
}

// save commits content as the next generation and returns its number, also with an error.
func save(d *statedir.Dir, service, part, content string) (generation uint64, err error) {
	return saveBy(d, defaultModule, service, part, content)
}

func saveBy(d *statedir.Dir, module, service, part, content string) (generation uint64, err error) {
	p, err := d.Begin(service, part)
	if err != nil {
		return 0, err
	}
	defer p.Abort()
	if err := encodeBy(p, module, service, part, p.Generation(), content); err != nil {
		return p.Generation(), err
	}
	return p.Generation(), p.Commit()
}

// errFull: a change can not be saved as a delta.
var errFull = errors.New("it must be saved in full")

// saveDelta commits the change of a key of generation base, which holds content, as a delta and returns
// its number, also with an error; errFull if that is refused.
func saveDelta(d *statedir.Dir, base uint64, content, key, value string) (generation uint64, err error) {
	p, ok, err := d.BeginDelta(service, store, base, serializer(defaultModule))
	if err != nil {
		return 0, err
	}
	if !ok {
		return 0, errFull
	}
	defer p.Abort()
	if err := encodeDelta(p, p.Tail(), p.Generation(), content, key, value); err != nil {
		return p.Generation(), err
	}
	return p.Generation(), p.Commit()
}

// mustSaveDelta changes a key of what the newest generation holds and returns what the new one does.
func mustSaveDelta(t testing.TB, d *statedir.Dir, key, value string) (content string, generation uint64) {
	t.Helper()
	content, base, _, err := load(d, service, store)
	check(t, err)
	g, err := saveDelta(d, base, content, key, value)
	check(t, err)
	return changed(content, key, value), g
}

func mustSave(t testing.TB, d *statedir.Dir, content string) uint64 {
	t.Helper()
	g, err := save(d, service, store, content)
	check(t, err)
	return g
}

// contentOf reads an opened generation whole, checking every chunk, and that the records belong together.
func contentOf(o *statedir.Opened) (string, error) {
	if err := o.File().Verify(context.Background()); err != nil {
		return "", err
	}
	var text, padding, last string
	keys := map[string]string{}
	records := o.File().Records()
	for {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return "", err
		}
		for i := range b.Len() {
			k, _ := b.Key(i)
			item := record.NewPull(b.Value(i))
			value := string(item.Text())
			if err := item.Err(); err != nil {
				return "", err
			}
			key, isKey := strings.CutPrefix(string(k), "key ")
			switch {
			case isKey:
				keys[key] = value
			case key == "content":
				text = value
			case key == "padding":
				padding = value
			case key == "last":
				last, _, _ = strings.Cut(value, ";")
				if value != padded(last) {
					return "", fmt.Errorf("the last change is said to be %q", value)
				}
			}
		}
	}
	if padding != padded(text) {
		return "", fmt.Errorf("the text is %q, the padding %q", text, padding)
	}
	return joined(text, keys, last), nil
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
