package repository

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// attempts is how often Save begins anew where what it relied on was collected by another process meanwhile.
const attempts = 3

// errGone: a pack that a version was to refer to is not there any more.
var errGone = errors.New("another process has deleted packs meanwhile; try again")

// Save keeps s as the next version of name. After an error there is no such version, or, if the place lost its answer to
// the very last step, there is, whole. Errors wrap those of s's files, seal.ErrLock, abi.ErrTooLarge, or are the
// Remote's. It uses s no longer than it runs. Of a module that s does not come with (abi.ErrNotFound), it keeps none.
func (r *Repository) Save(ctx context.Context, name string, s *snapshot.Snapshot, o SaveOptions) (Version, error) {
	if err := CheckName(name); err != nil {
		return Version{}, err
	}
	if err := o.Lock.Check(); err != nil {
		return Version{}, err
	}
	r.gate.RLock()
	defer r.gate.RUnlock()
	for i := 1; ; i++ {
		v, err := r.save(ctx, name, s, o)
		if err == nil {
			return v, nil
		}
		if i == attempts || !errors.Is(err, errGone) {
			return Version{}, fmt.Errorf("snapshot %q: %w", name, err)
		}
		r.cfg.Logger.Warn("packs were deleted by another process while a snapshot was saved; it begins anew", "name", name)
	}
}

// saver saves one version.
type saver struct {
	r   *Repository
	f   *fetcher
	key *dataKey // nil: it is not encrypted

	needed needs       // what versions there are refer to, and so may this one
	mine   map[ID]bool // what this one has put
	out    packWriter
	used   map[string]bool // packs it refers to
	all    []entry
	stored int64

	differ differ
	delta  []byte // room
	zipped [2][]byte
	sealed []byte

	before      *version           // whose pieces those are of which this one's may be changes; nil: none
	beforeParts map[string][]entry // by service/part
	old         []entry            // of the part at hand
	oldHints    map[uint32]int
	next        int // in old

	done, total int64
	progress    func(done, total int64)
}

func (r *Repository) save(ctx context.Context, name string, s *snapshot.Snapshot, o SaveOptions) (Version, error) {
	if err := r.refreshVersions(ctx, false); err != nil {
		return Version{}, err
	}
	if _, err := r.refreshPacks(ctx, false); err != nil {
		return Version{}, err
	}
	w := &saver{r: r, mine: map[ID]bool{}, used: map[string]bool{}, progress: o.Progress, total: s.Size()}
	w.out = packWriter{codec: r.codec, now: r.cfg.Now, put: func(p *pack, content []byte) error { return w.putPack(ctx, p, content) }}
	if err := w.findNeeded(ctx); err != nil {
		return Version{}, err
	}
	before := newest(r.history(name))
	var wrapped []byte
	if !o.Lock.IsZero() {
		var err error
		if before, err = w.chooseKey(ctx, before, o.Lock); err != nil {
			return Version{}, err
		}
		if wrapped, err = w.key.wrap(o.Lock); err != nil {
			return Version{}, err
		}
	} else if before != nil && (before.commit == nil || len(before.commit.Key) > 0) {
		before = nil
	}
	w.f = r.newFetcher(w.key)
	w.takeBefore(ctx, before)

	body := bodyItem{Torpor: r.cfg.Torpor, Description: o.Description}
	var size uint64
	for _, p := range s.Parts {
		item, err := w.part(ctx, p)
		if err != nil {
			return Version{}, fmt.Errorf("part %s: %w", p, err)
		}
		body.Parts = append(body.Parts, item)
		size += item.Size
	}
	w.old, w.oldHints = nil, nil
	for _, digest := range s.Modules() {
		item, ok, err := w.module(ctx, s, digest)
		if err != nil {
			return Version{}, err
		}
		if ok {
			body.Modules = append(body.Modules, item)
		}
	}
	pieces := len(w.all)
	if pieces > MaxPieces {
		return Version{}, fmt.Errorf("%w: %d pieces; a version may have %d", abi.ErrTooLarge, pieces, MaxPieces)
	}
	lists, err := w.lists(ctx)
	if err != nil {
		return Version{}, err
	}
	if err := w.out.flush(); err != nil {
		return Version{}, err
	}
	if err := w.checkPacks(ctx); err != nil {
		return Version{}, err
	}
	item := commitItem{Format: FormatVersion, Name: name, Created: fromTime(r.cfg.Now()), Size: size,
		Stored: uint64(w.stored), Pieces: uint64(pieces), Lists: lists, Key: wrapped}
	number, err := w.commit(ctx, item, body)
	if err != nil {
		return Version{}, err
	}
	created, err := toTime(item.Created)
	if err != nil {
		return Version{}, err
	}
	v := &version{Ref: Ref{name, number}, commit: &item, body: &body, created: created}
	told := v.tell()
	told.Encrypted = w.key != nil
	return told, nil
}

// findNeeded notes what versions refer to. Pieces that none does are not used, though they may be there: Collect may be
// about to delete them.
func (w *saver) findNeeded(ctx context.Context) error {
	f := w.r.newFetcher(nil)
	w.r.mu.Lock()
	w.needed.catalog = w.r.catalog
	w.r.mu.Unlock()
	for _, v := range w.r.history("") {
		if !v.there() {
			continue
		}
		n, err := w.r.needsOf(ctx, f, v)
		if err != nil && !damage(err) {
			return err
		}
		if err != nil {
			w.r.cfg.Logger.Warn("a version of a snapshot is damaged; nothing is shared with it", "name", v.Name, "version", v.Version, "error", err)
		}
		if n.catalog == w.needed.catalog {
			w.needed.add(n)
		}
	}
	return nil
}

// chooseKey takes the data key of the version before, where the lock is a passphrase that opens it, or a new one. It gives
// the version if its key was taken.
func (w *saver) chooseKey(_ context.Context, before *version, l seal.Lock) (*version, error) {
	if before != nil && before.commit != nil && len(before.commit.Key) > 0 && l.Passphrase != "" {
		key, err := unwrapDataKey(before.blob(), before.commit.Key, seal.Key{Passphrase: l.Passphrase})
		if err == nil {
			w.key = key
			return before, nil
		}
		w.r.cfg.Logger.Debug("a version is encrypted with another key than the one before it and shares nothing with it",
			"name", before.Name, "version", before.Version, "error", err)
	}
	var err error
	w.key, err = randomDataKey()
	return nil, err
}

// takeBefore reads what the version before is made of. What is wrong with it is no reason not to save.
func (w *saver) takeBefore(ctx context.Context, before *version) {
	if before == nil {
		return
	}
	body, err := w.r.bodyOf(before, w.key)
	var entries []entry
	if err == nil {
		entries, err = w.r.lists(ctx, before)
	}
	if err != nil {
		w.r.cfg.Logger.Warn("the version of a snapshot before cannot be read; nothing is kept as a change of it",
			"name", before.Name, "version", before.Version, "error", err)
		return
	}
	w.before, w.beforeParts = before, map[string][]entry{}
	for _, p := range body.Parts {
		w.beforeParts[p.Service+"/"+p.Part] = entries[:p.Pieces]
		entries = entries[p.Pieces:]
	}
}

// part writes the state file of a part anew, in full and uncompressed, whose writes are its pieces: the header, a chunk
// each, the index with the trailer. All of it is checked on the way.
func (w *saver) part(ctx context.Context, p snapshot.Part) (partItem, error) {
	h := p.File.Header()
	h.Compression = statefile.CompressionNone
	w.old, w.next = w.beforeParts[p.String()], 0
	w.oldHints = make(map[uint32]int, len(w.old))
	for i, e := range w.old {
		if _, twice := w.oldHints[e.hint]; e.hint != 0 && !twice {
			w.oldHints[e.hint] = i
		}
	}
	from := len(w.all)
	out, err := statefile.NewWriter(partWriter{ctx, w}, h)
	if err != nil {
		return partItem{}, err
	}
	records := p.File.Records()
	var b record.Batch
	for {
		if err := ctx.Err(); err != nil {
			return partItem{}, err
		}
		if err := records.ReadInto(&b); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return partItem{}, err
		}
		if err := out.WriteBatch(&b); err != nil {
			return partItem{}, err
		}
	}
	info, err := out.Close()
	if err != nil {
		return partItem{}, err
	}
	if was := p.File.Info().Records; info.Records != was {
		return partItem{}, fmt.Errorf("%w: its state file holds %d records and says that there are %d", abi.ErrCorrupt, info.Records, was)
	}
	return partItem{Service: p.Service, Part: p.Name, Generation: h.Generation, Records: info.Records,
		Serializer: h.Serializer.Name + " " + h.Serializer.Version, Size: uint64(info.Size), Pieces: uint64(len(w.all) - from)}, nil
}

// partWriter takes what a statefile.Writer writes.
type partWriter struct {
	ctx context.Context
	w   *saver
}

func (p partWriter) Write(b []byte) (int, error) {
	hint := p.w.hint(b)
	for rest := b; len(rest) > 0; {
		n := min(len(rest), MaxPieceBytes)
		if hint == 0 {
			n = min(n, tailCut)
		}
		if err := p.w.piece(p.ctx, rest[:n], hint); err != nil {
			return 0, err
		}
		rest = rest[n:]
	}
	p.w.done += int64(len(b))
	if p.w.progress != nil {
		p.w.progress(p.w.done, p.w.total)
	}
	return len(b), nil
}

// hint tells chunks by the key of their first record, so that a chunk finds what it was; 0 is for what is no chunk.
func (w *saver) hint(item []byte) uint32 {
	d := record.NewPull(item)
	if d.Tag() != 63 {
		return 0
	}
	d = record.NewPull(d.Bytes())
	d.Array()
	partition := d.Text()
	key, text := d.TextOrBytes()
	if d.Err() != nil {
		return 0
	}
	b := append([]byte("torpor hint\x00"), partition...)
	b = append(b, 0)
	if text {
		b = append(b, 1)
	}
	id := w.key.id(append(b, key...))
	return max(binary.BigEndian.Uint32(id[:]), 1)
}

// piece adds the next piece of the part at hand.
func (w *saver) piece(ctx context.Context, b []byte, hint uint32) error {
	e := entry{id: w.key.id(b), length: uint32(len(b)), hint: hint}
	w.all = append(w.all, e)
	var base *ID
	at, ok := w.oldHints[hint]
	if !ok || hint == 0 {
		at = w.next
	}
	if at < len(w.old) {
		base = &w.old[at].id
		w.next = at + 1
	}
	return w.keep(ctx, e.id, b, base, w.f)
}

// keep sees to it that a piece is in a pack. like is one that it may be the change of; nil: none. It is encrypted if f
// has a key.
func (w *saver) keep(ctx context.Context, id ID, b []byte, like *ID, f *fetcher) error {
	if w.mine[id] || w.shared(id) {
		return nil
	}
	w.mine[id] = true
	p := packed{id: id, raw: uint32(len(b))}
	stored, err := w.encode(ctx, &p, b, like, f)
	if err != nil {
		return err
	}
	w.stored += int64(len(stored))
	return w.out.add(p, stored)
}

// shared tells that a piece is there and that versions refer to it, and notes in which packs it is.
func (w *saver) shared(id ID) bool {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	c := w.needed.catalog
	i, ok := c.ids[id]
	if !ok || !w.needed.has(i) {
		return false
	}
	w.use(i)
	return true
}

// use notes the packs of a piece and of what it is made of.
func (w *saver) use(i int32) {
	c := w.needed.catalog
	for {
		at := c.places[i]
		w.used[at.pack.name] = true
		if at.packed().encoding&encodedDelta == 0 {
			return
		}
		i = c.ids[at.packed().base]
	}
}

// encode makes what is stored of a piece: the change of one that it is like if that is less than half, compressed if that makes it
// less, encrypted if it is to be.
func (w *saver) encode(ctx context.Context, p *packed, b []byte, like *ID, f *fetcher) ([]byte, error) {
	out, delta, base := b, []byte(nil), ID{}
	if like != nil {
		delta, base = w.changeOf(ctx, b, *like, f)
	}
	var zipped []byte
	if delta != nil {
		w.zipped[0] = w.r.enc.EncodeAll(delta, w.zipped[0][:0])
		zipped = w.zipped[0]
		if len(zipped) >= len(delta) {
			zipped = nil
		}
	}
	least := len(delta)
	if zipped != nil {
		least = len(zipped)
	}
	if least < len(b)/16 && delta != nil {
		out = nil // no need to know what it comes to without
	} else {
		w.zipped[1] = w.r.enc.EncodeAll(b, w.zipped[1][:0])
		if len(w.zipped[1]) < len(b) {
			p.encoding, out = encodedZstd, w.zipped[1]
		}
	}
	if delta != nil && (out == nil || least < len(out)/2) {
		p.encoding, p.base, out = encodedDelta, base, delta
		if zipped != nil {
			p.encoding, out = encodedDelta|encodedZstd, zipped
		}
	}
	if p.encoding&encodedDelta != 0 {
		w.useBase(base)
	}
	if f.key != nil {
		var err error
		if w.sealed, err = f.key.seal(w.sealed[:0], out, p.id[:]); err != nil {
			return nil, err
		}
		out = w.sealed
		p.encoding |= encodedSealed
	}
	return out, nil
}

func (w *saver) useBase(id ID) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	if i, ok := w.needed.catalog.ids[id]; ok {
		w.use(i)
	}
}

// changeOf makes of a piece the change of one that it may be like, or, if that is a change of a change and so on too often,
// of the whole piece at the end of those; nil: it is not worth it.
func (w *saver) changeOf(ctx context.Context, b []byte, like ID, f *fetcher) (delta []byte, base ID) {
	base, ok := w.base(like)
	if !ok {
		return nil, ID{}
	}
	was, err := f.piece(ctx, w.before.blob(), base)
	if err != nil {
		w.r.cfg.Logger.Warn("a piece of a snapshot cannot be read; what has become of it is kept whole", "error", err)
		return nil, ID{}
	}
	if w.delta, ok = w.differ.append(w.delta[:0], was, b, len(b)/2); !ok {
		return nil, ID{}
	}
	return w.delta, base
}

func (w *saver) base(like ID) (ID, bool) {
	w.r.mu.Lock()
	defer w.r.mu.Unlock()
	c := w.needed.catalog
	i, ok := c.ids[like]
	if !ok || !w.needed.has(i) {
		return ID{}, false
	}
	if c.places[i].depth < maxDepthToSave {
		return like, true
	}
	for c.places[i].depth > 0 {
		i = c.ids[c.places[i].packed().base]
	}
	return c.places[i].packed().id, true
}

// module keeps a serializer module; ok is false where the snapshot does not have it.
func (w *saver) module(ctx context.Context, s *snapshot.Snapshot, digest [sha256.Size]byte) (item moduleItem, ok bool, err error) {
	b, err := s.Module(ctx, digest)
	if errors.Is(err, abi.ErrNotFound) {
		w.r.cfg.Logger.Debug("a snapshot is saved without a serializer that it needs", "module", fmt.Sprintf("%x", digest), "error", err)
		return item, false, nil
	}
	if err != nil {
		return item, false, err
	}
	if sha256.Sum256(b) != digest {
		return item, false, fmt.Errorf("serializer module %x: %w: its SHA-256 is another", digest, abi.ErrCorrupt)
	}
	if len(b) > MaxModuleBytes {
		return item, false, fmt.Errorf("serializer module %x: %w: %d bytes; the limit is %d", digest, abi.ErrTooLarge, len(b), MaxModuleBytes)
	}
	item = moduleItem{SHA256: digest[:], Size: uint64(len(b))}
	for ; len(b) > 0; item.Pieces++ {
		n := min(len(b), MaxPieceBytes)
		if err := w.piece(ctx, b[:n], 0); err != nil {
			return item, false, err
		}
		b = b[n:]
	}
	return item, true, nil
}

// lists keeps the lists of all pieces, which are not encrypted: who collects has no key, and IDs say nothing.
func (w *saver) lists(ctx context.Context) (ids [][]byte, err error) {
	f := w.r.newFetcher(nil)
	for rest := w.all; len(rest) > 0; {
		n := min(len(rest), listPieces)
		var b []byte
		for _, e := range rest[:n] {
			b = e.append(b)
		}
		rest = rest[n:]
		var base *ID
		if w.before != nil && len(ids) < len(w.before.commit.Lists) {
			base = (*ID)(w.before.commit.Lists[len(ids)])
		}
		id := ID(sha256.Sum256(b))
		if err := w.keep(ctx, id, b, base, f); err != nil {
			return nil, err
		}
		ids = append(ids, id[:])
	}
	return ids, nil
}

func (w *saver) putPack(ctx context.Context, p *pack, content []byte) error {
	// One of that name has the same bytes.
	err := w.r.cfg.Remote.Put(ctx, p.name, bytes.NewReader(content), p.size)
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	w.r.addPack(p)
	w.used[p.name] = true
	return nil
}

// checkPacks makes sure that all the version refers to is there, before it is committed.
func (w *saver) checkPacks(ctx context.Context) error {
	missing := len(w.used)
	err := w.r.cfg.Remote.List(ctx, PacksPrefix, func(b Blob) error {
		if w.used[b.Name] {
			missing--
		}
		return nil
	})
	if err == nil && missing > 0 {
		err = errGone
	}
	return err
}

// commit puts the commit record, under the first number that nobody has.
func (w *saver) commit(ctx context.Context, item commitItem, body bodyItem) (uint64, error) {
	content, err := w.r.codec.enc.Marshal(body)
	if err != nil {
		return 0, fmt.Errorf("commit record: %w", err)
	}
	for {
		item.Version = 1
		if all := w.r.history(item.Name); len(all) > 0 {
			item.Version = all[len(all)-1].Version + 1
		}
		name := recordName(commitsFolder, Ref{item.Name, item.Version})
		item.Body = content
		if w.key != nil {
			if item.Body, err = w.key.seal(nil, content, []byte(name)); err != nil {
				return 0, err
			}
		}
		b, err := w.r.codec.encodeRecord(item)
		if err != nil {
			return 0, fmt.Errorf("commit record: %w", err)
		}
		if len(b) > MaxCommitBytes {
			return 0, fmt.Errorf("%w: a commit record of %d bytes; the limit is %d", abi.ErrTooLarge, len(b), MaxCommitBytes)
		}
		err = w.r.cfg.Remote.Put(ctx, name, bytes.NewReader(b), int64(len(b)))
		if !errors.Is(err, fs.ErrExist) {
			return item.Version, err
		}
		if err := w.r.refreshVersions(ctx, false); err != nil { // someone else was first
			return 0, err
		}
	}
}

// Remove removes versions of name; none named: all. Their numbers are not given again. What they alone needed is there
// until Collect. A version that is not there is a *[VersionError]; the others have not been removed then.
func (r *Repository) Remove(ctx context.Context, name string, versions ...uint64) error {
	if err := CheckName(name); err != nil {
		return err
	}
	if err := r.refreshVersions(ctx, false); err != nil {
		return err
	}
	all := r.history(name)
	var chosen []*version
	for _, v := range all {
		if len(versions) == 0 && v.there() {
			chosen = append(chosen, v)
		}
	}
	if len(versions) == 0 && len(chosen) == 0 {
		return &VersionError{Name: name}
	}
	for _, number := range versions {
		v, err := find(name, all, number)
		if err != nil {
			return err
		}
		chosen = append(chosen, v)
	}
	for _, v := range chosen {
		if err := r.putRemoval(ctx, v.Ref); err != nil {
			return fmt.Errorf("remove version %d of snapshot %q: %w", v.Version, name, err)
		}
	}
	return nil
}

// putRemoval puts the removal record of a version. After nil it is there and durable, whoever put it.
func (r *Repository) putRemoval(ctx context.Context, ref Ref) error {
	b, err := r.codec.encodeRecord(removalItem{Format: FormatVersion, Name: ref.Name, Version: ref.Version, Removed: fromTime(r.cfg.Now())})
	if err != nil {
		return fmt.Errorf("removal record: %w", err)
	}
	err = r.cfg.Remote.Put(ctx, recordName(removalsFolder, ref), bytes.NewReader(b), int64(len(b)))
	if err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.certain[ref] = true
	return nil
}

// find is the version of that number, or the newest if it is 0, of those of name.
func find(name string, all []*version, number uint64) (*version, error) {
	last := newest(all)
	if last == nil {
		return nil, &VersionError{Name: name, Version: number}
	}
	if number == 0 {
		return last, nil
	}
	missing := &VersionError{Name: name, Version: number, Newest: last.Version}
	for _, v := range all {
		if v.Version == number && v.there() {
			return v, nil
		}
		missing.Removed = missing.Removed || v.Version == number
	}
	return nil, missing
}
