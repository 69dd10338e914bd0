package repository

import (
	"context"
	"crypto/sha256"
	"fmt"
	"slices"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// tell is the version as callers see it.
func (v *version) tell() Version {
	t := Version{Number: v.Version, Created: v.created, Size: int64(v.commit.Size), Stored: int64(v.commit.Stored), Encrypted: len(v.commit.Key) > 0}
	if v.body == nil {
		return t
	}
	t.Torpor, t.Description = v.body.Torpor, v.body.Description
	for _, p := range v.body.Parts {
		t.Parts = append(t.Parts, Part{Service: p.Service, Name: p.Part, Generation: p.Generation, Records: p.Records, Size: int64(p.Size), Serializer: p.Serializer})
		t.Services = append(t.Services, p.Service)
	}
	slices.Sort(t.Services)
	t.Services = slices.Compact(t.Services)
	return t
}

// List tells of all snapshots that have a version, by name. A version whose commit record is damaged counts, and nothing
// else is known of it: it is logged, and Verify tells of it.
func (r *Repository) List(ctx context.Context) ([]Summary, error) {
	if err := r.refreshVersions(ctx, false); err != nil {
		return nil, err
	}
	var all []Summary
	for _, v := range r.history("") {
		if !v.there() {
			continue
		}
		if len(all) == 0 || all[len(all)-1].Name != v.Name {
			all = append(all, Summary{Name: v.Name})
		}
		s := &all[len(all)-1]
		s.Newest = v.Version
		s.Versions++
		if v.err != nil {
			r.warnDamaged(v)
			continue
		}
		t := v.tell()
		s.Changed, s.Size, s.Services, s.Encrypted = t.Created, t.Size, t.Services, t.Encrypted
	}
	return all, nil
}

func (r *Repository) warnDamaged(v *version) {
	r.cfg.Logger.Warn("a version of a snapshot cannot be read", "name", v.Name, "version", v.Version, "error", v.err)
}

// Versions lists the versions of name, ascending; those removed are left out, and so are, with a line in the log, those
// whose commit record is damaged. If there are none the error is a *[VersionError].
func (r *Repository) Versions(ctx context.Context, name string) ([]Version, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := r.refreshVersions(ctx, false); err != nil {
		return nil, err
	}
	var told []Version
	there := false
	for _, v := range r.history(name) {
		if !v.there() {
			continue
		}
		there = true
		if v.err != nil {
			r.warnDamaged(v)
			continue
		}
		told = append(told, v.tell())
	}
	if !there {
		return nil, &VersionError{Name: name}
	}
	return told, nil
}

// Open gives a version; 0 is the newest. Its files read from the repository, a piece at a time, and check what they read:
// an error of theirs wraps abi.ErrCorrupt and names the pack and the place in it. They read on when ctx has ended. Errors
// are a *[VersionError], or wrap seal.ErrKey, abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge, or are the Remote's. Close
// the snapshot: until then Collect of this Repository leaves alone what it needs, even if the version is removed.
func (r *Repository) Open(ctx context.Context, name string, number uint64, k seal.Key) (*snapshot.Snapshot, error) {
	if err := CheckName(name); err != nil {
		return nil, err
	}
	if err := r.refreshVersions(ctx, false); err != nil {
		return nil, err
	}
	v, err := find(name, r.history(name), number)
	if err != nil {
		return nil, err
	}
	r.hold(v.Ref, 1)
	s, err := r.open(ctx, v, k)
	if err != nil {
		r.hold(v.Ref, -1)
		return nil, fmt.Errorf("version %d of snapshot %q: %w", v.Version, name, err)
	}
	return s, nil
}

func (r *Repository) hold(ref Ref, n int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.opened[ref] += n; r.opened[ref] == 0 {
		delete(r.opened, ref)
	}
}

func (r *Repository) open(ctx context.Context, v *version, k seal.Key) (*snapshot.Snapshot, error) {
	if v.err != nil {
		return nil, v.err
	}
	if _, err := r.refreshPacks(ctx, false); err != nil {
		return nil, err
	}
	var key *dataKey
	if len(v.commit.Key) > 0 {
		var err error
		if key, err = unwrapDataKey(v.blob(), v.commit.Key, k); err != nil {
			return nil, err
		}
	}
	body, err := r.bodyOf(v, key)
	if err != nil {
		return nil, err
	}
	entries, err := r.lists(ctx, v)
	if err != nil {
		return nil, err
	}
	for _, e := range entries { // rather now than half way
		if _, ok := r.locate(e.id); !ok {
			return nil, &BlobError{Blob: v.blob(), Offset: -1, Err: errMissing, Reason: fmt.Sprintf("piece %x is in no pack", e.id)}
		}
	}
	f := r.newFetcher(key)
	var parts []snapshot.Part
	for _, p := range body.Parts {
		x := newFile(ctx, f, v.blob(), entries[:p.Pieces])
		entries = entries[p.Pieces:]
		if uint64(x.size()) != p.Size {
			return nil, corrupt(v.blob(), -1, "the pieces of part %s/%s have %d bytes, the record says %d", p.Service, p.Part, x.size(), p.Size)
		}
		state, err := statefile.Open(x, x.size(), fmt.Sprintf("%s@%d: %s/%s", v.Name, v.Version, p.Service, p.Part))
		if err != nil {
			return nil, err
		}
		parts = append(parts, snapshot.Part{Service: p.Service, Name: p.Part, File: state})
	}
	modules := map[[sha256.Size]byte]*file{}
	for _, m := range body.Modules {
		x := newFile(ctx, f, v.blob(), entries[:m.Pieces])
		entries = entries[m.Pieces:]
		if uint64(x.size()) != m.Size {
			return nil, corrupt(v.blob(), -1, "the pieces of module %x have %d bytes, the record says %d", m.SHA256, x.size(), m.Size)
		}
		modules[[sha256.Size]byte(m.SHA256)] = x
	}
	told := v.tell()
	info := snapshot.Info{Name: v.Name, Version: v.Version, Created: told.Created, Torpor: body.Torpor, Description: body.Description}
	return snapshot.New(info, parts, func(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
		x := modules[digest]
		if x == nil {
			return nil, fmt.Errorf("serializer module %x: %w: it was not saved with version %d of snapshot %q", digest, abi.ErrNotFound, v.Version, v.Name)
		}
		return x.module(digest)
	}, func() error {
		r.hold(v.Ref, -1)
		return nil
	})
}

// module reads all of a module.
func (x *file) module(digest [sha256.Size]byte) ([]byte, error) {
	b := make([]byte, x.size())
	if len(b) > 0 {
		if _, err := x.ReadAt(b, 0); err != nil {
			return nil, err
		}
	}
	if sha256.Sum256(b) != digest {
		return nil, corrupt(x.blob, -1, "serializer module %x has another digest", digest)
	}
	return b, nil
}

// bodyOf is the body of a version's commit record, decrypted with its data key if it has one.
func (r *Repository) bodyOf(v *version, key *dataKey) (*bodyItem, error) {
	if v.body != nil {
		return v.body, nil
	}
	b, err := key.open(v.commit.Body, []byte(v.blob()))
	if err != nil {
		return nil, corrupt(v.blob(), 0, "the record's body cannot be decrypted: %v", err)
	}
	return r.codec.decodeBody(v.blob(), v.commit, b)
}
