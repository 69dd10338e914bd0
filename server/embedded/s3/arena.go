package s3

import (
	"bytes"
	"strings"
)

// Limits of what an arena puts together. Blocks begin small and double, so that a small state is
// read in little memory.
const (
	minArenaBytes    = 2 << 10  // of a block of content or keys
	maxArenaBytes    = 64 << 10 //
	minArenaVersions = 4        // of a block of versions
	maxArenaVersions = 128      //
	arenaMax         = 4 << 10  // bytes of content; more has memory of its own
)

// arena gives memory to the many small objects of a state that is read: in blocks, so that a restore
// does not spend its time allocating. The price is that a block is given back with the last object in
// it, which is why large content stays out, and versions with it: a block must never keep more than
// its own length. The zero value is ready.
type arena struct {
	content  []byte
	text     strings.Builder
	versions []version
	pieces   [][]byte
}

// grown is the length of the block after one of length n.
func grown(n, least, most int) int { return min(max(2*n, least), most) }

// string copies p.
func (a *arena) string(p []byte) string {
	if a.text.Cap()-a.text.Len() < len(p) {
		next := max(grown(a.text.Cap(), minArenaBytes, maxArenaBytes), len(p))
		a.text = strings.Builder{}
		a.text.Grow(next)
	}
	start := a.text.Len()
	a.text.Write(p)
	return a.text.String()[start:]
}

// bytes copies p.
func (a *arena) bytes(p []byte) []byte {
	if cap(a.content)-len(a.content) < len(p) {
		a.content = make([]byte, 0, max(grown(cap(a.content), minArenaBytes, maxArenaBytes), len(p)))
	}
	start := len(a.content)
	a.content = append(a.content, p...)
	return a.content[start:len(a.content):len(a.content)]
}

// version gives a version to be filled and then kept.
func (a *arena) version() *version {
	if len(a.versions) == cap(a.versions) {
		next := grown(cap(a.versions), minArenaVersions, maxArenaVersions)
		a.versions = make([]version, 0, next)
		a.pieces = make([][]byte, 0, next)
	}
	a.versions = a.versions[:len(a.versions)+1]
	return &a.versions[len(a.versions)-1]
}

// keep gives v, the last that version gave, a copy of inline as its content, and says where v is from
// then on. split says that its content is still to come.
func (a *arena) keep(v *version, inline []byte, split bool) *version {
	if split || len(inline) > arenaMax {
		own := new(version)
		*own, *v = *v, version{}
		a.versions = a.versions[:len(a.versions)-1]
		if !split {
			own.body = body{bytes.Clone(inline)}
		}
		return own
	}
	if n := len(a.pieces); len(inline) > 0 {
		a.pieces = append(a.pieces, a.bytes(inline))
		v.body = a.pieces[n : n+1 : n+1]
	}
	return v
}
