// Package compat_test holds Torpor's reader of state files against an independent one: read_state.py,
// written from FORMAT.md alone. Both must find the same in every golden file, in files with all that
// records may hold, and give the same verdict on every damaged one. It also checks what FORMAT.md shows:
// its annotated examples and its test vectors. And it loads every golden file through the runtime, with the
// serializer it was written by and with ones that came later.
package compat_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"maps"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/tests/need"
)

const (
	goldenFolder = "../../runtime/statefile/testdata"
	formatPage   = "../../runtime/statefile/FORMAT.md"
)

// report is what read_state.py prints of one file.
type report struct {
	File   string `json:"file"`
	Header struct {
		Format      uint64    `json:"format"`
		Service     string    `json:"service"`
		Part        string    `json:"part"`
		Generation  uint64    `json:"generation"`
		Created     time.Time `json:"created"`
		Compression string    `json:"compression"`
		Serializer  struct {
			Name, Version, SHA256 string
			Schema                uint64
		} `json:"serializer"`
	} `json:"header"`
	Index struct {
		Records, Raw uint64
		Root         string
		Chunks       int
		Deltas       int
		Changes      uint64
	} `json:"index"`
	Saves []struct {
		Generation uint64
		Created    time.Time
		End        int64
		Delta      bool
	}
	End       int64 // of --recover
	Torn      bool
	CutByRule bool            `json:"cut_by_rule"`
	Records   json.RawMessage `json:"records"`
	Needs     string          `json:"needs"`
	Error     *struct {
		Kind    string
		Offset  int64
		Message string
	} `json:"error"`
}

// readStates runs read_state.py with the arguments and returns what it says of each file.
func readStates(t *testing.T, args ...string) []report {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need.Program(t, "python3"), append([]string{"read_state.py"}, args...)...)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	// 3, 4, 5 and 7 only say that a file was refused, which the report says too.
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || !slices.Contains([]int{3, 4, 5, 7}, exit.ExitCode())) {
		t.Fatalf("read_state.py: %v\n%s", err, stderr.Bytes())
	}
	var reports []report
	dec := json.NewDecoder(bytes.NewReader(out))
	for {
		var r report
		if err := dec.Decode(&r); errors.Is(err, io.EOF) {
			return reports
		} else if err != nil {
			t.Fatalf("read_state.py: %v\n%s", err, stderr.Bytes())
		}
		reports = append(reports, r)
	}
}

// writeFiles puts the files into a folder of their own and returns their paths, by name.
func writeFiles(t *testing.T, files map[string][]byte) []string {
	t.Helper()
	dir := t.TempDir()
	var paths []string
	for _, name := range slices.Sorted(maps.Keys(files)) {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, files[name], 0o600); err != nil {
			t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

func open(file []byte) (*statefile.File, error) {
	return statefile.Open(bytes.NewReader(file), int64(len(file)), "test.state")
}

func readAll(t *testing.T, f *statefile.File) []byte {
	t.Helper()
	var out []byte
	for r := f.Records(); ; {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, b.Data...)
	}
}

// compare checks that a report, made with --raw, says of a file what Torpor's own reader does.
func compare(t *testing.T, file []byte, got report) {
	t.Helper()
	f, err := open(file)
	if err != nil {
		t.Fatal(err)
	}
	if got.Error != nil {
		t.Fatalf("read_state.py refuses it: %+v", *got.Error)
	}
	h, info := f.Header(), f.Info()
	g := got.Header
	seen := statefile.Header{Service: g.Service, Part: g.Part, Generation: g.Generation, Created: g.Created, Compression: g.Compression,
		Serializer: statefile.Serializer{Name: g.Serializer.Name, Version: g.Serializer.Version, Schema: g.Serializer.Schema}}
	if _, err := hex.Decode(seen.Serializer.Digest[:], []byte(g.Serializer.SHA256)); err != nil {
		t.Fatal(err)
	}
	if !seen.Created.Equal(h.Created) {
		t.Errorf("created %v, want %v", seen.Created, h.Created)
	}
	seen.Created = h.Created
	if seen != h || g.Format != statefile.Version {
		t.Errorf("header\n got %+v\nwant %+v", seen, h)
	}
	if x := got.Index; x.Records != info.Records || x.Raw != info.Raw || x.Chunks != info.Chunks || x.Root != hex.EncodeToString(info.Root[:]) ||
		x.Deltas != info.Deltas || x.Changes != info.Changes {
		t.Errorf("index %+v, want %+v", x, info)
	}
	saves := f.Saves()
	if len(got.Saves) != len(saves) {
		t.Fatalf("%d saves, want %d", len(got.Saves), len(saves))
	}
	for i, s := range saves {
		if g := got.Saves[i]; g.Generation != s.Generation || !g.Created.Equal(s.Created) || g.End != s.End || g.Delta != s.Delta {
			t.Errorf("save %d: %+v, want %+v", i, g, s)
		}
	}
	if h.Compression != statefile.CompressionNone {
		if got.Needs != h.Compression {
			t.Errorf("read_state.py needs %q for %q", got.Needs, h.Compression)
		}
		return
	}
	if !got.CutByRule {
		t.Error("the chunks are not cut as FORMAT.md says")
	}
	var chunks []string
	if err := json.Unmarshal(got.Records, &chunks); err != nil {
		t.Fatal(err)
	}
	records, err := hex.DecodeString(strings.Join(chunks, ""))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(records, readAll(t, f)) {
		t.Error("the records differ")
	}
}

func TestGoldenFiles(t *testing.T) {
	paths := goldenFiles(t)
	reports := readStates(t, append([]string{"--raw"}, paths...)...)
	for i, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			file := readFile(t, path)
			if v := verdict(t, file); v != "" {
				t.Fatalf("statefile says %q", v)
			}
			compare(t, file, reports[i])
		})
	}
}

// goldenFiles are the paths of all golden files; there are some of every version and of every kind.
func goldenFiles(t *testing.T) []string {
	t.Helper()
	paths, err := filepath.Glob(filepath.Join(goldenFolder, "*.state"))
	if err != nil {
		t.Fatal(err)
	}
	for v := 1; v <= statefile.Version; v++ {
		for _, kind := range []string{"none", "zstd", "delta-none", "delta-zstd"} {
			want := filepath.Join(goldenFolder, fmt.Sprintf("v%d-%s.state", v, kind))
			if !slices.Contains(paths, want) {
				t.Errorf("%s is not there", want)
			}
		}
	}
	return paths
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func header(compression string) statefile.Header {
	return statefile.Header{Service: "orders", Part: "assets", Generation: 1<<40 + 3, Created: time.Date(2024, 2, 29, 0, 0, 0, 500, time.UTC),
		Serializer: statefile.Serializer{Name: "records", Version: "", Digest: sha256.Sum256([]byte("x")), Schema: 1 << 33}, Compression: compression}
}

func encode(t *testing.T, h statefile.Header, data []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := statefile.NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	write(t, w, data)
	return out.Bytes()
}

func write(t *testing.T, w *statefile.Writer, data []byte) {
	t.Helper()
	s := record.Scanner{Tombstones: true}
	refs, err := s.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
}

// appendDelta adds a delta of the entries to a file.
func appendDelta(t *testing.T, file []byte, growth int64, data []byte) []byte {
	t.Helper()
	f, err := open(file)
	if err != nil {
		t.Fatal(err)
	}
	out := bytes.NewBuffer(bytes.Clone(file))
	h := f.Header()
	w, err := statefile.NewDeltaWriter(out, f.Tail(), h.Generation+1, h.Created.Add(time.Second))
	if err != nil {
		t.Fatal(err)
	}
	w.Grow(growth)
	write(t, w, data)
	return out.Bytes()
}

// randomValue adds an item of any kind to dst.
func randomValue(dst []byte, r *rand.Rand, depth int) []byte {
	switch n := r.IntN(12); {
	case n < 2:
		return record.AppendInt(dst, int64(r.Uint64())>>r.IntN(64))
	case n < 4:
		return record.AppendText(dst, strings.Repeat("ü€𝄞a", r.IntN(20)))
	case n < 6:
		return record.AppendBytes(dst, make([]byte, r.IntN(300)))
	case n == 6:
		return append(dst, [][]byte{{0xf6}, {0xf7}, {0xe0}, {0xf8, 0xff}, {0xf9, 0x7e, 0}, {0xf9, 0x3c, 0}, {0xfa, 0x7f, 0x80, 0, 0},
			{0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a}, {0x1b, 255, 255, 255, 255, 255, 255, 255, 255}, {0x3b, 255, 255, 255, 255, 255, 255, 255, 255}}[r.IntN(10)]...)
	case n == 7:
		return record.AppendBool(dst, r.IntN(2) == 0)
	case depth == 0:
		return record.AppendNull(dst)
	case n == 8:
		return randomValue(record.AppendTag(dst, r.Uint64()>>r.IntN(64)), r, depth-1)
	case n == 9:
		pairs := r.IntN(4)
		dst = record.AppendMap(dst, pairs)
		for i := range pairs {
			dst = record.AppendUint(dst, uint64(i))
			dst = randomValue(dst, r, depth-1)
		}
		return dst
	default:
		items := r.IntN(5)
		dst = record.AppendArray(dst, items)
		for range items {
			dst = randomValue(dst, r, depth-1)
		}
		return dst
	}
}

// Everything records may hold, in files of no, one and many chunks.
func TestAllKindsOfRecords(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	files := map[string][]byte{
		"empty":      encode(t, header(""), nil),
		"empty-zstd": encode(t, header(statefile.CompressionZstd), nil),
	}
	var mixed []byte
	for i := range 6_000 {
		mixed = record.AppendText(record.AppendRecord(mixed), []string{"", "000000000000/us-east-1", strings.Repeat("p", record.MaxPartitionBytes)}[i/700%3])
		if i%2 == 0 {
			mixed = record.AppendText(mixed, fmt.Sprintf("schlüssel/%d", i))
		} else {
			mixed = record.AppendBytes(mixed, binary.BigEndian.AppendUint32(nil, uint32(i)))
		}
		mixed = randomValue(mixed, r, 5)
	}
	files["mixed"] = encode(t, header(""), mixed)
	files["mixed-zstd"] = encode(t, header(statefile.CompressionZstd), mixed)

	var edges []byte
	edge := func(key string, value []byte) {
		edges = append(record.AppendText(record.AppendText(record.AppendRecord(edges), "p"), key), value...)
	}
	edge("", record.AppendNull(nil))
	edge(strings.Repeat("k", record.MaxKeyBytes), record.AppendNull(nil))
	edge("deep", record.AppendArray(bytes.Repeat([]byte{0x81}, record.MaxDepth-1), 0))
	edge("large", record.AppendBytes(nil, make([]byte, 3<<20)))
	edge("not UTF-8", record.AppendText(nil, "\xff"))
	for i := range 4_000 { // enough for the rule's odds, its least and its most
		edge(fmt.Sprintf("key-%06d", i), record.AppendBytes(nil, make([]byte, []int{0, 90, 5_000}[i/1500])))
	}
	files["edges"] = encode(t, header(""), edges)

	paths := writeFiles(t, files)
	for i, got := range readStates(t, append([]string{"--raw"}, paths...)...) {
		name := filepath.Base(paths[i])
		t.Run(name, func(t *testing.T) {
			compare(t, files[name], got)
			if strings.HasPrefix(name, "mixed") && got.Index.Chunks < 20 {
				t.Errorf("%d chunks prove little about the cutting rule", got.Index.Chunks)
			}
		})
	}
}

// Deltas of all kinds of records, in any order; both readers merge them to the same.
func TestRandomDeltas(t *testing.T) {
	files := map[string][]byte{}
	for seed := range uint64(24) {
		r := rand.New(rand.NewPCG(seed, 3))
		partitions, keys := 1+r.IntN(4), 1+r.IntN(200)
		live := map[string]bool{}
		// entries are some of different keys, each with what it does to the number of records.
		entries := func(n int, tombstones bool) (data []byte, growth int64) {
			seen := map[string]bool{}
			for range n {
				id := record.AppendText(nil, fmt.Sprintf("p%d", r.IntN(partitions)))
				if k := r.IntN(keys); k%3 == 0 {
					id = record.AppendBytes(id, fmt.Sprintf("k%d", k))
				} else {
					id = record.AppendText(id, fmt.Sprintf("k%d", k))
				}
				if seen[string(id)] {
					continue
				}
				seen[string(id)] = true
				before := len(live)
				if tombstones && r.IntN(3) == 0 {
					data = append(record.AppendTombstone(data), id...)
					delete(live, string(id))
				} else {
					data = append(record.AppendRecord(data), id...)
					if r.IntN(8) == 0 {
						data = record.AppendBytes(data, make([]byte, 9_000))
					} else {
						data = randomValue(data, r, 3)
					}
					live[string(id)] = true
				}
				growth += int64(len(live) - before)
			}
			return data, growth
		}
		compression := []string{statefile.CompressionNone, statefile.CompressionNone, statefile.CompressionZstd}[seed%3]
		data, _ := entries(r.IntN(300), false)
		file := encode(t, header(compression), data)
		for range r.IntN(6) {
			data, growth := entries(r.IntN(200), true)
			file = appendDelta(t, file, growth, data)
		}
		name := fmt.Sprintf("deltas-%02d", seed)
		if v := verdict(t, file); v != "" {
			t.Fatalf("%s: statefile says %q", name, v)
		}
		files[name] = file
	}
	paths := writeFiles(t, files)
	for i, got := range readStates(t, append([]string{"--raw"}, paths...)...) {
		name := filepath.Base(paths[i])
		t.Run(name, func(t *testing.T) { compare(t, files[name], got) })
	}
}

// What people see: records as JSON.
func TestRecordsAsJSON(t *testing.T) {
	var data []byte
	for _, e := range []struct {
		key   string
		value []byte
	}{
		{"int", record.AppendInt(nil, -5)},
		{"bytes", record.AppendBytes(nil, "\x00\xff")},
		{"float", []byte{0xfb, 0x3f, 0xf1, 0x99, 0x99, 0x99, 0x99, 0x99, 0x9a}},
		{"nan", []byte{0xf9, 0x7e, 0}},
		{"tag", record.AppendUint(record.AppendTag(nil, 1), 9)},
		{"simple", []byte{0xf8, 0xff}},
		{"map", record.AppendBool(record.AppendText(record.AppendMap(nil, 1), "a"), true)},
		{"numbered map", record.AppendNull(record.AppendUint(record.AppendMap(nil, 1), 1))},
	} {
		data = append(record.AppendText(record.AppendText(record.AppendRecord(data), "p"), e.key), e.value...)
	}
	data = record.AppendArray(record.AppendBytes(record.AppendText(record.AppendRecord(data), "q"), "\x01"), 0)
	got := readStates(t, writeFiles(t, map[string][]byte{"x.state": encode(t, header(""), data)})...)[0]
	var records, want any
	if err := json.Unmarshal(got.Records, &records); err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal([]byte(`[
		{"partition": "p", "key": "int", "value": -5},
		{"partition": "p", "key": "bytes", "value": {"$bytes": "AP8="}},
		{"partition": "p", "key": "float", "value": 1.1},
		{"partition": "p", "key": "nan", "value": {"$float": "nan"}},
		{"partition": "p", "key": "tag", "value": {"$tag": [1, 9]}},
		{"partition": "p", "key": "simple", "value": {"$simple": 255}},
		{"partition": "p", "key": "map", "value": {"a": true}},
		{"partition": "p", "key": "numbered map", "value": {"$map": [[1, null]]}},
		{"partition": "q", "key": {"$bytes": "AQ=="}, "value": []}
	]`), &want); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(records, want) {
		t.Errorf("\n got %v\nwant %v", records, want)
	}
}

// verdict is how Torpor's reader judges a file, in read_state.py's words; "" is sound.
func verdict(t *testing.T, file []byte) string {
	t.Helper()
	f, err := open(file)
	if err == nil {
		err = f.Verify(context.Background())
	}
	switch {
	case err == nil:
		return ""
	case errors.Is(err, abi.ErrCorrupt):
		return "corrupt"
	case errors.Is(err, abi.ErrVersion):
		return "version"
	case errors.Is(err, abi.ErrTooLarge):
		return "too_large"
	}
	t.Fatalf("an error of another kind: %v", err)
	return ""
}

func (r report) verdict() string {
	if r.Error == nil {
		return ""
	}
	return r.Error.Kind
}

// Cut anywhere, or with any byte changed, a file is the same to both readers: what they say of it, and where
// they find the last of it that is whole.
func TestDamage(t *testing.T) {
	for _, golden := range []string{"v1-none.state", "v1-delta-none.state"} {
		file := readFile(t, filepath.Join(goldenFolder, golden))
		f, err := open(file)
		if err != nil {
			t.Fatal(err)
		}
		whole := map[int]bool{} // sizes at which it is none the worse for being cut
		for _, s := range f.Saves() {
			whole[int(s.End)] = true
		}
		files := map[string][]byte{}
		for i := range file {
			if !whole[i] {
				files[fmt.Sprintf("cut-%05d", i)] = file[:i]
			}
			bad := bytes.Clone(file)
			bad[i] ^= []byte{0x01, 0xff, 0x20}[i%3]
			files[fmt.Sprintf("flip-%05d", i)] = bad
		}
		paths := writeFiles(t, files)
		recovered := readStates(t, append([]string{"--recover"}, paths...)...)
		for i, got := range readStates(t, paths...) {
			name := filepath.Base(paths[i])
			if want := verdict(t, files[name]); got.verdict() != want || want != "corrupt" {
				t.Errorf("%s: read_state.py says %q, statefile %q", name, got.verdict(), want)
			}
			if got.Error != nil && (got.Error.Offset < 0 || got.Error.Offset > int64(len(files[name]))) {
				t.Errorf("%s: offset %d in a file of %d bytes", name, got.Error.Offset, len(files[name]))
			}
			compareRecovery(t, name, files[name], recovered[i])
		}
	}
}

// compareRecovery checks that a report, made with --recover, says of a damaged file what Torpor does.
func compareRecovery(t *testing.T, name string, file []byte, got report) {
	t.Helper()
	end, torn, err := statefile.LastGood(context.Background(), bytes.NewReader(file), int64(len(file)), "test.state")
	switch {
	case errors.Is(err, abi.ErrNotFound):
		if got.verdict() != "not_found" {
			t.Errorf("%s: read_state.py recovers %d bytes (%q), statefile nothing", name, got.End, got.verdict())
		}
	case err != nil:
		t.Errorf("%s: %v", name, err)
	case got.End != end || got.Torn != torn || got.Error != nil:
		t.Errorf("%s: read_state.py recovers %d bytes, torn %v (%q); statefile %d, torn %v", name, got.End, got.Torn, got.verdict(), end, torn)
	}
}

// forged is a file whose parts can be changed one by one and whose checksums are right all the same.
type forged struct {
	header, index map[string]any
	version       uint16 // in the trailer
	gap           []byte // between header and index, in place of chunks
}

func (f forged) bytes(t *testing.T) []byte {
	t.Helper()
	// The version comes first; of the other keys the order is free.
	version := f.header["torpor"]
	rest := maps.Clone(f.header)
	delete(rest, "torpor")
	out := record.AppendMap([]byte{0xd9, 0xd9, 0xf7}, len(f.header))
	for _, key := range append([]string{"torpor"}, slices.Sorted(maps.Keys(rest))...) {
		rest["torpor"] = version
		out = append(record.AppendText(out, key), marshal(t, rest[key])...)
	}
	sum := sha256.Sum256(out)
	index := maps.Clone(f.index)
	if _, ok := index["header"]; !ok {
		index["header"] = sum[:]
	}
	return seal(append(out, f.gap...), marshal(t, index), f.version)
}

func marshal(t *testing.T, v any) []byte {
	t.Helper()
	enc, err := cbor.EncOptions{TimeTag: cbor.EncTagRequired, Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	b, err := enc.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// seal puts an index, as it is encoded, and the trailer of a version behind what comes before them.
func seal(front, item []byte, version uint16) []byte {
	at := len(front)
	out := append(bytes.Clone(front), item...)
	trailer := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{0x58, 0x1c}, uint64(at)), uint64(len(item)))
	table := crc32.MakeTable(crc32.Castagnoli)
	trailer = binary.BigEndian.AppendUint32(trailer, crc32.Update(crc32.Checksum(item, table), table, trailer))
	trailer = binary.BigEndian.AppendUint16(append(trailer, "torpor"...), version)
	return append(out, trailer...)
}

func sound() forged {
	root, digest := sha256.Sum256(nil), sha256.Sum256([]byte("module"))
	return forged{version: 1,
		header: map[string]any{"torpor": 1, "service": "s3", "part": "store", "generation": 1, "created": time.Unix(1, 0).UTC(), "compression": "none",
			"serializer": map[string]any{"name": "records", "version": "1", "sha256": digest[:], "schema": 1}},
		index: map[string]any{"previous": 0, "root": root[:], "records": 0, "raw": 0, "runs": []any{}}}
}

// What FORMAT.md says readers do with files that are not damaged but not of their kind either.
func TestForgedFiles(t *testing.T) {
	serializer := func(f *forged) map[string]any { return f.header["serializer"].(map[string]any) }
	// oneChunk gives f one chunk, which is what item says; the index tells of it what chunk says.
	oneChunk := func(f *forged, kind, partition string, item []byte, count, raw int, sum [32]byte) {
		f.gap = item
		root := sha256.Sum256(append(append(binary.BigEndian.AppendUint32(nil, uint32(len(partition))), partition...), sum[:]...))
		f.index["root"], f.index["records"], f.index["raw"] = root[:], count, raw
		at := bytes.Index(f.bytes(t), item)
		f.index["runs"] = []any{map[string]any{"kind": kind, "partition": partition, "chunks": []any{[]any{at, len(item), count, raw, sum[:]}}}}
	}
	rec := record.AppendNull(record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "k"))
	plain := append([]byte{0xd8, 0x3f}, record.AppendBytes(nil, rec)...)
	sum := sha256.Sum256(rec)
	cases := map[string]struct {
		change func(f *forged)
		want   string
	}{
		"as it is":                  {func(f *forged) {}, ""},
		"with a chunk":              {func(f *forged) { oneChunk(f, "full", "p", plain, 1, len(rec), sum) }, ""},
		"unknown header keys":       {func(f *forged) { f.header["zone"] = []any{1, map[string]any{"a": nil}} }, ""},
		"unknown serializer keys":   {func(f *forged) { serializer(f)["author"] = "me" }, ""},
		"unknown index keys":        {func(f *forged) { f.index["bloom"] = []byte{1} }, ""},
		"no index defaults":         {func(f *forged) { delete(f.index, "previous"); delete(f.index, "records"); delete(f.index, "runs") }, ""},
		"no serializer version":     {func(f *forged) { delete(serializer(f), "version"); delete(serializer(f), "schema") }, ""},
		"no service":                {func(f *forged) { delete(f.header, "service") }, "corrupt"},
		"empty part":                {func(f *forged) { f.header["part"] = "" }, "corrupt"},
		"generation 0":              {func(f *forged) { f.header["generation"] = 0 }, "corrupt"},
		"service is a number":       {func(f *forged) { f.header["service"] = 5 }, "corrupt"},
		"empty compression":         {func(f *forged) { f.header["compression"] = "" }, "corrupt"},
		"a key of other case":       {func(f *forged) { f.header["Service"] = 5 }, ""},
		"no compression":            {func(f *forged) { delete(f.header, "compression") }, "corrupt"},
		"short serializer digest":   {func(f *forged) { serializer(f)["sha256"] = []byte{1} }, "corrupt"},
		"version 2 throughout":      {func(f *forged) { f.header["torpor"], f.version = 2, 2 }, "version"},
		"version 2, other header":   {func(f *forged) { f.header = map[string]any{"torpor": 2, "x": 1}; f.version = 2 }, "version"},
		"version 2 in header only":  {func(f *forged) { f.header["torpor"] = 2 }, "corrupt"},
		"version 2 in trailer only": {func(f *forged) { f.version = 2 }, "corrupt"},
		"another header's digest":   {func(f *forged) { f.index["header"] = sum[:] }, "corrupt"},
		"previous":                  {func(f *forged) { f.index["previous"] = 7 }, "corrupt"},
		"previous is negative":      {func(f *forged) { f.index["previous"] = -1 }, "corrupt"},
		"delta run":                 {func(f *forged) { oneChunk(f, "delta", "p", plain, 1, len(rec), sum) }, "corrupt"},
		"unknown run":               {func(f *forged) { oneChunk(f, "merge", "p", plain, 1, len(rec), sum) }, "version"},
		"generation and live":       {func(f *forged) { f.index["generation"], f.index["live"] = 0, 7 }, ""},
		"generation is text":        {func(f *forged) { f.index["generation"] = "7" }, "corrupt"},
		"created in seconds":        {func(f *forged) { f.header["created"] = cbor.Tag{Number: 1, Content: 5} }, "corrupt"},
		"created in month 13":       {func(f *forged) { f.header["created"] = cbor.Tag{Number: 0, Content: "2026-13-01T00:00:00Z"} }, "corrupt"},
		"created null":              {func(f *forged) { f.header["created"] = nil }, ""},
		"created in the index":      {func(f *forged) { f.index["created"] = "2026-01-01T00:00:00Z" }, "corrupt"},
		"another root":              {func(f *forged) { f.index["root"] = sum[:] }, "corrupt"},
		"other counts":              {func(f *forged) { f.index["records"] = 1 }, "corrupt"},
		"a gap before the index":    {func(f *forged) { f.gap = []byte{0xf6} }, "corrupt"},
		"a run without chunks": {func(f *forged) {
			f.index["runs"] = []any{map[string]any{"kind": "full", "partition": "p", "chunks": []any{}}}
		}, "corrupt"},
		"another partition":          {func(f *forged) { oneChunk(f, "full", "q", plain, 1, len(rec), sum) }, "corrupt"},
		"another count in the chunk": {func(f *forged) { oneChunk(f, "full", "p", plain, 2, len(rec), sum) }, "corrupt"},
		"another raw size":           {func(f *forged) { oneChunk(f, "full", "p", plain, 1, len(rec)+1, sum) }, "corrupt"},
		"another digest":             {func(f *forged) { oneChunk(f, "full", "p", plain, 1, len(rec), [32]byte{}) }, "corrupt"},
		"chunk without its tag":      {func(f *forged) { oneChunk(f, "full", "p", plain[2:], 1, len(rec), sum) }, "corrupt"},
		"chunk with a long head": {func(f *forged) {
			oneChunk(f, "full", "p", append([]byte{0xd8, 0x3f, 0x58, byte(len(rec))}, rec...), 1, len(rec), sum)
		}, "corrupt"},
		"chunk beyond the limit":        {func(f *forged) { oneChunk(f, "full", "p", plain, 1, 1<<30, sum) }, "too_large"},
		"too long a partition":          {func(f *forged) { oneChunk(f, "full", strings.Repeat("p", 4097), plain, 1, len(rec), sum) }, "corrupt"},
		"created is no text":            {func(f *forged) { f.header["created"] = "2026-01-01T00:00:00Z" }, "corrupt"},
		"unknown compression":           {func(f *forged) { f.header["compression"] = "lz4" }, "version"},
		"a chunk of six elements":       {func(f *forged) { oneChunk(f, "full", "p", plain, 1, len(rec), sum); lengthen(f) }, "corrupt"},
		"header nested too deep":        {func(f *forged) { f.header["x"] = nested(8) }, "corrupt"},
		"header nested as allowed":      {func(f *forged) { f.header["x"] = nested(7) }, ""},
		"records nested too deep":       {nestedRecord(t, oneChunk, record.MaxDepth+1), "too_large"},
		"records nested as allowed":     {nestedRecord(t, oneChunk, record.MaxDepth), ""},
		"a record's head not shortest":  {rawRecord(oneChunk, []byte{0x83, 0x61, 'p', 0x61, 'k', 0x18, 0x01}), "corrupt"},
		"a record of indefinite length": {rawRecord(oneChunk, []byte{0x83, 0x61, 'p', 0x61, 'k', 0x9f, 0xff}), "corrupt"},
		"a tombstone in a full save":    {rawRecord(oneChunk, []byte{0x82, 0x61, 'p', 0x61, 'k'}), "corrupt"},
		"a record's key a number":       {rawRecord(oneChunk, []byte{0x83, 0x61, 'p', 0x01, 0xf6}), "corrupt"},
		"a record cut short":            {rawRecord(oneChunk, []byte{0x83, 0x61, 'p', 0x61, 'k'}), "corrupt"},
	}
	files, wants := map[string][]byte{}, map[string]string{}
	for name, c := range cases {
		f := sound()
		c.change(&f)
		files[name], wants[name] = f.bytes(t), c.want
	}
	wantVerdicts(t, files, wants)
}

// wantVerdicts asks both readers what they say of files.
func wantVerdicts(t *testing.T, files map[string][]byte, wants map[string]string) {
	t.Helper()
	paths := writeFiles(t, files)
	for i, got := range readStates(t, paths...) {
		name := filepath.Base(paths[i])
		t.Run(name, func(t *testing.T) {
			want := wants[name]
			if v := verdict(t, files[name]); v != want {
				t.Errorf("statefile says %q, want %q", v, want)
			}
			if got.verdict() != want {
				t.Errorf("read_state.py says %q (%+v), want %q", got.verdict(), got.Error, want)
			}
		})
	}
}

// forgedDelta is a delta on a sound file, to be changed before its checksums are made.
type forgedDelta struct {
	front   []byte // the file before it
	chunk   []byte // its one chunk: a tag and a byte string; nil: none
	index   map[string]any
	root    []byte // the root before it
	version uint16
}

// run makes the delta one run of a chunk that holds entries.
func (d *forgedDelta) run(kind, partition string, count int, entries []byte) {
	d.chunk = append([]byte{0xd8, 0x3f}, record.AppendBytes(nil, entries)...)
	sum := sha256.Sum256(entries)
	h := sha256.New()
	h.Write(d.root)
	h.Write(append(binary.BigEndian.AppendUint32(nil, uint32(len(partition))), partition...))
	h.Write(sum[:])
	d.index["root"], d.index["records"], d.index["raw"] = h.Sum(nil), count, len(entries)
	d.index["runs"] = []any{map[string]any{"kind": kind, "partition": partition,
		"chunks": []any{[]any{len(d.front), len(d.chunk), count, len(entries), sum[:]}}}}
}

func (d *forgedDelta) bytes(t *testing.T) []byte {
	t.Helper()
	return seal(append(bytes.Clone(d.front), d.chunk...), marshal(t, d.index), d.version)
}

// onto begins a delta behind a file; generation is above the file's, and nothing changes.
func onto(t *testing.T, file []byte, generation, live int) *forgedDelta {
	t.Helper()
	var last struct {
		Header []byte `cbor:"header"`
		Root   []byte `cbor:"root"`
	}
	if err := cbor.Unmarshal(file[binary.BigEndian.Uint64(file[len(file)-28:]):len(file)-30], &last); err != nil {
		t.Fatal(err)
	}
	root := sha256.Sum256(last.Root)
	return &forgedDelta{front: file, root: last.Root, version: 1, index: map[string]any{"previous": len(file), "generation": generation,
		"created": time.Unix(2, 0).UTC(), "header": last.Header, "root": root[:], "records": 0, "raw": 0, "live": live, "runs": []any{}}}
}

// What FORMAT.md says readers do with deltas that no writer would write.
func TestForgedDeltas(t *testing.T) {
	text := func(dst []byte, parts ...string) []byte {
		for _, p := range parts {
			dst = record.AppendText(dst, p)
		}
		return dst
	}
	h := header("")
	h.Generation = 1
	// A full save of k in p, whose value looks like the end of a save, and of l in q.
	trailer := append(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{0x58, 0x1c}, 300), 100), "1234torpor\x00\x01"...)
	full := encode(t, h, record.AppendNull(text(record.AppendRecord(record.AppendBytes(text(record.AppendRecord(nil), "p", "k"), trailer)), "q", "l")))
	inside := bytes.Index(full, trailer) + len(trailer)
	f, err := open(full)
	if err != nil {
		t.Fatal(err)
	}
	const live = 2
	upsert := record.AppendBool(text(record.AppendRecord(nil), "p", "k"), true)
	gone := text(record.AppendTombstone(nil), "p", "k")
	at := func(v any) func(d *forgedDelta) { return func(d *forgedDelta) { d.index["previous"] = v } }
	claim := func(changes int) func(d *forgedDelta) {
		return func(d *forgedDelta) { // of chunks that are not read yet when that is noticed
			d.run("delta", "p", changes, upsert)
		}
	}
	weigh := func(raw int) func(d *forgedDelta) {
		return func(d *forgedDelta) {
			d.run("delta", "p", 1, upsert)
			d.index["raw"] = raw
			d.index["runs"].([]any)[0].(map[string]any)["chunks"].([]any)[0].([]any)[3] = raw
		}
	}
	cases := map[string]struct {
		change func(d *forgedDelta)
		want   string
	}{
		"nothing changes":            {func(*forgedDelta) {}, ""},
		"an upsert":                  {func(d *forgedDelta) { d.run("delta", "p", 1, upsert) }, ""},
		"a tombstone":                {func(d *forgedDelta) { d.run("delta", "p", 1, gone); d.index["live"] = live - 1 }, ""},
		"a tombstone of nothing":     {func(d *forgedDelta) { d.run("delta", "q", 1, text(record.AppendTombstone(nil), "q", "k")) }, ""},
		"unknown keys":               {func(d *forgedDelta) { d.index["bloom"] = 1 }, ""},
		"no created":                 {func(d *forgedDelta) { delete(d.index, "created") }, ""},
		"created null":               {func(d *forgedDelta) { d.index["created"] = nil }, ""},
		"created no time":            {func(d *forgedDelta) { d.index["created"] = "yesterday" }, "corrupt"},
		"created tagged, no time":    {func(d *forgedDelta) { d.index["created"] = cbor.Tag{Number: 0, Content: "yesterday"} }, "corrupt"},
		"created in seconds":         {func(d *forgedDelta) { d.index["created"] = cbor.Tag{Number: 1, Content: 5} }, "corrupt"},
		"defaults":                   {func(d *forgedDelta) { delete(d.index, "records"); delete(d.index, "raw"); delete(d.index, "runs") }, ""},
		"no header":                  {func(d *forgedDelta) { delete(d.index, "header") }, "corrupt"},
		"another header":             {func(d *forgedDelta) { d.index["header"] = make([]byte, 32) }, "corrupt"},
		"previous one too far":       {at(len(full) + 1), "corrupt"},
		"previous one too near":      {at(len(full) - 1), "corrupt"},
		"previous beyond the index":  {at(1 << 40), "corrupt"},
		"previous is negative":       {at(-1), "corrupt"},
		"previous in the header":     {at(40), "corrupt"},
		"previous right behind it":   {at(int(headerEnd(t, full)) + 30), "corrupt"},
		"previous in a chunk":        {at(inside), "corrupt"},
		"previous in the index":      {at(len(full) - 31), "corrupt"},
		"no previous":                {func(d *forgedDelta) { delete(d.index, "previous") }, "corrupt"},
		"the same generation":        {func(d *forgedDelta) { d.index["generation"] = 1 }, "corrupt"},
		"generation 0":               {func(d *forgedDelta) { d.index["generation"] = 0 }, "corrupt"},
		"no generation":              {func(d *forgedDelta) { delete(d.index, "generation") }, "corrupt"},
		"generation null":            {func(d *forgedDelta) { d.index["generation"] = nil }, "corrupt"},
		"generation leaps":           {func(d *forgedDelta) { d.index["generation"] = uint64(1) << 63 }, ""},
		"no live":                    {func(d *forgedDelta) { delete(d.index, "live") }, "corrupt"},
		"live null":                  {func(d *forgedDelta) { d.index["live"] = nil }, "corrupt"},
		"live is negative":           {func(d *forgedDelta) { d.index["live"] = -1 }, "corrupt"},
		"live one too many":          {func(d *forgedDelta) { d.index["live"] = live + 1 }, "corrupt"},
		"live one too few":           {func(d *forgedDelta) { d.index["live"] = live - 1 }, "corrupt"},
		"live not changed":           {func(d *forgedDelta) { d.run("delta", "p", 1, gone) }, "corrupt"},
		"a full run":                 {func(d *forgedDelta) { d.run("full", "p", 1, upsert) }, "corrupt"},
		"a run of a later kind":      {func(d *forgedDelta) { d.run("merge", "p", 1, upsert) }, "version"},
		"a run without a kind":       {func(d *forgedDelta) { d.run("", "p", 1, upsert) }, "version"},
		"another partition":          {func(d *forgedDelta) { d.run("delta", "q", 1, upsert) }, "corrupt"},
		"too long a partition":       {func(d *forgedDelta) { d.run("delta", strings.Repeat("p", 4097), 1, upsert) }, "corrupt"},
		"a root of its own":          {func(d *forgedDelta) { d.root = nil; d.run("delta", "p", 1, upsert) }, "corrupt"},
		"the root before it":         {func(d *forgedDelta) { d.index["root"] = d.root }, "corrupt"},
		"no root":                    {func(d *forgedDelta) { delete(d.index, "root") }, "corrupt"},
		"other counts":               {func(d *forgedDelta) { d.run("delta", "p", 2, upsert) }, "corrupt"},
		"counts of the index":        {func(d *forgedDelta) { d.index["records"] = 1 }, "corrupt"},
		"bytes before the index":     {func(d *forgedDelta) { d.chunk = []byte{0xf6} }, "corrupt"},
		"a tombstone with a value":   {func(d *forgedDelta) { d.run("delta", "p", 1, record.AppendNull(bytes.Clone(gone))) }, "corrupt"},
		"a tombstone without a key":  {func(d *forgedDelta) { d.run("delta", "p", 1, gone[:3]) }, "corrupt"},
		"a tombstone's key a number": {func(d *forgedDelta) { d.run("delta", "p", 1, []byte{0x82, 0x61, 'p', 1}) }, "corrupt"},
		"a tombstone's large key": {func(d *forgedDelta) {
			d.run("delta", "p", 1, text(record.AppendTombstone(nil), "p", strings.Repeat("k", record.MaxKeyBytes+1)))
		}, "too_large"},
		"an array of one":         {func(d *forgedDelta) { d.run("delta", "p", 1, []byte{0x81, 0x61, 'p'}) }, "corrupt"},
		"too many changes":        {claim(statefile.MaxChanges + 1), "too_large"},
		"too many bytes":          {weigh(statefile.MaxDeltaBytes + 1), "too_large"},
		"as heavy as they may be": {weigh(statefile.MaxDeltaBytes), "too_large"}, // as a chunk
		"as many as they may be":  {claim(statefile.MaxChanges), "corrupt"},      // but they are not there
		"version 2 in the delta":  {func(d *forgedDelta) { d.version = 2 }, "corrupt"},
		"version 2 in the middle": {func(d *forgedDelta) { d.front = bytes.Clone(d.front); d.front[len(d.front)-1] = 2 }, "corrupt"},
		"the full save damaged":   {func(d *forgedDelta) { d.front = bytes.Clone(d.front); d.front[len(d.front)-40] ^= 1 }, "corrupt"},
		"its trailer's word gone": {func(d *forgedDelta) { d.front = bytes.Clone(d.front); d.front[len(d.front)-5] = 'x' }, "corrupt"},
		"on a delta": {func(d *forgedDelta) {
			*d = *onto(t, onto(t, full, 5, live).bytes(t), 6, live)
			d.run("delta", "p", 1, upsert)
		}, ""},
		"on a later delta":               {func(d *forgedDelta) { *d = *onto(t, onto(t, full, 5, live).bytes(t), 5, live) }, "corrupt"},
		"on a delta whose live is wrong": {func(d *forgedDelta) { *d = *onto(t, onto(t, full, 5, 77).bytes(t), 6, live) }, ""},
		"on a delta without live": {func(d *forgedDelta) {
			before := onto(t, full, 5, live)
			delete(before.index, "live")
			*d = *onto(t, before.bytes(t), 6, live)
		}, "corrupt"},
		"on a delta of a later kind": {func(d *forgedDelta) {
			before := onto(t, full, 5, live)
			before.run("merge", "p", 1, upsert)
			*d = *onto(t, before.bytes(t), 6, live)
		}, "version"},
		"of a later kind, on damage": {func(d *forgedDelta) {
			before := onto(t, full, 5, live)
			before.index["generation"] = 0
			*d = *onto(t, before.bytes(t), 6, live)
			d.run("merge", "p", 1, upsert)
		}, "corrupt"},
		"past the delta before it": {func(d *forgedDelta) {
			*d = *onto(t, onto(t, full, 5, live).bytes(t), 6, live)
			d.index["previous"] = len(full)
		}, "corrupt"},
	}
	if v := f.Info().Records; v != live {
		t.Fatalf("%d records", v)
	}
	files, wants := map[string][]byte{}, map[string]string{}
	for name, c := range cases {
		d := onto(t, full, 2, live)
		c.change(d)
		files[name], wants[name] = d.bytes(t), c.want
	}
	wantVerdicts(t, files, wants)
}

// headerEnd is where a file's header ends: where its first chunk begins.
func headerEnd(t *testing.T, file []byte) uint64 {
	t.Helper()
	var x struct {
		Runs []struct {
			Chunks [][]any `cbor:"chunks"`
		} `cbor:"runs"`
	}
	if err := cbor.Unmarshal(file[binary.BigEndian.Uint64(file[len(file)-28:]):len(file)-30], &x); err != nil {
		t.Fatal(err)
	}
	at, ok := x.Runs[0].Chunks[0][0].(uint64)
	if !ok {
		t.Fatal("no offset")
	}
	return at
}

func lengthen(f *forged) {
	run := f.index["runs"].([]any)[0].(map[string]any)
	run["chunks"] = []any{append(run["chunks"].([]any)[0].([]any), 0)}
}

func nested(depth int) any {
	var v any = []any{}
	for range depth - 1 {
		v = []any{v}
	}
	return v
}

type chunkFunc = func(f *forged, kind, partition string, item []byte, count, raw int, sum [32]byte)

func rawRecord(oneChunk chunkFunc, rec []byte) func(f *forged) {
	return func(f *forged) {
		oneChunk(f, "full", "p", append([]byte{0xd8, 0x3f}, record.AppendBytes(nil, rec)...), 1, len(rec), sha256.Sum256(rec))
	}
}

func nestedRecord(t *testing.T, oneChunk chunkFunc, depth int) func(f *forged) {
	t.Helper()
	rec := record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "k")
	return rawRecord(oneChunk, append(append(rec, bytes.Repeat([]byte{0x81}, depth-1)...), 0x80))
}

// Every line of the examples in FORMAT.md must be in the golden file at the place it says, and the lines
// must cover the file, or its deltas, without gaps but for those marked.
func TestExamplesInFormat(t *testing.T) {
	_, page, ok := bytes.Cut(readFile(t, formatPage), []byte("\n## Example\n"))
	if !ok {
		t.Fatal("no section of examples")
	}
	example := regexp.MustCompile("(?s)`testdata/([a-z0-9-]+\\.state)`, ([0-9,]+) bytes.*?\n```\n(.*?)\n```\n")
	var names []string
	for _, m := range example.FindAllSubmatch(page, -1) {
		name := string(m[1])
		names = append(names, name)
		file := readFile(t, filepath.Join(goldenFolder, name))
		if n := strings.ReplaceAll(string(m[2]), ",", ""); n != strconv.Itoa(len(file)) {
			t.Errorf("%s has %d bytes, not %s", name, len(file), n)
		}
		from := 0
		if strings.Contains(name, "delta") {
			f, err := open(file)
			if err != nil {
				t.Fatal(err)
			}
			from = int(f.Saves()[0].End)
		}
		checkExample(t, name, file, m[3], from)
	}
	if want := []string{"v1-none.state", "v1-delta-none.state"}; !slices.Equal(names, want) {
		t.Errorf("examples of %v, want of %v", names, want)
	}
}

// checkExample holds the lines of an example, which begins at an offset, against the file.
func checkExample(t *testing.T, name string, file, example []byte, at int) {
	t.Helper()
	line := regexp.MustCompile(`^(?:([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})(?:  |$)|(\.{4}) )`)
	lines := 0
	for text := range strings.Lines(string(example)) {
		m := line.FindStringSubmatch(strings.TrimSuffix(text, "\n"))
		if m == nil {
			t.Fatalf("%s: not a line of an example: %q", name, text)
		}
		if m[3] != "" {
			at = -1
			continue
		}
		offset, err := strconv.ParseInt(m[1], 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(m[2], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if at >= 0 && int(offset) != at {
			t.Errorf("%s: line %s follows one that ends at %04x", name, m[1], at)
		}
		if at = int(offset) + len(b); at > len(file) || !bytes.Equal(b, file[offset:at]) {
			t.Fatalf("%s: %s: the file does not have % x there", name, m[1], b)
		}
		lines++
	}
	if lines < 50 || at != len(file) {
		t.Errorf("%s: %d lines end at %d; the file has %d bytes", name, lines, at, len(file))
	}
}

// The vectors of the cutting rule in FORMAT.md.
func TestCutVectorsInFormat(t *testing.T) {
	page, err := os.ReadFile(formatPage)
	if err != nil {
		t.Fatal(err)
	}
	rows := regexp.MustCompile("(?m)^\\| `([0-9a-f ]+)` \\([^|]*\\) \\| 0x([0-9a-f]{8}) \\| 0x([0-9a-f]{8}) \\| ([0-9,]+) \\|$").FindAllStringSubmatch(string(page), -1)
	if len(rows) < 3 {
		t.Fatalf("%d vectors found", len(rows))
	}
	for _, row := range rows {
		key, err := hex.DecodeString(strings.ReplaceAll(row[1], " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		crc := crc32.Checksum(key, crc32.MakeTable(crc32.Castagnoli))
		h := crc * 0x9e3779b1
		least := uint64(h)*49152>>32 + 1
		if fmt.Sprintf("%08x", crc) != row[2] || fmt.Sprintf("%08x", h) != row[3] || strconv.FormatUint(least, 10) != strings.ReplaceAll(row[4], ",", "") {
			t.Errorf("%s: CRC32C %08x, h %08x, from %d", row[1], crc, h, least)
		}
	}
}
