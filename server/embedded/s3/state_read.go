package s3

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/johannesboyne/gofakes3"
	"github.com/tidwall/btree"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Limits of what a stored state may hold.
const (
	// maxRecordBytes bounds a record: a piece of a body and all that S3 allows beside it.
	maxRecordBytes = 2 << 20
	// maxNameBytes bounds a bucket's name; S3 allows 63.
	maxNameBytes = 255
	// maxIDBytes bounds a version's or upload's id; newID makes 26.
	maxIDBytes = 64
	// maxStoredBytes bounds what an object says its size is: all parts as large as parts may be.
	maxStoredBytes = maxPartNumber * maxObjectBytes
	// maxInterned bounds how many sets of headers are remembered to be shared between versions.
	maxInterned = 4096
)

// readState reads what writeState wrote, in any order of the records. Everything is checked: what it
// returns would be written again as the same records.
func readState(ctx context.Context, native io.Reader) (*btree.Map[string, *bucket], error) {
	sr := &stateReader{buckets: map[string]*restored{}, interned: map[string][]pair{}, bodies: map[bodyID][]piece{}, versionFields: versionFields()}
	records := record.NewReader(native, maxRecordBytes)
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		batch, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return nil, fmt.Errorf("s3: reading the native state: %w", err)
		}
		for i := range batch.Len() {
			if reason := sr.record(batch, i); reason != "" {
				key, _ := batch.Key(i)
				return nil, corrupt(string(batch.Partition(i)), string(key), reason)
			}
		}
	}
	return sr.finish()
}

// corrupt says which record is not as it should be, and why.
func corrupt(partition, key, reason string) error {
	return fmt.Errorf("s3: record %q of partition %q: %s (schema %d): %w", key, partition, reason, Schema, abi.ErrCorrupt)
}

// stateReader collects records until the last one has told what belongs together.
type stateReader struct {
	buckets  map[string]*restored
	last     *restored
	pull     record.Pull
	arena    arena
	interned map[string][]pair // headers by their encoding, shared between versions

	versionFields []string
	bodies        map[bodyID][]piece
	waiting       []waiting
}

// restored is a bucket of which records have come.
type restored struct {
	*bucket
	described bool                 // its own record has come
	versioned string               // the key of a record that only a versioned bucket has, "" for none
	older     map[string][]older   // by key
	parts     map[string][]ofParts // by upload
}

type older struct {
	key string // of the record
	*version
}

type ofParts struct {
	key string // of the object
	*part
}

// bodyID names content that is in records of its own.
type bodyID struct{ bucket, owner, key string }

type piece struct {
	number int64
	data   []byte
}

// waiting is content still to be put together.
type waiting struct {
	bodyID
	size int64
	into *body
}

// record takes one record. It returns what is wrong with it, "" for nothing.
func (r *stateReader) record(batch *record.Batch, i int) (wrong string) {
	raw, text := batch.Key(i)
	if !text && utf8.Valid(raw) {
		return "its key is bytes, and text would do"
	}
	kind, rest, _ := bytes.Cut(raw, []byte("/"))
	name, rest, hasRest := bytes.Cut(rest, []byte("/"))
	b, wrong := r.bucketOf(name, batch.Partition(i))
	if wrong != "" {
		return wrong
	}
	r.pull.Reset(batch.Value(i))
	if string(kind) == kindBucket {
		if hasRest {
			return "a bucket's name has no slash"
		}
		return r.bucketRecord(b)
	}
	var ids [2]string // what is between the bucket and the key
	n := 0
	switch string(kind) {
	case kindObject:
	case kindVersion, kindUpload:
		n = 1
	case kindBody, kindPart:
		n = 2
	default:
		return "no record of this service has such a key"
	}
	for i := range n {
		var id []byte
		id, rest, _ = bytes.Cut(rest, []byte("/"))
		ids[i] = string(id)
	}
	if len(rest) == 0 || len(rest) > maxKeyBytes {
		return fmt.Sprintf("an object's key has 1 to %d bytes, this one %d", maxKeyBytes, len(rest))
	}
	key := r.arena.string(rest)
	switch string(kind) {
	case kindObject:
		return r.objectRecord(b, key)
	case kindVersion:
		return r.versionRecord(b, key, ids[0], string(raw))
	case kindUpload:
		return r.uploadRecord(b, key, ids[0])
	case kindPart:
		return r.partRecord(b, key, ids[0], ids[1])
	default:
		return r.bodyRecord(b, key, ids[0], ids[1])
	}
}

// bucketOf finds the bucket a record is about.
func (r *stateReader) bucketOf(name, partition []byte) (*restored, string) {
	b := r.last
	if b == nil || b.name != string(name) {
		if b = r.buckets[string(name)]; b == nil {
			if len(name) == 0 || len(name) > maxNameBytes {
				return nil, fmt.Sprintf("a bucket's name has 1 to %d bytes, this one %d", maxNameBytes, len(name))
			}
			b = &restored{bucket: newBucket(string(name), string(partition), 0), older: map[string][]older{}, parts: map[string][]ofParts{}}
			r.buckets[b.name] = b
		}
		r.last = b
	}
	if b.partition != string(partition) {
		return nil, fmt.Sprintf("the bucket is in partition %q, too", b.partition)
	}
	return b, ""
}

// fields reads the pairs of the map that is the record's value. read is given the place in known of
// each pair's name; it returns what is wrong with the value. The names must be in known, each once at
// most, and those whose bits are in required must be there.
func (r *stateReader) fields(known []string, required uint, read func(field int) (wrong string)) (wrong string) {
	seen, next := uint(0), 0
	for range r.pull.Map() {
		name := r.pull.Text()
		field := index(known, next, name)
		if field < 0 {
			if r.pull.Err() != nil {
				break
			}
			return fmt.Sprintf("unknown field %q", name)
		}
		if seen&(1<<field) != 0 {
			return fmt.Sprintf("field %q is there twice", name)
		}
		seen |= 1 << field
		next = field + 1
		if wrong := read(field); wrong != "" && r.pull.Err() == nil {
			return fmt.Sprintf("field %q: %s", known[field], wrong)
		}
	}
	if err := r.pull.End(); err != nil {
		return err.Error()
	}
	for i, name := range known {
		if required&(1<<i) != 0 && seen&(1<<i) == 0 {
			return fmt.Sprintf("field %q is missing", name)
		}
	}
	return ""
}

// index finds name in known, first from next on: they come in this order, unless someone else wrote
// them. It returns -1 if name is not there.
func index(known []string, next int, name []byte) int {
	for i := next; i < len(known); i++ {
		if known[i] == string(name) {
			return i
		}
	}
	for i := range min(next, len(known)) {
		if known[i] == string(name) {
			return i
		}
	}
	return -1
}

func (r *stateReader) bucketRecord(b *restored) string {
	if b.described {
		return "the record is there twice"
	}
	b.described = true
	return r.fields([]string{"created", "versioning"}, 1, func(field int) string {
		switch field {
		case 0:
			b.created = r.pull.Int()
		case 1:
			b.versioning = gofakes3.VersioningStatus(r.pull.Text())
			if b.versioning != gofakes3.VersioningEnabled && b.versioning != gofakes3.VersioningSuspended {
				return fmt.Sprintf("%q; known are Enabled and Suspended", b.versioning)
			}
		}
		return ""
	})
}

func (r *stateReader) objectRecord(b *restored, key string) string {
	v, wrong := r.version(b, key)
	if wrong != "" {
		return wrong
	}
	if v.id != "" || v.marker {
		b.versioned = kindObject + "/" + b.name + "/" + key
	}
	if _, twice := b.objects.Load(key, object{current: v}); twice {
		return "the record is there twice"
	}
	return ""
}

func (r *stateReader) versionRecord(b *restored, key, id, recordKey string) string {
	v, wrong := r.version(b, key)
	if wrong == "" && v.name() != id {
		wrong = fmt.Sprintf("its value is of version %q", v.name())
	}
	b.versioned = recordKey
	b.older[key] = append(b.older[key], older{recordKey, v})
	return wrong
}

// Fields of a version's record, in the order they are written in.
const (
	fieldSize = iota
	fieldMD5
	fieldModified
	fieldVersion
	fieldOrder
	fieldDeleted
	fieldParts
	fieldChecksum // and the following, one for each algorithm
	fieldMeta     = fieldChecksum + int(algorithmEnd-algorithmCRC32)
	fieldTags     = fieldMeta + 1
	fieldBody     = fieldMeta + 2
	fieldPieces   = fieldMeta + 3
)

func versionFields() []string {
	fields := []string{"size", "md5", "modified", "version", "order", "deleted", "parts"}
	for a := algorithmCRC32; a < algorithmEnd; a++ {
		fields = append(fields, a.String())
	}
	return append(fields, "meta", "tags", "body", "pieces")
}

// version reads the value of a version's record.
func (r *stateReader) version(b *restored, key string) (*version, string) {
	v := r.arena.version()
	c := content{length: -1}
	seen := uint(0)
	wrong := r.fields(r.versionFields, 1<<fieldModified, func(field int) (wrong string) {
		seen |= 1 << field
		switch field {
		case fieldSize:
			v.size = r.pull.Int()
		case fieldMD5:
			wrong = r.sum(v.md5[:])
		case fieldModified:
			v.modified = r.pull.Int()
		case fieldVersion:
			v.id = string(r.pull.Text())
			wrong = checkID(v.id)
		case fieldOrder:
			if v.order = r.pull.Uint(); v.order == 0 {
				wrong = "0 is left out"
			}
		case fieldDeleted:
			if v.marker = r.pull.Bool(); !v.marker {
				wrong = "false is left out"
			}
		case fieldParts:
			v.parts, wrong = r.partSizes()
		case fieldMeta:
			v.attrs, wrong = r.attributes()
		case fieldTags:
			v.tags, wrong = r.tags()
		case fieldBody:
			c.inline = r.pull.Bytes()
			c.length = int64(len(c.inline))
		case fieldPieces:
			c.pieces = r.pull.Int()
		default:
			if v.checksum.algorithm != 0 {
				return "there is another checksum"
			}
			v.checksum.algorithm = algorithmCRC32 + algorithm(field-fieldChecksum)
			wrong = r.sum(v.checksum.bytes())
		}
		return wrong
	})
	if wrong == "" {
		wrong = v.check(seen)
	}
	if wrong == "" && !v.marker {
		wrong = c.check(v.size)
	}
	v = r.arena.keep(v, c.inline, c.pieces > 0)
	if c.pieces > 0 {
		r.waiting = append(r.waiting, waiting{bodyID{b.name, v.name(), key}, v.size, &v.body})
	}
	return v, wrong
}

// check holds what was read of a version, but for its content, against itself.
func (v *version) check(seen uint) (wrong string) {
	if v.marker {
		if seen&^(1<<fieldModified|1<<fieldVersion|1<<fieldOrder|1<<fieldDeleted) != 0 {
			return "a delete marker has no content"
		}
		return ""
	}
	if seen&(1<<fieldSize) == 0 || seen&(1<<fieldMD5) == 0 {
		return "it has no size or no md5"
	}
	if v.parts != nil {
		left := v.size
		for _, size := range v.parts {
			left -= size
		}
		if left != 0 {
			return "the sizes of its parts do not add up to its size"
		}
	}
	return ""
}

// content is what a record says of where its content is.
type content struct {
	inline []byte // in the record, in the batch's memory
	length int64  // of inline, -1 if it is not there
	pieces int64  // in how many records of its own it is, 0 for none
}

// check holds what a record says of its content against its size.
func (c content) check(size int64) (wrong string) {
	switch {
	case size < 0 || size > maxStoredBytes:
		return fmt.Sprintf("no object has %d bytes", size)
	case c.length >= 0 && c.pieces != 0:
		return "its content is in it and elsewhere"
	case c.length < 0 && c.pieces == 0:
		return "it has no content"
	case c.length >= 0 && c.length != size:
		return fmt.Sprintf("its content has %d bytes, its size is %d", c.length, size)
	case c.length > pieceBytes || c.pieces != 0 && (size <= pieceBytes || c.pieces != pieceCount(size)):
		return fmt.Sprintf("content of %d bytes is not split like this: more than %d bytes are, into as many as needed", size, pieceBytes)
	}
	return ""
}

// sum reads a hash of as many bytes as into has.
func (r *stateReader) sum(into []byte) (wrong string) {
	raw := r.pull.Bytes()
	if len(raw) != len(into) {
		return fmt.Sprintf("it has %d bytes, not %d", len(raw), len(into))
	}
	copy(into, raw)
	return ""
}

// checkID holds an id against what newID makes.
func checkID(id string) string {
	if id == "" || len(id) > maxIDBytes || id == nullVersion ||
		strings.Trim(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_") != "" {
		return fmt.Sprintf("%q is no id", id)
	}
	return ""
}

func (r *stateReader) partSizes() (sizes []int64, wrong string) {
	n := r.pull.Array()
	if n < 1 || n > maxPartNumber {
		return nil, fmt.Sprintf("an object has 1 to %d parts, this one %d", maxPartNumber, n)
	}
	sizes = make([]int64, n)
	for i := range sizes {
		if sizes[i] = r.pull.Int(); sizes[i] < 0 || sizes[i] > maxObjectBytes {
			return nil, fmt.Sprintf("no part has %d bytes", sizes[i])
		}
	}
	return sizes, ""
}

// pairs reads a map of texts, which is sorted and not empty.
func (r *stateReader) pairs() (pairs []pair, wrong string) {
	n := r.pull.Map()
	if n == 0 && r.pull.Err() == nil {
		return nil, "an empty map is left out"
	}
	for range n {
		name := r.pull.Text()
		value, _ := r.pull.TextOrBytes()
		pairs = append(pairs, pair{string(name), string(value)})
		if i := len(pairs) - 1; i > 0 && pairs[i].name <= pairs[i-1].name {
			return nil, fmt.Sprintf("%q after %q: the names are not in order", pairs[i].name, pairs[i-1].name)
		}
	}
	return pairs, ""
}

// attributes reads the headers kept with an object.
func (r *stateReader) attributes() (attrs []pair, wrong string) {
	raw := r.pull.Skip()
	if attrs := r.interned[string(raw)]; attrs != nil || r.pull.Err() != nil {
		return attrs, ""
	}
	var inner stateReader
	inner.pull.Reset(raw)
	attrs, wrong = inner.pairs()
	if err := inner.pull.End(); err != nil && wrong == "" {
		wrong = err.Error()
	}
	for _, a := range attrs {
		if !kept(a.name) || !validHeader(a.name, a.value) {
			wrong = cmp.Or(wrong, fmt.Sprintf("the header %q is not kept with an object", a.name))
		}
	}
	if wrong == "" && len(r.interned) < maxInterned {
		r.interned[string(raw)] = attrs
	}
	return attrs, wrong
}

func (r *stateReader) tags() (tags []pair, wrong string) {
	if tags, wrong = r.pairs(); wrong != "" {
		return nil, wrong
	}
	if _, err := checkTags(tags); err != nil {
		return nil, err.Error()
	}
	return tags, ""
}

func (r *stateReader) uploadRecord(b *restored, key, id string) string {
	if wrong := checkID(id); wrong != "" {
		return wrong
	}
	u := &upload{id: id, key: key}
	if _, twice := b.uploads.Load(id, u); twice {
		return "there is another upload of this id"
	}
	return r.fields([]string{"initiated", "meta", "tags"}, 1, func(field int) (wrong string) {
		switch field {
		case 0:
			u.initiated = r.pull.Int()
		case 1:
			u.attrs, wrong = r.attributes()
		case 2:
			u.tags, wrong = r.tags()
		}
		return wrong
	})
}

func (r *stateReader) partRecord(b *restored, key, id, number string) string {
	p := new(part)
	var err error
	if p.number, err = strconv.Atoi(number); err != nil || p.number < 1 || p.number > maxPartNumber || partName(p.number) != number {
		return fmt.Sprintf("%q is no number of a part", number)
	}
	c := content{length: -1}
	wrong := r.fields([]string{"size", "md5", "modified", "body", "pieces"}, 1|2|4, func(field int) (wrong string) {
		switch field {
		case 0:
			p.size = r.pull.Int()
		case 1:
			wrong = r.sum(p.md5[:])
		case 2:
			p.modified = r.pull.Int()
		case 3:
			c.inline = r.pull.Bytes()
			c.length = int64(len(c.inline))
		case 4:
			c.pieces = r.pull.Int()
		}
		return wrong
	})
	if wrong == "" {
		wrong = c.check(p.size)
	}
	if len(c.inline) > 0 {
		p.body = body{bytes.Clone(c.inline)}
	}
	if c.pieces > 0 {
		r.waiting = append(r.waiting, waiting{bodyID{b.name, partOwner(id, p.number), key}, p.size, &p.body})
	}
	b.parts[id] = append(b.parts[id], ofParts{key, p})
	return wrong
}

func (r *stateReader) bodyRecord(b *restored, key, owner, number string) string {
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n < 0 || pieceNumber(n) != number {
		return fmt.Sprintf("%q is no number of a piece", number)
	}
	data := r.pull.Bytes()
	if err := r.pull.End(); err != nil {
		return err.Error()
	}
	id := bodyID{b.name, owner, key}
	r.bodies[id] = append(r.bodies[id], piece{n, bytes.Clone(data)})
	return ""
}

// finish puts together what belongs together.
func (r *stateReader) finish() (*btree.Map[string, *bucket], error) {
	for _, w := range r.waiting {
		if err := r.assemble(w); err != nil {
			return nil, err
		}
	}
	for id := range r.bodies {
		return nil, corrupt(r.buckets[id.bucket].partition, kindBody+"/"+id.bucket+"/"+id.owner+"/…/"+id.key, "it is of no object or part that is split")
	}
	all := new(btree.Map[string, *bucket])
	for _, b := range r.buckets {
		if err := b.finish(); err != nil {
			return nil, err
		}
		all.Set(b.name, b.bucket)
	}
	return all, nil
}

// assemble puts content together from its records.
func (r *stateReader) assemble(w waiting) error {
	pieces := r.bodies[w.bodyID]
	delete(r.bodies, w.bodyID)
	slices.SortFunc(pieces, func(a, b piece) int { return cmp.Compare(a.number, b.number) })
	fail := func(n int64, reason string) error {
		return corrupt(r.buckets[w.bucket].partition, kindBody+"/"+w.bucket+"/"+w.owner+"/"+pieceNumber(n)+"/"+w.key, reason)
	}
	for n := range pieceCount(w.size) {
		if n >= int64(len(pieces)) || pieces[n].number > n {
			return fail(n, "it is missing")
		}
		if pieces[n].number < n {
			return fail(pieces[n].number, "the record is there twice")
		}
		if want := min(pieceBytes, w.size-n*pieceBytes); int64(len(pieces[n].data)) != want {
			return fail(n, fmt.Sprintf("it has %d bytes and should have %d", len(pieces[n].data), want))
		}
		*w.into = append(*w.into, pieces[n].data)
	}
	if n := pieceCount(w.size); int64(len(pieces)) > n {
		return fail(pieces[n].number, "it is one too many")
	}
	return nil
}

// finish puts older versions and parts in their places.
func (b *restored) finish() error {
	if !b.described {
		return corrupt(b.partition, kindBucket+"/"+b.name, "it is missing, and there are records of what is in it")
	}
	for key, list := range b.older {
		o, ok := b.objects.Get(key)
		if !ok {
			return corrupt(b.partition, kindObject+"/"+b.name+"/"+key, "it is missing, and there are records of versions before it")
		}
		slices.SortFunc(list, func(a, b older) int { return cmp.Compare(b.order, a.order) })
		after := o.current.order
		for _, v := range list {
			if v.order >= after {
				return corrupt(b.partition, v.key, "its order is not below that of the version after it")
			}
			after = v.order
			if o.find(v.id) != nil {
				return corrupt(b.partition, v.key, "there is another version of this id")
			}
			o.older = append(o.older, v.version)
		}
		b.objects.Set(key, o)
	}
	for id, list := range b.parts {
		u, _ := b.uploads.Get(id)
		slices.SortFunc(list, func(a, b ofParts) int { return cmp.Compare(a.number, b.number) })
		for i, p := range list {
			reason := ""
			switch {
			case u == nil || u.key != p.key:
				reason = "it is of no upload"
			case i > 0 && list[i-1].number == p.number:
				reason = "the record is there twice"
			}
			if reason != "" {
				return corrupt(b.partition, kindPart+"/"+b.name+"/"+id+"/"+partName(p.number)+"/"+p.key, reason)
			}
			u.parts = append(u.parts, p.part)
		}
	}
	if b.versioned != "" && b.versioning == gofakes3.VersioningNone {
		return corrupt(b.partition, b.versioned, "it is of a versioned bucket, and its bucket never was")
	}
	return nil
}
