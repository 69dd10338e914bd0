package s3

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"
	"weak"

	"github.com/johannesboyne/gofakes3"

	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/runtime"
)

// records is a state as whoever stores it sees it: records by partition and encoded key.
type records map[[2]string]string

// recordsOf reads records, which must be of different keys, in the order WriteNative writes them in: by
// partition.
func recordsOf(t testing.TB, native []byte) records {
	t.Helper()
	all, last := records{}, ""
	var s record.Scanner
	refs, err := s.Scan(native, nil)
	if err != nil {
		t.Fatal(err)
	}
	b := &record.Batch{Data: native, Refs: refs}
	for i := range b.Len() {
		id := [2]string{string(b.Partition(i)), string(b.KeyItem(i))}
		if _, twice := all[id]; twice {
			t.Fatalf("%q is there twice", id)
		}
		if id[0] < last {
			t.Fatalf("partition %q after %q", id[0], last)
		}
		all[id], last = string(b.Record(i)), id[0]
	}
	return all
}

// keyOf is a record's key without its head.
func keyOf(id [2]string) string {
	b := record.Batch{Data: []byte(id[1]), Refs: []record.Ref{{Value: len(id[1])}}}
	key, _ := b.Key(0)
	return string(key)
}

// tombstones collects tombstones and checks their form.
type tombstones struct {
	t    testing.TB
	last string
	gone map[[2]string]bool
}

func (s *tombstones) WriteBatch(b *record.Batch) error {
	s.t.Helper()
	scanner := record.Scanner{Tombstones: true}
	refs, err := scanner.Scan(b.Data, nil)
	if err != nil || !slices.Equal(refs, b.Refs) {
		s.t.Fatalf("a batch of %v: %v, the batch says %v", refs, err, b.Refs)
	}
	if b.Len() == 0 || len(b.Data) > 2*flushBytes {
		s.t.Fatalf("a batch of %d records, %d bytes", b.Len(), len(b.Data))
	}
	for i := range b.Len() {
		id := [2]string{string(b.Partition(i)), string(b.KeyItem(i))}
		if !b.Tombstone(i) || s.gone[id] || id[0] < s.last {
			s.t.Fatalf("%q: tombstone %v, twice %v, after partition %q", id, b.Tombstone(i), s.gone[id], s.last)
		}
		s.gone[id], s.last = true, id[0]
	}
	return nil
}

func written(t testing.TB, write func(context.Context, io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := write(t.Context(), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func captured(t testing.TB, s *Service) torpor.DeltaCapture {
	t.Helper()
	c, err := s.Capture(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return c.(torpor.DeltaCapture)
}

// commit saves everything and makes it the base.
func commit(t testing.TB, s *Service) records {
	t.Helper()
	c := captured(t, s)
	defer c.Close()
	c.Committed()
	return recordsOf(t, written(t, c.WriteNative))
}

// difference is what a delta says.
type difference struct {
	upserts records
	gone    map[[2]string]bool
}

// read reads a delta and checks it by itself.
func read(t testing.TB, d torpor.Delta) difference {
	t.Helper()
	raw := written(t, d.WriteUpserts)
	if again := written(t, d.WriteUpserts); !bytes.Equal(raw, again) {
		t.Fatal("other bytes the second time")
	}
	sink := &tombstones{t: t, gone: map[[2]string]bool{}}
	if err := d.WriteTombstones(t.Context(), sink); err != nil {
		t.Fatal(err)
	}
	out := difference{recordsOf(t, raw), sink.gone}
	for id := range out.gone {
		if _, both := out.upserts[id]; both {
			t.Fatalf("%q is written and gone", id)
		}
	}
	return out
}

// verify holds a delta against its base and what it must lead to. It returns what it says.
func verify(t testing.TB, d torpor.Delta, base records, full []byte) difference {
	t.Helper()
	out := read(t, d)
	merged := maps.Clone(base)
	for id := range out.gone {
		if _, there := base[id]; !there {
			t.Fatalf("%q is gone and never was", id)
		}
		delete(merged, id)
	}
	for id, r := range out.upserts {
		// A bucket may be configured back to what it was; everything else is written only if it changed.
		if base[id] == r && !strings.HasPrefix(keyOf(id), kindBucket+"/") {
			t.Errorf("%q is written and did not change", id)
		}
		merged[id] = r
	}
	want := recordsOf(t, full)
	for id, r := range want {
		if merged[id] != r {
			t.Fatalf("%q is not as in the state", id)
		}
	}
	if len(merged) != len(want) {
		for id := range merged {
			if _, there := want[id]; !there {
				t.Errorf("%q is left", id)
			}
		}
		t.FailNow()
	}
	if growth := int64(len(want) - len(base)); d.Growth() != growth {
		t.Fatalf("grown by %d, and Growth is %d", growth, d.Growth())
	}
	// In the order of the whole.
	at := -1
	for _, r := range split(t, written(t, d.WriteUpserts)) {
		i := bytes.Index(full[at+1:], r)
		if i < 0 {
			t.Fatalf("a record of %d bytes is not in its place", len(r))
		}
		at += 1 + i
	}
	return out
}

// chaos makes random changes to a service.
type chaos struct {
	*Service
	t       testing.TB
	r       *rand.Rand
	n       int // makes tags different
	uploads [][3]string
}

func (c *chaos) bucket() string { return pick(c.r, "a", "a!", "a-b", "b", "ü") }
func (c *chaos) key() string {
	return pick(c.r, "k", "k/", "k//l", "\xff\x00", "ü", "/", fmt.Sprint(c.r.IntN(8)))
}

func pick[T any](r *rand.Rand, from ...T) T { return from[r.IntN(len(from))] }

func (c *chaos) content() body {
	switch c.r.IntN(12) {
	case 0:
		return randomBody(pieceBytes+1+c.r.IntN(pieceBytes+100), byte(c.r.Uint32()))
	case 1:
		return nil
	default:
		return randomBody(1+c.r.IntN(50), byte(c.r.Uint32()))
	}
}

func (c *chaos) tags() []pair {
	c.n++
	return []pair{{"n", fmt.Sprint(c.n)}}
}

// step makes one change, or an attempt at one: many are of what is not there.
func (c *chaos) step() {
	name, key := c.bucket(), c.key()
	switch c.r.IntN(24) {
	case 0, 1:
		c.createBucket(name, pick(c.r, DefaultPartition, "000000000000/eu-west-1", "1/x", ""))
	case 2:
		c.setVersioning(name, pick(c.r, gofakes3.VersioningEnabled, gofakes3.VersioningSuspended))
	case 3: // with all in it, one by one
		if c.r.IntN(3) == 0 {
			c.empty(name)
			c.deleteBucket(name, false)
			if c.r.IntN(2) == 0 {
				c.createBucket(name, pick(c.r, DefaultPartition, "000000000000/eu-west-1"))
			}
		}
	case 4, 5, 6, 7, 8:
		c.putObject(name, key, newTestVersion(c.content()), conditions{ifNoneMatch: pick(c.r, "", "", "*")})
	case 9, 10:
		c.deleteObject(name, key, conditions{})
	case 11, 12:
		if v, ok := c.anyVersion(name); ok {
			c.deleteVersion(name, v.key, v.name())
		}
	case 13, 14:
		if v, ok := c.anyVersion(name); ok {
			c.setTags(name, v.key, v.name(), c.tags())
		}
	case 15: // onto itself, with other tags
		if v, _, err := c.read(name, key, ""); err == nil {
			v = v.duplicate()
			v.tags = c.tags()
			c.putObject(name, key, v, conditions{})
		}
	case 16, 17:
		if id, err := c.createUpload(name, &upload{key: key, tags: c.tags()}); err == nil {
			c.uploads = append(c.uploads, [3]string{name, key, id})
		}
	case 18, 19, 20:
		if u, ok := c.anyUpload(); ok {
			b := c.content()
			c.putPart(u[0], u[1], u[2], &part{number: 1 + c.r.IntN(4), size: b.size(), md5: b.sum(), body: b})
		}
	case 21:
		if u, ok := c.anyUpload(); ok {
			c.abortUpload(u[0], u[1], u[2])
		}
	case 22:
		if u, ok := c.anyUpload(); ok {
			var list []gofakes3.CompletedPart
			c.view(u[0], func(b *bucket) error {
				if u, err := b.upload(u[1], u[2]); err == nil && len(u.parts) > 0 {
					p := pick(c.r, u.parts...)
					list = append(list, gofakes3.CompletedPart{PartNumber: p.number, ETag: p.etag()})
				}
				return nil
			})
			c.completeUpload(u[0], u[1], u[2], list, -1, conditions{})
		}
	case 23:
		if c.r.IntN(40) == 0 {
			c.deleteBucket(name, c.r.IntN(2) == 0)
		}
	}
}

func (c *chaos) anyVersion(name string) (listedVersion, bool) {
	var all versionListing
	c.view(name, func(b *bucket) error {
		all = b.listVersions(page{limit: 1000}, versionMarker{})
		return nil
	})
	if len(all.versions) == 0 {
		return listedVersion{}, false
	}
	return pick(c.r, all.versions...), true
}

func (c *chaos) anyUpload() ([3]string, bool) {
	if len(c.uploads) == 0 {
		return [3]string{}, false
	}
	return c.uploads[max(0, len(c.uploads)-1-c.r.IntN(5))], true
}

func (c *chaos) empty(name string) {
	var versions []listedVersion
	var uploads []*upload
	c.view(name, func(b *bucket) error {
		versions = b.listVersions(page{limit: 1000}, versionMarker{}).versions
		b.uploads.Scan(func(_ string, u *upload) bool {
			uploads = append(uploads, u)
			return true
		})
		return nil
	})
	for _, v := range versions {
		c.deleteVersion(name, v.key, v.name())
	}
	for _, u := range uploads {
		c.abortUpload(name, u.key, u.id)
	}
}

// TestDeltas makes random changes and captures, of which some are committed, some fail, and some stay
// open while others come and go: what a delta says must lead from the base to the capture, always.
func TestDeltas(t *testing.T) {
	seeds, steps := uint64(4), 1000
	if testing.Short() {
		seeds, steps = 2, 500
	}
	told, untold := 0, 0
	for seed := range seeds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			c := &chaos{Service: New(Options{Clock: newTestClock().Now}), t: t, r: rand.New(rand.NewPCG(seed, 7))}
			// Enough that does not change that most differences are worth telling.
			if err := c.createBucket("still", DefaultPartition); err != nil {
				t.Fatal(err)
			}
			for i := range 60 {
				if _, err := c.putObject("still", fmt.Sprint(i), newTestVersion(nil), conditions{}); err != nil {
					t.Fatal(err)
				}
			}
			type open struct {
				torpor.DeltaCapture
				full []byte
			}
			var base records // nil: not known
			var captures []open
			for range steps {
				if c.r.IntN(12) > 0 {
					c.step()
					continue
				}
				switch n := c.r.IntN(10); {
				case len(captures) < 3 && n < 5:
					o := open{DeltaCapture: captured(t, c.Service)}
					o.full = written(t, o.WriteNative)
					captures = append(captures, o)
				case len(captures) > 0:
					// The first one, as a rule.
					i := max(0, c.r.IntN(len(captures)+4)-4)
					o := captures[i]
					captures = slices.Delete(captures, i, i+1)
					if n < 9 {
						if d := o.Delta(); d == nil {
							untold++
						} else if base == nil {
							t.Fatal("a delta, and no base")
						} else {
							told++
							verify(t, d, base, o.full)
						}
					}
					if n < 8 {
						o.Committed()
						base = recordsOf(t, o.full)
					}
					if err := o.Close(); err != nil {
						t.Fatal(err)
					}
				case n == 5:
					state := native(t, c.Service)
					if err := c.Restore(t.Context(), bytes.NewReader(state)); err != nil {
						t.Fatal(err)
					}
					base = recordsOf(t, state)
				}
			}
			for _, o := range captures {
				o.Close()
			}
			if n := len(c.changes.waiting); n > 12 {
				t.Errorf("%d spans are left", n)
			}
		})
	}
	t.Logf("%d deltas told, %d not", told, untold)
	if told < untold {
		t.Errorf("%d deltas told, %d not", told, untold)
	}
}

// still is a service with n objects in the bucket "still", all of them saved.
func still(t testing.TB, n int) (*Service, records) {
	t.Helper()
	s := New(Options{Clock: newTestClock().Now})
	if err := s.createBucket("still", DefaultPartition); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		put(t, s, fmt.Sprint(i), nil)
	}
	return s, commit(t, s)
}

func put(t testing.TB, s *Service, key string, b body) {
	t.Helper()
	if _, err := s.putObject("still", key, newTestVersion(b), conditions{}); err != nil {
		t.Fatal(err)
	}
}

// TestDeltaKnown: a difference is told where the base is known and it is worth it, and only there.
func TestDeltaKnown(t *testing.T) {
	told := func(t *testing.T, s *Service, want bool) {
		t.Helper()
		c := captured(t, s)
		defer c.Close()
		if got := c.Delta() != nil; got != want {
			t.Errorf("told: %v, want %v", got, want)
		}
	}
	t.Run("never captured", func(t *testing.T) {
		s := New(Options{})
		told(t, s, false)
		told(t, s, false) // not committed
		commit(t, s)
		told(t, s, true)
	})
	t.Run("restored", func(t *testing.T) {
		s, base := still(t, 10)
		state := native(t, s)
		other := New(Options{Clock: newTestClock().Now})
		if err := other.Restore(t.Context(), bytes.NewReader(state)); err != nil {
			t.Fatal(err)
		}
		told(t, other, true)
		put(t, other, "3", randomBody(5, 1))
		put(t, other, "new", nil)
		c := captured(t, other)
		defer c.Close()
		if out := verify(t, c.Delta(), base, written(t, c.WriteNative)); len(out.upserts) != 2 || len(out.gone) != 0 {
			t.Errorf("%d written, %d gone", len(out.upserts), len(out.gone))
		}
		if err := other.Restore(t.Context(), strings.NewReader("no state")); err == nil {
			t.Fatal("no error")
		}
		told(t, other, true)
	})
	t.Run("reset", func(t *testing.T) {
		s, _ := still(t, 10)
		open := captured(t, s)
		defer open.Close()
		if err := s.Reset(t.Context()); err != nil {
			t.Fatal(err)
		}
		told(t, s, false)
		open.Committed() // as before the reset: what is since is still not known
		told(t, s, false)
		commit(t, s)
		told(t, s, true)
	})
	t.Run("committed over a restore", func(t *testing.T) {
		s, _ := still(t, 10)
		open := captured(t, s)
		defer open.Close()
		if err := s.Restore(t.Context(), bytes.NewReader(native(t, s))); err != nil {
			t.Fatal(err)
		}
		if open.Delta() != nil {
			t.Error("a difference between a restore and what was before it")
		}
		open.Committed()
		told(t, s, false)
	})
	t.Run("an older one committed last", func(t *testing.T) {
		s, _ := still(t, 10)
		put(t, s, "1", nil)
		older := captured(t, s)
		defer older.Close()
		put(t, s, "2", nil)
		commit(t, s)
		if older.Delta() != nil {
			t.Error("a difference to a later state")
		}
		older.Committed()
		told(t, s, false)
	})
	t.Run("closed", func(t *testing.T) {
		s, _ := still(t, 10)
		put(t, s, "1", nil)
		c := captured(t, s)
		d := c.Delta()
		if err := errors.Join(c.Close(), c.Close()); err != nil {
			t.Fatal(err)
		}
		if err := d.WriteUpserts(t.Context(), io.Discard); !errors.Is(err, errClosed) {
			t.Errorf("upserts: %v", err)
		}
		if err := d.WriteTombstones(t.Context(), &tombstones{t: t}); !errors.Is(err, errClosed) {
			t.Errorf("tombstones: %v", err)
		}
		if c.Delta() != nil {
			t.Error("a delta")
		}
		c.Committed()
		next := captured(t, s)
		defer next.Close()
		if out := read(t, next.Delta()); len(out.upserts) != 1 {
			t.Errorf("%d written: what was closed became the base", len(out.upserts))
		}
	})
	t.Run("half", func(t *testing.T) {
		s, _ := still(t, 9) // and the bucket: ten things
		for i := range 5 {
			put(t, s, fmt.Sprint(i), nil)
		}
		told(t, s, true)
		put(t, s, "5", nil)
		told(t, s, false)
		commit(t, s)
		told(t, s, true)
	})
	t.Run("too many", func(t *testing.T) {
		s, _ := still(t, 100)
		s.changes.limit = 4
		for i := range 4 {
			put(t, s, fmt.Sprint(i), nil)
			put(t, s, fmt.Sprint(i), nil)
		}
		told(t, s, true)
		put(t, s, "4", nil) // in a span of its own: together they are too many
		told(t, s, false)
		commit(t, s)
		told(t, s, true)
		for i := range 5 {
			put(t, s, fmt.Sprint(i), nil)
		}
		if s.changes.now.buckets != nil {
			t.Error("more is kept than may be")
		}
		told(t, s, false)
		commit(t, s)
		told(t, s, true)
	})
	for _, objects := range []bool{true, false} {
		t.Run(fmt.Sprint("bucket deleted, objects ", objects), func(t *testing.T) {
			s, _ := still(t, 100)
			if err := s.createBucket("more", DefaultPartition); err != nil {
				t.Fatal(err)
			}
			var err error
			if objects {
				_, err = s.putObject("more", "k", newTestVersion(nil), conditions{})
			} else {
				_, err = s.createUpload("more", &upload{key: "k"})
			}
			if err != nil {
				t.Fatal(err)
			}
			commit(t, s)
			if err := s.deleteBucket("more", objects); err != nil {
				t.Fatal(err)
			}
			told(t, s, false)
			commit(t, s)
			told(t, s, true)
		})
	}
}

// TestDeltaRefused: what was refused is no change.
func TestDeltaRefused(t *testing.T) {
	s, _ := still(t, 10)
	for _, err := range []error{
		func() error {
			_, err := s.putObject("still", "1", newTestVersion(nil), conditions{ifNoneMatch: "*"})
			return err
		}(),
		s.putPart("still", "1", "none", &part{number: 1}),
		s.abortUpload("still", "1", "none"),
		s.deleteBucket("still", false),
	} {
		if err == nil {
			t.Error("not refused")
		}
	}
	if _, err := s.deleteObject("still", "none", conditions{}); err != nil {
		t.Error(err)
	}
	if err := s.createBucket("still", DefaultPartition); err != nil {
		t.Error(err)
	}
	if s.changes.now.n != 0 {
		t.Errorf("%d touched", s.changes.now.n)
	}
}

// TestDeltaSmall: a change costs what it is, not what it is a part of.
func TestDeltaSmall(t *testing.T) {
	s, _ := still(t, 100)
	if err := s.setVersioning("still", gofakes3.VersioningEnabled); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		put(t, s, "large", randomBody(2*pieceBytes, byte(i)))
	}
	id, err := s.createUpload("still", &upload{key: "parts"})
	if err != nil {
		t.Fatal(err)
	}
	upload := func(number, n int) {
		t.Helper()
		b := randomBody(n, byte(number))
		if err := s.putPart("still", "parts", id, &part{number: number, size: b.size(), md5: b.sum(), body: b}); err != nil {
			t.Fatal(err)
		}
	}
	upload(1, pieceBytes+1)
	upload(2, pieceBytes+1)
	keys := func(out difference) string {
		var list []string
		for id := range out.upserts {
			list = append(list, "+"+keyOf(id))
		}
		for id := range out.gone {
			list = append(list, "-"+keyOf(id))
		}
		slices.Sort(list)
		return strings.Join(list, " ")
	}
	versions := s.listed(t, "still")
	versions = slices.DeleteFunc(versions, func(v listedVersion) bool { return v.key != "large" })
	newest, middle := versions[0].id, versions[1].id
	for _, step := range []struct {
		name   string
		change func() error
		want   string
	}{
		{"a version", func() error { put(t, s, "large", nil); return nil }, "+object/still/large +version/still/" + newest + "/large"},
		{"a version back", func() error {
			_, err := s.deleteVersion("still", "large", s.listedFirst(t, "large"))
			return err
		}, "+object/still/large -version/still/" + newest + "/large"},
		{"tags", func() error { _, err := s.setTags("still", "large", middle, []pair{{"a", "b"}}); return err }, "+version/still/" + middle + "/large"},
		{"a part", func() error { upload(3, 1); return nil }, "+part/still/" + id + "/00003/parts"},
		{"a part again", func() error { upload(2, 1); return nil },
			"+part/still/" + id + "/00002/parts -body/still/" + id + ".00002/000000/parts -body/still/" + id + ".00002/000001/parts"},
		{"nothing", func() error { return nil }, ""},
		{"and back", func() error {
			put(t, s, "short", nil)
			_, err := s.deleteVersion("still", "short", s.listedFirst(t, "short"))
			return err
		}, ""},
	} {
		t.Run(step.name, func(t *testing.T) {
			base := commit(t, s)
			if err := step.change(); err != nil {
				t.Fatal(err)
			}
			c := captured(t, s)
			defer c.Close()
			if got := keys(verify(t, c.Delta(), base, written(t, c.WriteNative))); got != step.want {
				t.Errorf("%s\nwant %s", got, step.want)
			}
		})
	}
}

// listedFirst is the id of the current version of an object of the bucket "still".
func (s *Service) listedFirst(t testing.TB, key string) string {
	t.Helper()
	for _, v := range s.listed(t, "still") {
		if v.key == key {
			return v.id
		}
	}
	t.Fatal("no such object")
	return ""
}

// TestDeltaMoved: a bucket deleted and created again in another region takes its records along.
func TestDeltaMoved(t *testing.T) {
	s, _ := still(t, 20)
	if err := s.createBucket("moving", DefaultPartition); err != nil {
		t.Fatal(err)
	}
	large := newTestVersion(randomBody(pieceBytes+1, 1))
	if _, err := s.putObject("moving", "k", large, conditions{}); err != nil {
		t.Fatal(err)
	}
	base := commit(t, s)
	if _, err := s.deleteObject("moving", "k", conditions{}); err != nil {
		t.Fatal(err)
	}
	if err := s.deleteBucket("moving", false); err != nil {
		t.Fatal(err)
	}
	captured(t, s).Close() // in between, so that the images come from two spans
	if err := s.createBucket("moving", "000000000000/eu-west-1"); err != nil {
		t.Fatal(err)
	}
	captured(t, s).Close()
	if _, err := s.putObject("moving", "k", large.duplicate(), conditions{}); err != nil {
		t.Fatal(err)
	}
	c := captured(t, s)
	defer c.Close()
	if out := verify(t, c.Delta(), base, written(t, c.WriteNative)); len(out.upserts) != 4 || len(out.gone) != 4 || c.Delta().Growth() != 0 {
		t.Errorf("%d written, %d gone, grown by %d", len(out.upserts), len(out.gone), c.Delta().Growth())
	}
}

// failingSink takes some batches, then no more.
type failingSink struct {
	left int
	err  error
}

func (s *failingSink) WriteBatch(*record.Batch) error {
	if s.left--; s.left < 0 {
		return s.err
	}
	return nil
}

// TestDeltaErrors: a delta that cannot be written says why, and loses nothing.
func TestDeltaErrors(t *testing.T) {
	s, _ := still(t, 20_000)
	long := strings.Repeat("k", 900)
	for i := range 200 {
		put(t, s, long+fmt.Sprint(i), nil)
	}
	base := commit(t, s)
	for i := range 200 {
		if _, err := s.deleteObject("still", long+fmt.Sprint(i), conditions{}); err != nil {
			t.Fatal(err)
		}
	}
	put(t, s, "new", randomBody(3*pieceBytes, 1))
	c := captured(t, s)
	d, broken := c.Delta(), errors.New("broken")
	if err := d.WriteUpserts(t.Context(), failingWriter{broken}); !errors.Is(err, broken) {
		t.Errorf("%v", err)
	}
	for n := range 2 {
		if err := d.WriteTombstones(t.Context(), &failingSink{n, broken}); !errors.Is(err, broken) {
			t.Errorf("after %d batches: %v", n, err)
		}
	}
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if err := errors.Join(d.WriteUpserts(ended, io.Discard), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if err := d.WriteTombstones(ended, &tombstones{t: t, gone: map[[2]string]bool{}}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	c.Close()
	next := captured(t, s)
	defer next.Close()
	if out := verify(t, next.Delta(), base, written(t, next.WriteNative)); len(out.gone) != 200 || len(out.upserts) != 4 {
		t.Errorf("%d gone, %d written", len(out.gone), len(out.upserts))
	}
}

// TestDeltaSpans: captures that are never committed leave no more behind than one that is does.
func TestDeltaSpans(t *testing.T) {
	const rounds = 300
	s, base := still(t, 10*rounds)
	held := captured(t, s) // and one that stays open
	for i := range rounds {
		put(t, s, fmt.Sprint(i), randomBody(1, 1))
		put(t, s, "again", randomBody(1, byte(i)))
		captured(t, s).Close()
		if i == rounds/2 {
			held.Close()
			held = captured(t, s)
		}
	}
	if n := len(s.changes.waiting); n > 12 {
		t.Errorf("%d spans", n)
	}
	c := captured(t, s)
	verify(t, c.Delta(), base, written(t, c.WriteNative))
	c.Close()
	middle := recordsOf(t, written(t, held.WriteNative))
	held.Committed()
	held.Close()
	c = captured(t, s)
	defer c.Close()
	out := verify(t, c.Delta(), middle, written(t, c.WriteNative))
	if want := rounds - rounds/2; len(out.upserts) != want {
		t.Errorf("%d written, want %d", len(out.upserts), want)
	}
}

// TestDeltaReleases: what is deleted or replaced is given back, although it is remembered that it was
// there.
func TestDeltaReleases(t *testing.T) {
	s, _ := still(t, 100)
	var weakly []weak.Pointer[byte]
	for i := range 4 {
		b := randomBody(pieceBytes+1, byte(i))
		weakly = append(weakly, weak.Make(&b[0][0]))
		put(t, s, fmt.Sprint("large", i), b)
	}
	id, err := s.createUpload("still", &upload{key: "parts"})
	if err != nil {
		t.Fatal(err)
	}
	b := randomBody(pieceBytes+1, 9)
	weakly = append(weakly, weak.Make(&b[0][0]))
	if err := s.putPart("still", "parts", id, &part{number: 1, size: b.size(), md5: b.sum(), body: b}); err != nil {
		t.Fatal(err)
	}
	commit(t, s)
	for i := range 4 {
		if i%2 == 0 {
			put(t, s, fmt.Sprint("large", i), nil)
		} else if _, err := s.deleteObject("still", fmt.Sprint("large", i), conditions{}); err != nil {
			t.Fatal(err)
		}
		if i == 1 {
			captured(t, s).Close()
		}
	}
	if err := s.abortUpload("still", "parts", id); err != nil {
		t.Fatal(err)
	}
	left := func() (n int) {
		for _, w := range weakly {
			if w.Value() != nil {
				n++
			}
		}
		return n
	}
	for deadline := time.Now().Add(time.Minute); left() > 0 && time.Now().Before(deadline); {
		runtime.GC()
	}
	if n := left(); n > 0 {
		t.Errorf("%d of %d bodies are still held", n, len(weakly))
	}
	c := captured(t, s)
	defer c.Close()
	// Two pieces each; the records of the two objects deleted; the upload and its part.
	if out := read(t, c.Delta()); len(out.gone) != 4*2+2+2+2 || len(out.upserts) != 2 {
		t.Errorf("%d gone, %d written", len(out.gone), len(out.upserts))
	}
}

// TestDeltaConcurrent saves differences while others write, and others still capture without saving:
// what has been saved must be the state in the end.
func TestDeltaConcurrent(t *testing.T) {
	const writers, rounds = 3, 400
	s, saved := still(t, 2000)
	stop := make(chan struct{})
	running := make(chan struct{}, writers)
	for w := range writers {
		go func() {
			defer func() { running <- struct{}{} }()
			c := &chaos{Service: s, t: t, r: rand.New(rand.NewPCG(uint64(w), 3))}
			for range rounds {
				c.step()
			}
		}()
	}
	exported := make(chan struct{})
	go func() {
		defer close(exported)
		for {
			select {
			case <-stop:
				return
			default:
			}
			if c, err := s.Capture(context.Background()); err == nil {
				c.(torpor.DeltaCapture).Delta()
				c.Close()
			}
		}
	}()
	save := func() {
		c := captured(t, s)
		defer c.Close()
		full := written(t, c.WriteNative)
		if d := c.Delta(); d != nil {
			verify(t, d, saved, full)
		}
		c.Committed()
		saved = recordsOf(t, full)
	}
	for done := 0; done < writers; {
		select {
		case <-running:
			done++
		default:
		}
		save()
	}
	close(stop)
	<-exported
	save()
	if !maps.Equal(saved, recordsOf(t, native(t, s))) {
		t.Error("what was saved is not the state")
	}
}
