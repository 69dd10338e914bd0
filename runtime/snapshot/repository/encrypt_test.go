package repository_test

import (
	"bytes"
	"errors"
	"testing"

	"filippo.io/age"

	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// cheap is a passphrase that costs tests nothing.
func cheap(passphrase string) seal.Lock {
	return seal.Lock{Passphrase: passphrase, WorkFactor: seal.MinWorkFactor}
}

func secrets(t testing.TB) *snapshot.Snapshot {
	t.Helper()
	s := newState(3000, 200, 1)
	for i, key := range s.keys {
		s.values[key] = append([]byte("SECRET-OF-"+key), s.values[key]...)
		if i%2 == 0 {
			s.values[key] = bytes.Repeat([]byte("SECRET "), 30)
		}
	}
	return shot(t, encode(t, header("vault", "store"), s.records()))
}

func TestEncrypted(t *testing.T) {
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	other, err := age.GenerateX25519Identity()
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		lock   seal.Lock
		key    seal.Key
		wrong  []seal.Key
		shares bool
	}{
		"passphrase": {cheap("open sesame"), seal.Key{Passphrase: "open sesame"},
			[]seal.Key{{}, {Passphrase: "open"}, {Identities: []string{identity.String()}}}, true},
		"recipient": {seal.Lock{Recipients: []string{identity.Recipient().String()}}, seal.Key{Identities: []string{identity.String()}},
			[]seal.Key{{}, {Passphrase: "open"}, {Identities: []string{other.String()}}}, false},
	} {
		t.Run(name, func(t *testing.T) {
			m, c, in := vfs.NewMem(), c, secrets(t)
			r := open(t, m, newClock())
			first := save(t, r, "a", in, c.lock)
			wantLoaded(t, r, "a", 1, c.key, in)
			for _, k := range c.wrong {
				if _, err := r.Open(t.Context(), "a", 1, k); !errors.Is(err, seal.ErrKey) {
					t.Errorf("with another key: %v", err)
				}
			}
			if !first.Encrypted || first.Description == "" || len(first.Services) != 1 {
				t.Errorf("who saved it is told %+v", first)
			}
			versions, err := open(t, m, newClock()).Versions(t.Context(), "a")
			if err != nil {
				t.Fatal(err)
			}
			if v := versions[0]; !v.Encrypted || v.Number != 1 || v.Size != first.Size || v.Stored != first.Stored || !v.Created.Equal(first.Created) ||
				v.Services != nil || v.Parts != nil || v.Description != "" || v.Torpor != "" {
				t.Errorf("who has no key is told %+v", v)
			}
			again := save(t, open(t, m, newClock()), "a", in, c.lock)
			if shares := again.Stored < first.Stored/20; shares != c.shares {
				t.Errorf("the first added %d bytes, the same again %d", first.Stored, again.Stored)
			}
			wantLoaded(t, r, "a", 0, c.key, in)
			for blob, b := range blobs(t, m, "") {
				for _, word := range []string{"SECRET", "vault", "us-east", "serializer", "of a test", "0.7.0"} {
					if bytes.Contains(b, []byte(word)) {
						t.Errorf("%s shows %q", blob, word)
					}
				}
			}
			wantSound(t, "encrypted", open(t, m, newClock()))
			// Collecting needs no key.
			if err := r.Remove(t.Context(), "a", 1); err != nil {
				t.Fatal(err)
			}
			collect(t, open(t, m, newClock()), repository.CollectOptions{Grace: -1})
			wantLoaded(t, r, "a", 2, c.key, in)
			if err := r.Remove(t.Context(), "a", 2); err != nil {
				t.Fatal(err)
			}
			if got := collect(t, r, repository.CollectOptions{Grace: -1}); got.Kept != 0 {
				t.Errorf("collected %+v, and nothing is needed", got)
			}
		})
	}
}

// Versions of other passphrases, and those that are not encrypted, share nothing, and each opens with its own.
func TestEncryptedAndNot(t *testing.T) {
	m, in := vfs.NewMem(), secrets(t)
	r := open(t, m, newClock())
	locks := []seal.Lock{{}, cheap("one"), cheap("two"), {}, cheap("two")}
	var stored []int64
	for _, l := range locks {
		stored = append(stored, save(t, r, "a", in, l).Stored)
	}
	for i, l := range locks {
		wantLoaded(t, r, "a", uint64(i+1), seal.Key{Passphrase: l.Passphrase}, in)
	}
	if stored[1] < stored[0]/2 || stored[2] < stored[0]/2 || stored[3] > stored[0]/20 {
		t.Errorf("the versions added %d bytes", stored)
	}
	wantSound(t, "saved", r)
	if _, err := r.Save(t.Context(), "a", in, repository.SaveOptions{Lock: seal.Lock{Passphrase: "x", Recipients: []string{"age1"}}}); !errors.Is(err, seal.ErrLock) {
		t.Errorf("with a lock that is none: %v", err)
	}
	if _, err := r.Save(t.Context(), "a", in, repository.SaveOptions{Lock: seal.Lock{Recipients: []string{"nobody"}}}); !errors.Is(err, seal.ErrLock) {
		t.Errorf("for a recipient that is none: %v", err)
	}
}

// Changes of an encrypted version are kept as such, too.
func TestEncryptedChanges(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	s := newState(5000, 500, 1)
	var first, rest int64
	for i := range 5 {
		in := shot(t, encode(t, header("vault", "store"), s.records()))
		v := save(t, r, "a", in, cheap("x"))
		if i == 0 {
			first = v.Stored
		} else {
			rest += v.Stored
		}
		wantLoaded(t, r, "a", 0, seal.Key{Passphrase: "x"}, in)
		s.change(0.01, uint64(i))
	}
	if rest > first/5 {
		t.Errorf("the first version took %d bytes, four that differ from it in 1 %% took %d", first, rest)
	}
}
