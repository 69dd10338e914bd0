package archive_test

import (
	"archive/zip"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

func TestLimits(t *testing.T) {
	file := write(t, small(t), archive.WriteOptions{})
	all := files(t, file)
	var total int64
	for _, content := range all {
		total += int64(len(content))
	}
	large := made(t, []string{"json"}, state(t, "a", "store", "json", "", entry{"", "k", strings.Repeat("0123456789", 1000)}))
	for _, c := range []struct {
		name string
		file []byte
		at   archive.Limits // the least that it passes
		less archive.Limits
		says string
	}{
		{"file", file, archive.Limits{FileBytes: int64(len(file))}, archive.Limits{FileBytes: int64(len(file)) - 1}, "a snapshot file of"},
		{"entries", file, archive.Limits{Entries: int64(len(all))}, archive.Limits{Entries: int64(len(all)) - 1}, "7 files"},
		{"manifest", file, archive.Limits{ManifestBytes: int64(len(all["manifest.json"]))}, archive.Limits{ManifestBytes: int64(len(all["manifest.json"])) - 1}, "manifest.json has"},
		{"total", file, archive.Limits{TotalBytes: total}, archive.Limits{TotalBytes: total - 1}, "uncompressed"},
		{"states", write(t, large, archive.WriteOptions{}), archive.Limits{TotalBytes: 20_000}, archive.Limits{TotalBytes: 10_000}, "uncompressed"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := open(t, c.file, archive.OpenOptions{Limits: c.at}); err != nil {
				t.Errorf("%+v: %v", c.at, err)
			}
			if _, err := open(t, c.file, archive.OpenOptions{Limits: c.less}); !errors.Is(err, abi.ErrTooLarge) || errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%+v: %v; want one that says %q", c.less, err, c.says)
			}
		})
	}
	for _, l := range []archive.Limits{
		{FileBytes: 1}, {FileBytes: archive.MaxFileBytes + 1}, {Entries: 1}, {Entries: archive.MaxEntries + 1}, {ManifestBytes: 1}, {ManifestBytes: archive.MaxManifestBytes + 1},
		{ModuleBytes: 1}, {ModuleBytes: archive.MaxModuleBytes + 1}, {TotalBytes: -1}, {TotalBytes: archive.MaxTotalBytes + 1}, {Ratio: 1}, {Ratio: archive.MaxRatio + 1},
	} {
		if _, err := l.Check(); err == nil {
			t.Errorf("%+v passes", l)
		}
		if _, err := open(t, file, archive.OpenOptions{Limits: l}); err == nil || errors.Is(err, abi.ErrTooLarge) {
			t.Errorf("%+v: %v", l, err)
		}
	}
	if l, err := (archive.Limits{}).Check(); err != nil || l.Ratio != archive.DefaultRatio || l.FileBytes != archive.DefaultFileBytes {
		t.Errorf("%+v: %v", l, err)
	}
	// A module, whose limit is below what others may have.
	wide := forged(t, small(t), func(f map[string]string, m map[string]any) {
		for name := range f {
			if strings.HasPrefix(name, "modules/") {
				f[name] += strings.Repeat("x", 2000)
			}
		}
		for _, c := range m["modules"].([]any) {
			entry := c.(map[string]any)
			entry["size"] = entry["size"].(float64) + 2000
		}
	}, true)
	if _, err := open(t, wide, archive.OpenOptions{Limits: archive.Limits{ModuleBytes: 1024}}); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "modules/") {
		t.Errorf("a large module: %v", err)
	}
}

// zeros writes n of them.
func zeros(t testing.TB, w io.Writer, n int64) {
	t.Helper()
	if _, err := io.CopyN(w, zeroReader{}, n); err != nil {
		t.Fatal(err)
	}
}

type zeroReader struct{}

func (zeroReader) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

// TestBombs: small files that say, or do not say, that they become large ones.
func TestBombs(t *testing.T) {
	var bomb bytes.Buffer
	z := zip.NewWriter(&bomb)
	for name, content := range files(t, write(t, small(t), archive.WriteOptions{})) {
		w, err := z.Create(name)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(w, content)
		if name == "state/api_states/orders/store.state" {
			zeros(t, w, 20<<20)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	file := bomb.Bytes()
	if len(file) > 1<<20 {
		t.Fatalf("the bomb has %d bytes", len(file))
	}
	sized := func(by uint32) []byte {
		file := bytes.Clone(file)
		for _, at := range entriesOf(t, file) {
			if size := binary.LittleEndian.Uint32(file[at+24:]); size > 20<<20 {
				binary.LittleEndian.PutUint32(file[at+24:], size+by)
			}
		}
		return file
	}
	if _, err := open(t, sized(300<<20), archive.OpenOptions{}); !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), "100 to 1") {
		t.Errorf("a bomb that says so: %v", err)
	}
	// The directory says that there is nearly nothing in it.
	if _, err := open(t, sized(1<<32-20<<20), archive.OpenOptions{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a bomb that does not say so: %v", err)
	}
	// Many names for the same bytes.
	over := bytes.Clone(file)
	for _, at := range entriesOf(t, over) {
		binary.LittleEndian.PutUint32(over[at+20:], uint32(len(over)/2))
	}
	if _, err := open(t, over, archive.OpenOptions{}); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "than it has itself") {
		t.Errorf("files that lie over each other: %v", err)
	}
}

// entriesOf are where in an archive the entries of its directory begin.
func entriesOf(t testing.TB, file []byte) (all []int) {
	t.Helper()
	end := file[len(file)-22:]
	at := int(binary.LittleEndian.Uint32(end[16:]))
	for range binary.LittleEndian.Uint16(end[10:]) {
		all = append(all, at)
		at += 46 + int(binary.LittleEndian.Uint16(file[at+28:])) + int(binary.LittleEndian.Uint16(file[at+30:])) + int(binary.LittleEndian.Uint16(file[at+32:]))
	}
	return all
}

// TestEndsThatLie: the numbers that package zip allocates by, of 32 and of 64 bits.
func TestEndsThatLie(t *testing.T) {
	file := write(t, small(t), archive.WriteOptions{})
	directory := uint64(binary.LittleEndian.Uint32(file[len(file)-6:]))
	ends := uint64(len(file) - 22)
	with64 := func(change func(end64, locator, end []byte)) []byte {
		end64, locator, end := make([]byte, 56), make([]byte, 20), bytes.Clone(file[ends:])
		copy(end64, "PK\x06\x06\x2c")
		binary.LittleEndian.PutUint64(end64[24:], 7)
		binary.LittleEndian.PutUint64(end64[32:], 7)
		binary.LittleEndian.PutUint64(end64[40:], ends-directory)
		binary.LittleEndian.PutUint64(end64[48:], directory)
		copy(locator, "PK\x06\x07")
		binary.LittleEndian.PutUint64(locator[8:], ends)
		locator[16] = 1
		copy(end[10:20], bytes.Repeat([]byte{0xff}, 10))
		change(end64, locator, end)
		return bytes.Join([][]byte{file[:ends], end64, locator, end}, nil)
	}
	for _, c := range []struct {
		name string
		file []byte
		want error
		says string
	}{
		{"64 bits", with64(func(_, _, _ []byte) {}), nil, ""},
		{"billions of files", with64(func(e, _, _ []byte) { binary.LittleEndian.PutUint64(e[32:], 1<<40) }), abi.ErrTooLarge, "files"},
		{"a large directory", with64(func(e, _, _ []byte) { binary.LittleEndian.PutUint64(e[40:], 1<<40) }), abi.ErrTooLarge, "directory"},
		{"a directory elsewhere", with64(func(e, _, _ []byte) { binary.LittleEndian.PutUint64(e[48:], 1) }), abi.ErrCorrupt, "not where it says"},
		{"a directory nowhere", with64(func(e, _, _ []byte) { binary.LittleEndian.PutUint64(e[48:], 1<<63) }), abi.ErrCorrupt, "not where it says"},
		{"an end elsewhere", with64(func(_, l, _ []byte) { l[8]++ }), abi.ErrCorrupt, "not where it says"},
		{"an end nowhere", with64(func(_, l, _ []byte) { l[15] = 0xff }), abi.ErrCorrupt, "not where it says"},
		{"no end", with64(func(e, _, _ []byte) { e[0] = 'p' }), abi.ErrCorrupt, "not where it says"},
		{"two ends", with64(func(_, _, end []byte) { end[10] = 7 }), abi.ErrCorrupt, "not where it says"},
		{"another number of files", with64(func(e, _, _ []byte) { e[32] = 8 }), abi.ErrCorrupt, "not a valid zip archive"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := open(t, c.file, archive.OpenOptions{}); !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %v that says %q", err, c.want, c.says)
			}
		})
	}
}

var errBroken = errors.New("broken (injected)")

// broken is a file that cannot be read from a place on.
type broken struct {
	file []byte
	from int64
}

func (b broken) ReadAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > b.from {
		return 0, errBroken
	}
	return bytes.NewReader(b.file).ReadAt(p, off)
}

// once fails when it has been read so often.
type once struct {
	r     io.ReaderAt
	reads *int
}

func (o once) ReadAt(p []byte, off int64) (int, error) {
	if *o.reads--; *o.reads < 0 {
		return 0, errBroken
	}
	return o.r.ReadAt(p, off)
}

// TestErrorsOfTheFile are not taken for damage, whenever they come; nothing is left behind.
func TestErrorsOfTheFile(t *testing.T) {
	for _, lock := range []seal.Lock{{}, {Passphrase: "x", WorkFactor: 1}} {
		file := write(t, small(t), archive.WriteOptions{Lock: lock})
		o := archive.OpenOptions{Key: seal.Key{Passphrase: "x"}, Folder: t.TempDir()}
		for n := 0; ; n++ {
			reads := n
			s, err := archive.Open(t.Context(), once{bytes.NewReader(file), &reads}, int64(len(file)), o)
			if err == nil {
				_ = s.Close()
				if n < 3 {
					t.Errorf("%d reads were enough", n)
				}
				break
			}
			if !errors.Is(err, errBroken) || errors.Is(err, abi.ErrCorrupt) {
				t.Fatalf("the read after %d fails: %v", n, err)
			}
		}
		if _, err := archive.Open(t.Context(), broken{file, int64(len(file)) - 1}, int64(len(file)), o); !errors.Is(err, errBroken) || errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("the end cannot be read: %v", err)
		}
		if left, err := os.ReadDir(o.Folder); err != nil || len(left) > 0 {
			t.Errorf("%v are left: %v", left, err)
		}
	}
	file := write(t, small(t), archive.WriteOptions{})
	if _, err := archive.Open(t.Context(), bytes.NewReader(file), int64(len(file))+10, archive.OpenOptions{}); err == nil {
		t.Error("a file that is smaller than was said is opened")
	}
}

func TestCancelled(t *testing.T) {
	file := write(t, small(t), archive.WriteOptions{})
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := archive.Write(ctx, io.Discard, small(t), archive.WriteOptions{}); !errors.Is(err, context.Canceled) {
		t.Errorf("write: %v", err)
	}
	if _, err := archive.Open(ctx, bytes.NewReader(file), int64(len(file)), archive.OpenOptions{}); !errors.Is(err, context.Canceled) || errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("open: %v", err)
	}
}

// failing takes n bytes.
type failing struct{ n int }

func (f *failing) Write(p []byte) (int, error) {
	if f.n -= len(p); f.n < 0 {
		return 0, errBroken
	}
	return len(p), nil
}

func TestWriteFails(t *testing.T) {
	for _, lock := range []seal.Lock{{}, {Passphrase: "x", WorkFactor: 1}} {
		whole := write(t, small(t), archive.WriteOptions{Lock: lock})
		for n := 0; n < len(whole); n += 97 {
			if _, err := archive.Write(t.Context(), &failing{n}, small(t), archive.WriteOptions{Lock: lock}); !errors.Is(err, errBroken) {
				t.Errorf("after %d bytes: %v", n, err)
			}
		}
	}
	if _, err := archive.Write(t.Context(), io.Discard, made(t, nil, state(t, "a", "store", "json", "")), archive.WriteOptions{}); !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), "serializer module") {
		t.Errorf("without the module: %v", err)
	}
	damaged := state(t, "a", "store", "json", "", entry{"", "k", "value"})
	damaged[bytes.Index(damaged, []byte("value"))]++
	if _, err := archive.Write(t.Context(), io.Discard, made(t, []string{"json"}, damaged), archive.WriteOptions{}); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "a/store") {
		t.Errorf("of a damaged state: %v", err)
	}
}

func FuzzOpen(f *testing.F) {
	tiny := made(f, []string{"json"}, state(f, "a", "store", "json", "", entry{"", "key", "value"}))
	f.Add(write(f, tiny, archive.WriteOptions{}))
	f.Add(write(f, made(f, nil), archive.WriteOptions{}))
	f.Add(packed(f, item{name: "api_states/a", content: "x"}))
	f.Add(forged(f, tiny, func(map[string]string, map[string]any) {}, true))
	f.Fuzz(func(t *testing.T, file []byte) {
		s, err := archive.Open(t.Context(), bytes.NewReader(file), int64(len(file)), archive.OpenOptions{Limits: archive.Limits{TotalBytes: 1 << 20}})
		if err != nil {
			if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) && !errors.Is(err, abi.ErrVersion) && !errors.Is(err, seal.ErrKey) {
				t.Errorf("%v is none of the sentinels", err)
			}
			return
		}
		defer s.Close()
		for _, p := range s.Parts {
			if err := p.File.Verify(t.Context()); err != nil {
				t.Error(err)
			}
		}
		for _, digest := range s.Modules() {
			if wasm, err := s.Module(t.Context(), digest); err != nil || digestOf(wasm) != digest {
				t.Errorf("module %x: %v", digest, err)
			}
		}
	})
}
