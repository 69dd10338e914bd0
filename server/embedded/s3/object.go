package s3

import (
	"bytes"
	"crypto/md5"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"slices"
	"strconv"
	"time"
)

// object is what a bucket holds under one key: the current version and, where the bucket is or was
// versioned, those before it, newest first. Nothing an object refers to ever changes: a mutation puts
// another object in its place, so a capture may share it.
type object struct {
	current *version
	older   []*version
}

// version is one version of an object. It never changes once it is in a bucket.
type version struct {
	id       string // "" is the null version: one written while versioning was not enabled
	order    uint64 // rises along the versions of one key, so that their order survives equal clocks
	modified int64  // Unix nanoseconds
	marker   bool   // a delete marker, which has none of the following
	size     int64
	md5      [md5.Size]byte // of the content, or of the parts' sums where parts is not nil
	parts    []int64        // sizes of the parts it was uploaded in
	checksum checksum
	attrs    []pair // headers kept with the object, by name
	tags     []pair // by key
	body     body
}

// pair is a header or a tag. Lists of pairs are sorted by name, without duplicates.
type pair struct{ name, value string }

func (v *version) modifiedTime() time.Time { return time.Unix(0, v.modified).UTC() }

// etag is the entity tag without quotes: MD5 in hexadecimal, for an object uploaded in parts that of
// the parts' sums with the number of parts.
func (v *version) etag() string { return string(v.appendETag(nil)) }

func (v *version) appendETag(dst []byte) []byte {
	dst = hex.AppendEncode(dst, v.md5[:])
	if v.parts != nil {
		dst = append(dst, '-')
		dst = strconv.AppendInt(dst, int64(len(v.parts)), 10)
	}
	return dst
}

// duplicate is a version with the same content that is in no bucket yet. A copy is one object however
// the original was uploaded, so its entity tag is that of its content.
func (v *version) duplicate() *version {
	c := &version{size: v.size, md5: v.md5, checksum: v.checksum, attrs: v.attrs, tags: v.tags, body: v.body}
	if v.parts != nil {
		c.md5 = v.body.sum()
	}
	return c
}

// name is the version's id as clients see it.
func (v *version) name() string { return versionName(v.id) }

// nullVersion is what S3 calls the version without an id.
const nullVersion = "null"

func versionName(id string) string {
	if id == "" {
		return nullVersion
	}
	return id
}

// versionID is the inverse of versionName.
func versionID(name string) string {
	if name == nullVersion {
		return ""
	}
	return name
}

// versions lists all versions, newest first, in a slice of its own.
func (o object) versions() []*version {
	if o.current == nil {
		return nil
	}
	return append([]*version{o.current}, o.older...)
}

// find returns the version with that id, or nil.
func (o object) find(id string) *version {
	if o.current != nil && o.current.id == id {
		return o.current
	}
	for _, v := range o.older {
		if v.id == id {
			return v
		}
	}
	return nil
}

// without drops the version with that id, if there; the newest of the rest becomes the current one.
func (o object) without(id string) object {
	rest := slices.DeleteFunc(o.versions(), func(v *version) bool { return v.id == id })
	if len(rest) == 0 {
		return object{}
	}
	return object{current: rest[0], older: slices.Clip(rest[1:])}
}

// with makes v the current version. It sets v.order, so v must not be in use yet.
func (o object) with(v *version) object {
	if o.current == nil {
		return object{current: v}
	}
	v.order = o.current.order + 1
	return object{current: v, older: o.versions()}
}

// replace puts v in the place of the version that has its id.
func (o object) replace(v *version) object {
	if o.current.id == v.id {
		return object{current: v, older: o.older}
	}
	older := slices.Clone(o.older)
	for i := range older {
		if older[i].id == v.id {
			older[i] = v
		}
	}
	return object{current: o.current, older: older}
}

// pieceBytes is how long the pieces of a body are: large enough to cost nothing, small enough that a
// request which announces more than it sends takes little memory, and that a body's records stay far
// below a record's limit.
const pieceBytes = 1 << 20

// body is content in pieces of at most pieceBytes, none of them empty. Neither the pieces nor their
// bytes ever change, so versions share them. Pieces of a body received at once are full but for the
// last; those of a body uploaded in parts begin anew at each part.
type body [][]byte

func (b body) size() int64 {
	n := int64(0)
	for _, p := range b {
		n += int64(len(p))
	}
	return n
}

// section returns n bytes from off, which must lie inside.
func (b body) section(off, n int64) body {
	var out body
	for _, p := range b {
		if n == 0 {
			break
		}
		if off >= int64(len(p)) {
			off -= int64(len(p))
			continue
		}
		p = p[off:min(int64(len(p)), off+n)]
		off = 0
		n -= int64(len(p))
		out = append(out, p)
	}
	return out
}

// WriteTo writes the content.
func (b body) WriteTo(w io.Writer) (int64, error) {
	total := int64(0)
	for _, p := range b {
		n, err := w.Write(p)
		total += int64(n)
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// reader reads the content from its beginning.
func (b body) reader() io.Reader {
	readers := make([]io.Reader, len(b))
	for i, p := range b {
		readers[i] = bytes.NewReader(p)
	}
	return io.MultiReader(readers...)
}

// sum is the MD5 of the content.
func (b body) sum() (sum [md5.Size]byte) {
	h := md5.New()
	_, _ = b.WriteTo(h) // a hash takes everything
	h.Sum(sum[:0])
	return sum
}

// maxObjectBytes is the largest object or part taken in one request: S3's own limit.
const maxObjectBytes = 5 << 30

// readBody reads exactly size bytes and r's end. It allocates as bytes arrive, never by size alone.
// checks are given what is read.
func readBody(r io.Reader, size int64, checks ...hash.Hash) (body, [md5.Size]byte, error) {
	var sum [md5.Size]byte
	if size > maxObjectBytes {
		return nil, sum, fault("EntityTooLarge", "", "an object or part may have "+strconv.Itoa(maxObjectBytes)+" bytes; put a larger one in parts")
	}
	// gofakes3 hands over a reader that takes the MD5 itself.
	summed, _ := r.(interface{ Sum([]byte) []byte })
	if summed == nil {
		h := md5.New()
		checks = append(checks, h)
		summed = h
	}
	var b body
	for left := size; left > 0; {
		piece := make([]byte, min(left, pieceBytes))
		if _, err := io.ReadFull(r, piece); err != nil {
			return nil, sum, bodyFault(err)
		}
		for _, h := range checks {
			h.Write(piece)
		}
		b = append(b, piece)
		left -= int64(len(piece))
	}
	// The end must be read too: there gofakes3 compares Content-MD5, and aws-chunked has its trailer.
	var one [1]byte
	switch n, err := io.ReadFull(r, one[:]); {
	case n > 0:
		return nil, sum, fault("IncompleteBody", "", "the body is longer than the "+strconv.FormatInt(size, 10)+" bytes announced")
	case err != io.EOF:
		return nil, sum, bodyFault(err)
	}
	copy(sum[:], summed.Sum(nil))
	return b, sum, nil
}

// bodyFault is the answer to a body that could not be read.
func bodyFault(err error) error {
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return fault("IncompleteBody", "", "the body is shorter than announced")
	}
	return err
}
