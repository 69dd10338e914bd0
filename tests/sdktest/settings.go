// Package sdktest is what the serializer `settings`, the example of every SDK, must do in package host,
// whatever language it is written in: the same records, byte for byte, and the same errors.
//
// Its native state is lines `name=value`, each ended by a newline, in UTF-8, the names strictly
// ascending byte by byte. Each line is a record ["", name, value] of texts. [Settings] is the whole
// suite, [LoadOrder] and [LongNames] are for modules that check for themselves what is in their names,
// [LongLines] for those that take lines of any length, [Speed] measures.
package sdktest

import (
	"bytes"
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// badLine is the words of every error about a line.
const badLine = "not a line of name=value in UTF-8, sorted by name"

//go:embed fixtures
var fixtures embed.FS

// Fixtures checks that the folder dir holds the fixtures that the example has in every language, and
// nothing else.
func Fixtures(t *testing.T, dir string) {
	t.Helper()
	want := states(t)
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if _, ok := want[e.Name()]; !ok {
			t.Errorf("%s is in no other language's example; tests/sdktest/fixtures has those of all", filepath.Join(dir, e.Name()))
		}
	}
	for name, content := range want {
		if got, err := os.ReadFile(filepath.Join(dir, name)); err != nil || !bytes.Equal(got, content) {
			t.Errorf("%s is not as in tests/sdktest/fixtures (%v)", filepath.Join(dir, name), err)
		}
	}
}

// states are the fixtures by file name.
func states(t testing.TB) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	err := fs.WalkDir(fixtures, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		all[d.Name()], err = fs.ReadFile(fixtures, name)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// recordsOf is what save must make of a native state; bad is the offset of its first line that is none,
// or -1.
func recordsOf(native []byte) (records []byte, bad int) {
	last, first := "", true
	for at := 0; at < len(native); {
		line, _, ended := bytes.Cut(native[at:], []byte("\n"))
		name, value, ok := strings.Cut(string(line), "=")
		if !ended || !ok || !first && name <= last || !utf8.Valid(line) {
			return nil, at
		}
		records = appendRecord(records, name, value)
		last, first = name, false
		at += len(line) + 1
	}
	return records, -1
}

func appendRecord(dst []byte, name, value string) []byte {
	return record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(dst), ""), name), value)
}

// module is one module in one host.
type module struct {
	*host.Module
	call  abi.Call
	costs *Costs
}

// compile makes a host of its own for a module, which gives input in pieces of at most so many bytes; 0
// means as many as the module has room for. Compiled code is kept in the folder cache.
func compile(t testing.TB, wasm []byte, cache string, piece int) *module {
	t.Helper()
	m := &module{call: abi.Call{Service: "shop", Part: "store", Schema: 1, Time: 1_800_000_000_000_000_000}}
	m.Module, m.costs = Compile(t, "settings", wasm, host.Config{CacheDir: cache, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), InputPiece: piece})
	return m
}

func (m *module) save(native []byte) ([]byte, error) {
	var out Records
	err := m.Save(context.Background(), m.call, bytes.NewReader(native), &out)
	return out.Bytes(), err
}

func (m *module) load(records []byte) ([]byte, error) {
	var out bytes.Buffer
	err := m.Load(context.Background(), m.call, record.NewReader(bytes.NewReader(records), 0), &out)
	return out.Bytes(), err
}

// unchecked is a record.Source of one batch of bytes as they are, be they records or not.
type unchecked struct{ data []byte }

func (s *unchecked) ReadBatch() (*record.Batch, error) {
	if len(s.data) == 0 {
		return nil, io.EOF
	}
	b := &record.Batch{Data: s.data, Refs: []record.Ref{{End: len(s.data)}}}
	s.data = nil
	return b, nil
}

// mustCheckRecords loads bytes that nothing but the module itself checks. If they are no records, it is
// the module that must say so; if they are, it may take them or refuse them, but not crash.
func (m *module) mustCheckRecords(t *testing.T, what string, data []byte) {
	t.Helper()
	var out bytes.Buffer
	err := m.Load(context.Background(), m.call, &unchecked{data}, &out)
	var scan record.Scanner
	_, unsound := scan.Scan(data, nil)
	if err == nil && unsound == nil {
		return
	}
	var ge *host.GuestError
	if !errors.As(err, &ge) || ge.Code != abi.CodeCorrupt && ge.Code != abi.CodeTooLarge || ge.Failure.Offset > uint64(len(data)) {
		t.Errorf("%s (%v): load gives %s, %v; want code %d or %d, and an offset", what, unsound, shown(out.Bytes()), err, abi.CodeCorrupt, abi.CodeTooLarge)
	}
}

// mustKeep saves and loads a sound state, and compares with what must come out.
func (m *module) mustKeep(t *testing.T, what string, native []byte) {
	t.Helper()
	want, bad := recordsOf(native)
	if bad >= 0 {
		t.Fatalf("%s: not a state of settings at %d", what, bad)
	}
	records, err := m.save(native)
	if err != nil || !bytes.Equal(records, want) {
		t.Errorf("%s: save gives %s, %v; want %s", what, shown(records), err, shown(want))
		return
	}
	if back, err := m.load(records); err != nil || !bytes.Equal(back, native) {
		t.Errorf("%s: load gives %s, %v; want %s", what, shown(back), err, shown(native))
	}
}

// mustDoAsTheReference saves what may be sound or not.
func (m *module) mustDoAsTheReference(t *testing.T, what string, native []byte) {
	t.Helper()
	want, bad := recordsOf(native)
	got, err := m.save(native)
	if bad < 0 {
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: save of %s gives %s, %v; want %s", what, shown(native), shown(got), err, shown(want))
		}
		return
	}
	var ge *host.GuestError
	if !errors.As(err, &ge) || ge.Code != abi.CodeCorrupt || ge.Failure.Offset != uint64(bad) || ge.Failure.Msg != badLine {
		t.Errorf("%s: save of %s gives %s, %v; want code %d, offset %d, %q", what, shown(native), shown(got), err, abi.CodeCorrupt, bad, badLine)
	}
}

// shown is bytes as a person can read them in a test's output.
func shown(b []byte) string {
	if len(b) <= 300 {
		return fmt.Sprintf("%q", b)
	}
	return fmt.Sprintf("%q... (%d bytes)", b[:300], len(b))
}

// Settings is the suite: it runs the module wasm in package host, and fails t where it does other than
// settings must.
func Settings(t *testing.T, wasm []byte) {
	cache := filepath.Join(t.TempDir(), "cache")
	m := compile(t, wasm, cache, 0)
	slow := compile(t, wasm, cache, 1)

	t.Run("descriptor", func(t *testing.T) {
		d := m.Descriptor()
		slices.Sort(d.Operations)
		if d.Name != "settings" || d.Version != "1.0.0" || d.Schema != 1 || !slices.Equal(d.Reads, []uint64{1}) || d.Media != "text/plain" ||
			!slices.Equal(d.Operations, []string{abi.OpLoad, abi.OpSave}) || d.Ordered || !d.Canonical {
			t.Errorf("descriptor %+v", d)
		}
	})

	all := states(t)
	t.Run("fixtures", func(t *testing.T) {
		for name, native := range all {
			for _, piece := range []struct {
				of string
				m  *module
			}{{"", m}, {" again", m}, {" in pieces of 1", slow}, {" in pieces of 7", compile(t, wasm, cache, 7)}} {
				piece.m.mustKeep(t, name+piece.of, native)
			}
		}
	})
	t.Run("interpreter", func(t *testing.T) {
		run := interpreter(t, wasm)
		for _, name := range []string{"small.txt", "unicode.txt"} {
			want, _ := recordsOf(all[name])
			if got, err := run(abi.ExportSave, all[name]); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%s: save gives %s, %v; want %s", name, shown(got), err, shown(want))
			}
			if got, err := run(abi.ExportLoad, want); err != nil || !bytes.Equal(got, all[name]) {
				t.Errorf("%s: load gives %s, %v; want %s", name, shown(got), err, shown(all[name]))
			}
		}
	})
	t.Run("lines", func(t *testing.T) {
		for _, native := range []string{
			"=\n", "=value\na=\n", "a=\nb=\n", "a==\n", "a= = =\n", "a\x00=\x00\n", "a=\r\n", "a=1\naa=1\nab=1\nb=1\n", "a=\t\né=ü\n", "\U0010ffff=\U00010000\n",
			"\n", "a\n", "a", "=", "a=", "a=1", "a=1\nb=2", "a=1\n\n", "a=1\nb\nc=3\n", "b=1\na=2\n", "a=1\na=2\n", "=1\n=2\n", "a=1\n=2\n",
			"b=1\nb=2\n", "aa=1\na=2\n", "a=1\nb=1\nab=1\n", "é=1\nz=2\n",
			// No UTF-8: a byte alone, a lead alone, too long a form, a half of a pair, beyond the last.
			"a=\xff\n", "a=1\n\x80=2\n", "a=\xc3\n", "a=\xc0\x80\n", "a=\xe0\x80\x80\n", "a=\xed\xa0\x80\n", "a=\xf0\x80\x80\x80\n", "a=\xf4\x90\x80\x80\n",
			"a=\xe2\x82\n", "a=\xf0\x9f\x98\n", "a\xc3=\xa9\n",
		} {
			m.mustDoAsTheReference(t, "a line", []byte(native))
			slow.mustDoAsTheReference(t, "a line in pieces of 1", []byte(native))
		}
	})
	t.Run("cut", func(t *testing.T) {
		for _, name := range []string{"small.txt", "unicode.txt"} {
			for cut := range all[name] {
				m.mustDoAsTheReference(t, fmt.Sprintf("%s cut at %d", name, cut), all[name][:cut])
			}
		}
	})
	masks := []byte{0x01, 0x10, 0x80}
	if testing.Short() {
		masks = masks[2:]
	}
	t.Run("flipped", func(t *testing.T) {
		for _, name := range []string{"small.txt", "unicode.txt"} {
			for at := range all[name] {
				for _, mask := range masks {
					native := bytes.Clone(all[name])
					native[at] ^= mask
					m.mustDoAsTheReference(t, fmt.Sprintf("%s with byte %d xor %#x", name, at, mask), native)
				}
			}
		}
	})
	t.Run("records cut and flipped", func(t *testing.T) {
		records, _ := recordsOf(all["unicode.txt"])
		for at := range records {
			if _, err := m.load(records[:at]); at > 0 && !boundary(records, at) && !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("records cut at %d: %v", at, err)
			}
			for _, m := range []*module{m, slow} {
				m.mustCheckRecords(t, fmt.Sprintf("records cut at %d", at), records[:at])
			}
			for _, mask := range masks {
				flipped := bytes.Clone(records)
				flipped[at] ^= mask
				m.mustCheckRecords(t, fmt.Sprintf("records with byte %d xor %#x", at, mask), flipped)
			}
		}
	})
	t.Run("records of another serializer", func(t *testing.T) { foreign(t, m, slow) })
	t.Run("setting", func(t *testing.T) {
		for _, input := range []string{"", "a=1\n"} {
			with := &module{Module: m.Module, call: m.call}
			with.call.Settings = map[string]any{"depth": 2}
			records, _ := recordsOf([]byte(input))
			_, saved := with.save([]byte(input))
			_, loaded := with.load(records)
			for op, err := range map[string]error{"save": saved, "load": loaded} {
				var ge *host.GuestError
				if !errors.As(err, &ge) || ge.Code != abi.CodeUnsupported || ge.Failure.Path != "settings.depth" {
					t.Errorf("%s of %q: %v; want code %d and path settings.depth", op, input, err, abi.CodeUnsupported)
				}
			}
		}
	})
	t.Run("long", func(t *testing.T) { long(t, m, slow) })
	t.Run("memory", func(t *testing.T) {
		size := 20 << 20
		if testing.Short() {
			size = 2 << 20
		}
		m.mustKeep(t, "many lines", lines(size))
		for _, op := range []string{abi.OpSave, abi.OpLoad} {
			mem := m.costs.Of(op).Memory
			t.Logf("%s of %d bytes took %d bytes of memory", op, size, mem)
			if mem <= 0 || mem > 16<<20 {
				t.Errorf("%s of %d bytes took %d bytes of memory; want at most %d", op, size, mem, 16<<20)
			}
		}
	})
}

// LoadOrder is for a module whose load refuses names that do not ascend, as its save does.
func LoadOrder(t *testing.T, wasm []byte) {
	t.Helper()
	cache := filepath.Join(t.TempDir(), "cache")
	long := strings.Repeat("n", record.MaxKeyBytes)
	for _, piece := range []int{0, 1} {
		m := compile(t, wasm, cache, piece)
		for _, names := range [][]string{
			{"a", "a"}, {"", ""}, {"a", ""}, {"b", "a"}, {"aa", "a"}, {"b", "ab"}, {"é", "z"}, {"\U00010000", "\uffff"},
			{"a", "b", "a"}, {"a", "c", "b"}, {"", "a", "b", "b"}, {long, long}, {long, long[1:]},
		} {
			var records []byte
			bad := 0
			for _, name := range names {
				bad = len(records)
				records = appendRecord(records, name, "value")
			}
			var ge *host.GuestError
			// The last of them is the one that is out of order: what is before it must do.
			if back, err := m.load(records[:bad]); err != nil {
				t.Errorf("names %.100q without the last: load gives %s, %v", names, shown(back), err)
			}
			if back, err := m.load(records); !errors.As(err, &ge) || ge.Code != abi.CodeCorrupt || ge.Failure.Offset != uint64(bad) {
				t.Errorf("names %.100q: load gives %s, %v; want code %d, offset %d", names, shown(back), err, abi.CodeCorrupt, bad)
			}
		}
	}
}

// LongNames is for a module whose save refuses a name that is longer than a key may be. The host refuses
// such a record as well, but does not know which line it is.
func LongNames(t *testing.T, wasm []byte) {
	t.Helper()
	cache := filepath.Join(t.TempDir(), "cache")
	const before = "0=before\n"
	for _, piece := range []int{0, 1000} {
		m := compile(t, wasm, cache, piece)
		for _, size := range []int{record.MaxKeyBytes + 1, 100_000} {
			records, err := m.save(fmt.Appendf(nil, "%s%s=1\n", before, strings.Repeat("n", size)))
			var ge *host.GuestError
			if !errors.As(err, &ge) || ge.Code != abi.CodeTooLarge || ge.Failure.Offset != uint64(len(before)) {
				t.Errorf("a name of %d bytes: save gives %s, %v; want code %d, offset %d", size, shown(records), err, abi.CodeTooLarge, len(before))
			}
		}
	}
}

// boundary tells whether a record ends at a place.
func boundary(records []byte, at int) bool {
	var scan record.Scanner
	_, n, err := scan.ScanPrefix(records[:at], nil)
	return err == nil && n == at
}

// foreign gives load sound records that settings never wrote.
func foreign(t *testing.T, m, slow *module) {
	t.Helper()
	good := appendRecord(nil, "a", "1")
	begun := func() []byte {
		return record.AppendText(record.AppendText(record.AppendRecord(bytes.Clone(good)), ""), "b")
	}
	for what, records := range map[string][]byte{
		"a number":               record.AppendUint(begun(), 1),
		"a negative number":      record.AppendInt(begun(), -1),
		"a byte string":          record.AppendBytes(begun(), "2"),
		"an empty byte string":   record.AppendBytes(begun(), ""),
		"an array of a text":     record.AppendText(record.AppendArray(begun(), 1), "2"),
		"an empty map":           record.AppendMap(begun(), 0),
		"a tagged text":          record.AppendText(record.AppendTag(begun(), 1), "2"),
		"true":                   record.AppendBool(begun(), true),
		"null":                   record.AppendNull(begun()),
		"a float":                append(begun(), 0xf9, 0x3c, 0x00),
		"text that is not UTF-8": record.AppendText(begun(), "a\xff"),
		"text of half a pair":    record.AppendText(begun(), "\xed\xa0\x80"),
		"a long array":           append(record.AppendArray(begun(), 70_000), make([]byte, 70_000)...),
		"a key of bytes":         record.AppendText(record.AppendBytes(record.AppendText(record.AppendRecord(bytes.Clone(good)), ""), "b"), "2"),
	} {
		end := len(records)
		records = appendRecord(records, "c", "3")
		for _, m := range []*module{m, slow} {
			var ge *host.GuestError
			back, err := m.load(records)
			if !errors.As(err, &ge) || ge.Code != abi.CodeCorrupt || ge.Failure.Offset < uint64(len(good)) || ge.Failure.Offset > uint64(end) {
				t.Errorf("%s: load gives %s, %v; want code %d, offset %d to %d", what, shown(back), err, abi.CodeCorrupt, len(good), end)
			}
		}
	}
}

// long tries lines about the limits of keys and of buffers.
func long(t *testing.T, m, slow *module) {
	t.Helper()
	at := func(name, value int) []byte {
		return fmt.Appendf(nil, "0=before\n1%s=%s\n2=after\n", strings.Repeat("n", max(name-1, 0)), strings.Repeat("v", value))
	}
	for _, c := range []struct{ name, value int }{
		{1, 23}, {1, 24}, {23, 255}, {24, 256}, {255, 65534}, {256, 65535}, {257, 65536}, {65535, 1}, {65536, 1000},
	} {
		m.mustKeep(t, fmt.Sprintf("a name of %d bytes and a value of %d", c.name, c.value), at(c.name, c.value))
	}
	slow.mustKeep(t, "a name and a value of 64 KiB less something, in pieces of 1", at(65_000, 65_000))
	// By whom it is refused, the module or the host, is for [LongNames].
	if records, err := m.save(at(record.MaxKeyBytes+1, 1)); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a name of %d bytes becomes %s, %v; want %v", record.MaxKeyBytes+1, shown(records), err, abi.ErrTooLarge)
	}
	// A module may bound the line that it takes. Then it says so, and where.
	for _, size := range []int{100_000, 131_000, 1 << 20, 5 << 20} {
		native := at(10, size)
		records, err := m.save(native)
		if err == nil {
			m.mustKeep(t, fmt.Sprintf("a value of %d bytes", size), native)
			continue
		}
		line := uint64(len("0=before\n"))
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Code != abi.CodeTooLarge || ge.Failure.Offset != line {
			t.Errorf("a value of %d bytes: save gives %s, %v; want no error, or code %d with offset %d", size, shown(records), err, abi.CodeTooLarge, line)
		}
		records, _ = recordsOf(native)
		first := uint64(len(appendRecord(nil, "0", "before")))
		back, err := m.load(records)
		if !errors.As(err, &ge) || ge.Code != abi.CodeTooLarge || ge.Failure.Offset < first || ge.Failure.Offset > uint64(len(records)) {
			t.Errorf("a value of %d bytes: load gives %s, %v; want code %d with offset %d or more, as for save", size, shown(back), err, abi.CodeTooLarge, first)
		}
	}
}

// LongLines is for a module that takes lines of at least longest bytes: it tries them, whole and in
// pieces of every kind, and records of that length.
func LongLines(t *testing.T, wasm []byte, longest int) {
	t.Helper()
	cache := filepath.Join(t.TempDir(), "cache")
	for _, piece := range []int{0, 1000, 65536} {
		m := compile(t, wasm, cache, piece)
		for _, size := range []int{65536, 1_000_000, longest} {
			rest := strings.Repeat("v", size-len("a=\n"))
			m.mustKeep(t, fmt.Sprintf("lines of %d bytes in pieces of %d", size, piece), fmt.Appendf(nil, "a=%s\nb=\nc=%s\n", rest, rest))
		}
	}
}

// lines is a state of about so many bytes, as a settings file of a service looks.
func lines(size int) []byte {
	out := make([]byte, 0, size+100)
	for i := 0; len(out) < size; i++ {
		out = fmt.Appendf(out, "service.%08d.endpoint=https://host-%d.example.org/api/v1?größe=%d\n", i, i%97, i*31)
	}
	return out
}

// discard is a record.Sink that keeps nothing.
type discard struct{}

func (discard) WriteBatch(*record.Batch) error { return nil }

// Speed measures save and load of a state of 10 MB, and what it takes to begin a call.
func Speed(b *testing.B, wasm []byte) {
	ctx := context.Background()
	b.Logf("%d bytes of module", len(wasm))
	native := lines(10_000_000)
	records, bad := recordsOf(native)
	if bad >= 0 {
		b.Fatal(bad)
	}
	b.Run("compile", func(b *testing.B) {
		for b.Loop() {
			h, err := host.New(ctx, host.Config{Logger: slog.New(slog.DiscardHandler)})
			if err == nil {
				_, err = h.Compile(ctx, "settings", wasm)
			}
			if err != nil {
				b.Fatal(err)
			}
			b.StopTimer()
			_ = h.Close(ctx)
			b.StartTimer()
		}
	})
	m := compile(b, wasm, filepath.Join(b.TempDir(), "cache"), 0)
	b.Run("call", func(b *testing.B) {
		for b.Loop() {
			if err := m.Save(ctx, m.call, bytes.NewReader(nil), discard{}); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("save", func(b *testing.B) {
		b.SetBytes(int64(len(native)))
		for b.Loop() {
			if err := m.Save(ctx, m.call, bytes.NewReader(native), discard{}); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(m.costs.Of(abi.OpSave).Memory)/(1<<20), "guest-MiB")
	})
	b.Run("load", func(b *testing.B) {
		b.SetBytes(int64(len(native)))
		for b.Loop() {
			if err := m.Load(ctx, m.call, record.NewReader(bytes.NewReader(records), 0), io.Discard); err != nil {
				b.Fatal(err)
			}
		}
		b.ReportMetric(float64(m.costs.Of(abi.OpLoad).Memory)/(1<<20), "guest-MiB")
	})
}
