package repository

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
)

// catalog is where the pieces are. It only grows; where a pack has gone it is made anew. Repository.mu guards it.
type catalog struct {
	packs  map[string]*pack
	ids    map[ID]int32 // to places
	places []place
	// orphans are changes of pieces that are in no pack.
	orphans []place
}

// place is where a piece is: the one of its packs that counts.
type place struct {
	pack  *pack
	i     int32 // in pack.pieces
	depth int32 // how many pieces are needed to make it
}

func (p place) packed() packed { return p.pack.pieces[p.i] }

func newCatalog() *catalog { return &catalog{packs: map[string]*pack{}, ids: map[ID]int32{}} }

// add takes in packs. A piece that is in several counts where it was found first: so no piece is made of itself, whatever
// two writers have made the change of what, and those who begin with the same packs come to the same places.
func (c *catalog) add(packs ...*pack) {
	slices.SortFunc(packs, func(a, b *pack) int { return strings.Compare(a.name, b.name) })
	deltas := c.orphans
	for _, p := range packs {
		if c.packs[p.name] != nil {
			continue
		}
		c.packs[p.name] = p
		for i, x := range p.pieces {
			at := place{pack: p, i: int32(i)}
			if x.encoding&encodedDelta != 0 {
				deltas = append(deltas, at)
			} else {
				c.put(at)
			}
		}
	}
	// In turns, those of one change first.
	for left := len(deltas) + 1; len(deltas) < left; {
		left = len(deltas)
		known := len(c.places)
		deltas = slices.DeleteFunc(deltas, func(at place) bool {
			base, ok := c.ids[at.packed().base]
			if !ok || int(base) >= known {
				_, twice := c.ids[at.packed().id]
				return twice
			}
			if at.depth = c.places[base].depth + 1; at.depth > MaxDepth {
				return false
			}
			c.put(at)
			return true
		})
	}
	c.orphans = deltas
}

func (c *catalog) put(at place) {
	id := at.packed().id
	if _, ok := c.ids[id]; !ok {
		c.ids[id] = int32(len(c.places))
		c.places = append(c.places, at)
	}
}

// version is what a commit record and a removal record say.
type version struct {
	Ref
	put     bool        // there is a commit record; else only one of its removal
	size    int64       // of the commit record
	commit  *commitItem // nil: err says why
	body    *bodyItem   // nil: it is encrypted
	created time.Time
	err     error // a *BlobError

	removed    bool
	removedAt  time.Time // zero: its record cannot be read
	removalErr error     // why
}

// there tells that it is to be seen.
func (v *version) there() bool { return v.put && !v.removed }

func (v *version) blob() string { return recordName(commitsFolder, v.Ref) }

// needs is what versions need: bits for places, and what is in no pack.
type needs struct {
	catalog *catalog
	bits    []uint64
	missing []ID
}

func (n *needs) has(i int32) bool { return int(i)/64 < len(n.bits) && n.bits[i/64]>>(i%64)&1 == 1 }

// mark adds a piece and what it is made of.
func (n *needs) mark(id ID) {
	i, ok := n.catalog.ids[id]
	if !ok {
		n.missing = append(n.missing, id)
		return
	}
	for !n.has(i) {
		for int(i)/64 >= len(n.bits) {
			n.bits = append(n.bits, 0)
		}
		n.bits[i/64] |= 1 << (i % 64)
		x := n.catalog.places[i].packed()
		if x.encoding&encodedDelta == 0 {
			return
		}
		i = n.catalog.ids[x.base]
	}
}

func (n *needs) add(m needs) {
	for len(n.bits) < len(m.bits) {
		n.bits = append(n.bits, 0)
	}
	for i, b := range m.bits {
		n.bits[i] |= b
	}
	n.missing = append(n.missing, m.missing...)
}

// readAll reads a blob of a size that has been checked.
func (r *Repository) readAll(ctx context.Context, name string, offset, length int64) ([]byte, error) {
	rc, err := r.cfg.Remote.Get(ctx, name, offset, length)
	if err != nil {
		return nil, err
	}
	b := make([]byte, length)
	n, err := io.ReadFull(rc, b)
	rc.Close()
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, corrupt(name, offset+int64(n), "it ends here, where %d bytes more were to come", length-int64(n))
	}
	if err != nil {
		return nil, fmt.Errorf("snapshots: read %s: %w", name, err)
	}
	return b, nil
}

// refreshVersions reads the records there are that have not been read yet; anew, all of them.
func (r *Repository) refreshVersions(ctx context.Context, anew bool) error {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	found := map[Ref]*version{}
	err := r.cfg.Remote.List(ctx, commitsFolder+"/", func(b Blob) error {
		if ref, ok := parseRecordName(commitsFolder, b.Name); ok {
			found[ref] = &version{Ref: ref, put: true, size: b.Size}
		}
		return nil
	})
	if err != nil {
		return err
	}
	var removals []Blob
	err = r.cfg.Remote.List(ctx, removalsFolder+"/", func(b Blob) error {
		removals = append(removals, b)
		return nil
	})
	if err != nil {
		return err
	}
	r.mu.Lock()
	known := maps.Clone(r.versions)
	r.mu.Unlock()
	for ref, v := range found {
		if k := known[ref]; k != nil && k.size == v.size && k.err == nil && !anew {
			v.commit, v.body, v.created = k.commit, k.body, k.created
			continue
		}
		if err := r.readCommit(ctx, v); err != nil {
			return err
		}
	}
	for _, b := range removals {
		ref, ok := parseRecordName(removalsFolder, b.Name)
		if !ok {
			continue
		}
		v := found[ref]
		if v == nil { // a power cut took the commit that was not yet certain; its number is taken
			v = &version{Ref: ref}
			found[ref] = v
		}
		v.removed = true
		if k := known[ref]; k != nil && !k.removedAt.IsZero() && !anew {
			v.removedAt = k.removedAt
			continue
		}
		v.removedAt, v.removalErr = r.readRemoval(ctx, ref, b)
		if v.removalErr != nil && !damage(v.removalErr) {
			return v.removalErr
		}
		if v.removalErr != nil { // that it was put is enough to know: nothing else is ever put there
			r.cfg.Logger.Warn("a removal record of a snapshot cannot be read", "blob", b.Name, "error", v.removalErr)
		}
	}
	r.mu.Lock()
	r.versions = found
	r.mu.Unlock()
	return nil
}

// readCommit reads a commit record. What is wrong with it is v.err; the error is the Remote's.
func (r *Repository) readCommit(ctx context.Context, v *version) error {
	if v.size > MaxCommitBytes {
		v.err = tooLarge(v.blob(), -1, "a record of %d bytes; the limit is %d", v.size, MaxCommitBytes)
		return nil
	}
	b, err := r.readAll(ctx, v.blob(), 0, v.size)
	if err == nil {
		v.commit, v.body, err = r.codec.decodeCommit(v.Ref, b)
	}
	if err == nil {
		v.created, err = toTime(v.commit.Created)
	}
	if damage(err) {
		v.err, v.commit, v.body = err, nil, nil
		return nil
	}
	return err
}

// damage tells an error of what was read from one of reading.
func damage(err error) bool {
	var be *BlobError
	return errors.As(err, &be)
}

// decodeCommit checks the commit record of a version; body is nil if it is encrypted.
func (c codec) decodeCommit(ref Ref, b []byte) (*commitItem, *bodyItem, error) {
	blob := recordName(commitsFolder, ref)
	var item commitItem
	if err := c.decodeRecord(blob, "commit", b, &item); err != nil {
		return nil, nil, err
	}
	if item.Name != ref.Name || item.Version != ref.Version {
		return nil, nil, corrupt(blob, 0, "the record is that of version %d of %q", item.Version, item.Name)
	}
	if len(item.Lists) > MaxLists || item.Pieces > MaxPieces || item.Size > 1<<62 || item.Stored > 1<<62 || item.Created > 1<<63-1 || len(item.Key) > MaxKeyBytes {
		return nil, nil, tooLarge(blob, 0, "%d lists of %d pieces, %d bytes, %d of them new, a key of %d bytes, created at %d", len(item.Lists), item.Pieces, item.Size, item.Stored, len(item.Key), item.Created)
	}
	for i, id := range item.Lists {
		if len(id) != len(ID{}) {
			return nil, nil, corrupt(blob, 0, "list %d has an ID of %d bytes", i, len(id))
		}
	}
	if len(item.Key) > 0 {
		return &item, nil, nil
	}
	body, err := c.decodeBody(blob, &item, item.Body)
	return &item, body, err
}

// decodeBody checks a commit's body, decrypted if need be.
func (c codec) decodeBody(blob string, item *commitItem, b []byte) (*bodyItem, error) {
	var body bodyItem
	if err := c.dec.Unmarshal(b, &body); err != nil {
		return nil, corrupt(blob, 0, "the record's body does not decode: %v", err)
	}
	if len(body.Parts) > snapshot.MaxParts || len(body.Modules) > MaxModules {
		return nil, tooLarge(blob, 0, "%d parts and %d modules; the limits are %d and %d", len(body.Parts), len(body.Modules), snapshot.MaxParts, MaxModules)
	}
	var pieces, size uint64
	for _, p := range body.Parts {
		if p.Size > item.Size-size || p.Pieces > item.Pieces-pieces {
			return nil, corrupt(blob, 0, "part %s/%s is larger than all", p.Service, p.Part)
		}
		pieces += p.Pieces
		size += p.Size
	}
	for _, m := range body.Modules {
		if m.Pieces > item.Pieces-pieces || len(m.SHA256) != len(ID{}) {
			return nil, corrupt(blob, 0, "a module has more pieces than all, or a digest of %d bytes", len(m.SHA256))
		}
		if m.Size > MaxModuleBytes {
			return nil, tooLarge(blob, 0, "a module of %d bytes; the limit is %d", m.Size, MaxModuleBytes)
		}
		pieces += m.Pieces
	}
	if pieces != item.Pieces || size != item.Size {
		return nil, corrupt(blob, 0, "parts and modules have %d pieces, the parts %d bytes; the record says %d and %d", pieces, size, item.Pieces, item.Size)
	}
	return &body, nil
}

func (r *Repository) readRemoval(ctx context.Context, ref Ref, b Blob) (time.Time, error) {
	if b.Size > MaxRemovalBytes {
		return time.Time{}, tooLarge(b.Name, -1, "a record of %d bytes; the limit is %d", b.Size, MaxRemovalBytes)
	}
	content, err := r.readAll(ctx, b.Name, 0, b.Size)
	if err != nil {
		return time.Time{}, err
	}
	item, err := r.codec.decodeRemoval(ref, content)
	if err != nil {
		return time.Time{}, err
	}
	return toTime(item.Removed)
}

func (c codec) decodeRemoval(ref Ref, b []byte) (*removalItem, error) {
	blob := recordName(removalsFolder, ref)
	var item removalItem
	if err := c.decodeRecord(blob, "removal", b, &item); err != nil {
		return nil, err
	}
	if item.Name != ref.Name || item.Version != ref.Version || item.Removed > 1<<63-1 {
		return nil, corrupt(blob, 0, "the record is that of version %d of %q, at %d", item.Version, item.Name, item.Removed)
	}
	return &item, nil
}

// refreshPacks reads the indexes of the packs there are that have not been read yet. anew makes the catalog from them
// as if it had never been made.
func (r *Repository) refreshPacks(ctx context.Context, anew bool) (bad map[string]error, err error) {
	r.refreshing.Lock()
	defer r.refreshing.Unlock()
	there := map[string]int64{}
	err = r.cfg.Remote.List(ctx, PacksPrefix, func(b Blob) error {
		if _, ok := parsePackName(b.Name); ok {
			there[b.Name] = b.Size
		}
		return nil
	})
	if err != nil {
		return nil, err
	}
	r.mu.Lock()
	known := maps.Clone(r.catalog.packs)
	r.mu.Unlock()
	for name := range known {
		if _, ok := there[name]; !ok {
			anew = true
		}
	}
	bad = map[string]error{}
	var all, fresh []*pack
	for _, name := range slices.Sorted(maps.Keys(there)) {
		p := known[name]
		if p == nil || p.size != there[name] {
			p, err = r.readPackIndex(ctx, name, there[name])
			if errors.Is(err, abi.ErrNotFound) {
				continue // collected meanwhile
			}
			if damage(err) {
				bad[name] = err
				r.cfg.Logger.Warn("the index of a pack of snapshots cannot be read", "blob", name, "error", err)
				continue
			}
			if err != nil {
				return nil, err
			}
			fresh = append(fresh, p)
		}
		all = append(all, p)
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if anew {
		// What was put by this Repository while it was listed is in neither.
		c := newCatalog()
		for name, p := range r.catalog.packs {
			if known[name] == nil && there[name] == 0 {
				all = append(all, p)
			}
		}
		c.add(all...)
		r.catalog = c
	} else {
		r.catalog.add(fresh...)
	}
	return bad, nil
}

// tailGuess is how much of a pack's end is read at once: most indexes are in it.
const tailGuess = 64 << 10

func (r *Repository) readPackIndex(ctx context.Context, name string, size int64) (*pack, error) {
	from := max(size-tailGuess, 0)
	tail, err := r.readAll(ctx, name, from, size-from)
	if err != nil {
		return nil, err
	}
	trailer := tail[max(len(tail)-packTrailerBytes, 0):]
	at, n, err := packEnd(name, trailer, size)
	if err != nil {
		return nil, err
	}
	index := tail[:len(tail)-len(trailer)]
	if at >= from {
		index = index[at-from:]
	} else if index, err = r.readAll(ctx, name, at, n); err != nil {
		return nil, err
	}
	return r.codec.decodePack(name, index, trailer, at, size)
}

// addPack takes in a pack that was put by this Repository.
func (r *Repository) addPack(p *pack) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.catalog.add(p)
}

// locate says where a piece is.
func (r *Repository) locate(id ID) (place, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	i, ok := r.catalog.ids[id]
	if !ok {
		return place{}, false
	}
	return r.catalog.places[i], true
}

// history lists the versions of a name, or of all, in order of name and number.
func (r *Repository) history(name string) []*version {
	r.mu.Lock()
	defer r.mu.Unlock()
	var all []*version
	for ref, v := range r.versions {
		if name == "" || ref.Name == name {
			all = append(all, v)
		}
	}
	slices.SortFunc(all, func(a, b *version) int {
		return cmp.Or(strings.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
	return all
}

// newest is the last version of those that is there; nil: none is.
func newest(versions []*version) *version {
	for _, v := range slices.Backward(versions) {
		if v.there() {
			return v
		}
	}
	return nil
}

// needsOf tells what a version needs: of one that is damaged, or whose lists are, it is not known, and the error says why.
func (r *Repository) needsOf(ctx context.Context, f *fetcher, v *version) (needs, error) {
	if v.err != nil {
		return needs{}, v.err
	}
	lists := make([][]byte, len(v.commit.Lists))
	var missing []ID
	left := v.commit.Pieces
	for i, id := range v.commit.Lists {
		b, err := f.piece(ctx, v.blob(), ID(id))
		if errors.Is(err, errMissing) {
			missing = append(missing, ID(id))
			continue
		}
		if err != nil {
			return needs{}, err
		}
		n, err := entriesIn(v, b, left)
		if err != nil {
			return needs{}, err
		}
		left -= n
		lists[i] = b
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	n := needs{catalog: r.catalog}
	for i, id := range v.commit.Lists {
		n.mark(ID(id))
		for b := lists[i]; len(b) > 0; b = b[entryBytes:] {
			n.mark(ID(b[:len(ID{})]))
		}
	}
	if len(missing) > 0 {
		return n, &BlobError{Blob: v.blob(), Offset: -1, Err: errMissing, Reason: fmt.Sprintf("the list of its pieces %x is in no pack", missing[0])}
	}
	return n, nil
}
