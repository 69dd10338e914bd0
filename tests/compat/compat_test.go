// Package compat_test holds Torpor's reader of state files against an independent one: read_state.py,
// written from FORMAT.md alone. Both must find the same in every golden file, in files with all that
// records may hold, and give the same verdict on every damaged one. It also checks what FORMAT.md shows:
// its annotated example and its test vectors.
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
	} `json:"index"`
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
	// 3, 4 and 7 only say that a file was refused, which the report says too.
	if exit := (*exec.ExitError)(nil); err != nil && (!errors.As(err, &exit) || !slices.Contains([]int{3, 4, 7}, exit.ExitCode())) {
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
	if x := got.Index; x.Records != info.Records || x.Raw != info.Raw || x.Chunks != info.Chunks || x.Root != hex.EncodeToString(info.Root[:]) {
		t.Errorf("index %+v, want %+v", x, info)
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
	paths, err := filepath.Glob(filepath.Join(goldenFolder, "*.state"))
	if err != nil || len(paths) < 2 {
		t.Fatalf("golden files %v, error %v", paths, err)
	}
	reports := readStates(t, append([]string{"--raw"}, paths...)...)
	for i, path := range paths {
		t.Run(filepath.Base(path), func(t *testing.T) {
			file, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, file, reports[i])
		})
	}
}

func header(compression string) statefile.Header {
	return statefile.Header{Service: "orders", Part: "assets", Generation: 1<<40 + 3, Created: time.Date(2024, 2, 29, 0, 0, 0, 500, time.UTC),
		Serializer: statefile.Serializer{Name: "records", Version: "", Digest: sha256.Sum256([]byte("x")), Schema: 1 << 33}, Compression: compression}
}

func encode(t *testing.T, h statefile.Header, data []byte) []byte {
	t.Helper()
	var s record.Scanner
	refs, err := s.Scan(data, nil)
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	w, err := statefile.NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
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

// Cut anywhere, or with any byte changed, a file is the same to both readers.
func TestDamage(t *testing.T) {
	file, err := os.ReadFile(filepath.Join(goldenFolder, "v1-none.state"))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for i := range file {
		files[fmt.Sprintf("cut-%05d", i)] = file[:i]
		for _, mask := range []byte{0x01, 0xff} {
			bad := bytes.Clone(file)
			bad[i] ^= mask
			files[fmt.Sprintf("flip-%05d-%02x", i, mask)] = bad
		}
	}
	paths := writeFiles(t, files)
	for i, got := range readStates(t, paths...) {
		name := filepath.Base(paths[i])
		if want := verdict(t, files[name]); got.verdict() != want || want != "corrupt" {
			t.Errorf("%s: read_state.py says %q, statefile %q", name, got.verdict(), want)
		}
		if got.Error != nil && (got.Error.Offset < 0 || got.Error.Offset > int64(len(files[name]))) {
			t.Errorf("%s: offset %d in a file of %d bytes", name, got.Error.Offset, len(files[name]))
		}
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
	enc, err := cbor.EncOptions{TimeTag: cbor.EncTagRequired, Time: cbor.TimeRFC3339NanoUTC}.EncMode()
	if err != nil {
		t.Fatal(err)
	}
	// The version comes first; of the other keys the order is free.
	version := f.header["torpor"]
	rest := maps.Clone(f.header)
	delete(rest, "torpor")
	out := record.AppendMap([]byte{0xd9, 0xd9, 0xf7}, len(f.header))
	for _, key := range append([]string{"torpor"}, slices.Sorted(maps.Keys(rest))...) {
		rest["torpor"] = version
		item, err := enc.Marshal(rest[key])
		if err != nil {
			t.Fatal(err)
		}
		out = append(record.AppendText(out, key), item...)
	}
	sum := sha256.Sum256(out)
	index := maps.Clone(f.index)
	if _, ok := index["header"]; !ok {
		index["header"] = sum[:]
	}
	item, err := enc.Marshal(index)
	if err != nil {
		t.Fatal(err)
	}
	out = append(out, f.gap...)
	at := len(out)
	out = append(out, item...)
	trailer := binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64([]byte{0x58, 0x1c}, uint64(at)), uint64(len(item)))
	table := crc32.MakeTable(crc32.Castagnoli)
	trailer = binary.BigEndian.AppendUint32(trailer, crc32.Update(crc32.Checksum(item, table), table, trailer))
	trailer = binary.BigEndian.AppendUint16(append(trailer, "torpor"...), f.version)
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
		"previous":                  {func(f *forged) { f.index["previous"] = 7 }, "version"},
		"previous is negative":      {func(f *forged) { f.index["previous"] = -1 }, "corrupt"},
		"delta run":                 {func(f *forged) { oneChunk(f, "delta", "p", plain, 1, len(rec), sum) }, "version"},
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
		"a record's key a number":       {rawRecord(oneChunk, []byte{0x83, 0x61, 'p', 0x01, 0xf6}), "corrupt"},
		"a record cut short":            {rawRecord(oneChunk, []byte{0x83, 0x61, 'p', 0x61, 'k'}), "corrupt"},
	}
	files := map[string][]byte{}
	for name, c := range cases {
		f := sound()
		c.change(&f)
		files[name] = f.bytes(t)
	}
	paths := writeFiles(t, files)
	for i, got := range readStates(t, paths...) {
		name := filepath.Base(paths[i])
		t.Run(name, func(t *testing.T) {
			want := cases[name].want
			if v := verdict(t, files[name]); v != want {
				t.Errorf("statefile says %q, want %q", v, want)
			}
			if got.verdict() != want {
				t.Errorf("read_state.py says %q (%+v), want %q", got.verdict(), got.Error, want)
			}
		})
	}
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

// Every line of the example in FORMAT.md must be in the golden file at the place it says, and the lines
// must cover the file without gaps but for those marked.
func TestExampleInFormat(t *testing.T) {
	page, err := os.ReadFile(formatPage)
	if err != nil {
		t.Fatal(err)
	}
	file, err := os.ReadFile(filepath.Join(goldenFolder, "v1-none.state"))
	if err != nil {
		t.Fatal(err)
	}
	line := regexp.MustCompile(`(?m)^(?:([0-9a-f]{4})  ((?:[0-9a-f]{2} )*[0-9a-f]{2})|(\.{4}) )`)
	at, lines := 0, 0
	for _, m := range line.FindAllSubmatch(page, -1) {
		if m[3] != nil {
			at = -1
			continue
		}
		offset, err := strconv.ParseInt(string(m[1]), 16, 32)
		if err != nil {
			t.Fatal(err)
		}
		b, err := hex.DecodeString(strings.ReplaceAll(string(m[2]), " ", ""))
		if err != nil {
			t.Fatal(err)
		}
		if at >= 0 && int(offset) != at {
			t.Errorf("line %s follows one that ends at %04x", m[1], at)
		}
		if at = int(offset) + len(b); at > len(file) || !bytes.Equal(b, file[offset:at]) {
			t.Fatalf("%s: the file does not have % x there", m[1], b)
		}
		lines++
	}
	if lines < 50 || at != len(file) {
		t.Errorf("%d lines end at %d; the file has %d bytes", lines, at, len(file))
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
