package s3

import (
	"bytes"
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/johannesboyne/gofakes3"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

var update = flag.Bool("update", false, "write testdata/schema-1.cborseq anew")

// golden is a state with everything in it that schema 1 has.
const golden = "testdata/schema-1.cborseq"

// randomBody makes n bytes that no piece shares with another.
func randomBody(n int, seed byte) body {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(data)
	var b body
	for p := range slices.Chunk(data, pieceBytes) {
		b = append(b, p)
	}
	return b
}

func newTestVersion(b body) *version { return &version{size: b.size(), md5: b.sum(), body: b} }

// sample is a service with everything in it that a state can have. Large bodies are left out unless
// asked for.
func sample(t testing.TB, large bool) *Service {
	t.Helper()
	s := New(Options{Clock: newTestClock().Now})
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	put := func(bucket, key string, v *version) {
		t.Helper()
		_, err := s.putObject(bucket, key, v, conditions{})
		must(err)
	}
	must(s.createBucket("plain", DefaultPartition))
	must(s.createBucket("versioned", "123456789012/eu-west-1"))
	must(s.createBucket("suspended", DefaultPartition))
	must(s.createBucket("empty", "123456789012/ap-south-1"))

	put("plain", "empty", newTestVersion(nil))
	put("plain", "a/b c/ü", newTestVersion(randomBody(10, 1)))
	put("plain", "not \xff utf-8 \x00", newTestVersion(randomBody(10, 2)))
	full := newTestVersion(randomBody(100, 3))
	full.attrs = []pair{{"cache-control", "no-cache"}, {"content-type", "a/b"}, {"x-amz-meta-a", ""}, {"x-amz-meta-latin", "gr\xfc\xdfe"}, {"x-amz-storage-class", "GLACIER_IR"}}
	full.tags = []pair{{"a", ""}, {"ü", "ä ö"}}
	put("plain", "full", full)
	for algorithm := algorithmCRC32; algorithm < algorithmEnd; algorithm++ {
		v := newTestVersion(randomBody(int(algorithm)-1, 4))
		v.checksum.algorithm = algorithm
		h := algorithm.hash()
		v.body.WriteTo(h)
		h.Sum(v.checksum.sum[:0])
		put("plain", "checksum/"+algorithm.String(), v)
	}
	parts := newTestVersion(randomBody(30, 5))
	parts.parts = []int64{10, 0, 20}
	put("plain", "parts", parts)

	put("versioned", "k", newTestVersion(randomBody(5, 6)))
	must(s.setVersioning("versioned", gofakes3.VersioningEnabled))
	for i := range 4 {
		put("versioned", "k", newTestVersion(randomBody(i, 7)))
	}
	_, err := s.deleteObject("versioned", "k", conditions{})
	must(err)
	put("versioned", "k", newTestVersion(randomBody(6, 8)))
	_, err = s.deleteVersion("versioned", "k", s.listed(t, "versioned")[2].id)
	must(err)
	_, err = s.deleteObject("versioned", "gone/", conditions{})
	must(err)

	must(s.setVersioning("suspended", gofakes3.VersioningEnabled))
	put("suspended", "k", newTestVersion(randomBody(7, 9)))
	must(s.setVersioning("suspended", gofakes3.VersioningSuspended))
	put("suspended", "k", newTestVersion(randomBody(8, 10)))

	upload := func(key string) string {
		t.Helper()
		id, err := s.createUpload("plain", &upload{key: key, attrs: full.attrs, tags: full.tags})
		must(err)
		return id
	}
	part := func(key, id string, number int, b body) {
		t.Helper()
		must(s.putPart("plain", key, id, &part{number: number, size: b.size(), md5: b.sum(), body: b}))
	}
	upload("none yet")
	id := upload("1/2/3")
	part("1/2/3", id, 10_000, randomBody(3, 11))
	part("1/2/3", id, 1, randomBody(0, 12))
	if large {
		put("plain", "large", newTestVersion(randomBody(pieceBytes+1, 13)))
		put("plain", "largest in one", newTestVersion(randomBody(pieceBytes, 15)))
		put("versioned", "k", newTestVersion(randomBody(pieceBytes+7, 16)))
		put("versioned", "k", newTestVersion(randomBody(2*pieceBytes, 17)))
		part("1/2/3", id, 2, randomBody(pieceBytes+2, 18))
		// Pieces that are not cut where a state's are: as of an object uploaded in parts.
		odd := randomBody(pieceBytes+9, 19)
		put("plain", "odd", newTestVersion(slices.Concat(odd.section(0, 7), odd.section(7, 100), odd.section(107, pieceBytes-98))))
	}
	return s
}

// listed lists a bucket's versions.
func (s *Service) listed(t testing.TB, name string) []listedVersion {
	t.Helper()
	var l versionListing
	err := s.view(name, func(b *bucket) error {
		l = b.listVersions(page{limit: math.MaxInt}, versionMarker{})
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return l.versions
}

// TestStateRoundTrip: what is restored is what was captured, and so is its capture.
func TestStateRoundTrip(t *testing.T) {
	s := sample(t, true)
	want := native(t, s)
	for name, wrap := range map[string]func(io.Reader) io.Reader{
		"at once":       func(r io.Reader) io.Reader { return r },
		"byte for byte": iotest.OneByteReader,
		"end with data": iotest.DataErrReader,
	} {
		t.Run(name, func(t *testing.T) {
			other := New(Options{Partition: "elsewhere/else"})
			if err := other.Restore(t.Context(), wrap(bytes.NewReader(want))); err != nil {
				t.Fatal(err)
			}
			if got := native(t, other); !bytes.Equal(got, want) {
				t.Errorf("%d bytes, not the %d captured", len(got), len(want))
			}
			compare(t, s, other)
		})
	}
}

// compare compares two services as clients see them, by the backend and without the state's form.
func compare(t *testing.T, a, b *Service) {
	t.Helper()
	an, bn := a.bucketList(), b.bucketList()
	if len(an) != len(bn) {
		t.Fatalf("%d and %d buckets", len(an), len(bn))
	}
	for i := range an {
		if *an[i] != *bn[i] {
			t.Errorf("buckets %+v and %+v", an[i], bn[i])
		}
		av, bv := a.listed(t, an[i].name), b.listed(t, an[i].name)
		if len(av) != len(bv) {
			t.Fatalf("%s: %d and %d versions", an[i].name, len(av), len(bv))
		}
		for j := range av {
			x, y := av[j], bv[j]
			if x.key != y.key || x.latest != y.latest || x.id != y.id || x.modified != y.modified || x.marker != y.marker || x.etag() != y.etag() ||
				x.checksum != y.checksum || !slices.Equal(x.attrs, y.attrs) || !slices.Equal(x.tags, y.tags) || !slices.Equal(x.parts, y.parts) ||
				x.size != y.size || x.body.sum() != y.body.sum() || x.body.size() != y.size {
				t.Errorf("%s/%s: %+v and %+v", an[i].name, x.key, x.version, y.version)
			}
		}
	}
}

// TestStateAnyOrder: the order of the records does not matter, so that whoever merges or sorts them
// need not know it.
func TestStateAnyOrder(t *testing.T) {
	want := native(t, sample(t, true))
	records := split(t, want)
	random := rand.New(rand.NewPCG(1, 2))
	for i := range 5 {
		switch i {
		case 0:
			slices.Reverse(records)
		case 1:
			slices.SortFunc(records, bytes.Compare)
		default:
			random.Shuffle(len(records), func(i, j int) { records[i], records[j] = records[j], records[i] })
		}
		s := New(Options{})
		if err := s.Restore(t.Context(), bytes.NewReader(bytes.Join(records, nil))); err != nil {
			t.Fatal(err)
		}
		if got := native(t, s); !bytes.Equal(got, want) {
			t.Fatalf("order %d: %d bytes, not the %d captured", i, len(got), len(want))
		}
	}
}

// split cuts a state into its records.
func split(t testing.TB, native []byte) [][]byte {
	t.Helper()
	var s record.Scanner
	refs, err := s.Scan(native, nil)
	if err != nil {
		t.Fatal(err)
	}
	records := make([][]byte, len(refs))
	for i, ref := range refs {
		records[i] = native[ref.Start:ref.End]
	}
	return records
}

// TestStateRecords: a missing record is noticed, whichever it is, and so is one that is there twice.
func TestStateRecords(t *testing.T) {
	for _, large := range []bool{false, true} {
		s := sample(t, large)
		want := native(t, s)
		records := split(t, want)
		for i, r := range records {
			var scan record.Scanner
			refs, err := scan.Scan(r, nil)
			if err != nil {
				t.Fatal(err)
			}
			batch := &record.Batch{Data: r, Refs: refs}
			key, _ := batch.Key(0)
			split := strings.HasPrefix(string(key), kindBody) || bytes.Contains(batch.Value(0), []byte("pieces"))
			if large && !split {
				continue // seen with the small ones
			}
			twice := slices.Concat(want, r)
			if err := New(Options{}).Restore(t.Context(), bytes.NewReader(twice)); !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("%q twice: %v", key, err)
			}
			less := bytes.Join(slices.Delete(slices.Clone(records), i, i+1), nil)
			other := New(Options{})
			err = other.Restore(t.Context(), bytes.NewReader(less))
			if others := split || needed(string(key)); !others && (err != nil || !bytes.Equal(native(t, other), less)) || others && !errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("%q missing: %v", key, err)
			}
		}
	}
}

// needed reports whether others need a record of the sample.
func needed(key string) bool {
	kind, rest, _ := strings.Cut(key, "/")
	switch kind {
	case kindBucket:
		return rest != "empty"
	case kindUpload:
		return strings.HasSuffix(rest, "1/2/3")
	case kindObject:
		return rest == "versioned/k" || rest == "suspended/k"
	}
	return false
}

// TestStateTruncated cuts a state at every length: what is left is refused, or is a whole state by
// itself; and a service keeps what it had when it refuses.
func TestStateTruncated(t *testing.T) {
	want := native(t, sample(t, false))
	s := newServer(t, Options{}).Service
	if err := s.createBucket("kept", DefaultPartition); err != nil {
		t.Fatal(err)
	}
	kept := native(t, s)
	accepted := 0
	for n := range want {
		other := New(Options{})
		err := other.Restore(t.Context(), bytes.NewReader(want[:n]))
		if err == nil {
			accepted++
			if got := native(t, other); !bytes.Equal(got, want[:n]) {
				t.Fatalf("cut at %d of %d: accepted as another state", n, len(want))
			}
			continue
		}
		if !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("cut at %d: %v", n, err)
		}
		if err := s.Restore(t.Context(), bytes.NewReader(want[:n])); err == nil || !bytes.Equal(native(t, s), kept) {
			t.Fatalf("cut at %d: the state before is gone", n)
		}
	}
	if accepted == 0 || accepted > len(split(t, want)) {
		t.Errorf("%d of %d lengths accepted", accepted, len(want))
	}
}

// TestStateDamaged changes every byte: what comes out is refused or is a state by itself.
func TestStateDamaged(t *testing.T) {
	want := native(t, sample(t, false))
	for i := range want {
		for _, flip := range []byte{0x01, 0xa0} {
			data := bytes.Clone(want)
			data[i] ^= flip
			checkRestore(t, data)
		}
	}
}

// checkRestore restores anything: it must be refused as corrupt or too large, or be a state that
// stays what it is.
func checkRestore(t *testing.T, data []byte) {
	t.Helper()
	s := New(Options{})
	err := s.Restore(context.Background(), bytes.NewReader(data))
	if err != nil {
		if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) {
			t.Fatalf("%v", err)
		}
		if len(native(t, s)) > 0 {
			t.Fatal("an error, and a state")
		}
		return
	}
	first := native(t, s)
	again := New(Options{})
	if err := again.Restore(context.Background(), bytes.NewReader(first)); err != nil {
		t.Fatalf("what was accepted is refused when it comes again: %v", err)
	}
	if second := native(t, again); !bytes.Equal(first, second) {
		t.Fatal("what was accepted changes")
	}
	compare(t, s, again)
}

func FuzzRestore(f *testing.F) {
	whole := native(f, sample(f, false))
	f.Add(whole)
	for _, r := range split(f, whole) {
		f.Add(r)
	}
	for _, bad := range badStates() {
		f.Add(bad.native)
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkRestore(t, data) })
}

// rec makes a record. fields are names and values in turn: strings, bytes, integers, booleans, and
// []pair and []int64.
func rec(key string, fields ...any) []byte {
	b := record.AppendText(record.AppendRecord(nil), DefaultPartition)
	b = record.AppendMap(record.AppendText(b, key), len(fields)/2)
	for i, field := range fields {
		if i%2 == 0 {
			b = record.AppendText(b, field.(string))
			continue
		}
		switch v := field.(type) {
		case string:
			b = record.AppendText(b, v)
		case []byte:
			b = record.AppendBytes(b, v)
		case int:
			b = record.AppendInt(b, int64(v))
		case bool:
			b = record.AppendBool(b, v)
		case []pair:
			b = record.AppendMap(b, len(v))
			for _, p := range v {
				b = record.AppendText(record.AppendText(b, p.name), p.value)
			}
		case []int64:
			b = record.AppendArray(b, len(v))
			for _, n := range v {
				b = record.AppendInt(b, n)
			}
		}
	}
	return b
}

// pieceRecord makes the record of a piece.
func pieceRecord(key string, data []byte) []byte {
	return record.AppendBytes(record.AppendText(record.AppendText(record.AppendRecord(nil), DefaultPartition), key), data)
}

type badState struct {
	name, says string
	native     []byte
}

// badStates are records that are sound CBOR and no state.
func badStates() []badState {
	sum, mib := make([]byte, 16), make([]byte, pieceBytes)
	bucket := rec("bucket/b", "created", 1)
	versioned := rec("bucket/b", "created", 1, "versioning", "Enabled")
	object := func(fields ...any) []byte { return slices.Concat(bucket, rec("object/b/k", fields...)) }
	with := func(fields ...any) []byte {
		return object(append([]any{"size", 1, "md5", sum, "modified", 1, "body", []byte("x")}, fields...)...)
	}
	small := rec("object/b/k", "size", 1, "md5", sum, "modified", 1, "body", []byte("x"))
	large := slices.Concat(bucket, rec("object/b/k", "size", pieceBytes+1, "md5", sum, "modified", 1, "pieces", 2))
	upload := slices.Concat(bucket, rec("upload/b/U/k", "initiated", 1))
	part := func(key string, fields ...any) []byte { return slices.Concat(upload, rec(key, fields...)) }
	elsewhere := append(record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "object/b/k"), small[1+1+len(DefaultPartition)+1+len("object/b/k"):]...)
	return []badState{
		{"unknown kind", "no record of this service", slices.Concat(bucket, rec("thing/b/k"))},
		{"no slash", "a bucket's name has 1 to 255 bytes", rec("bucket")},
		{"empty key", "a bucket's name has 1 to 255 bytes", rec("")},
		{"no bucket name", "a bucket's name has 1 to 255 bytes", rec("bucket/", "created", 1)},
		{"long bucket name", "this one 256", rec("bucket/"+strings.Repeat("b", 256), "created", 1)},
		{"slash in a bucket's name", "no slash", rec("bucket/a/b", "created", 1)},
		{"no object key", "1 to 1024 bytes, this one 0", slices.Concat(bucket, rec("object/b/"))},
		{"long object key", "1 to 1024 bytes, this one 1025", slices.Concat(bucket, rec("object/b/"+strings.Repeat("k", 1025)))},
		{"no version key", "1 to 1024 bytes, this one 0", slices.Concat(bucket, rec("version/b/V"))},
		{"value no map", "a map expected", append(record.AppendText(record.AppendText(record.AppendRecord(nil), DefaultPartition), "bucket/b"), 0)},
		{"unknown field", `unknown field "newer" (schema 1)`, rec("bucket/b", "created", 1, "newer", 1)},
		{"field twice", `"created" is there twice`, rec("bucket/b", "created", 1, "created", 1)},
		{"field missing", `"created" is missing`, rec("bucket/b")},
		{"field of another type", "an integer expected", rec("bucket/b", "created", "today")},
		{"versioning unknown", "known are Enabled and Suspended", rec("bucket/b", "created", 1, "versioning", "Off")},
		{"bucket twice", "twice", slices.Concat(bucket, bucket)},
		{"bucket missing", `record "bucket/b" of partition "000000000000/us-east-1": it is missing`, small},
		{"bucket in two partitions", `the bucket is in partition "000000000000/us-east-1", too`, slices.Concat(bucket, elsewhere)},
		{"object twice", "twice", slices.Concat(bucket, small, small)},
		{"object as bytes, too", "text would do", slices.Concat(bucket, small, append(record.AppendBytes(record.AppendText(record.AppendRecord(nil), DefaultPartition), "object/b/k"), small[1+1+len(DefaultPartition)+1+len("object/b/k"):]...))},
		{"no size", "no size or no md5", object("md5", sum, "modified", 1, "body", []byte("x"))},
		{"no md5", "no size or no md5", object("size", 1, "modified", 1, "body", []byte("x"))},
		{"short md5", "has 15 bytes, not 16", object("size", 1, "md5", sum[1:], "modified", 1, "body", []byte("x"))},
		{"no time", `"modified" is missing`, object("size", 1, "md5", sum, "body", []byte("x"))},
		{"no content", "no content", object("size", 1, "md5", sum, "modified", 1)},
		{"another size", "content has 1 bytes, its size is 2", object("size", 2, "md5", sum, "modified", 1, "body", []byte("x"))},
		{"negative size", "no object has -1 bytes", object("size", -1, "md5", sum, "modified", 1, "pieces", 2)},
		{"endless size", "no object has", object("size", 1<<62, "md5", sum, "modified", 1, "pieces", 1<<42)},
		{"overflowing size", "no object has", object("size", 1<<63-1, "md5", sum, "modified", 1, "pieces", -1<<43)},
		{"content twice", "in it and elsewhere", with("pieces", 1)},
		{"split though small", "not split like this", object("size", 1, "md5", sum, "modified", 1, "pieces", 1)},
		{"split otherwise", "not split like this", object("size", pieceBytes+1, "md5", sum, "modified", 1, "pieces", 3)},
		{"not split though large", "not split like this", object("size", pieceBytes+1, "md5", sum, "modified", 1, "body", append(mib, 0))},
		{"first piece missing", `record "body/b/null/000000/k"`, slices.Concat(large, pieceRecord("body/b/null/000001/k", []byte("x")))},
		{"last piece missing", `record "body/b/null/000001/k"`, slices.Concat(large, pieceRecord("body/b/null/000000/k", mib))},
		{"piece short", "has 1048575 bytes and should have 1048576", slices.Concat(large, pieceRecord("body/b/null/000000/k", mib[1:]), pieceRecord("body/b/null/000001/k", []byte("x")))},
		{"piece twice", "twice", slices.Concat(large, pieceRecord("body/b/null/000000/k", mib), pieceRecord("body/b/null/000000/k", mib))},
		{"piece too many", "one too many", slices.Concat(large, pieceRecord("body/b/null/000000/k", mib), pieceRecord("body/b/null/000001/k", []byte("x")), pieceRecord("body/b/null/000002/k", nil))},
		{"piece of nothing", "of no object or part that is split", slices.Concat(bucket, small, pieceRecord("body/b/null/000000/k", mib))},
		{"piece not numbered", "no number of a piece", slices.Concat(large, pieceRecord("body/b/null/0/k", mib))},
		{"piece no bytes", "a byte string expected", slices.Concat(large, rec("body/b/null/000000/k"))},
		{"bad version id", `"a.b" is no id`, slices.Concat(versioned, rec("object/b/k", "size", 1, "md5", sum, "modified", 1, "version", "a.b", "body", []byte("x")))},
		{"version null by name", `"null" is no id`, with("version", "null")},
		{"version in a bucket never versioned", "its bucket never was", with("version", "V")},
		{"marker in a bucket never versioned", "its bucket never was", object("modified", 1, "deleted", true)},
		{"older version in a bucket never versioned", "its bucket never was", slices.Concat(bucket, rec("object/b/k", "size", 1, "md5", sum, "modified", 1, "order", 1, "body", []byte("x")), rec("version/b/V/k", "modified", 1, "version", "V", "deleted", true))},
		{"order zero", "0 is left out", with("order", 0)},
		{"order negative", "an unsigned integer expected", with("order", -1)},
		{"deleted false", "false is left out", with("deleted", false)},
		{"marker with content", "no content", with("deleted", true)},
		{"no parts", "1 to 10000 parts, this one 0", with("parts", []int64{})},
		{"parts of another sum", "do not add up", with("parts", []int64{1, 1})},
		{"negative part", "no part has -1 bytes", with("parts", []int64{2, -1})},
		{"short checksum", "has 3 bytes, not 4", with("crc32", []byte("abc"))},
		{"two checksums", "another checksum", with("crc32", []byte("abcd"), "crc32c", []byte("abcd"))},
		{"empty metadata", "an empty map is left out", with("meta", []pair{})},
		{"metadata out of order", "not in order", with("meta", []pair{{"x-amz-meta-b", ""}, {"x-amz-meta-a", ""}})},
		{"metadata twice", "not in order", with("meta", []pair{{"x-amz-meta-a", ""}, {"x-amz-meta-a", ""}})},
		{"metadata unknown", "not kept with an object", with("meta", []pair{{"set-cookie", "x"}})},
		{"metadata with a line", "not kept with an object", with("meta", []pair{{"content-type", "a\nb"}})},
		{"tag too long", "TagKey", with("tags", []pair{{strings.Repeat("k", 129), ""}})},
		{"too many tags", "cannot be greater than 10", with("tags", []pair{{"a", ""}, {"b", ""}, {"c", ""}, {"d", ""}, {"e", ""}, {"f", ""}, {"g", ""}, {"h", ""}, {"i", ""}, {"j", ""}, {"k", ""}})},
		{"version of another id", `its value is of version "null"`, slices.Concat(versioned, small, rec("version/b/V/k", "modified", 1, "deleted", true))},
		{"version without object", `record "object/b/k" of partition "000000000000/us-east-1": it is missing`, slices.Concat(versioned, rec("version/b/V/k", "modified", 1, "version", "V", "deleted", true))},
		{"version newer than the current one", "its order is not below", slices.Concat(versioned, small, rec("version/b/V/k", "modified", 1, "version", "V", "order", 1, "deleted", true))},
		{"versions of one id", "another version of this id", slices.Concat(versioned, rec("object/b/k", "modified", 1, "order", 1, "deleted", true), rec("version/b/null/k", "modified", 1, "deleted", true))},
		{"upload of no id", `"" is no id`, slices.Concat(bucket, rec("upload/b//k", "initiated", 1))},
		{"upload twice", "another upload of this id", slices.Concat(upload, rec("upload/b/U/other", "initiated", 1))},
		{"part of no upload", "of no upload", slices.Concat(bucket, rec("part/b/U/00001/k", "size", 1, "md5", sum, "modified", 1, "body", []byte("x")))},
		{"part of an upload of another key", "of no upload", part("part/b/U/00001/other", "size", 1, "md5", sum, "modified", 1, "body", []byte("x"))},
		{"part not numbered", "no number of a part", part("part/b/U/1/k", "size", 1, "md5", sum, "modified", 1, "body", []byte("x"))},
		{"part of number 0", "no number of a part", part("part/b/U/00000/k", "size", 1, "md5", sum, "modified", 1, "body", []byte("x"))},
		{"part without content", "no content", part("part/b/U/00001/k", "size", 1, "md5", sum, "modified", 1)},
		{"part twice", "twice", slices.Concat(part("part/b/U/00001/k", "size", 1, "md5", sum, "modified", 1, "body", []byte("x")), rec("part/b/U/00001/k", "size", 1, "md5", sum, "modified", 1, "body", []byte("x")))},
	}
}

// TestStateRefused: each fault gets an error that names the record and says what is wrong with it.
func TestStateRefused(t *testing.T) {
	for _, bad := range badStates() {
		err := New(Options{}).Restore(t.Context(), bytes.NewReader(bad.native))
		if !errors.Is(err, abi.ErrCorrupt) || !strings.Contains(err.Error(), bad.says) || !strings.Contains(err.Error(), "s3: record ") {
			t.Errorf("%s: %v, want %q", bad.name, err, bad.says)
		}
	}
	long := rec("object/b/k", "body", make([]byte, maxRecordBytes))
	if err := New(Options{}).Restore(t.Context(), bytes.NewReader(long)); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a long record: %v", err)
	}
}

// TestStateFailures: whatever stops a restore or a capture, its own error comes out and the state
// stays.
func TestStateFailures(t *testing.T) {
	s := sample(t, false)
	want := native(t, s)
	broken := errors.New("broken")
	if err := s.Restore(t.Context(), io.MultiReader(bytes.NewReader(want), iotest.ErrReader(broken))); !errors.Is(err, broken) {
		t.Errorf("a broken reader: %v", err)
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := s.Restore(ended, bytes.NewReader(nil)); !errors.Is(err, context.Canceled) {
		t.Errorf("Restore: %v", err)
	}
	if err := s.Reset(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Reset: %v", err)
	}
	if _, err := s.Capture(ended); !errors.Is(err, context.Canceled) {
		t.Errorf("Capture: %v", err)
	}
	if got := native(t, s); !bytes.Equal(got, want) {
		t.Error("the state changed")
	}
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.WriteNative(ended, io.Discard); !errors.Is(err, context.Canceled) {
		t.Errorf("WriteNative: %v", err)
	}
	if err := c.WriteNative(t.Context(), failingWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("a broken writer: %v", err)
	}
	if err := c.Close(); err != nil {
		t.Error(err)
	}
	if err := c.WriteNative(t.Context(), io.Discard); !errors.Is(err, errClosed) {
		t.Errorf("closed: %v", err)
	}
}

type failingWriter struct{ err error }

func (w failingWriter) Write([]byte) (int, error) { return 0, w.err }

// sizes notes how much is written at a time.
type sizes []int

func (s *sizes) Write(p []byte) (int, error) {
	*s = append(*s, len(p))
	return len(p), nil
}

// TestWriteNativeBuffers: a state is written in pieces worth a system call each, and not in one.
func TestWriteNativeBuffers(t *testing.T) {
	s := benchService(t, 2000)
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	var w sizes
	if err := c.WriteNative(t.Context(), &w); err != nil {
		t.Fatal(err)
	}
	for i, n := range w {
		if (n < flushBytes && i < len(w)-1) || n > 2*flushBytes {
			t.Errorf("write %d of %d is %d bytes", i+1, len(w), n)
		}
	}
	if len(w) < 2 {
		t.Errorf("%d writes", len(w))
	}
}

// TestGolden: states written by any released version stay readable, and mean the same.
func TestGolden(t *testing.T) {
	if *update {
		if err := os.WriteFile(golden, native(t, sample(t, false)), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	s := newServer(t, Options{})
	if err := s.Restore(t.Context(), bytes.NewReader(want)); err != nil {
		t.Fatal(err)
	}
	if got := native(t, s.Service); !bytes.Equal(got, want) {
		t.Errorf("%d bytes, not the %d of the file", len(got), len(want))
	}
	a := s.expect(200, "GET", "/plain/full", "", "X-Amz-Checksum-Mode", "ENABLED")
	if a.body != string(bytes.Join(randomBody(100, 3), nil)) || a.Header.Get("Last-Modified") != "Thu, 29 Feb 2024 23:59:58 GMT" || a.Header.Get("Etag") != quoted(plainETag(a.body)) ||
		a.Header.Get("Content-Type") != "a/b" || a.Header.Get("X-Amz-Tagging-Count") != "2" || a.Header.Get("X-Amz-Storage-Class") != "GLACIER_IR" {
		t.Errorf("%q %v", a.body, a.Header)
	}
	var versions []string
	for _, v := range s.listed(t, "versioned") {
		versions = append(versions, fmt.Sprint(v.key, " ", v.id != "", v.marker, v.latest, v.size, v.order))
	}
	if got, want := strings.Join(versions, ", "), "gone/ true true true 0 0, k true false true 6 6, k true true false 0 5, k true false false 2 3, k true false false 1 2, k true false false 0 1, k false false false 5 0"; got != want {
		t.Errorf("versions\n%s, want\n%s", got, want)
	}
}

// TestCaptureIsolated changes all there is in a service after a capture, which must stay what it was.
func TestCaptureIsolated(t *testing.T) {
	s := sample(t, false)
	id := func(key string) string {
		t.Helper()
		var found string
		s.view("plain", func(b *bucket) error {
			b.uploads.Scan(func(_ string, u *upload) bool {
				if u.key == key {
					found = u.id
				}
				return true
			})
			return nil
		})
		return found
	}
	parts, none := id("1/2/3"), id("none yet")
	for name, change := range map[string]func() error{
		"put":            func() error { _, err := s.putObject("plain", "new", newTestVersion(nil), conditions{}); return err },
		"overwrite":      func() error { _, err := s.putObject("plain", "full", newTestVersion(nil), conditions{}); return err },
		"put version":    func() error { _, err := s.putObject("versioned", "k", newTestVersion(nil), conditions{}); return err },
		"put null":       func() error { _, err := s.putObject("suspended", "k", newTestVersion(nil), conditions{}); return err },
		"delete":         func() error { _, err := s.deleteObject("plain", "empty", conditions{}); return err },
		"mark deleted":   func() error { _, err := s.deleteObject("versioned", "k", conditions{}); return err },
		"delete version": func() error { _, err := s.deleteVersion("versioned", "k", nullVersion); return err },
		"tag":            func() error { _, err := s.setTags("plain", "parts", "", []pair{{"a", "b"}}); return err },
		"tag old version": func() error {
			_, err := s.setTags("versioned", "k", s.listed(t, "versioned")[3].id, []pair{{"a", "b"}})
			return err
		},
		"versioning":    func() error { return s.setVersioning("empty", gofakes3.VersioningEnabled) },
		"create bucket": func() error { return s.createBucket("new", DefaultPartition) },
		"delete bucket": func() error { return s.deleteBucket("suspended", true) },
		"create upload": func() error { _, err := s.createUpload("plain", &upload{key: "new"}); return err },
		"put part":      func() error { return s.putPart("plain", "1/2/3", parts, &part{number: 7}) },
		"replace part":  func() error { return s.putPart("plain", "1/2/3", parts, &part{number: 1}) },
		"abort upload":  func() error { return s.abortUpload("plain", "none yet", none) },
		"reset":         func() error { return s.Reset(t.Context()) },
		"complete upload": func() error {
			list := []gofakes3.CompletedPart{{PartNumber: 10_000, ETag: plainETag(string(randomBody(3, 11)[0]))}}
			_, _, err := s.completeUpload("plain", "1/2/3", parts, list, -1, conditions{})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			want := native(t, s)
			c, err := s.Capture(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := change(); err != nil {
				t.Fatal(err)
			}
			var got bytes.Buffer
			if err := c.WriteNative(t.Context(), &got); err != nil || !bytes.Equal(got.Bytes(), want) {
				t.Errorf("the capture changed: %v", err)
			}
			if bytes.Equal(native(t, s), want) {
				t.Error("the state did not change")
			}
			if err := s.Restore(t.Context(), bytes.NewReader(want)); err != nil {
				t.Fatal(err)
			}
		})
	}
}

// TestCaptureConsistent captures, saves and reads while others write: each capture must be one moment
// of all buckets, and stay it.
func TestCaptureConsistent(t *testing.T) {
	const writers, rounds, captures = 4, 300, 30
	s := New(Options{})
	for _, name := range []string{"first", "second"} {
		if err := s.createBucket(name, DefaultPartition); err != nil {
			t.Fatal(err)
		}
		if err := s.setVersioning(name, gofakes3.VersioningEnabled); err != nil {
			t.Fatal(err)
		}
	}
	var done sync.WaitGroup
	for w := range writers {
		done.Go(func() {
			key := fmt.Sprint("writer/", w)
			for n := range rounds {
				// In this order: so the second bucket is never ahead of the first.
				for _, bucket := range []string{"first", "second"} {
					v := newTestVersion(body{fmt.Appendf(nil, "%06d", n)})
					if _, err := s.putObject(bucket, key, v, conditions{}); err != nil {
						t.Error(err)
						return
					}
					if n%3 == 0 {
						s.setTags(bucket, key, "", []pair{{"n", fmt.Sprint(n)}})
					}
				}
				if l := s.listed(t, "first"); len(l) == 0 {
					t.Error("nothing listed")
				}
			}
		})
	}
	for range captures {
		c, err := s.Capture(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		var first, second bytes.Buffer
		if err := errors.Join(c.WriteNative(t.Context(), &first), c.WriteNative(t.Context(), &second), c.Close()); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(first.Bytes(), second.Bytes()) {
			t.Fatal("a capture changed")
		}
		other := New(Options{})
		if err := other.Restore(t.Context(), &first); err != nil {
			t.Fatal(err)
		}
		for w := range writers {
			key := fmt.Sprint("writer/", w)
			a, b := number(other, "first", key), number(other, "second", key)
			if a != b && a != b+1 {
				t.Fatalf("writer %d: the first bucket is at %d, the second at %d", w, a, b)
			}
			want := a // newest first, none missing
			for _, v := range other.listed(t, "first") {
				if v.key == key {
					if string(v.body[0]) != fmt.Sprintf("%06d", want) {
						t.Fatalf("a version is %s, want %d", v.body[0], want)
					}
					want--
				}
			}
			if want != -1 {
				t.Fatalf("writer %d: versions up to %d are missing", w, want)
			}
		}
	}
	done.Wait()
}

// number is what the writer of a key last wrote, -1 if nothing.
func number(s *Service, bucket, key string) int {
	v, _, err := s.read(bucket, key, "")
	if err != nil {
		return -1
	}
	n, err := strconv.Atoi(string(v.body[0]))
	if err != nil {
		return -1
	}
	return n
}

// TestRestoreWhileServing: requests during a restore see the state before or after, whole.
func TestRestoreWhileServing(t *testing.T) {
	states := make([][]byte, 2)
	for i := range states {
		s := New(Options{})
		if err := s.createBucket("bucket", DefaultPartition); err != nil {
			t.Fatal(err)
		}
		for n := range 50 {
			if _, err := s.putObject("bucket", fmt.Sprintf("%02d", n), newTestVersion(body{fmt.Appendf(nil, "state %d", i)}), conditions{}); err != nil {
				t.Fatal(err)
			}
		}
		states[i] = native(t, s)
	}
	s := newServer(t, Options{})
	if err := s.Restore(t.Context(), bytes.NewReader(states[0])); err != nil {
		t.Fatal(err)
	}
	stop := make(chan struct{})
	var done sync.WaitGroup
	for range 3 {
		done.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				seen := map[string]bool{}
				s.view("bucket", func(b *bucket) error {
					b.objects.Scan(func(_ string, o object) bool {
						seen[string(o.current.body[0])] = true
						return true
					})
					return nil
				})
				if len(seen) != 1 {
					t.Errorf("objects of %d states", len(seen))
				}
				if a := s.do("GET", "/bucket/07", ""); a.StatusCode != 200 || !strings.HasPrefix(a.body, "state ") {
					t.Errorf("%d %s", a.StatusCode, a.body)
				}
			}
		})
	}
	for i := range 50 {
		if err := s.Restore(t.Context(), bytes.NewReader(states[i%2])); err != nil {
			t.Error(err)
		}
	}
	close(stop)
	done.Wait()
}
