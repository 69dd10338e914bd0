package s3

import (
	"iter"
	"maps"
	"slices"
	"strings"
	"weak"
)

// This file is the memory of what requests have touched, from which captures tell the difference to
// what was saved last. Of each thing touched (a bucket, an object, an upload in progress) it keeps which
// records the base has of it, and nothing they hold: content deleted or replaced is given back at once.

// touch says what a change concerns: what is under a key, an upload in progress, both, or, if it is zero,
// the bucket itself.
type touch struct {
	key    string // of the object, or of the object the upload is to be
	object bool   // what is under key may change
	upload string // the id of the upload that may change, "" for none
}

// objectImage is which records a state has of what is under one key: of each version, the current one
// first. nil is an image of nothing.
type objectImage []versionImage

// versionImage is what is known of one version. Its weak pointers keep nothing alive: they only are equal
// to those of another image if what they are made of is the same thing, which never changes.
type versionImage struct {
	id      string
	pieces  int64 // in how many records of its own its content is
	version weak.Pointer[version]
	content weak.Pointer[[]byte] // the first piece's place, where the content is in records of its own
}

func (o object) image() objectImage {
	if o.current == nil {
		return nil
	}
	image := make(objectImage, 0, 1+len(o.older))
	image = append(image, o.current.image())
	for _, v := range o.older {
		image = append(image, v.image())
	}
	return image
}

func (v *version) image() versionImage {
	image := versionImage{id: v.id, pieces: pieceCount(v.size), version: weak.Make(v)}
	if image.pieces > 0 {
		image.content = weak.Make(&v.body[0])
	}
	return image
}

// count is how many records there are.
func (o objectImage) count() int64 {
	n := int64(len(o))
	for _, v := range o {
		n += v.pieces
	}
	return n
}

// records are the records by kind and by the ids in their keys.
func (o objectImage) records() iter.Seq2[string, string] {
	return func(yield func(kind, ids string) bool) {
		for i, v := range o {
			name := versionName(v.id)
			if i == 0 && !yield(kindObject, "") || i > 0 && !yield(kindVersion, versionIDs(name)) {
				return
			}
			if !yieldPieces(name, v.pieces, yield) {
				return
			}
		}
	}
}

func yieldPieces(owner string, pieces int64, yield func(kind, ids string) bool) bool {
	for n := range pieces {
		if !yield(kindBody, pieceIDs(owner, n)) {
			return false
		}
	}
	return true
}

// differences tells what of a version differs from the image it was made of.
type differences map[string]struct { // by the version's id
	versionImage
	current bool
}

func (o objectImage) differences() differences {
	if o == nil {
		return nil
	}
	d := make(differences, len(o))
	for i, v := range o {
		place := d[v.id]
		place.versionImage, place.current = v, i == 0
		d[v.id] = place
	}
	return d
}

// of reports whether v's own record is new or changed, and whether the records of its content are.
// current says that v is the current version.
func (d differences) of(v *version, current bool) (own, pieces bool) {
	if d == nil {
		return true, true
	}
	place, found := d[v.id]
	if !found {
		return true, true
	}
	image := v.image()
	return image.version != place.version || current != place.current, image.content != place.content
}

// uploadImage is which records a state has of an upload in progress. The zero value is an image of none.
type uploadImage struct {
	exists bool
	parts  []partImage
}

type partImage struct {
	number int
	pieces int64
	part   weak.Pointer[part] // as those of a versionImage
}

func (u *upload) image() uploadImage {
	if u == nil {
		return uploadImage{}
	}
	image := uploadImage{exists: true, parts: make([]partImage, len(u.parts))}
	for i, p := range u.parts {
		image.parts[i] = p.image()
	}
	return image
}

func (p *part) image() partImage {
	return partImage{number: p.number, pieces: pieceCount(p.size), part: weak.Make(p)}
}

func (u uploadImage) count() int64 {
	if !u.exists {
		return 0
	}
	n := 1 + int64(len(u.parts))
	for _, p := range u.parts {
		n += p.pieces
	}
	return n
}

func (u uploadImage) records(id string) iter.Seq2[string, string] {
	return func(yield func(kind, ids string) bool) {
		if !u.exists || !yield(kindUpload, uploadIDs(id)) {
			return
		}
		for _, p := range u.parts {
			if !yield(kindPart, partIDs(id, p.number)) || !yieldPieces(partOwner(id, p.number), p.pieces, yield) {
				return
			}
		}
	}
}

// has reports whether the image has p.
func (u uploadImage) has(p *part) bool {
	i, found := slices.BinarySearchFunc(u.parts, p.number, func(i partImage, n int) int { return i.number - n })
	return found && u.parts[i] == p.image()
}

// touched is what has been touched in some time, with images of it from the beginning of that time. The
// zero value is nothing.
type touched struct {
	all     bool // or not known; there is nothing in the following then
	n       int  // buckets themselves, objects and uploads
	buckets map[string]*touchedBucket
}

// touchedBucket is what has been touched in the bucket of one name. Once an image is there it stays: a
// bucket that is deleted, and perhaps created again, was empty in between, so all its objects are there.
type touchedBucket struct {
	existed   bool   // there was such a bucket
	partition string // it was in
	itself    bool   // it was created, deleted or configured
	objects   map[string]objectImage
	uploads   map[string]touchedUpload // by id
}

type touchedUpload struct {
	key string
	uploadImage
}

// bucket is what has been touched in the bucket of that name, which was as existed and partition say if
// nothing was until now.
func (t *touched) bucket(name string, existed bool, partition string) *touchedBucket {
	b := t.buckets[name]
	if b == nil {
		b = &touchedBucket{existed: existed, partition: partition, objects: map[string]objectImage{}, uploads: map[string]touchedUpload{}}
		if t.buckets == nil {
			t.buckets = map[string]*touchedBucket{}
		}
		t.buckets[strings.Clone(name)] = b
	}
	return b
}

// touch takes down a change. o and u are what was there before it.
func (t *touched) touch(b *bucket, what touch, o object, u *upload) {
	if t.all {
		return
	}
	tb := t.bucket(b.name, true, b.partition)
	if what == (touch{}) {
		t.touchItself(tb)
		return
	}
	if _, again := tb.objects[what.key]; what.object && !again {
		tb.objects[strings.Clone(what.key)] = o.image()
		t.n++
	}
	if _, again := tb.uploads[what.upload]; what.upload != "" && !again {
		tb.uploads[strings.Clone(what.upload)] = touchedUpload{strings.Clone(what.key), u.image()}
		t.n++
	}
}

// create takes down that a bucket is new.
func (t *touched) create(name string) {
	if !t.all {
		t.touchItself(t.bucket(name, false, ""))
	}
}

func (t *touched) touchItself(b *touchedBucket) {
	if !b.itself {
		b.itself = true
		t.n++
	}
}

// bound makes it everything if there is more than limit.
func (t *touched) bound(limit int) {
	if t.n > limit {
		t.everything()
	}
}

func (t *touched) everything() { *t = touched{all: true} }

// join is what was touched in two times, one after the other. It changes neither; it may share their
// memory.
func join(older, newer *touched, limit int) *touched {
	if older.all || newer.all {
		return &touched{all: true}
	}
	joined := &touched{n: older.n + newer.n, buckets: maps.Clone(older.buckets)}
	if joined.buckets == nil {
		joined.buckets = map[string]*touchedBucket{}
	}
	for name, b := range newer.buckets {
		a := older.buckets[name]
		if a == nil {
			joined.buckets[name] = b
			continue
		}
		both := &touchedBucket{existed: a.existed, partition: a.partition, itself: a.itself || b.itself,
			objects: joinImages(a.objects, b.objects), uploads: joinImages(a.uploads, b.uploads)}
		joined.buckets[name] = both
		joined.n += both.count() - a.count() - b.count()
	}
	joined.bound(limit)
	return joined
}

// joinImages joins images, of which the older are right. It takes as long as copying one map and going
// through the smaller one.
func joinImages[I any](older, newer map[string]I) map[string]I {
	if len(older) < len(newer) {
		joined := maps.Clone(newer)
		maps.Copy(joined, older)
		return joined
	}
	joined := maps.Clone(older)
	for key, image := range newer {
		if _, again := older[key]; !again {
			joined[key] = image
		}
	}
	return joined
}

func (b *touchedBucket) count() int {
	return count(b.itself) + len(b.objects) + len(b.uploads)
}

// changes is what was touched since the base, in spans of time that captures end. It is guarded by the
// service's lock; sets of spans that have ended never change.
type changes struct {
	limit   int      // how many things touched it tells apart
	base    *span    // ended with the base
	waiting []*span  // those that have ended since, oldest first
	now     *touched // since the last of them ended
}

// span is the time before a capture, since the one before it.
type span struct {
	*touched
	open int // captures that ended it, or found it ended, and may yet become the base
}

// newChanges is after a time of which known says whether its end is the base.
func newChanges(limit int, known bool) changes {
	return changes{limit: limit, base: new(span), now: &touched{all: !known}}
}

// touch takes down a change.
func (c *changes) touch(b *bucket, what touch, o object, u *upload) {
	c.now.touch(b, what, o, u)
	c.now.bound(c.limit)
}

// create takes down that a bucket is new.
func (c *changes) create(name string) {
	c.now.create(name)
	c.now.bound(c.limit)
}

// capture ends the span that is under way, unless nothing was touched in it, and returns the last one.
func (c *changes) capture() *span {
	if c.now.all || c.now.n > 0 {
		c.waiting = append(c.waiting, &span{touched: c.now})
		c.now = new(touched)
	}
	end := c.base
	if n := len(c.waiting); n > 0 {
		end = c.waiting[n-1]
	}
	end.open++
	return end
}

// until is what was touched from the base up to the end of a span, oldest first. It is not known if the
// base is not before it.
func (c *changes) until(end *span) (sets []*touched, known bool) {
	i := slices.Index(c.waiting, end)
	if i < 0 {
		return nil, end == c.base
	}
	for _, s := range c.waiting[:i+1] {
		sets = append(sets, s.touched)
	}
	return sets, true
}

// committed makes the end of a span the base.
func (c *changes) committed(end *span) {
	if end == c.base {
		return
	}
	i := slices.Index(c.waiting, end)
	if i < 0 {
		// An older state than the base, or one of before a restore: nobody knows what is between.
		c.waiting = nil
		c.now.everything()
	} else {
		c.waiting = slices.Clone(c.waiting[i+1:])
	}
	c.base = end
}

// joinable finds two spans to be made one, nil if there are none: no capture may yet become the base
// between them, and the older is not so much longer that copying it is not worth it. So what captures
// without a save leave behind is in few spans, and each image is copied few times.
func (c *changes) joinable() (older, newer *span) {
	for i := 1; i < len(c.waiting); i++ {
		a, b := c.waiting[i-1], c.waiting[i]
		if a.open == 0 && (a.all || b.all || a.n <= 2*b.n) {
			return a, b
		}
	}
	return nil, nil
}

// closed gives back a span that capture returned, and joins what it can: the service's lock is held for
// a moment only.
func (s *Service) closed(end *span) {
	s.mu.Lock()
	defer s.mu.Unlock()
	end.open--
	for {
		older, newer := s.changes.joinable()
		if older == nil {
			return
		}
		a, b, limit := older.touched, newer.touched, s.changes.limit
		s.mu.Unlock()
		joined := join(a, b, limit)
		s.mu.Lock()
		waiting := s.changes.waiting
		if i := slices.Index(waiting, older); i >= 0 && i+1 < len(waiting) && waiting[i+1] == newer && older.touched == a && newer.touched == b {
			newer.touched = joined
			s.changes.waiting = slices.Delete(waiting, i, i+1)
		}
	}
}
