package repository

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sort"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
)

// How much a fetcher keeps.
const (
	spanBytes  = 512 << 10 // read from a pack at once: what is beside a piece is mostly wanted next
	keptSpans  = 8 << 20   // bytes of spans
	keptPieces = 8 << 20   // bytes of pieces
)

// entry tells of one piece of a version, as a list has it.
type entry struct {
	id     ID
	length uint32
	hint   uint32 // of what its first record is; 0: it has none
}

const entryBytes = len(ID{}) + 8

func (e entry) append(b []byte) []byte {
	b = append(b, e.id[:]...)
	b = binary.BigEndian.AppendUint32(b, e.length)
	return binary.BigEndian.AppendUint32(b, e.hint)
}

func decodeEntry(b []byte) entry {
	return entry{id: ID(b), length: binary.BigEndian.Uint32(b[len(ID{}):]), hint: binary.BigEndian.Uint32(b[len(ID{})+4:])}
}

// recent keeps what was used last, up to some bytes.
type recent[V any] struct {
	values []V // the last used is the last
	size   int
	max    int
	len    func(V) int
}

// get finds what matches.
func (r *recent[V]) get(matches func(V) bool) (v V, ok bool) {
	for i := len(r.values) - 1; i >= 0; i-- {
		if v := r.values[i]; matches(v) {
			copy(r.values[i:], r.values[i+1:])
			r.values[len(r.values)-1] = v
			return v, true
		}
	}
	return v, false
}

func (r *recent[V]) put(v V) {
	r.values = append(r.values, v)
	r.size += r.len(v)
	for r.size > r.max && len(r.values) > 1 {
		r.size -= r.len(r.values[0])
		copy(r.values, r.values[1:])
		clear(r.values[len(r.values)-1:])
		r.values = r.values[:len(r.values)-1]
	}
}

type (
	span struct {
		pack   string
		offset int64
		bytes  []byte
	}
	held struct {
		id    ID
		bytes []byte
	}
)

// fetcher reads pieces: those of one data key, or, with none, those that are not encrypted. It is safe for concurrent use.
type fetcher struct {
	r   *Repository
	key *dataKey

	mu     sync.Mutex // guards what follows; it is not held while reading
	spans  recent[span]
	pieces recent[held]
}

func (r *Repository) newFetcher(key *dataKey) *fetcher {
	return &fetcher{r: r, key: key,
		spans:  recent[span]{max: keptSpans, len: func(s span) int { return len(s.bytes) }},
		pieces: recent[held]{max: keptPieces, len: func(h held) int { return len(h.bytes) }}}
}

// piece gives the bytes of a piece, which are not to be changed. Errors are the Remote's or a *[BlobError], which is
// of blob, whose piece it is, and wraps errMissing, where it is in no pack.
func (f *fetcher) piece(ctx context.Context, blob string, id ID) ([]byte, error) {
	b, err := f.build(ctx, blob, id)
	if errors.Is(err, errMissing) || errors.Is(err, abi.ErrNotFound) {
		// Written anew meanwhile, by another process?
		if _, rerr := f.r.refreshPacks(ctx, false); rerr != nil {
			return nil, rerr
		}
		b, err = f.build(ctx, blob, id)
	}
	return b, err
}

func (f *fetcher) build(ctx context.Context, blob string, id ID) ([]byte, error) {
	var chain []place
	var b []byte
	for next := id; ; {
		if kept, ok := f.kept(next); ok {
			b = kept
			break
		}
		at, ok := f.r.locate(next)
		if !ok {
			return nil, &BlobError{Blob: blob, Offset: -1, Err: errMissing, Reason: fmt.Sprintf("piece %x is in no pack", next)}
		}
		if len(chain) > MaxDepth {
			return nil, tooLarge(at.pack.name, int64(at.packed().offset), "a piece is made of more than %d others", MaxDepth)
		}
		chain = append(chain, at)
		if at.packed().encoding&encodedDelta == 0 {
			break
		}
		next = at.packed().base
	}
	for i := len(chain) - 1; i >= 0; i-- {
		stored, err := f.stored(ctx, chain[i])
		if err != nil {
			return nil, err
		}
		if b, err = f.r.decode(f.key, chain[i], stored, b); err != nil {
			return nil, err
		}
	}
	if len(chain) > 0 {
		f.mu.Lock()
		f.pieces.put(held{id, b})
		f.mu.Unlock()
	}
	return b, nil
}

func (f *fetcher) kept(id ID) ([]byte, bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	h, ok := f.pieces.get(func(h held) bool { return h.id == id })
	return h.bytes, ok
}

// stored gives what is in the pack, and what is behind it in memory.
func (f *fetcher) stored(ctx context.Context, at place) ([]byte, error) {
	x := at.packed()
	from, to := int64(x.offset), int64(x.offset)+int64(x.length)
	within := func(s span) bool {
		return s.pack == at.pack.name && s.offset <= from && to <= s.offset+int64(len(s.bytes))
	}
	f.mu.Lock()
	s, ok := f.spans.get(within)
	f.mu.Unlock()
	if !ok {
		last := at.pack.pieces[len(at.pack.pieces)-1]
		end := min(max(to, from+spanBytes), int64(last.offset)+int64(last.length))
		b, err := f.r.readAll(ctx, at.pack.name, from, end-from)
		if err != nil {
			return nil, err
		}
		s = span{at.pack.name, from, b}
		f.mu.Lock()
		f.spans.put(s)
		f.mu.Unlock()
	}
	return s.bytes[from-s.offset:][:x.length], nil
}

// decode makes a piece of what is stored of it, and of its base if it has one. It is checked from the outside in.
func (r *Repository) decode(key *dataKey, at place, stored, base []byte) ([]byte, error) {
	x, name, offset := at.packed(), at.pack.name, int64(at.packed().offset)
	if crc(stored) != x.sum {
		return nil, corrupt(name, offset, "the CRC32C of piece %x differs from the one in the index", x.id)
	}
	b := stored
	var err error
	if x.encoding&encodedSealed != 0 {
		if b, err = key.open(b, x.id[:]); err != nil {
			return nil, corrupt(name, offset, "piece %x cannot be decrypted: %v", x.id, err)
		}
	}
	if x.encoding&encodedZstd != 0 {
		if b, err = r.dec.DecodeAll(b, nil); err != nil {
			return nil, corrupt(name, offset, "piece %x does not decompress: %v", x.id, err)
		}
	}
	if x.encoding&encodedDelta != 0 {
		if b, err = applyDelta(make([]byte, 0, x.raw), base, b, int(x.raw)); err != nil {
			return nil, corrupt(name, offset, "piece %x cannot be made of %x: %v", x.id, x.base, err)
		}
	}
	if len(b) != int(x.raw) {
		return nil, corrupt(name, offset, "piece %x has %d bytes, the index says %d", x.id, len(b), x.raw)
	}
	if key.id(b) != x.id {
		return nil, corrupt(name, offset, "the digest of piece %x is another", x.id)
	}
	return b, nil
}

// entriesIn is how many entries a list of a version has, of which so many are left.
func entriesIn(v *version, list []byte, left uint64) (uint64, error) {
	n := uint64(len(list) / entryBytes)
	if len(list)%entryBytes != 0 || n > left {
		return 0, corrupt(v.blob(), -1, "a list of pieces has %d bytes: no multiple of %d, or more than the record's %d pieces", len(list), entryBytes, v.commit.Pieces)
	}
	return n, nil
}

// lists reads the lists of a version. They are never encrypted.
func (r *Repository) lists(ctx context.Context, v *version) ([]entry, error) {
	f := r.newFetcher(nil)
	all := make([]entry, 0, min(v.commit.Pieces, listPieces))
	for _, id := range v.commit.Lists {
		b, err := f.piece(ctx, v.blob(), ID(id))
		if err != nil {
			return nil, err
		}
		if _, err := entriesIn(v, b, v.commit.Pieces-uint64(len(all))); err != nil {
			return nil, err
		}
		for ; len(b) > 0; b = b[entryBytes:] {
			all = append(all, decodeEntry(b))
		}
	}
	if uint64(len(all)) != v.commit.Pieces {
		return nil, corrupt(v.blob(), -1, "its lists have %d pieces, the record says %d", len(all), v.commit.Pieces)
	}
	return all, nil
}

// file is pieces one after another.
type file struct {
	ctx    context.Context // of Open, without its end: reading goes on behind it
	f      *fetcher
	blob   string // of the version
	pieces []entry
	ends   []int64
}

func newFile(ctx context.Context, f *fetcher, blob string, pieces []entry) *file {
	x := &file{ctx: context.WithoutCancel(ctx), f: f, blob: blob, pieces: pieces, ends: make([]int64, len(pieces))}
	var end int64
	for i, p := range pieces {
		end += int64(p.length)
		x.ends[i] = end
	}
	return x
}

func (x *file) size() int64 {
	if len(x.ends) == 0 {
		return 0
	}
	return x.ends[len(x.ends)-1]
}

// ReadAt implements io.ReaderAt.
func (x *file) ReadAt(b []byte, off int64) (n int, err error) {
	if off < 0 {
		return 0, fmt.Errorf("snapshots: read at %d", off)
	}
	i := sort.Search(len(x.ends), func(i int) bool { return x.ends[i] > off })
	for ; n < len(b) && i < len(x.pieces); i++ {
		p, err := x.f.piece(x.ctx, x.blob, x.pieces[i].id)
		if err != nil {
			return n, err
		}
		if len(p) != int(x.pieces[i].length) {
			return n, corrupt(x.blob, -1, "piece %x has %d bytes, the version's list says %d", x.pieces[i].id, len(p), x.pieces[i].length)
		}
		n += copy(b[n:], p[off+int64(n)-(x.ends[i]-int64(len(p))):])
	}
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}
