package repository_test

import (
	"bytes"
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// few is a repository of a few small blobs of every kind: plain and encrypted, whole and changed, removed.
func few(t testing.TB) (*vfs.Mem, map[string]string) {
	t.Helper()
	m := vfs.NewMem()
	r := open(t, m, newClock())
	s := newState(40, 30, 1)
	for i := range 2 {
		save(t, r, "a", shot(t, encode(t, header("orders", "store"), s.records())), seal.Lock{})
		save(t, r, "b", shot(t, encode(t, header("orders", "store"), s.records())), cheap("x"))
		s.change(0.1, uint64(i))
	}
	save(t, r, "gone", small(t, "gone"), seal.Lock{})
	if err := r.Remove(t.Context(), "gone"); err != nil {
		t.Fatal(err)
	}
	return m, loadAll(t, r)
}

// loadAll reads what there is; an error stands for what cannot be read.
func loadAll(t testing.TB, r *repository.Repository) map[string]string {
	t.Helper()
	all := map[string]string{}
	for _, name := range []string{"a", "b", "gone"} {
		for version := range uint64(2) {
			got, err := load(r, name, version+1, seal.Key{Passphrase: "x"})
			what := name + string(rune('1'+version))
			switch {
			case err == nil:
				all[what] = got["orders/store"]
			case errors.Is(err, abi.ErrCorrupt):
				all[what] = "corrupt"
			case errors.Is(err, abi.ErrNotFound) && !errors.Is(err, abi.ErrCorrupt):
				all[what] = "none"
			default:
				t.Fatalf("%s: neither read nor called corrupt: %v", what, err)
			}
		}
	}
	return all
}

// damage changes blobs in every place that change gives, and looks that no version reads as other than it was, and that
// Verify finds every change and names the versions it takes away.
func damage(t *testing.T, change func(b []byte, each func(what string, changed []byte))) {
	m, want := few(t)
	if want["a1"] == want["a2"] || want["b1"] != want["a1"] || want["gone1"] != "none" {
		t.Fatal("the test is wrong")
	}
	for blob, content := range blobs(t, m, "") {
		change(content, func(what string, changed []byte) {
			replace(t, m, blob, changed)
			r := open(t, m, newClock())
			lost := map[string]bool{}
			for what, got := range loadAll(t, r) {
				if got == "corrupt" {
					lost[what] = true
				} else if got != want[what] {
					t.Fatalf("%s, %s: %s reads as other than it was: %.40q", blob, what, what, got)
				}
			}
			found := false
			err := r.Verify(t.Context(), func(f repository.Finding) error {
				found = found || f.Blob == blob
				for _, ref := range f.Affected {
					delete(lost, ref.Name+string(rune('0'+ref.Version)))
				}
				if f.Offset > int64(len(content)) {
					t.Errorf("%s, %s: a finding at %d", blob, what, f.Offset)
				}
				return nil
			}, nil)
			if err != nil {
				t.Fatalf("%s, %s: Verify: %v", blob, what, err)
			}
			if !found || len(lost) > 0 {
				t.Fatalf("%s, %s: Verify found it: %t; it does not tell of %v", blob, what, found, lost)
			}
		})
		replace(t, m, blob, content)
	}
	wantSound(t, "put right again", open(t, m, newClock()))
}

func TestFlippedBytes(t *testing.T) {
	damage(t, func(b []byte, each func(string, []byte)) {
		for i := 0; i < len(b); i += *every {
			changed := bytes.Clone(b)
			changed[i] ^= 1 << (i % 8)
			each("byte flipped", changed)
		}
	})
}

func TestCutShort(t *testing.T) {
	damage(t, func(b []byte, each func(string, []byte)) {
		for n := 0; n < len(b); n += *every {
			each("cut short", b[:n])
		}
		each("longer", append(bytes.Clone(b), 0))
	})
}

// Missing packs and records take away what needs them and nothing else.
func TestMissing(t *testing.T) {
	m, want := few(t)
	for blob, content := range blobs(t, m, "") {
		if err := m.Remove(blob); err != nil {
			t.Fatal(err)
		}
		r := open(t, m, newClock())
		lost := map[string]bool{}
		for what, got := range loadAll(t, r) {
			if got != want[what] && !strings.HasPrefix(blob, "removals/") {
				lost[what] = true
			}
		}
		var problems []string
		err := r.Verify(t.Context(), func(f repository.Finding) error {
			problems = append(problems, f.Problem)
			for _, ref := range f.Affected {
				delete(lost, ref.Name+string(rune('0'+ref.Version)))
			}
			return nil
		}, nil)
		if err != nil {
			t.Fatal(err)
		}
		isPack := strings.HasPrefix(blob, "packs/")
		if isPack && (len(lost) > 0 || slices.Contains(problems, repository.ProblemDamaged)) {
			t.Errorf("without %s: %q; not told of: %v", blob, problems, lost)
		}
		if !isPack && len(problems) > 0 {
			t.Errorf("without %s: %q", blob, problems)
		}
		f, err := m.OpenFile(blob, vfs.Create)
		if err == nil {
			_, err = f.Write(content)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

// Blobs of a later version of Torpor are told from damage.
func TestLaterVersion(t *testing.T) {
	for _, kind := range []string{"packs/", "commits/", "removals/"} {
		m, _ := few(t)
		for blob, content := range blobs(t, m, kind) {
			replace(t, m, blob, repository.OfLaterVersion(content))
		}
		r := open(t, m, newClock())
		_, err := r.Open(t.Context(), "a", 0, seal.Key{})
		switch kind {
		case "commits/":
			if !errors.Is(err, abi.ErrVersion) || errors.Is(err, abi.ErrCorrupt) {
				t.Errorf("opening a later version's: %v", err)
			}
			if _, err := r.Collect(t.Context(), repository.CollectOptions{Grace: -1}); !errors.Is(err, abi.ErrVersion) {
				t.Errorf("collecting: %v", err)
			}
		case "packs/":
			if err == nil {
				t.Error("packs of a later version were read")
			}
		}
		unknown := 0
		for _, f := range findings(t, r) {
			if strings.HasPrefix(f, repository.ProblemUnknown+" "+kind[:5]) {
				unknown++
			}
		}
		if unknown != len(blobs(t, m, kind)) {
			t.Errorf("Verify tells of %d of %d later blobs in %s", unknown, len(blobs(t, m, kind)), kind)
		}
	}
}

// A sound record in another's place is refused.
func TestRecordInAnothersPlace(t *testing.T) {
	m := vfs.NewMem()
	r := open(t, m, newClock())
	save(t, r, "a", small(t, "1"), seal.Lock{})
	save(t, r, "a", small(t, "2"), seal.Lock{})
	commits := blobs(t, m, "commits/")
	replace(t, m, "commits/a/000000000002", commits["commits/a/000000000001"])
	if _, err := open(t, m, newClock()).Open(t.Context(), "a", 2, seal.Key{}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("version 1 in the place of version 2: %v", err)
	}
}
