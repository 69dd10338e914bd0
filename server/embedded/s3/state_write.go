package s3

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
)

// Schema is the number of the records this package writes and reads; README.md describes them.
const Schema = 1

// Kinds of records: what their keys begin with.
const (
	kindBucket  = "bucket"
	kindObject  = "object"
	kindVersion = "version"
	kindBody    = "body"
	kindUpload  = "upload"
	kindPart    = "part"
)

// flushBytes is how much is written at a time.
const flushBytes = 64 << 10

// writeState writes buckets, which are in the order of their names and do not change, as records: by
// partition, then by bucket; of each its objects by key, then its uploads.
func writeState(ctx context.Context, w io.Writer, buckets []*bucket) error {
	buckets = slices.Clone(buckets)
	slices.SortStableFunc(buckets, func(a, b *bucket) int { return strings.Compare(a.partition, b.partition) })
	sw := newStateWriter(ctx, w)
	for _, b := range buckets {
		sw.bucket(b)
	}
	sw.flush()
	return sw.err
}

// stateWriter writes records. After the first error it does nothing more.
type stateWriter struct {
	ctx context.Context
	w   io.Writer
	buf []byte
	key []byte
	b   *bucket
	err error
}

func newStateWriter(ctx context.Context, w io.Writer) *stateWriter {
	return &stateWriter{ctx: ctx, w: w, buf: make([]byte, 0, 2*flushBytes)}
}

func (w *stateWriter) flush() {
	if w.err == nil {
		w.err = w.ctx.Err()
	}
	if w.err == nil && len(w.buf) > 0 {
		if _, w.err = w.w.Write(w.buf); w.err != nil {
			w.err = fmt.Errorf("s3: writing the native state: %w", w.err)
		}
	}
	w.buf = w.buf[:0]
}

// begin begins a record: its value follows.
func (w *stateWriter) begin(kind, ids, key string) {
	if len(w.buf) >= flushBytes {
		w.flush()
	}
	w.key = appendKey(w.key[:0], kind, w.b.name, ids, key)
	w.buf = appendString(record.AppendText(record.AppendRecord(w.buf), w.b.partition), w.key)
}

// appendKey adds the key of a record. ids, each with a slash behind, and the object's key may be "".
func appendKey(dst []byte, kind, bucket, ids, key string) []byte {
	dst = append(append(append(dst, kind...), '/'), bucket...)
	if kind == kindBucket {
		return dst
	}
	return append(append(append(dst, '/'), ids...), key...)
}

// These are the ids in the keys of records of each kind but object and bucket, which have none.
func versionIDs(name string) string            { return name + "/" }
func pieceIDs(owner string, n int64) string    { return owner + "/" + pieceNumber(n) + "/" }
func uploadIDs(id string) string               { return id + "/" }
func partIDs(upload string, number int) string { return upload + "/" + partName(number) + "/" }

// appendString adds text, or bytes where it is no UTF-8.
func appendString[T string | []byte](dst []byte, s T) []byte {
	if valid(s) {
		return record.AppendText(dst, s)
	}
	return record.AppendBytes(dst, s)
}

func valid[T string | []byte](s T) bool {
	switch s := any(s).(type) {
	case string:
		return utf8.ValidString(s)
	case []byte:
		return utf8.Valid(s)
	}
	return false
}

// bucket writes all of a bucket.
func (w *stateWriter) bucket(b *bucket) {
	w.b = b
	w.itself()
	b.objects.Scan(func(key string, o object) bool {
		w.object(key, o, nil)
		return w.err == nil
	})
	b.uploads.Scan(func(_ string, u *upload) bool {
		w.upload(u, uploadImage{})
		return w.err == nil
	})
}

// itself writes the bucket's own record.
func (w *stateWriter) itself() {
	b := w.b
	w.begin(kindBucket, "", "")
	pairs := 1
	if b.versioning != "" {
		pairs++
	}
	w.buf = record.AppendMap(w.buf, pairs)
	w.int("created", b.created)
	if b.versioning != "" {
		w.text("versioning", string(b.versioning))
	}
}

// object writes what is under key, but for records that are the same in base.
func (w *stateWriter) object(key string, o object, base objectImage) {
	differences := base.differences()
	own, pieces := differences.of(o.current, true)
	if own {
		w.begin(kindObject, "", key)
		w.version(o.current)
	}
	if pieces {
		w.pieces(o.current.name(), key, o.current.body, o.current.size)
	}
	for _, v := range o.older {
		own, pieces := differences.of(v, false)
		if own {
			w.begin(kindVersion, versionIDs(v.name()), key)
			w.version(v)
		}
		if pieces {
			w.pieces(v.name(), key, v.body, v.size)
		}
	}
}

func (w *stateWriter) name(name string) { w.buf = record.AppendText(w.buf, name) }

func (w *stateWriter) text(name, value string) {
	w.name(name)
	w.buf = appendString(w.buf, value)
}

func (w *stateWriter) int(name string, value int64) {
	w.name(name)
	w.buf = record.AppendInt(w.buf, value)
}

func (w *stateWriter) pairs(name string, pairs []pair) {
	w.name(name)
	w.buf = record.AppendMap(w.buf, len(pairs))
	for _, p := range pairs {
		w.text(p.name, p.value)
	}
}

// count is how many of the conditions hold.
func count(conditions ...bool) int {
	n := 0
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}

// version writes the value of a version's record.
func (w *stateWriter) version(v *version) {
	required := 4 // size, md5, modified, and body or pieces
	if v.marker {
		required = 2 // modified, deleted
	}
	w.buf = record.AppendMap(w.buf, required+count(v.id != "", v.order > 0, v.parts != nil, v.checksum.algorithm != 0, v.attrs != nil, v.tags != nil))
	if !v.marker {
		w.int("size", v.size)
		w.name("md5")
		w.buf = record.AppendBytes(w.buf, v.md5[:])
	}
	w.int("modified", v.modified)
	if v.id != "" {
		w.text("version", v.id)
	}
	if v.order > 0 {
		w.name("order")
		w.buf = record.AppendUint(w.buf, v.order)
	}
	if v.marker {
		w.name("deleted")
		w.buf = record.AppendBool(w.buf, true)
		return
	}
	if v.parts != nil {
		w.name("parts")
		w.buf = record.AppendArray(w.buf, len(v.parts))
		for _, size := range v.parts {
			w.buf = record.AppendInt(w.buf, size)
		}
	}
	if v.checksum.algorithm != 0 {
		w.name(v.checksum.algorithm.String())
		w.buf = record.AppendBytes(w.buf, v.checksum.bytes())
	}
	if v.attrs != nil {
		w.pairs("meta", v.attrs)
	}
	if v.tags != nil {
		w.pairs("tags", v.tags)
	}
	w.body(v.body, v.size)
}

// body writes content as the last pair of the record begun, or that it is in pieces.
func (w *stateWriter) body(b body, size int64) {
	if pieces := pieceCount(size); pieces > 0 {
		w.int("pieces", pieces)
		return
	}
	w.name("body")
	w.bytes(b, size)
}

// pieces writes content that is in records of its own.
func (w *stateWriter) pieces(owner, key string, b body, size int64) {
	for n := range pieceCount(size) {
		length := min(pieceBytes, size-n*pieceBytes)
		w.begin(kindBody, pieceIDs(owner, n), key)
		w.bytes(b.section(n*pieceBytes, length), length)
	}
}

func (w *stateWriter) bytes(b body, size int64) {
	w.buf = record.AppendBytesHead(w.buf, int(size))
	for _, p := range b {
		w.buf = append(w.buf, p...)
	}
}

// pieceCount is in how many records of its own content of that size is, 0 if it is in its version's or
// part's.
func pieceCount(size int64) int64 {
	if size <= pieceBytes {
		return 0
	}
	return (size + pieceBytes - 1) / pieceBytes
}

// pieceNumber and partName are numbers in keys, with zeros in front so that keys sort as numbers do.
func pieceNumber(n int64) string { return fmt.Sprintf("%06d", n) }
func partName(n int) string      { return fmt.Sprintf("%05d", n) }

// partOwner is what the records of a part's body name in the place of a version. No version's id has
// a dot.
func partOwner(upload string, number int) string { return upload + "." + partName(number) }

// upload writes an upload in progress, but for records that are the same in base.
func (w *stateWriter) upload(u *upload, base uploadImage) {
	if !base.exists { // it never changes, but for its parts
		w.begin(kindUpload, uploadIDs(u.id), u.key)
		w.buf = record.AppendMap(w.buf, 1+count(u.attrs != nil, u.tags != nil))
		w.int("initiated", u.initiated)
		if u.attrs != nil {
			w.pairs("meta", u.attrs)
		}
		if u.tags != nil {
			w.pairs("tags", u.tags)
		}
	}
	for _, p := range u.parts {
		if base.has(p) {
			continue
		}
		w.begin(kindPart, partIDs(u.id, p.number), u.key)
		w.buf = record.AppendMap(w.buf, 4)
		w.int("size", p.size)
		w.name("md5")
		w.buf = record.AppendBytes(w.buf, p.md5[:])
		w.int("modified", p.modified)
		w.body(p.body, p.size)
		w.pieces(partOwner(u.id, p.number), u.key, p.body, p.size)
	}
}
