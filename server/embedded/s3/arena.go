package s3

import (
	"bytes"
	"strings"
)

// Limits of what an arena puts together.
const (
	arenaBytes    = 64 << 10 // of a block of content or keys
	arenaVersions = 256      // of a block of versions
	arenaMax      = 4 << 10  // bytes of content; more has memory of its own
)

// arena gives memory to the many small objects of a state that is read: in blocks, so that a restore
// does not spend its time allocating. The price is that a block is given back with the last object in
// it, which is why large content stays out, and versions with it: a block must never keep more than
// its own length.
type arena struct {
	content  []byte
	text     strings.Builder
	versions []version
	pieces   [][]byte
}

// string copies p.
func (a *arena) string(p []byte) string {
	if a.text.Cap()-a.text.Len() < len(p) {
		a.text = strings.Builder{}
		a.text.Grow(max(arenaBytes, len(p)))
	}
	start := a.text.Len()
	a.text.Write(p)
	return a.text.String()[start:]
}

// version moves v to memory that stays, with a copy of inline as its content. split says that its
// content is still to come.
func (a *arena) version(v version, inline []byte, split bool) *version {
	if split || len(inline) > arenaMax {
		own := new(version)
		*own = v
		if !split {
			own.body = body{bytes.Clone(inline)}
		}
		return own
	}
	if len(a.versions) == cap(a.versions) {
		a.versions = make([]version, 0, arenaVersions)
		a.pieces = make([][]byte, 0, arenaVersions)
	}
	if len(inline) > 0 {
		if cap(a.content)-len(a.content) < len(inline) {
			a.content = make([]byte, 0, arenaBytes)
		}
		start := len(a.content)
		a.content = append(a.content, inline...)
		end := len(a.content)
		a.pieces = append(a.pieces, a.content[start:end:end])
		v.body = a.pieces[len(a.pieces)-1 : len(a.pieces) : len(a.pieces)]
	}
	a.versions = append(a.versions, v)
	return &a.versions[len(a.versions)-1]
}
