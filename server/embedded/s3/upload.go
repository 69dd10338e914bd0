package s3

import (
	"cmp"
	"crypto/md5"
	"encoding/hex"
	"slices"
	"strconv"
	"strings"

	"github.com/johannesboyne/gofakes3"
)

// Limits of uploads in parts: S3's own.
const (
	maxPartNumber = gofakes3.MaxUploadPartNumber
	minPartBytes  = 5 << 20 // but for the last part
)

// upload is an upload in parts that is in progress. It never changes once it is in a bucket: another
// takes its place.
type upload struct {
	id        string
	key       string
	initiated int64 // Unix nanoseconds
	attrs     []pair
	tags      []pair
	parts     []*part // by number
}

// part is one part of an upload. It never changes.
type part struct {
	number   int
	modified int64 // Unix nanoseconds
	size     int64
	md5      [md5.Size]byte
	body     body
}

func (p *part) etag() string { return hex.EncodeToString(p.md5[:]) }

// find returns where the part of that number is, or would be.
func (u *upload) find(number int) (int, bool) {
	return slices.BinarySearchFunc(u.parts, number, func(p *part, n int) int { return cmp.Compare(p.number, n) })
}

// with adds p in the place of a part of its number.
func (u *upload) with(p *part) *upload {
	c := *u
	i, found := u.find(p.number)
	c.parts = slices.Clone(u.parts)
	if found {
		c.parts[i] = p
	} else {
		c.parts = slices.Insert(c.parts, i, p)
	}
	return &c
}

func (b *bucket) upload(key, id string) (*upload, error) {
	u, ok := b.uploads.Get(id)
	if !ok || u.key != key {
		return nil, noSuchUpload(key)
	}
	return u, nil
}

// createUpload begins an upload of u.key. u is the service's from then on.
func (s *Service) createUpload(name string, u *upload) (id string, err error) {
	if err := checkKey(u.key); err != nil {
		return "", err
	}
	u.id = newID()
	return u.id, s.change(name, touch{key: u.key, upload: u.id}, func(b *bucket) (bool, error) {
		u.initiated = s.now()
		b.uploads.Set(u.id, u)
		return true, nil
	})
}

// putPart stores a part. p is the service's from then on.
func (s *Service) putPart(name, key, id string, p *part) error {
	if p.number < 1 || p.number > maxPartNumber {
		return invalidArgument("Part number must be an integer between 1 and " + strconv.Itoa(maxPartNumber) + ", inclusive")
	}
	return s.change(name, touch{key: key, upload: id}, func(b *bucket) (bool, error) {
		u, err := b.upload(key, id)
		if err != nil {
			return false, err
		}
		p.modified = s.now()
		b.uploads.Set(id, u.with(p))
		return true, nil
	})
}

func (s *Service) abortUpload(name, key, id string) error {
	return s.change(name, touch{key: key, upload: id}, func(b *bucket) (bool, error) {
		if _, err := b.upload(key, id); err != nil {
			return false, err
		}
		b.uploads.Delete(id)
		return true, nil
	})
}

// completeUpload makes an object of the parts listed and ends the upload. size is what the client
// says the object's size is, -1 if it says nothing.
func (s *Service) completeUpload(name, key, id string, list []gofakes3.CompletedPart, size int64, cond conditions) (publicID, etag string, err error) {
	err = s.change(name, touch{key: key, object: true, upload: id}, func(b *bucket) (bool, error) {
		u, err := b.upload(key, id)
		if err != nil {
			return false, err
		}
		v, err := u.assemble(list)
		if err != nil {
			return false, err
		}
		if size >= 0 && size != v.size {
			return false, fault("InvalidRequest", key, "The provided 'x-amz-mp-object-size' header value "+
				strconv.FormatInt(size, 10)+" does not match what was computed: "+strconv.FormatInt(v.size, 10))
		}
		if err := cond.check(b, key); err != nil {
			return false, err
		}
		v.modified = s.now()
		b.put(key, v)
		b.uploads.Delete(id)
		publicID, etag = b.publicID(v), v.etag()
		return true, nil
	})
	return publicID, etag, err
}

// assemble makes the version that the parts listed are.
func (u *upload) assemble(list []gofakes3.CompletedPart) (*version, error) {
	if len(list) == 0 {
		return nil, fault(gofakes3.ErrMalformedXML, u.key, "The list of parts is empty")
	}
	v := &version{attrs: u.attrs, tags: u.tags}
	sums := md5.New()
	for i := 1; i < len(list); i++ {
		if list[i].PartNumber <= list[i-1].PartNumber {
			return nil, fault(gofakes3.ErrInvalidPartOrder, u.key, "The list of parts was not in ascending order. Parts must be ordered by part number.")
		}
	}
	for i, want := range list {
		at, found := u.find(want.PartNumber)
		if !found || strings.Trim(want.ETag, `"`) != u.parts[at].etag() {
			return nil, fault(gofakes3.ErrInvalidPart, u.key, "Part "+strconv.Itoa(want.PartNumber)+
				" could not be found, or its entity tag is not the one listed.")
		}
		p := u.parts[at]
		if p.size < minPartBytes && i < len(list)-1 {
			return nil, fault("EntityTooSmall", u.key, "Part "+strconv.Itoa(p.number)+" has "+strconv.FormatInt(p.size, 10)+
				" bytes; all but the last must have "+strconv.Itoa(minPartBytes)+".")
		}
		sums.Write(p.md5[:])
		v.parts = append(v.parts, p.size)
		v.size += p.size
		v.body = append(v.body, p.body...)
	}
	sums.Sum(v.md5[:0])
	return v, nil
}

// uploadMarker is where a listing of uploads begins after: all uploads of key, or only those up to id
// if that is not "". The zero marker is the beginning.
type uploadMarker struct{ key, id string }

// uploadListing is a part of a bucket's uploads in progress: by key, then by when they began.
type uploadListing struct {
	uploads   []*upload
	prefixes  []string
	truncated bool
	last      uploadMarker
}

// listUploads lists uploads in progress. p.after is not used.
func (b *bucket) listUploads(p page, after uploadMarker) uploadListing {
	marker, _ := b.uploads.Get(after.id)
	wanted := func(u *upload) bool {
		switch {
		case u.key != after.key:
			return u.key > after.key
		case after.id == "":
			return false
		case marker == nil:
			return true // it has ended meanwhile: rather twice than never
		}
		return compareUploads(u, marker) > 0
	}
	var all []*upload
	b.uploads.Scan(func(_ string, u *upload) bool {
		if strings.HasPrefix(u.key, p.prefix) && wanted(u) {
			all = append(all, u)
		}
		return true
	})
	slices.SortFunc(all, compareUploads)
	var l uploadListing
	for _, u := range all {
		common, isCommon := p.common(u.key)
		if isCommon && (common == after.key || common == l.last.key) {
			continue
		}
		if len(l.uploads)+len(l.prefixes) >= p.limit {
			l.truncated = true
			break
		}
		if isCommon {
			l.prefixes = append(l.prefixes, common)
			l.last = uploadMarker{key: common}
		} else {
			l.uploads = append(l.uploads, u)
			l.last = uploadMarker{u.key, u.id}
		}
	}
	return l
}

func compareUploads(a, b *upload) int {
	return cmp.Or(cmp.Compare(a.key, b.key), cmp.Compare(a.initiated, b.initiated), cmp.Compare(a.id, b.id))
}
