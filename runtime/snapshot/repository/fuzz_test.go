package repository

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

func fuzzCodec(t testing.TB) codec {
	t.Helper()
	c, err := newCodec()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// wantRefused fails unless err is of exactly one kind, with a place in the blob.
func wantRefused(t *testing.T, err error, size int) {
	t.Helper()
	var be *BlobError
	if !errors.As(err, &be) || be.Offset < -1 || be.Offset > int64(size) {
		t.Fatalf("an error of another kind, or elsewhere than in %d bytes: %v", size, err)
	}
	kinds := 0
	for _, kind := range []error{abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge} {
		if errors.Is(err, kind) {
			kinds++
		}
	}
	if kinds != 1 {
		t.Fatalf("an error of %d kinds: %v", kinds, err)
	}
}

// fuzzPack is a pack of three pieces.
func fuzzPack(t testing.TB) (content []byte) {
	t.Helper()
	w := packWriter{codec: fuzzCodec(t), now: time.Now, put: func(_ *pack, b []byte) error {
		content = bytes.Clone(b)
		return nil
	}}
	base := sha256.Sum256([]byte("one"))
	for _, p := range []packed{{id: base, raw: 3}, {id: sha256.Sum256([]byte("two")), raw: 3, encoding: encodedDelta, base: base}, {id: ID{1}, raw: 9, encoding: encodedSealed | encodedZstd}} {
		if err := w.add(p, []byte("stored")); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.flush(); err != nil {
		t.Fatal(err)
	}
	return content
}

// FuzzPack reads anything as a whole pack.
func FuzzPack(f *testing.F) {
	b := fuzzPack(f)
	f.Add(b)
	f.Add(b[:len(b)-1])
	f.Add(b[8:])
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := fuzzCodec(t).parsePack("packs/x", b)
		if err != nil {
			wantRefused(t, err, len(b))
			return
		}
		wantPack(t, p, b)
	})
}

// FuzzPackIndex gives the fuzzer what a checksum would keep from it: any index, under a right CRC.
func FuzzPackIndex(f *testing.F) {
	b := fuzzPack(f)
	at, n, err := packEnd("", b[len(b)-packTrailerBytes:], int64(len(b)))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[at : at+n])
	f.Fuzz(func(t *testing.T, index []byte) {
		forged := appendPackEnd(bytes.Clone(b[:at]), index)
		p, err := fuzzCodec(t).parsePack("packs/x", forged)
		if err != nil {
			wantRefused(t, err, len(forged))
			return
		}
		wantPack(t, p, forged)
		// Whatever it says is in the pack, a catalog makes no piece of itself.
		c := newCatalog()
		c.add(p)
		for i, at := range c.places {
			for n := 0; at.packed().encoding&encodedDelta != 0; n++ {
				base, ok := c.ids[at.packed().base]
				if !ok || n > MaxDepth {
					t.Fatalf("piece %d is made of what is not there, or of itself", i)
				}
				at = c.places[base]
			}
		}
	})
}

// wantPack fails unless all pieces of a pack that was accepted lie in it.
func wantPack(t *testing.T, p *pack, b []byte) {
	t.Helper()
	next := uint64(len(packHead))
	for i, x := range p.pieces {
		if uint64(x.offset) != next || next+uint64(x.length) > uint64(len(b)) || x.raw > MaxPieceBytes {
			t.Fatalf("piece %d of a pack of %d bytes: %+v", i, len(b), x)
		}
		next += uint64(x.length)
	}
}

func fuzzCommit(t testing.TB) (plain, sealed []byte) {
	t.Helper()
	c := fuzzCodec(t)
	body, err := c.enc.Marshal(bodyItem{Torpor: "0.7.0", Parts: []partItem{{Service: "orders", Part: "store", Generation: 1, Size: 10, Pieces: 2}},
		Modules: []moduleItem{{SHA256: make([]byte, 32), Size: 5, Pieces: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	item := commitItem{Format: 1, Name: "a", Version: 1, Created: 1, Size: 10, Pieces: 3, Lists: [][]byte{make([]byte, 32)}, Body: body}
	if plain, err = c.encodeRecord(item); err != nil {
		t.Fatal(err)
	}
	item.Key = []byte("age-encryption.org/v1")
	if sealed, err = c.encodeRecord(item); err != nil {
		t.Fatal(err)
	}
	return plain, sealed
}

// FuzzCommit reads any item as a commit record, under a right checksum or as it is.
func FuzzCommit(f *testing.F) {
	plain, sealed := fuzzCommit(f)
	f.Add(plain[:len(plain)-sumBytes], true)
	f.Add(sealed[:len(sealed)-sumBytes], true)
	f.Add(plain, false)
	f.Fuzz(func(t *testing.T, b []byte, right bool) {
		if right {
			sum := sha256.Sum256(b)
			b = append(append(bytes.Clone(b), sumHead...), sum[:]...)
		}
		c := fuzzCodec(t)
		item, body, err := c.decodeCommit(Ref{"a", 1}, b)
		if err != nil {
			wantRefused(t, err, len(b))
			return
		}
		v := &version{Ref: Ref{"a", 1}, commit: item, body: body}
		if told := v.tell(); told.Size < 0 || told.Stored < 0 || told.Number != 1 {
			t.Fatalf("accepted: %+v", told)
		}
		// It can be written, and says the same then.
		again, err := c.encodeRecord(item)
		if err != nil {
			t.Fatal(err)
		}
		if _, _, err := c.decodeCommit(Ref{"a", 1}, again); err != nil {
			t.Fatalf("written anew it is refused: %v", err)
		}
	})
}

// FuzzRemoval reads any item as a removal record.
func FuzzRemoval(f *testing.F) {
	b, err := fuzzCodec(f).encodeRecord(removalItem{Format: 1, Name: "a", Version: 1, Removed: 1})
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b[:len(b)-sumBytes])
	f.Fuzz(func(t *testing.T, b []byte) {
		sum := sha256.Sum256(b)
		b = append(append(bytes.Clone(b), sumHead...), sum[:]...)
		if _, err := fuzzCodec(t).decodeRemoval(Ref{"a", 1}, b); err != nil {
			wantRefused(t, err, len(b))
		}
	})
}

// FuzzDelta makes of one piece the change of another, and the piece of that again.
func FuzzDelta(f *testing.F) {
	long := bytes.Repeat([]byte("0123456789abcdefghij"), 20)
	f.Add(long, append(bytes.Clone(long[:111]), long...))
	f.Add(long, []byte("nothing of it at all, nothing"))
	f.Add([]byte{}, long)
	f.Fuzz(func(t *testing.T, base, target []byte) {
		var d differ
		limit := len(target)
		delta, ok := d.append([]byte("before"), base, target, limit)
		if !ok {
			return
		}
		delta = delta[len("before"):]
		if len(delta) >= limit {
			t.Fatalf("a delta of %d bytes for %d", len(delta), limit)
		}
		got, err := applyDelta(nil, base, delta, len(target))
		if err != nil || !bytes.Equal(got, target) {
			t.Fatalf("%q of %q is %q, %v", target, base, got, err)
		}
	})
}

// FuzzApplyDelta applies anything.
func FuzzApplyDelta(f *testing.F) {
	f.Add([]byte("0123456789"), []byte{11, 0, 4, 'x', 'y'}, uint16(7))
	f.Add([]byte("0123456789"), []byte{11, 1, 255, 255, 255, 255, 255, 255, 255, 255, 255, 1}, uint16(7))
	f.Fuzz(func(t *testing.T, base, delta []byte, raw uint16) {
		if b, err := applyDelta(nil, base, delta, int(raw)); err == nil && len(b) != int(raw) {
			t.Fatalf("%d bytes where %d were to be made", len(b), raw)
		}
	})
}

// A change of a piece is found where records were changed, added, removed and moved.
func TestDelta(t *testing.T) {
	base := make([]byte, 100_000)
	for i := range base {
		base[i] = sha256.Sum256([]byte{byte(i), byte(i >> 8), byte(i >> 16)})[0]
	}
	cat := func(b ...[]byte) []byte { return bytes.Join(b, nil) }
	for what, target := range map[string][]byte{
		"the same": base,
		"changed":  cat(base[:5000], []byte("other"), base[5005:]),
		"added":    cat(base[:5000], []byte("other"), base[5000:]),
		"removed":  cat(base[:5000], base[6001:]),
		"moved":    cat(base[50_001:], base[:50_001]),
		"twice":    cat(base, base),
	} {
		var d differ
		delta, ok := d.append(nil, base, target, len(target))
		if !ok || len(delta) > 60 {
			t.Errorf("%s: a delta of %d bytes", what, len(delta))
		}
		if got, err := applyDelta(nil, base, delta, len(target)); err != nil || !bytes.Equal(got, target) {
			t.Errorf("%s: other bytes, %v", what, err)
		}
	}
}
