package repository

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

// Verify reads all there is and checks it, what is encrypted as far as that can be done without its key: that its bytes
// are those that were written. each is told of everything that is wrong; its error ends Verify and is returned. progress
// is told how many bytes of all have been read; nil: it is not told. The error is otherwise the Remote's: findings are
// none. Collect waits for it.
func (r *Repository) Verify(ctx context.Context, each func(Finding) error, progress func(done, total int64)) error {
	r.gate.RLock()
	defer r.gate.RUnlock()
	if progress == nil {
		progress = func(int64, int64) {}
	}
	if err := r.refreshVersions(ctx, true); err != nil {
		return err
	}
	bad, err := r.refreshPacks(ctx, true)
	if err != nil {
		return err
	}
	c := &check{r: r, each: each, progress: progress, affected: map[Ref]bool{}, f: r.newFetcher(nil)}
	r.mu.Lock()
	c.catalog = r.catalog
	r.mu.Unlock()
	if err := c.records(ctx); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(bad)) {
		// Which pieces it had nobody knows; they are among those that are missing.
		if err := c.tell(bad[name], c.incomplete...); err != nil {
			return err
		}
	}
	if err := c.packs(ctx); err != nil {
		return err
	}
	return c.files(ctx)
}

// check is one run of Verify.
type check struct {
	r        *Repository
	f        *fetcher
	catalog  *catalog
	each     func(Finding) error
	progress func(done, total int64)

	versions   []*version // those there are, whose needs are known
	needs      []needs
	incomplete []Ref        // those of which pieces are missing
	affected   map[Ref]bool // those of which something has been told
}

// tell tells of damage.
func (c *check) tell(err error, affected ...Ref) error {
	var be *BlobError
	if !errors.As(err, &be) {
		return err
	}
	f := Finding{Blob: be.Blob, Offset: be.Offset, Problem: ProblemDamaged, Err: err, Message: err.Error(), Affected: affected}
	switch {
	case errors.Is(err, errMissing):
		f.Problem = ProblemMissing
	case errors.Is(err, abi.ErrVersion):
		f.Problem = ProblemUnknown
	}
	for _, ref := range affected {
		c.affected[ref] = true
	}
	return c.each(f)
}

// records checks commit and removal records and that what versions need is there.
func (c *check) records(ctx context.Context) error {
	for _, v := range c.r.history("") {
		if v.removalErr != nil {
			if err := c.tell(v.removalErr); err != nil {
				return err
			}
		}
		if v.err != nil {
			var affected []Ref
			if v.there() {
				affected = []Ref{v.Ref}
			}
			if err := c.tell(v.err, affected...); err != nil {
				return err
			}
		}
		if !v.there() || v.err != nil {
			continue
		}
		n, err := c.r.needsOf(ctx, c.f, v)
		if err != nil && !damage(err) {
			return err
		}
		if err == nil && len(n.missing) > 0 {
			err = &BlobError{Blob: v.blob(), Offset: -1, Err: errMissing,
				Reason: fmt.Sprintf("%d of its %d pieces are in no pack, %x first", len(n.missing), v.commit.Pieces, n.missing[0])}
		}
		if err != nil {
			c.incomplete = append(c.incomplete, v.Ref)
			if err := c.tell(err, v.Ref); err != nil {
				return err
			}
		}
		if n.catalog == c.catalog {
			c.versions, c.needs = append(c.versions, v), append(c.needs, n)
		}
	}
	return nil
}

// packs reads all packs whose indexes could be read.
func (c *check) packs(ctx context.Context) error {
	var done, total int64
	for _, p := range c.catalog.packs {
		total += p.size
	}
	for _, name := range slices.Sorted(maps.Keys(c.catalog.packs)) {
		c.progress(done, total)
		p := c.catalog.packs[name]
		err := c.pack(ctx, p)
		if errors.Is(err, abi.ErrNotFound) && !damage(err) { // collected by another process
			err = nil
		}
		if err != nil {
			return err
		}
		done += p.size
	}
	c.progress(done, total)
	return nil
}

func (c *check) pack(ctx context.Context, p *pack) error {
	content, err := c.r.readAll(ctx, p.name, 0, p.size)
	if damage(err) {
		return c.tell(err, c.whoNeeds(p, -1)...)
	}
	if err != nil {
		return err
	}
	found := false
	for i, x := range p.pieces {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := c.piece(ctx, place{pack: p, i: int32(i)}, content[x.offset:][:x.length])
		var be *BlobError
		if errors.As(err, &be) && be.Blob != p.name {
			continue // it is what this one is made of, and told of there
		}
		if err != nil {
			found = true
			if err := c.tell(err, c.whoNeeds(p, i)...); err != nil {
				return err
			}
		}
	}
	if sum, _ := parsePackName(p.name); found || sha256.Sum256(content) == sum {
		return nil
	}
	if _, err := c.r.codec.parsePack(p.name, content); damage(err) {
		return c.tell(err)
	}
	return c.tell(corrupt(p.name, -1, "its SHA-256 is not its name, though every piece in it is what it was"))
}

// piece checks a piece, what is encrypted by its checksum alone.
func (c *check) piece(ctx context.Context, at place, stored []byte) error {
	x := at.packed()
	if x.encoding&encodedSealed != 0 {
		if crc(stored) != x.sum {
			return corrupt(at.pack.name, int64(x.offset), "the CRC32C of piece %x differs from the one in the index", x.id)
		}
		return nil
	}
	var base []byte
	if x.encoding&encodedDelta != 0 {
		var err error
		if base, err = c.f.piece(ctx, at.pack.name, x.base); err != nil {
			if errors.Is(err, errMissing) {
				return nil // who needs it misses it, and that has been told
			}
			return err
		}
	}
	_, err := c.r.decode(nil, at, stored, base)
	return err
}

// whoNeeds lists the versions that need a piece of a pack, or, if i is -1, any.
func (c *check) whoNeeds(p *pack, i int) (refs []Ref) {
	for k, n := range c.needs {
		for j, x := range p.pieces {
			if at, ok := c.catalog.ids[x.id]; ok && (i < 0 || i == j) && n.has(at) && c.catalog.places[at].pack == p {
				refs = append(refs, c.versions[k].Ref)
				break
			}
		}
	}
	return refs
}

// files makes sure that versions of which all is sound, and which are not encrypted, are state files.
func (c *check) files(ctx context.Context) error {
	for _, v := range c.versions {
		if v.body == nil || c.affected[v.Ref] {
			continue
		}
		c.r.hold(v.Ref, 1)
		s, err := c.r.open(ctx, v, seal.Key{})
		if err != nil {
			c.r.hold(v.Ref, -1)
			if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrVersion) && !errors.Is(err, abi.ErrTooLarge) {
				return err
			}
			if !damage(err) {
				err = &BlobError{Blob: v.blob(), Offset: -1, Err: err, Reason: "its pieces are no state files"}
			}
			if err := c.tell(err, v.Ref); err != nil {
				return err
			}
			continue
		}
		if err := s.Close(); err != nil {
			return err
		}
	}
	return nil
}
