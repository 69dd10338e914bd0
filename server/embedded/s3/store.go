package s3

import (
	"crypto/rand"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/johannesboyne/gofakes3"
	"github.com/tidwall/btree"
)

// This file is the state and what may be done to it, without HTTP. Methods of *Service named here
// take its lock themselves; methods of *bucket expect it to be held.

// maxKeyBytes is how long an object's key may be: S3's own limit.
const maxKeyBytes = gofakes3.KeySizeLimit

// checkKey refuses keys no object can have.
func checkKey(key string) error {
	switch {
	case key == "":
		return fault("UserKeyMustBeSpecified", "", "The key of an object cannot be empty")
	case len(key) > maxKeyBytes:
		return fault(gofakes3.ErrKeyTooLong, "", "Your key is too long: "+strconv.Itoa(len(key))+" bytes; the maximum is "+strconv.Itoa(maxKeyBytes))
	}
	return nil
}

// bucket is a bucket. Its fields and maps change under the service's lock; what the maps hold does not.
type bucket struct {
	name       string
	partition  string // "<account>/<region>" of its records
	created    int64  // Unix nanoseconds
	versioning gofakes3.VersioningStatus
	objects    *btree.Map[string, object]
	uploads    *btree.Map[string, *upload] // by upload id
}

func newBucket(name, partition string, created int64) *bucket {
	return &bucket{name: name, partition: partition, created: created,
		objects: new(btree.Map[string, object]), uploads: new(btree.Map[string, *upload])}
}

// frozen is the bucket as it is now, sharing everything with it. It takes the same time however many
// objects there are: the maps are copied as they are written to.
func (b *bucket) frozen() *bucket {
	c := *b
	c.objects = b.objects.Copy()
	c.uploads = b.uploads.Copy()
	return &c
}

// region is the region the bucket is in.
func (b *bucket) region() string {
	_, region, _ := strings.Cut(b.partition, "/")
	return region
}

// version finds a version by the id clients use. "" is the current one, even if that is a delete
// marker.
func (b *bucket) version(key, id string) (*version, error) {
	o, ok := b.objects.Get(key)
	if id == "" {
		if !ok {
			return nil, noSuchKey(key)
		}
		return o.current, nil
	}
	if v := o.find(versionID(id)); v != nil {
		return v, nil
	}
	return nil, noSuchVersion(key)
}

// put makes v the current version under key and gives it its id.
func (b *bucket) put(key string, v *version) {
	o, _ := b.objects.Get(key)
	v.id = ""
	if b.versioning == gofakes3.VersioningEnabled {
		v.id = newID()
	} else {
		o = o.without("") // there is one null version at most
	}
	b.objects.Set(key, o.with(v))
}

// newID makes an id for a version or an upload. It is random, so that a restored service needs to
// remember nothing to make no id twice; it has no slash, so that it can be part of a record's key.
func newID() string { return rand.Text() }

// conditions are the headers If-Match and If-None-Match of a write; "" is none.
type conditions struct{ ifMatch, ifNoneMatch string }

// check holds the conditions against what is current under key.
func (c conditions) check(b *bucket, key string) error {
	if c == (conditions{}) {
		return nil
	}
	o, _ := b.objects.Get(key)
	exists := o.current != nil && !o.current.marker
	if c.ifNoneMatch != "" {
		if c.ifNoneMatch != "*" {
			return notImplemented("If-None-Match with anything but * in a write")
		}
		if exists {
			return preconditionFailed("If-None-Match")
		}
	}
	if c.ifMatch != "" {
		if !exists {
			return noSuchKey(key)
		}
		if !matches(c.ifMatch, o.current.etag()) {
			return preconditionFailed("If-Match")
		}
	}
	return nil
}

// matches reports whether a list of entity tags, as in If-Match, names etag (RFC 9110, 13.1.1).
func matches(list, etag string) bool {
	for tag := range strings.SplitSeq(list, ",") {
		tag = strings.TrimPrefix(strings.TrimSpace(tag), "W/")
		if tag == "*" || strings.Trim(tag, `"`) == etag {
			return true
		}
	}
	return false
}

// now is the time of a change in Unix nanoseconds.
func (s *Service) now() int64 { return s.clock().UnixNano() }

// view runs read with a bucket that nothing changes meanwhile.
func (s *Service) view(name string, read func(*bucket) error) error {
	s.mu.RLock()
	defer s.mu.RUnlock()
	b, ok := s.buckets.Get(name)
	if !ok {
		return noSuchBucket(name)
	}
	return read(b)
}

// change runs write with a bucket, alone, and then takes down and reports as changed what it says it
// touches, if write says so. A write that returns an error must have changed nothing.
func (s *Service) change(name string, what touch, write func(*bucket) (changed bool, err error)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	b, ok := s.buckets.Get(name)
	if !ok {
		return noSuchBucket(name)
	}
	o, _ := b.objects.Get(what.key)
	u, _ := b.uploads.Get(what.upload)
	changed, err := write(b)
	if changed {
		s.changes.touch(b, what, o, u)
		s.onChange(name, what.key)
	}
	return err
}

func (s *Service) createBucket(name, partition string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if old, ok := s.buckets.Get(name); ok {
		if old.partition == partition && old.region() == legacyRegion {
			return nil // as S3 does there, and only there
		}
		return fault("BucketAlreadyOwnedByYou", name, "Your previous request to create the named bucket succeeded and you already own it.")
	}
	s.buckets.Set(name, newBucket(name, partition, s.now()))
	s.changes.create(name)
	s.onChange(name, "")
	return nil
}

// deleteBucket removes an empty bucket; uploads in progress do not keep it. With force it need not be
// empty.
func (s *Service) deleteBucket(name string, force bool) error {
	return s.change(name, touch{}, func(b *bucket) (bool, error) {
		if b.objects.Len() > 0 && !force {
			return false, fault(gofakes3.ErrBucketNotEmpty, name, "The bucket you tried to delete is not empty")
		}
		if b.objects.Len() > 0 || b.uploads.Len() > 0 {
			s.changes.now.everything() // rather than an image of each
		}
		s.buckets.Delete(name)
		return true, nil
	})
}

// setVersioning turns versioning on or suspends it; S3 has no way back to a bucket never versioned.
func (s *Service) setVersioning(name string, status gofakes3.VersioningStatus) error {
	return s.change(name, touch{}, func(b *bucket) (bool, error) {
		changed := b.versioning != status
		b.versioning = status
		return changed, nil
	})
}

// putObject stores v under key. v is the service's from then on. It returns the version as clients
// name it, "" where the bucket was never versioned.
func (s *Service) putObject(name, key string, v *version, cond conditions) (id string, err error) {
	if err := checkKey(key); err != nil {
		return "", err
	}
	err = s.change(name, touch{key: key, object: true}, func(b *bucket) (bool, error) {
		if err := cond.check(b, key); err != nil {
			return false, err
		}
		v.modified = s.now()
		b.put(key, v)
		id = b.publicID(v)
		return true, nil
	})
	return id, err
}

// publicID is the version id clients are told: none in a bucket that was never versioned.
func (b *bucket) publicID(v *version) string {
	if b.versioning == gofakes3.VersioningNone {
		return ""
	}
	return v.name()
}

// read finds a version to be read, the current one if id is "". A delete marker is an error. publicID
// is set where the version was found, be it a marker.
func (s *Service) read(name, key, id string) (v *version, publicID string, err error) {
	err = s.view(name, func(b *bucket) error {
		if v, err = b.version(key, id); err != nil {
			return err
		}
		publicID = b.publicID(v)
		switch {
		case v.marker && id == "":
			return noSuchKey(key)
		case v.marker:
			return methodNotAllowed("the version is a delete marker")
		}
		return nil
	})
	return v, publicID, err
}

// deleted is the outcome of a delete.
type deleted struct {
	id     string // of the version removed or the marker put, "" if neither
	marker bool   // that is a delete marker
}

// deleteObject deletes as a request without a version id does: in a versioned bucket by putting a
// delete marker, whether there was an object or not. Deleting what is not there is no error.
func (s *Service) deleteObject(name, key string, cond conditions) (out deleted, err error) {
	if err := checkKey(key); err != nil {
		return out, err
	}
	err = s.change(name, touch{key: key, object: true}, func(b *bucket) (bool, error) {
		if err := cond.check(b, key); err != nil {
			return false, err
		}
		if b.versioning == gofakes3.VersioningNone {
			_, changed := b.objects.Delete(key)
			return changed, nil
		}
		v := &version{marker: true, modified: s.now()}
		b.put(key, v)
		out = deleted{id: v.name(), marker: true}
		return true, nil
	})
	return out, err
}

// deleteVersion removes one version for good. If there is none, nothing happens.
func (s *Service) deleteVersion(name, key, id string) (out deleted, err error) {
	err = s.change(name, touch{key: key, object: true}, func(b *bucket) (bool, error) {
		o, _ := b.objects.Get(key)
		v := o.find(versionID(id))
		if v == nil {
			return false, nil
		}
		if o = o.without(v.id); o.current == nil {
			b.objects.Delete(key)
		} else {
			b.objects.Set(key, o)
		}
		out = deleted{id: v.name(), marker: v.marker}
		return true, nil
	})
	return out, err
}

// setTags replaces the tags of a version, of the current one if id is "". It returns the id clients
// are told.
func (s *Service) setTags(name, key, id string, tags []pair) (publicID string, err error) {
	err = s.change(name, touch{key: key, object: true}, func(b *bucket) (bool, error) {
		v, err := b.version(key, id)
		if err != nil {
			return false, err
		}
		if v.marker {
			return false, methodNotAllowed("a delete marker has no tags")
		}
		tagged := *v
		tagged.tags = tags
		o, _ := b.objects.Get(key)
		b.objects.Set(key, o.replace(&tagged))
		publicID = b.publicID(v)
		return true, nil
	})
	return publicID, err
}

// page says which part of a listing is wanted.
type page struct {
	prefix, delimiter string
	after             string // what the listing begins after, "" for its beginning
	limit             int    // entries and common prefixes together
}

// listed is an object in a listing.
type listed struct {
	key string
	*version
}

// listing is a part of a bucket's objects, in the order of their keys.
type listing struct {
	objects   []listed
	prefixes  []string // keys up to the first delimiter behind the prefix, once each
	truncated bool
	last      string // where the next page begins after, if truncated
}

// list lists current versions that are no delete markers.
func (b *bucket) list(p page) listing {
	var l listing
	if p.limit <= 0 {
		return l
	}
	it := b.objects.Iter()
	for ok := it.Seek(max(p.prefix, p.after)); ok; {
		key, v := it.Key(), it.Value().current
		if !strings.HasPrefix(key, p.prefix) {
			break
		}
		if key <= p.after || v.marker {
			ok = it.Next()
			continue
		}
		common, isCommon := p.common(key)
		if isCommon && common == p.after {
			ok = seekBehind(&it, common)
			continue
		}
		if len(l.objects)+len(l.prefixes) == p.limit {
			l.truncated = true
			break
		}
		if isCommon {
			l.prefixes = append(l.prefixes, common)
			l.last = common
			ok = seekBehind(&it, common)
			continue
		}
		l.objects = append(l.objects, listed{key, v})
		l.last = key
		ok = it.Next()
	}
	return l
}

// common is the part of key that is listed in its place, if it is rolled up.
func (p page) common(key string) (string, bool) {
	if p.delimiter == "" {
		return "", false
	}
	i := strings.Index(key[len(p.prefix):], p.delimiter)
	if i < 0 {
		return "", false
	}
	return key[:len(p.prefix)+i+len(p.delimiter)], true
}

// seekBehind goes to the first key after all those that begin with prefix.
func seekBehind(it *btree.MapIter[string, object], prefix string) bool {
	for i := len(prefix) - 1; i >= 0; i-- {
		if prefix[i] < 0xff {
			return it.Seek(prefix[:i] + string([]byte{prefix[i] + 1}))
		}
	}
	return false
}

// versionMarker is where a listing of versions begins after: all versions of key, or only those down
// to id if that is not "". The zero marker is the beginning.
type versionMarker struct{ key, id string }

// versionListing is a part of a bucket's versions: by key, then from the newest on.
type versionListing struct {
	versions  []listedVersion
	prefixes  []string
	truncated bool
	last      versionMarker
}

type listedVersion struct {
	listed
	latest bool
}

// listVersions lists all versions, delete markers included. p.after is not used.
func (b *bucket) listVersions(p page, after versionMarker) versionListing {
	var l versionListing
	if p.limit <= 0 {
		return l
	}
	full := func() bool {
		l.truncated = len(l.versions)+len(l.prefixes) == p.limit
		return l.truncated
	}
	it := b.objects.Iter()
	for ok := it.Seek(max(p.prefix, after.key)); ok; {
		key, o := it.Key(), it.Value()
		if !strings.HasPrefix(key, p.prefix) {
			break
		}
		versions := o.versions()
		if key == after.key {
			versions = after.rest(versions)
		}
		common, isCommon := p.common(key)
		switch {
		case isCommon && common == after.key:
			ok = seekBehind(&it, common)
		case isCommon && len(versions) > 0:
			if full() {
				return l
			}
			l.prefixes = append(l.prefixes, common)
			l.last = versionMarker{key: common}
			ok = seekBehind(&it, common)
		default:
			for _, v := range versions {
				if full() {
					return l
				}
				l.versions = append(l.versions, listedVersion{listed{key, v}, v == o.current})
				l.last = versionMarker{key, v.name()}
			}
			ok = it.Next()
		}
	}
	return l
}

// rest is what of the versions of m's key comes after m.
func (m versionMarker) rest(versions []*version) []*version {
	if m.id == "" {
		return nil
	}
	i := slices.IndexFunc(versions, func(v *version) bool { return v.name() == m.id })
	return versions[i+1:] // all of them if the one named is gone meanwhile
}

// bucketList lists the buckets in the order of their names.
func (s *Service) bucketList() []*bucket {
	s.mu.RLock()
	defer s.mu.RUnlock()
	all := make([]*bucket, 0, s.buckets.Len())
	s.buckets.Scan(func(_ string, b *bucket) bool {
		all = append(all, &bucket{name: b.name, partition: b.partition, created: b.created})
		return true
	})
	return all
}

func unixTime(ns int64) time.Time { return time.Unix(0, ns).UTC() }
