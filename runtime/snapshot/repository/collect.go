package repository

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"slices"
	"time"
)

// Packs smaller than smallPack are put together where there are smallPacks of them: every version adds at least one.
const (
	smallPack  = 1 << 20
	smallPacks = 16
)

// Collect deletes packs that hold nothing a version needs, and writes those anew of which less than half is needed, and
// many small ones as one. After an error every version is whole; a later Collect goes on. It deletes nothing, and the
// error wraps abi.ErrCorrupt or abi.ErrVersion, while a version's commit record or the lists of its pieces cannot be read:
// what it needs is not known. Remove that version, or put back what Verify says is damaged.
func (r *Repository) Collect(ctx context.Context, o CollectOptions) (Collected, error) {
	r.gate.Lock()
	defer r.gate.Unlock()
	done, err := r.collect(ctx, o)
	if err != nil {
		err = fmt.Errorf("collect: %w", err)
	}
	return done, err
}

// collection is what is to become of packs.
type collection struct {
	catalog *catalog
	needed  needs     // by versions there are, those removed within the grace time and those opened
	before  time.Time // packs created and versions removed since then are within the grace time

	del, rewrite []*pack
}

func (r *Repository) collect(ctx context.Context, o CollectOptions) (Collected, error) {
	grace := o.Grace
	if grace == 0 {
		grace = DefaultGrace
	}
	done := Collected{DryRun: o.DryRun}
	if err := r.refreshVersions(ctx, false); err != nil {
		return done, err
	}
	if _, err := r.refreshPacks(ctx, true); err != nil {
		return done, err
	}
	c := &collection{before: r.cfg.Now().Add(-grace)}
	if grace < 0 {
		c.before = r.cfg.Now().AddDate(100, 0, 0) // whatever the clocks say
	}
	r.mu.Lock()
	c.catalog = r.catalog
	opened := maps.Clone(r.opened)
	r.mu.Unlock()
	now := needs{catalog: c.catalog} // by versions there are alone
	c.needed = needs{catalog: c.catalog}
	f := r.newFetcher(nil)
	seen := map[Ref]bool{}
	for _, v := range r.history("") {
		kept := !v.there() && v.put && (!v.removedAt.Before(c.before) || opened[v.Ref] > 0)
		if !v.there() && !kept {
			continue
		}
		seen[v.Ref] = true
		n, err := r.needsOf(ctx, f, v)
		if err != nil && (v.there() || !damage(err)) {
			return done, fmt.Errorf("version %d of snapshot %q: %w", v.Version, v.Name, err)
		}
		if err != nil {
			continue // it was removed, and part of it has been collected
		}
		if n.catalog != c.catalog {
			return done, errGone
		}
		c.needed.add(n)
		if v.there() {
			now.add(n)
		}
	}
	c.choose(&now, &done)
	if o.DryRun {
		return done, nil
	}
	total := done.Freed
	if o.Progress != nil {
		o.Progress(0, total)
	}
	done.Packs, done.Rewrote = 0, 0
	if err := r.confirmRemovals(ctx, c); err != nil {
		return done, err
	}
	freed, err := r.rewrite(ctx, c)
	if err != nil {
		return done, err
	}
	kept := done.Kept + done.Freed // what there was
	done.Freed = freed
	if err := r.spareNew(ctx, c, seen, f); err != nil {
		return done, err
	}
	for _, p := range slices.Concat(c.rewrite, c.del) {
		if err := r.cfg.Remote.Delete(ctx, p.name); err != nil {
			return done, errors.Join(err, r.forget(ctx))
		}
		done.Packs++
		done.Freed += p.size
		if slices.Contains(c.rewrite, p) {
			done.Rewrote++
		}
		if o.Progress != nil {
			o.Progress(min(max(done.Freed, 0), total), total)
		}
	}
	done.Kept = kept - done.Freed
	return done, r.forget(ctx)
}

// forget makes the catalog anew of what is there now.
func (r *Repository) forget(ctx context.Context) error {
	_, err := r.refreshPacks(context.WithoutCancel(ctx), true)
	return err
}

// choose sorts the packs and estimates what it will come to.
func (c *collection) choose(now *needs, done *Collected) {
	var small []*pack
	for _, name := range slices.Sorted(maps.Keys(c.catalog.packs)) {
		p := c.catalog.packs[name]
		live, all := c.bytes(p, &c.needed), int64(0)
		for _, x := range p.pieces {
			all += int64(x.length)
		}
		done.Kept += p.size
		young := !p.created.Before(c.before)
		waiting := live
		if young {
			waiting = all
		}
		done.Waiting += waiting - c.bytes(p, now)
		switch {
		case young:
		case live == 0:
			c.del = append(c.del, p)
			done.Freed += p.size
		case live < all/2:
			c.rewrite = append(c.rewrite, p)
			done.Freed += all - live
		case p.size < smallPack:
			small = append(small, p)
		}
	}
	if len(small) >= smallPacks {
		c.rewrite = append(c.rewrite, small...)
	}
	done.Packs, done.Rewrote = len(c.del)+len(c.rewrite), len(c.rewrite)
	done.Kept -= done.Freed
}

// bytes is how much of a pack is needed. Of a piece that is in several packs, one counts.
func (c *collection) bytes(p *pack, n *needs) (live int64) {
	for i, x := range p.pieces {
		if c.live(p, i, n) {
			live += int64(x.length)
		}
	}
	return live
}

func (c *collection) live(p *pack, i int, n *needs) bool {
	at, ok := c.catalog.ids[p.pieces[i].id]
	return ok && n.has(at) && c.catalog.places[at].pack == p && int(c.catalog.places[at].i) == i
}

// confirmRemovals makes sure that versions that are taken for removed stay so: a record can be seen whose Put has failed,
// and be lost in a power cut. To put it again, which tells that it exists, makes it certain.
func (r *Repository) confirmRemovals(ctx context.Context, c *collection) error {
	if len(c.del)+len(c.rewrite) == 0 {
		return nil
	}
	for _, v := range r.history("") {
		r.mu.Lock()
		certain := r.certain[v.Ref]
		r.mu.Unlock()
		if !v.removed || certain {
			continue
		}
		if err := r.putRemoval(ctx, v.Ref); err != nil {
			return err
		}
	}
	return nil
}

// rewrite copies what is needed of packs to new ones, as it is. A pack of which that is damaged stays. It gives how many
// bytes less that makes: less than none.
func (r *Repository) rewrite(ctx context.Context, c *collection) (freed int64, err error) {
	made := map[string]bool{}
	out := packWriter{codec: r.codec, now: r.cfg.Now, put: func(p *pack, content []byte) error {
		made[p.name] = true
		err := r.cfg.Remote.Put(ctx, p.name, bytes.NewReader(content), p.size)
		if errors.Is(err, fs.ErrExist) {
			return nil
		}
		freed -= p.size
		return err
	}}
	var whole []*pack
	for _, p := range c.rewrite {
		content, err := r.readAll(ctx, p.name, 0, p.size)
		if err == nil {
			err = c.check(p, content)
		}
		if damage(err) {
			r.cfg.Logger.Warn("a pack of snapshots is damaged and is not written anew", "blob", p.name, "error", err)
			continue
		}
		if err != nil {
			return freed, err
		}
		whole = append(whole, p)
		for i, x := range p.pieces {
			if !c.live(p, i, &c.needed) {
				continue
			}
			if err := out.add(x, content[x.offset:][:x.length]); err != nil {
				return freed, err
			}
		}
	}
	if err := out.flush(); err != nil {
		return freed, err
	}
	// What was to be deleted may be what this has made: a crash, or a power cut, had left both.
	again := func(p *pack) bool { return made[p.name] }
	c.rewrite, c.del = slices.DeleteFunc(whole, again), slices.DeleteFunc(c.del, again)
	return freed, nil
}

// check makes sure that what is needed of a pack is what was put.
func (c *collection) check(p *pack, content []byte) error {
	for i, x := range p.pieces {
		if c.live(p, i, &c.needed) && crc(content[x.offset:][:x.length]) != x.sum {
			return corrupt(p.name, int64(x.offset), "the CRC32C of piece %x differs from the one in the index", x.id)
		}
	}
	return nil
}

// spareNew looks for versions that have come meanwhile, and takes from what is to be deleted what they need.
func (r *Repository) spareNew(ctx context.Context, c *collection, seen map[Ref]bool, f *fetcher) error {
	if len(c.del)+len(c.rewrite) == 0 {
		return nil
	}
	if err := r.refreshVersions(ctx, false); err != nil {
		return err
	}
	var fresh []*version
	for _, v := range r.history("") {
		if v.there() && !seen[v.Ref] {
			fresh = append(fresh, v)
		}
	}
	if len(fresh) == 0 {
		return nil
	}
	// Their own packs are young and not in the catalog.
	if _, err := r.refreshPacks(ctx, false); err != nil {
		return err
	}
	spared := needs{catalog: c.catalog}
	for _, v := range fresh {
		n, err := r.needsOf(ctx, f, v)
		if err != nil {
			return fmt.Errorf("version %d of snapshot %q: %w", v.Version, v.Name, err)
		}
		if n.catalog != c.catalog { // somebody else collects
			return errGone
		}
		spared.add(n)
	}
	needed := func(p *pack) bool {
		for i := range p.pieces {
			if c.live(p, i, &spared) && !c.live(p, i, &c.needed) {
				return true
			}
		}
		return false
	}
	c.del = slices.DeleteFunc(c.del, needed)
	c.rewrite = slices.DeleteFunc(c.rewrite, needed)
	return nil
}
