package snapshot

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/torpor-run/torpor/host/abi/record"
)

// nesting is abi.Descriptor.Nesting: which records are inside of others, by their keys (ABI.md, "Records inside of others").
type nesting string

// closer is the byte of nesting behind which stands what closes a record.
const closer = '!'

// rest is what key has behind that of a container, if it is inside of it.
func (n nesting) rest(container, key []byte) ([]byte, bool) {
	if len(container) == 1 && container[0] == rootByte {
		// Inside of a root without a name keys begin anew; what closes it has its name all the same.
		if len(key) > 0 && key[0] != closer && strings.IndexByte(string(n), key[0]) >= 0 {
			return key, true
		}
	}
	if len(key) <= len(container) || !bytes.HasPrefix(key, container) || strings.IndexByte(string(n), key[len(container)]) < 0 {
		return nil, false
	}
	return key[len(container):], true
}

// rootByte begins the keys of roots, and of nothing else that contains records of other partitions.
const rootByte = '$'

func isRoot(key []byte) bool { return len(key) > 0 && key[0] == rootByte }

// inside reports whether a record is inside of a container that stands before it, with nothing else than what is inside of
// that between.
func (n nesting) inside(containerPartition, container, partition, key []byte) bool {
	if n == "" {
		return false
	}
	if !isRoot(container) || bytes.Equal(containerPartition, partition) {
		if _, ok := n.rest(container, key); ok {
			return true
		}
	}
	// The root of a partition is inside of the record of no partition that stands before it.
	return isRoot(key) && len(partition) > 0 && len(containerPartition) == 0
}

// closes reports whether key, of a record inside of container, is of one that closes it.
func (n nesting) closes(container, key []byte) bool {
	rest, ok := n.rest(container, key)
	return ok && rest[0] == closer
}

// number is the number a record inside of container is called by, if it is. One that begins with zeros is none, unless it
// is zero, so that account numbers are none either.
func (n nesting) number(container, key []byte) (uint64, bool) {
	rest, ok := n.rest(container, key)
	if !ok || len(rest) < 2 || (rest[1] == '0' && len(rest) > 2) {
		return 0, false
	}
	number, err := strconv.ParseUint(string(rest[1:]), 10, 64)
	return number, err == nil
}

// stack is the records that are open at a place of a state: each is inside of the one before it.
type stack[T any] struct {
	frames []frame[T]
	depth  int
}

// frame is an open record.
type frame[T any] struct {
	partition, key []byte
	number         uint64 // the last by which something inside of it was called
	numbers        bool   // something was
	data           T
}

// inside is how many of the open records stay open when the next is the one of this key.
func (s *stack[T]) inside(n nesting, partition, key []byte) int {
	for d := s.depth; d > 0; d-- {
		if f := &s.frames[d-1]; n.inside(f.partition, f.key, partition, key) {
			return d
		}
	}
	return 0
}

// top is the innermost open record.
func (s *stack[T]) top() *frame[T] {
	if s.depth == 0 {
		return nil
	}
	return &s.frames[s.depth-1]
}

// pop closes the innermost one, which is valid until the next push.
func (s *stack[T]) pop() *frame[T] {
	s.depth--
	return &s.frames[s.depth]
}

func (s *stack[T]) push(partition, key []byte, data T) *frame[T] {
	if s.depth == len(s.frames) {
		s.frames = append(s.frames, frame[T]{})
	}
	f := &s.frames[s.depth]
	s.depth++
	f.partition, f.key = append(f.partition[:0], partition...), append(f.key[:0], key...)
	f.number, f.numbers, f.data = 0, false, data
	return f
}

// sameSort reports whether two values that differ are of records that have the same sort of things inside of them: an
// object for an object, an instance of a class for another of it. A map is a value of its own, to which what is inside of
// the record belongs, so that there is no other of its sort.
func sameSort(a, b []byte) bool {
	x, y := record.NewPull(a), record.NewPull(b)
	return x.Peek() != record.KindMap && alike(x, y)
}

// emptied reports whether a value, of a record that nothing is inside of, is that of a container as it would be if nothing
// were inside of it, either: if they differ where the container's is a tag around an array, with the very item in it that
// the other has instead.
func emptied(value, container []byte) bool {
	v, c := record.NewPull(value), record.NewPull(container)
	if v.Peek() == record.KindArray && c.Peek() == record.KindArray {
		n := v.Array()
		if n == 0 || n != c.Array() {
			return false
		}
		for range n - 1 {
			if !bytes.Equal(v.Skip(), c.Skip()) {
				return false
			}
		}
	}
	if k := v.Peek(); k != record.KindMap && k != record.KindArray && k != record.KindTag || c.Peek() != record.KindTag {
		return false
	}
	c.Tag()
	if c.Peek() != record.KindArray {
		return false
	}
	item := v.Skip()
	for range c.Array() {
		if bytes.Equal(c.Skip(), item) {
			return true
		}
	}
	return false
}

// alike compares two items but for what numbers, texts and maps in them say.
func alike(a, b *record.Pull) bool {
	k := a.Peek()
	if k != b.Peek() {
		return false
	}
	switch k {
	case record.KindTag:
		tag := a.Tag()
		if tag != b.Tag() {
			return false
		}
		if tag == tagOfType {
			return string(typeName(a)) == string(typeName(b))
		}
		return alike(a, b)
	case record.KindArray:
		n := a.Array()
		if n != b.Array() {
			return false
		}
		for range n {
			if !alike(record.NewPull(a.Skip()), record.NewPull(b.Skip())) {
				return false
			}
		}
	default:
		a.Skip()
		b.Skip()
	}
	return true
}

// tagOfType is the tag of an object by the name of its type, [name, arguments…] (IANA registry of CBOR tags).
const tagOfType = 27

// typeName is the name in the content of such a tag.
func typeName(p *record.Pull) []byte {
	if p.Peek() != record.KindArray || p.Array() == 0 {
		return nil
	}
	return p.Skip()
}
