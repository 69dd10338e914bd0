package repository_test

import (
	"encoding/binary"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

var stateSize = flag.Int64("state", 16<<20, "bytes of the state of which ten versions are saved")

// large makes a state file of size bytes on disk, of records of about each bytes, of which one in a hundred, by chance,
// differs from one version to the next. The bytes of values are random: nothing is saved by compressing them.
func large(t testing.TB, size int64, each, version int) *snapshot.Snapshot {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	h := header("orders", "store")
	h.Generation = uint64(version)
	w, err := statefile.NewWriter(f, h)
	if err != nil {
		t.Fatal(err)
	}
	var (
		data  []byte
		value = make([]byte, each+8)
		scan  record.Scanner
		refs  []record.Ref
	)
	flush := func() {
		if refs, err = scan.Scan(data, refs[:0]); err == nil {
			err = w.WriteBatch(&record.Batch{Data: data, Refs: refs})
		}
		if err != nil {
			t.Fatal(err)
		}
		data = data[:0]
	}
	for i := range uint64(size) / uint64(each) {
		last := uint64(1) // the version that changed it last
		for v := uint64(2); v <= uint64(version); v++ {
			if rand.NewPCG(i, v).Uint64()%100 == 0 {
				last = v
			}
		}
		rng := rand.NewPCG(i, last<<32)
		n := each - 40 + int(rng.Uint64()%17) - 8
		for at := 0; at < n; at += 8 {
			binary.LittleEndian.PutUint64(value[at:], rng.Uint64())
		}
		data = record.AppendText(record.AppendText(record.AppendRecord(data), "000000000000/us-east-1"), fmt.Sprintf("k%010d", i))
		data = record.AppendBytes(data, value[:n])
		if len(data) > 1<<20 {
			flush()
		}
	}
	flush()
	info, err := w.Close()
	if err != nil {
		t.Fatal(err)
	}
	state, err := statefile.Open(f, info.Size, f.Name())
	if err != nil {
		t.Fatal(err)
	}
	s, err := snapshot.New(snapshot.Info{}, []snapshot.Part{{Service: "orders", Name: "store", File: state}}, nil, func() error {
		f.Close()
		return os.Remove(f.Name())
	})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// Ten versions of a state that differ in one of a hundred records take little more than one. With -state 1073741824 it is
// the state of the README.
func TestTenVersions(t *testing.T) {
	for _, c := range []struct {
		each int
		most float64 // times what the first took: 9 versions of 1 % are 0.09
	}{{1000, 1.25}, {200, 1.35}} {
		fsys, err := vfs.OS(t.TempDir())
		if err != nil {
			t.Fatal(err)
		}
		r := open(t, fsys, newClock())
		var first, all int64
		var took time.Duration
		for version := 1; version <= 10; version++ {
			s := large(t, *stateSize, c.each, version)
			start := time.Now()
			v := save(t, r, "a", s, seal.Lock{})
			took = time.Since(start)
			if version == 1 {
				t.Logf("records of %d bytes: the first version of %d bytes took %v, %d bytes are stored", c.each, v.Size, took, v.Stored)
				first = v.Stored
			}
			all += v.Stored
			if version == 10 {
				start = time.Now()
				wantRoot(t, r, s)
				t.Logf("the tenth took %v, %d bytes are stored; reading it took %v", took, v.Stored, time.Since(start))
			}
			s.Close()
		}
		there, err := fsys.ReadDir("packs")
		if err != nil {
			t.Fatal(err)
		}
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		t.Logf("ten versions take %.3f times the first, in %d packs; %d MiB of the system's memory", float64(all)/float64(first), len(there), m.Sys>>20)
		if ratio := float64(all) / float64(first); ratio > c.most || ratio < 1.08 {
			t.Errorf("ten versions take %.3f times what the first takes", ratio)
		}
		fsys.Close()
	}
}

// wantRoot opens the newest version of a, reads it, and compares it by its root digest.
func wantRoot(t testing.TB, r *repository.Repository, want *snapshot.Snapshot) {
	t.Helper()
	s, err := r.Open(t.Context(), "a", 0, seal.Key{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	f := s.Parts[0].File
	if err := f.Verify(t.Context()); err != nil {
		t.Fatal(err)
	}
	if f.Info().Root != want.Parts[0].File.Info().Root {
		t.Fatal("the version holds other records")
	}
}

func BenchmarkSave(b *testing.B) {
	s := large(b, 64<<20, 1000, 1)
	defer s.Close()
	b.SetBytes(s.Size())
	for b.Loop() {
		save(b, open(b, vfs.NewMem(), newClock()), "a", s, seal.Lock{})
	}
}

func BenchmarkOpen(b *testing.B) {
	s := large(b, 64<<20, 1000, 1)
	defer s.Close()
	r := open(b, vfs.NewMem(), newClock())
	save(b, r, "a", s, seal.Lock{})
	b.SetBytes(s.Size())
	for b.Loop() {
		o, err := r.Open(b.Context(), "a", 1, seal.Key{})
		if err == nil {
			err = o.Parts[0].File.Verify(b.Context())
		}
		if err != nil {
			b.Fatal(err)
		}
		o.Close()
	}
}
