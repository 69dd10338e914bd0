package archive_test

import (
	"archive/zip"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age/armor"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/tests/need"
)

// module is a serializer, as far as an archive knows.
func module(name string) []byte { return []byte("\x00asm\x01\x00\x00\x00 " + name) }

func digestOf(b []byte) [sha256.Size]byte { return sha256.Sum256(b) }

// entry is a record.
type entry struct{ partition, key, value string }

func batch(t testing.TB, entries []entry) *record.Batch {
	t.Helper()
	var b record.Batch
	for _, e := range entries {
		b.Data = record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(b.Data), e.partition), e.key), e.value)
	}
	var err error
	if b.Refs, err = new(record.Scanner).Scan(b.Data, nil); err != nil {
		t.Fatal(err)
	}
	return &b
}

// state is the bytes of a state file.
func state(t testing.TB, service, part, serializer, compression string, entries ...entry) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{
		Service: service, Part: part, Generation: 7, Created: time.Unix(1_700_000_000, 123).UTC(), Compression: compression,
		Serializer: statefile.Serializer{Name: serializer, Version: "1.2.3", Digest: digestOf(module(serializer)), Schema: 2},
	})
	if err != nil {
		t.Fatal(err)
	}
	for some := range slices.Chunk(entries, 1000) {
		if err := w.WriteBatch(batch(t, some)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

func openState(t testing.TB, b []byte) *statefile.File {
	t.Helper()
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), "state")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// made is a snapshot of states, which comes with the modules named.
func made(t testing.TB, modules []string, states ...[]byte) *snapshot.Snapshot {
	t.Helper()
	var parts []snapshot.Part
	for _, b := range states {
		f := openState(t, b)
		parts = append(parts, snapshot.Part{Service: f.Header().Service, Name: f.Header().Part, File: f})
	}
	s, err := snapshot.New(snapshot.Info{
		Name: "base", Version: 3, Created: time.Date(2026, 2, 3, 4, 5, 7, 8, time.UTC), Torpor: "0.7.0", Description: "before the <demo> \"\u2026\"",
	}, parts, func(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
		for _, name := range modules {
			if digest == digestOf(module(name)) {
				return module(name), nil
			}
		}
		return nil, fmt.Errorf("module %x: %w", digest, abi.ErrNotFound)
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// small is the snapshot that most tests use, and that of the golden file.
func small(t testing.TB) *snapshot.Snapshot {
	t.Helper()
	return made(t, []string{"json", "raw"},
		state(t, "orders", "store", "json", "", entry{"", "/a", "1"}, entry{"000000000000/eu-west-1", "/b", "two"}, entry{"000000000000/eu-west-1", "/c", "three"}),
		state(t, "orders", "assets", "raw", statefile.CompressionZstd, entry{"", "file", strings.Repeat("content ", 20)}),
		state(t, "users", "store", "json", ""),
	)
}

func write(t testing.TB, s *snapshot.Snapshot, o archive.WriteOptions) []byte {
	t.Helper()
	var file bytes.Buffer
	info, err := archive.Write(t.Context(), &file, s, o)
	if err != nil {
		t.Fatal(err)
	}
	if info.Size != int64(file.Len()) || info.Encrypted != !o.Lock.IsZero() || !slices.Equal(info.Services, s.Services()) || info.Modules != len(s.Modules()) {
		t.Errorf("%d bytes were written: %+v", file.Len(), info)
	}
	return file.Bytes()
}

// open opens a file; what it leaves in its folder is a failure.
func open(t testing.TB, file []byte, o archive.OpenOptions) (*snapshot.Snapshot, error) {
	t.Helper()
	o.Folder = t.TempDir()
	s, err := archive.Open(t.Context(), bytes.NewReader(file), int64(len(file)), o)
	if left, err := os.ReadDir(o.Folder); err != nil || len(left) > 0 {
		t.Errorf("%v are in the folder for temporary files: %v", left, err)
	}
	if err == nil {
		t.Cleanup(func() {
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	} else if s != nil {
		t.Error("there is a snapshot, and an error")
	}
	return s, err
}

// records are all of a snapshot's, with what they are of.
func records(t testing.TB, s *snapshot.Snapshot) string {
	t.Helper()
	var out strings.Builder
	fmt.Fprintf(&out, "%+v\n", s.Info)
	for _, p := range s.Parts {
		h := p.File.Header()
		h.Compression = ""
		fmt.Fprintf(&out, "%s %+v\n", p, h)
		for r := p.File.Records(); ; {
			b, err := r.ReadBatch()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			for i := range b.Len() {
				fmt.Fprintf(&out, "%x\n", b.Record(i))
			}
		}
	}
	for _, digest := range s.Modules() {
		wasm, err := s.Module(t.Context(), digest)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&out, "%x %s\n", digest, wasm)
	}
	return out.String()
}

func TestComesBack(t *testing.T) {
	many := make([]entry, 20_000)
	for i := range many {
		many[i] = entry{fmt.Sprintf("%012d/r", i%3), fmt.Sprint(i), strings.Repeat(fmt.Sprint(i), 20)}
	}
	slices.SortStableFunc(many, func(a, b entry) int { return strings.Compare(a.partition, b.partition) })
	lock, key := seal.Lock{Passphrase: "x", WorkFactor: 2}, seal.Key{Passphrase: "x"}
	for name, s := range map[string]*snapshot.Snapshot{
		"small": small(t), "none": made(t, nil), "large": made(t, []string{"json"}, state(t, "big", "store", "json", "", many...)),
	} {
		t.Run(name, func(t *testing.T) {
			want := records(t, s)
			for _, o := range []archive.WriteOptions{{}, {Lock: lock}} {
				var done, total []int64
				progress := func(d, all int64) { done, total = append(done, d), append(total, all) }
				check := func() {
					t.Helper()
					if !slices.IsSorted(done) || len(done) == 0 || done[len(done)-1] != total[len(total)-1] || len(slices.Compact(total)) != 1 {
						t.Errorf("progress was %d of %d", done, total)
					}
					done, total = nil, nil
				}
				o.Progress = progress
				file := write(t, s, o)
				check()
				if seal.Sealed(file) != !o.Lock.IsZero() {
					t.Errorf("it begins with %.30q", file)
				}
				got, err := open(t, file, archive.OpenOptions{Key: key, Progress: progress})
				if err != nil {
					t.Fatal(err)
				}
				check()
				if got := records(t, got); got != want {
					t.Errorf("%s\nbecame\n%s", want, got)
				}
				if _, err := got.Module(t.Context(), digestOf([]byte("another"))); !errors.Is(err, abi.ErrNotFound) {
					t.Errorf("a module that is not there: %v", err)
				}
				// And what came back is written as the same bytes.
				if again := write(t, got, archive.WriteOptions{}); o.Lock.IsZero() && !bytes.Equal(again, file) {
					t.Error("the same snapshot, written again, is another file")
				}
			}
		})
	}
}

// TestOldGenerationsAreLeftOut: what a delta has replaced or removed is not handed to others.
func TestOldGenerationsAreLeftOut(t *testing.T) {
	file := state(t, "s", "store", "json", "", entry{"", "a", "secret of a"}, entry{"", "b", "secret of b"}, entry{"", "c", "kept"})
	f := openState(t, file)
	out := bytes.NewBuffer(file)
	w, err := statefile.NewDeltaWriter(out, f.Tail(), 8, time.Unix(1_700_000_001, 0))
	if err != nil {
		t.Fatal(err)
	}
	data := record.AppendText(record.AppendText(record.AppendTombstone(nil), ""), "b")
	b := batch(t, []entry{{"", "a", "new"}})
	b.Data = append(b.Data, data...)
	scan := record.Scanner{Tombstones: true}
	if b.Refs, err = scan.Scan(b.Data, nil); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteBatch(b); err != nil {
		t.Fatal(err)
	}
	w.Grow(-1)
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	s := made(t, []string{"json"}, out.Bytes())
	got, err := open(t, write(t, s, archive.WriteOptions{}), archive.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got, want := records(t, got), records(t, s); got != want {
		t.Errorf("%s\nbecame\n%s", want, got)
	}
	for name, content := range files(t, write(t, s, archive.WriteOptions{})) {
		if strings.Contains(content, "secret") {
			t.Errorf("%s has what is no more", name)
		}
	}
}

// files are those of an archive.
func files(t testing.TB, file []byte) map[string]string {
	t.Helper()
	z, err := zip.NewReader(bytes.NewReader(file), int64(len(file)))
	if err != nil {
		t.Fatal(err)
	}
	all := map[string]string{}
	for _, f := range z.File {
		in, err := f.Open()
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		all[f.Name] = string(b)
	}
	return all
}

var update = flag.Bool("update", false, "write the golden file anew")

// TestGolden pins the bytes of a file, and that files of this version are read.
func TestGolden(t *testing.T) {
	const name = "testdata/v1.snapshot"
	want := records(t, small(t))
	if *update {
		if err := os.WriteFile(name, write(t, small(t), archive.WriteOptions{}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	file, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	s, err := open(t, file, archive.OpenOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if got := records(t, s); got != want {
		t.Errorf("%s\nbecame\n%s", want, got)
	}
	// The compressed bytes may change with the compressor; what is in them must not.
	now, then := files(t, write(t, small(t), archive.WriteOptions{})), files(t, file)
	if len(now) != len(then) {
		t.Errorf("%d files are written, and %d are in the golden file", len(now), len(then))
	}
	for name, content := range then {
		if now[name] != content {
			t.Errorf("%s is written as\n%s\nand is in the golden file\n%s", name, now[name], content)
		}
	}
	// The manifest that FORMAT.md shows is this one.
	page, err := os.ReadFile("FORMAT.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{then["manifest.json"], then["SHA256SUMS"]} {
		if !strings.Contains(string(page), "\n```\n"+part+"```\n") && !strings.Contains(string(page), "\n```json\n"+part+"```\n") {
			t.Errorf("FORMAT.md does not show\n%s", part)
		}
	}
}

// TestOthersReadIt opens a file with what people have.
func TestOthersReadIt(t *testing.T) {
	python, sums := need.Program(t, "python3"), need.Program(t, "sha256sum")
	name := filepath.Join(t.TempDir(), "base"+archive.Extension)
	if err := os.WriteFile(name, write(t, small(t), archive.WriteOptions{}), 0o600); err != nil {
		t.Fatal(err)
	}
	run := func(folder, program string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), program, args...)
		cmd.Dir = folder
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Errorf("%s %q: %v\n%s", program, args, err, out)
		}
		return string(out)
	}
	folder := t.TempDir()
	run("", python, "-c", "import sys, zipfile; z = zipfile.ZipFile(sys.argv[1]); assert z.testzip() is None; z.extractall(sys.argv[2])", name, folder)
	if out := run(folder, sums, "-c", "--strict", "SHA256SUMS"); strings.Count(out, ": OK") != 6 {
		t.Errorf("%s", out)
	}
	if unzip, err := exec.LookPath("unzip"); err == nil {
		if out := run("", unzip, "-t", name); !strings.Contains(out, "No errors detected") {
			t.Errorf("%s", out)
		}
	}
	b, err := os.ReadFile(filepath.Join(folder, "state/api_states/orders/store.state"))
	if err != nil {
		t.Fatal(err)
	}
	if f := openState(t, b); f.Verify(t.Context()) != nil || f.Info().Records != 3 {
		t.Errorf("%+v", f.Info())
	}
}

// TestDamage cuts a file at every length and changes every byte of it: what is opened is what was written.
func TestDamage(t *testing.T) {
	for _, c := range []struct {
		name string
		lock seal.Lock
	}{{name: "plain"}, {"encrypted", seal.Lock{Passphrase: "x", WorkFactor: 1}}} {
		t.Run(c.name, func(t *testing.T) {
			s := made(t, []string{"json"}, state(t, "a", "store", "json", "", entry{"", "key", "value"}))
			want, file := records(t, s), write(t, s, archive.WriteOptions{Lock: c.lock})
			o := archive.OpenOptions{Key: seal.Key{Passphrase: "x"}, Folder: t.TempDir()}
			try := func(file []byte) error {
				got, err := archive.Open(t.Context(), bytes.NewReader(file), int64(len(file)), o)
				if err != nil {
					return err
				}
				defer got.Close()
				if got := records(t, got); got != want {
					t.Errorf("opened is\n%s", got)
				}
				return nil
			}
			for n := range file {
				if err := try(file[:n]); !errors.Is(err, abi.ErrCorrupt) {
					t.Fatalf("cut at %d of %d: %v", n, len(file), err)
				}
				for _, flip := range []byte{1, 0xff} {
					changed := bytes.Clone(file)
					changed[n] ^= flip
					err := try(changed)
					if err != nil && !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) && !errors.Is(err, abi.ErrVersion) && !errors.Is(err, seal.ErrKey) {
						t.Fatalf("byte %d changed: %v", n, err)
					}
				}
			}
			for _, more := range []string{"x", "PK\x05\x06"} {
				if err := try(append(bytes.Clone(file), more...)); !errors.Is(err, abi.ErrCorrupt) {
					t.Errorf("with %q behind it: %v", more, err)
				}
			}
		})
	}
}

// item is a file of an archive that a test makes.
type item struct {
	name, content string
	header        func(*zip.FileHeader)
}

// packed makes an archive.
func packed(t testing.TB, items ...item) []byte {
	t.Helper()
	var file bytes.Buffer
	z := zip.NewWriter(&file)
	for _, i := range items {
		h := &zip.FileHeader{Name: i.name, Method: zip.Deflate}
		if i.header != nil {
			i.header(h)
		}
		out, err := z.CreateHeader(h)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(out, i.content); err != nil && !strings.HasSuffix(i.name, "/") {
			t.Fatal(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return file.Bytes()
}

// forged is a snapshot's archive as change leaves its files; where sums is set, SHA256SUMS is that of what is there then, and
// what the manifest says of sizes and checksums too.
func forged(t testing.TB, s *snapshot.Snapshot, change func(files map[string]string, manifest map[string]any), sums bool) []byte {
	t.Helper()
	all := files(t, write(t, s, archive.WriteOptions{}))
	var manifest map[string]any
	if err := json.Unmarshal([]byte(all["manifest.json"]), &manifest); err != nil {
		t.Fatal(err)
	}
	change(all, manifest)
	if sums {
		parts, _ := manifest["parts"].([]any)
		for _, p := range parts {
			if p, ok := p.(map[string]any); ok {
				if content, ok := all[fmt.Sprint(p["path"])]; ok {
					p["sha256"], p["size"] = fmt.Sprintf("%x", digestOf([]byte(content))), len(content)
				}
			}
		}
	}
	if _, ok := all["manifest.json"]; ok {
		b, err := json.Marshal(manifest)
		if err != nil {
			t.Fatal(err)
		}
		all["manifest.json"] = string(b)
	}
	names := []string{}
	for name := range all {
		names = append(names, name)
	}
	slices.Sort(names)
	if sums {
		var text strings.Builder
		for _, name := range names {
			if name != "SHA256SUMS" && name != "metadata.yaml" { // who adds that one adds no sum
				fmt.Fprintf(&text, "%x  %s\n", digestOf([]byte(all[name])), name)
			}
		}
		all["SHA256SUMS"] = text.String()
	}
	var items []item
	for _, name := range names {
		items = append(items, item{name: name, content: all[name]})
	}
	return packed(t, items...)
}

func part(manifest map[string]any, i int) map[string]any {
	return manifest["parts"].([]any)[i].(map[string]any)
}

// TestLies: files whose checksums are all right, and that are not.
func TestLies(t *testing.T) {
	const assets, store = "state/api_states/orders/assets.state", "state/api_states/orders/store.state"
	wasm := func(name string) string { return fmt.Sprintf("modules/%x.wasm", digestOf(module(name))) }
	type change = func(files map[string]string, m map[string]any)
	for _, c := range []struct {
		name   string
		change change
		want   error
		says   string
	}{
		{"nothing", func(map[string]string, map[string]any) {}, nil, ""},
		{"unknown fields", func(_ map[string]string, m map[string]any) { m["colour"], part(m, 0)["colour"] = "red", 1 }, nil, ""},
		{"a newer version", func(_ map[string]string, m map[string]any) { m["version"], m["parts"], m["torpor"] = 2, "all", "9.9" }, abi.ErrVersion, "written by a newer Torpor (9.9)"},
		{"no version", func(_ map[string]string, m map[string]any) { delete(m, "version") }, abi.ErrCorrupt, "no version"},
		{"another format", func(_ map[string]string, m map[string]any) { m["format"] = "cake" }, abi.ErrCorrupt, "cake"},
		{"no manifest", func(f map[string]string, _ map[string]any) { delete(f, "manifest.json") }, abi.ErrCorrupt, "no manifest.json"},
		{"a manifest of another kind", func(_ map[string]string, m map[string]any) { m["parts"] = "all" }, abi.ErrCorrupt, "array"},
		{"a part of another kind", func(_ map[string]string, m map[string]any) { part(m, 0)["records"] = "many" }, abi.ErrCorrupt, "records"},
		{"a time that is none", func(_ map[string]string, m map[string]any) { m["created"] = "today" }, abi.ErrCorrupt, "today"},
		{"what LocalStack's command line adds", func(f map[string]string, _ map[string]any) { f["metadata.yaml"] = "name: x" }, nil, ""},
		{"a file more", func(f map[string]string, _ map[string]any) { f["virus.exe"] = "x" }, abi.ErrCorrupt, "does not name, virus.exe"},
		{"a state more", func(f map[string]string, _ map[string]any) { f["state/api_states/x/store.state"] = f[store] }, abi.ErrCorrupt, "does not name"},
		{"a state less", func(f map[string]string, _ map[string]any) { delete(f, assets) }, abi.ErrCorrupt, "is not there"},
		{"no checksums for a state", func(f map[string]string, _ map[string]any) { delete(f, assets) }, abi.ErrCorrupt, "is not there"},
		{"a part twice", func(_ map[string]string, m map[string]any) { m["parts"] = append(m["parts"].([]any), part(m, 0)) }, abi.ErrCorrupt, "twice"},
		{"a path that is not the part's", func(_ map[string]string, m map[string]any) { part(m, 0)["path"] = store }, abi.ErrCorrupt, "what it must be"},
		{"a path that leads out", func(f map[string]string, m map[string]any) {
			f["state/api_states/../x/store.state"] = f[store]
			part(m, 1)["service"], part(m, 1)["path"] = "../x", "state/api_states/../x/store.state"
		}, abi.ErrCorrupt, "leads out"},
		{"another service's state", func(f map[string]string, _ map[string]any) {
			f[store] = string(state(t, "other", "store", "json", ""))
		}, abi.ErrCorrupt, "it is the state of other/store"},
		{"another part's state", func(f map[string]string, _ map[string]any) {
			f[store] = string(state(t, "orders", "backend", "json", ""))
		}, abi.ErrCorrupt, "it is the state of orders/backend"},
		{"a wrong number of records", func(_ map[string]string, m map[string]any) { part(m, 1)["records"] = 4 }, abi.ErrCorrupt, "3 records in it and not 4"},
		{"another generation", func(_ map[string]string, m map[string]any) { part(m, 1)["generation"] = 4 }, abi.ErrCorrupt, "generation 7"},
		{"another time", func(_ map[string]string, m map[string]any) { part(m, 1)["created"] = "2020-01-01T00:00:00Z" }, abi.ErrCorrupt, "generation 7"},
		{"another serializer", func(_ map[string]string, m map[string]any) {
			part(m, 1)["serializer"].(map[string]any)["name"] = "yaml"
		}, abi.ErrCorrupt, `serializer "json"`},
		{"a serializer that the state was not written by", func(_ map[string]string, m map[string]any) {
			part(m, 1)["serializer"].(map[string]any)["sha256"] = hex.EncodeToString(digestSlice(module("raw")))
		}, abi.ErrCorrupt, `serializer "json"`},
		{"a serializer module that is not there", func(f map[string]string, m map[string]any) {
			f[store] = string(state(t, "orders", "store", "yaml", ""))
			part(m, 1)["serializer"].(map[string]any)["sha256"] = hex.EncodeToString(digestSlice(module("yaml")))
		}, abi.ErrCorrupt, "which is not in it"},
		{"a state by a serializer module that is not there", func(f map[string]string, _ map[string]any) {
			f[store] = string(state(t, "orders", "store", "yaml", "", entry{"", "a", "1"}, entry{"", "b", "1"}, entry{"", "c", "1"}))
		}, abi.ErrCorrupt, `written by the serializer "yaml"`},
		{"a module that is not there", func(f map[string]string, _ map[string]any) { delete(f, wasm("json")) }, abi.ErrCorrupt, "is not there"},
		{"a module left out", func(f map[string]string, m map[string]any) {
			delete(f, wasm("raw"))
			m["modules"] = slices.DeleteFunc(m["modules"].([]any), func(c any) bool { return c.(map[string]any)["path"] == wasm("raw") })
		}, abi.ErrCorrupt, "was written by the serializer module"},
		{"another module", func(f map[string]string, _ map[string]any) { f[wasm("json")] = strings.ToUpper(f[wasm("json")]) }, abi.ErrCorrupt, "SHA-256"},
		{"a module that nothing needs", func(f map[string]string, m map[string]any) {
			f[wasm("yaml")] = string(module("yaml"))
			m["modules"] = append(m["modules"].([]any), map[string]any{"path": wasm("yaml"), "size": len(module("yaml")), "sha256": hex.EncodeToString(digestSlice(module("yaml")))})
		}, abi.ErrCorrupt, "no state in it"},
		{"a state that is none", func(f map[string]string, _ map[string]any) { f[store] = "nothing of the kind" }, abi.ErrCorrupt, store},
		{"a damaged state", func(f map[string]string, _ map[string]any) { f[store] = strings.Replace(f[store], "two", "six", 1) }, abi.ErrCorrupt, store},
		{"too many parts", func(_ map[string]string, m map[string]any) {
			m["parts"] = slices.Repeat([]any{map[string]any{}}, snapshot.MaxParts+1)
		}, abi.ErrTooLarge, "4096"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(t, forged(t, small(t), c.change, true), archive.OpenOptions{})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %v that says %q", err, c.want, c.says)
			}
			for _, other := range []error{abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge} {
				if err != nil && !errors.Is(c.want, other) && errors.Is(err, other) {
					t.Errorf("%v is %v, too", err, other)
				}
			}
		})
	}
	for _, c := range []struct {
		name   string
		change change
		says   string
	}{
		{"no checksums", func(f map[string]string, _ map[string]any) { delete(f, "SHA256SUMS") }, "there is no SHA256SUMS"},
		{"a manifest with another checksum", func(_ map[string]string, m map[string]any) { m["name"] = "other" }, "manifest.json: corrupt: its SHA-256"},
		{"checksums of what is not there", func(f map[string]string, m map[string]any) { f["SHA256SUMS"] += strings.Repeat("0", 64) + "  x\n" }, ""},
		{"checksums that are none", func(f map[string]string, _ map[string]any) { f["SHA256SUMS"] = "hello\n" }, "no line of it"},
		{"a line cut off", func(f map[string]string, _ map[string]any) {
			f["SHA256SUMS"] = strings.TrimSuffix(f["SHA256SUMS"], "\n")
		}, "no line of it"},
		{"a line twice", func(f map[string]string, _ map[string]any) { f["SHA256SUMS"] += f["SHA256SUMS"] }, "twice"},
		{"a short checksum", func(f map[string]string, _ map[string]any) { f["SHA256SUMS"] = f["SHA256SUMS"][2:] }, "no line of it"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := open(t, forged(t, small(t), c.change, false), archive.OpenOptions{})
			if !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want one that says %q", err, c.says)
			}
		})
	}
}

func digestSlice(b []byte) []byte { d := digestOf(b); return d[:] }

func TestNames(t *testing.T) {
	mode := func(m os.FileMode) func(*zip.FileHeader) { return func(h *zip.FileHeader) { h.SetMode(m) } }
	for _, c := range []struct {
		item item
		says string
	}{
		{item{name: "../evil"}, "leads out"}, {item{name: "state/../../evil"}, "leads out"}, {item{name: ".."}, "leads out"},
		{item{name: "/etc/passwd"}, "is absolute"}, {item{name: `..\evil`}, "backslash"}, {item{name: `C:\evil`}, "backslash"},
		{item{name: "C:evil"}, "character"}, {item{name: "a\nb"}, "character"}, {item{name: "a\x00b"}, "character"}, {item{name: "\xff"}, "character"}, {item{name: "ma\u00f1ana"}, "character"},
		{item{name: "state//x"}, "empty step"}, {item{name: "./x"}, "empty step"}, {item{name: ""}, "empty step"},
		{item{name: "folder/"}, "folder"}, {item{name: strings.Repeat("x", archive.MaxNameBytes+1)}, "256"},
		{item{name: "MANIFEST.json"}, "not told apart"}, {item{name: "manifest.json"}, "not told apart"},
		{item{name: "link", content: "/etc/passwd", header: mode(os.ModeSymlink | 0o777)}, "is a link"},
		{item{name: "pipe", header: mode(os.ModeNamedPipe | 0o600)}, "is a link"},
		{item{name: "secret", header: func(h *zip.FileHeader) { h.Flags |= 1 }}, "encrypted"},
	} {
		t.Run(c.item.name, func(t *testing.T) {
			items := []item{c.item}
			for name, content := range files(t, write(t, small(t), archive.WriteOptions{})) {
				items = append(items, item{name: name, content: content})
			}
			_, err := open(t, packed(t, items...), archive.OpenOptions{})
			if !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want one that says %q", err, c.says)
			}
		})
	}
}

// TestOtherFiles: what people take for a snapshot.
func TestOtherFiles(t *testing.T) {
	whole := write(t, small(t), archive.WriteOptions{})
	comment := bytes.Clone(whole)
	comment[len(comment)-2] = 3
	for _, c := range []struct {
		name string
		file []byte
		want error
		says string
	}{
		{"nothing", nil, abi.ErrCorrupt, "not a valid zip archive"},
		{"text", []byte("hello"), abi.ErrCorrupt, "not a valid zip archive"},
		{"long text", bytes.Repeat([]byte("hello "), 1000), abi.ErrCorrupt, "not a valid zip archive"},
		{"a state file", state(t, "a", "store", "json", ""), abi.ErrCorrupt, "not a valid zip archive"},
		{"a cut one", whole[:len(whole)-10], abi.ErrCorrupt, "not a valid zip archive"},
		{"one with something before it", append([]byte("#!/bin/sh\n"), whole...), abi.ErrCorrupt, "not a valid zip archive"},
		{"one with something behind it", append(bytes.Clone(whole), 'x'), abi.ErrCorrupt, "not a valid zip archive"},
		{"one with a comment", append(comment, "abc"...), abi.ErrCorrupt, "not a valid zip archive"},
		{"an empty archive", packed(t), abi.ErrCorrupt, "no snapshot"},
		{"another archive", packed(t, item{name: "a.txt", content: "a"}), abi.ErrCorrupt, "no snapshot"},
		{"a pod of LocalStack", packed(t, item{name: "api_states/sqs/000000000000/us-east-1/store.state", content: "\x80\x04."}, item{name: "metamodel.json", content: "{}"}), abi.ErrVersion, "a pod of LocalStack"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := open(t, c.file, archive.OpenOptions{}); !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v; want %v that says %q", err, c.want, c.says)
			}
		})
	}
}

func TestEncrypted(t *testing.T) {
	file := write(t, small(t), archive.WriteOptions{Lock: seal.Lock{Passphrase: "right", WorkFactor: 2}})
	for _, key := range []seal.Key{{}, {Passphrase: "wrong"}} {
		if _, err := open(t, file, archive.OpenOptions{Key: key}); !errors.Is(err, seal.ErrKey) || errors.Is(err, abi.ErrCorrupt) || strings.Contains(err.Error(), "zip") {
			t.Errorf("with %+v: %v", key, err)
		}
	}
	var text bytes.Buffer
	armored := armor.NewWriter(&text)
	_, _ = armored.Write(file)
	_ = armored.Close()
	s, err := open(t, text.Bytes(), archive.OpenOptions{Key: seal.Key{Passphrase: "right"}})
	if err != nil {
		t.Fatalf("armored: %v", err)
	}
	if got, want := records(t, s), records(t, small(t)); got != want {
		t.Errorf("armored:\n%s\nbecame\n%s", want, got)
	}
	if _, err := open(t, text.Bytes(), archive.OpenOptions{}); !errors.Is(err, seal.ErrKey) {
		t.Errorf("armored, without a key: %v", err)
	}
	if _, err := open(t, text.Bytes(), archive.OpenOptions{Key: seal.Key{Passphrase: "right"}, Limits: archive.Limits{FileBytes: 1 << 10}}); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("armored and too large: %v", err)
	}
	var inner bytes.Buffer
	w, err := seal.Encrypt(&inner, seal.Lock{Passphrase: "right", WorkFactor: 2})
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(w, "no archive")
	_ = w.Close()
	if _, err := open(t, inner.Bytes(), archive.OpenOptions{Key: seal.Key{Passphrase: "right"}}); !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), "not a valid zip archive") {
		t.Errorf("something else, encrypted: %v", err)
	}
	if _, err := archive.Write(t.Context(), io.Discard, small(t), archive.WriteOptions{Lock: seal.Lock{Passphrase: "x", Recipients: []string{"age1"}}}); !errors.Is(err, seal.ErrLock) {
		t.Errorf("a lock that is none: %v", err)
	}
	if _, err := open(t, write(t, small(t), archive.WriteOptions{}), archive.OpenOptions{Key: seal.Key{Identities: []string{"nonsense"}}}); err != nil {
		t.Errorf("a key for what is not encrypted: %v", err)
	}
}
