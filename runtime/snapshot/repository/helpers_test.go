package repository_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"flag"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// every is for what takes long: 1 is all of it.
var every = flag.Int("every", 5, "crash at every so manieth operation, flip and cut at every so manieth byte")

const module = "a serializer module"

// clock is a time that tests set.
type clock struct{ now time.Time }

func newClock() *clock { return &clock{time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)} }

// open opens a repository on fsys, with c for its clock.
func open(t testing.TB, fsys vfs.FS, c *clock) *repository.Repository {
	t.Helper()
	r, err := repository.Open(t.Context(), repository.Config{Remote: folder.Open(fsys), Torpor: "0.7.0", Now: func() time.Time { return c.now }})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// state is the records of a part: keys in order, values.
type state struct {
	partition string
	keys      []string
	values    map[string][]byte
}

// newState makes n records with values of about size bytes, the same for the same seed.
func newState(n, size int, seed uint64) *state {
	s := &state{partition: "000000000000/us-east-1", values: map[string][]byte{}}
	rng := rand.New(rand.NewPCG(seed, 1))
	for i := range n {
		key := fmt.Sprintf("key-%08d", i)
		s.keys = append(s.keys, key)
		s.values[key] = randomBytes(rng, size)
	}
	return s
}

func randomBytes(rng *rand.Rand, n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(rng.Uint32())
	}
	return b
}

// change gives some of the records other values, of a little other lengths.
func (s *state) change(part float64, seed uint64) {
	rng := rand.New(rand.NewPCG(seed, 2))
	for _, key := range s.keys {
		if rng.Float64() < part {
			s.values[key] = randomBytes(rng, len(s.values[key])+rng.IntN(5)-2)
		}
	}
}

func (s *state) records() []byte {
	var data []byte
	for _, key := range s.keys {
		data = record.AppendText(record.AppendText(record.AppendRecord(data), s.partition), key)
		data = record.AppendBytes(data, s.values[key])
	}
	return data
}

func header(service, part string) statefile.Header {
	return statefile.Header{Service: service, Part: part, Generation: 7, Created: time.Date(2026, 11, 22, 17, 42, 3, 0, time.UTC),
		Serializer: statefile.Serializer{Name: "records", Version: "1.0.0", Digest: sha256.Sum256([]byte(module)), Schema: 1}}
}

// encode makes a state file of records.
func encode(t testing.TB, h statefile.Header, records []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w, err := statefile.NewWriter(&out, h)
	if err != nil {
		t.Fatal(err)
	}
	writeRecords(t, w, records)
	return out.Bytes()
}

func writeRecords(t testing.TB, w *statefile.Writer, records []byte) {
	t.Helper()
	s := record.Scanner{Tombstones: true}
	refs, err := s.Scan(records, nil)
	if err == nil {
		err = w.WriteBatch(&record.Batch{Data: records, Refs: refs})
	}
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		t.Fatal(err)
	}
}

func openFile(t testing.TB, b []byte) *statefile.File {
	t.Helper()
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), "test.state")
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// shot makes a snapshot of state files.
func shot(t testing.TB, files ...[]byte) *snapshot.Snapshot {
	t.Helper()
	var parts []snapshot.Part
	for _, b := range files {
		f := openFile(t, b)
		parts = append(parts, snapshot.Part{Service: f.Header().Service, Name: f.Header().Part, File: f})
	}
	s, err := snapshot.New(snapshot.Info{}, parts, func(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
		if digest != sha256.Sum256([]byte(module)) {
			return nil, abi.ErrNotFound
		}
		return []byte(module), nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// small is a snapshot of one record, text.
func small(t testing.TB, text string) *snapshot.Snapshot {
	t.Helper()
	s := &state{partition: "p", keys: []string{"text"}, values: map[string][]byte{"text": []byte(text)}}
	return shot(t, encode(t, header("orders", "store"), s.records()))
}

func save(t testing.TB, r *repository.Repository, name string, s *snapshot.Snapshot, lock seal.Lock) repository.Version {
	t.Helper()
	v, err := r.Save(t.Context(), name, s, repository.SaveOptions{Description: "of a test", Lock: lock})
	if err != nil {
		t.Fatalf("Save %s: %v", name, err)
	}
	return v
}

// contents reads all of a snapshot: a part's records by its name.
func contents(s *snapshot.Snapshot) (map[string]string, error) {
	all := map[string]string{}
	for _, p := range s.Parts {
		if err := p.File.Verify(context.Background()); err != nil {
			return nil, err
		}
		var records []byte
		for rr := p.File.Records(); ; {
			b, err := rr.ReadBatch()
			if errors.Is(err, io.EOF) {
				break
			}
			if err != nil {
				return nil, err
			}
			records = append(records, b.Data...)
		}
		all[p.String()] = string(records)
	}
	for _, digest := range s.Modules() {
		b, err := s.Module(context.Background(), digest)
		if err != nil {
			return nil, err
		}
		all[fmt.Sprintf("%x", digest)] = string(b)
	}
	return all, nil
}

// load reads all of a version.
func load(r *repository.Repository, name string, version uint64, k seal.Key) (map[string]string, error) {
	s, err := r.Open(context.Background(), name, version, k)
	if err != nil {
		return nil, err
	}
	all, err := contents(s)
	return all, errors.Join(err, s.Close())
}

// text reads the version of a small snapshot; "-" stands for one that is not there.
func text(t testing.TB, r *repository.Repository, name string, version uint64) string {
	t.Helper()
	all, err := load(r, name, version, seal.Key{})
	if errors.Is(err, abi.ErrNotFound) {
		return "-"
	}
	if err != nil {
		t.Fatalf("version %d of %s: %v", version, name, err)
	}
	d := record.NewPull([]byte(all["orders/store"]))
	d.Array()
	d.Text()
	d.Text()
	return string(d.Bytes())
}

func wantLoaded(t testing.TB, r *repository.Repository, name string, version uint64, k seal.Key, want *snapshot.Snapshot) {
	t.Helper()
	all, err := contents(want)
	if err != nil {
		t.Fatal(err)
	}
	got, err := load(r, name, version, k)
	if err != nil {
		t.Fatalf("version %d of %s: %v", version, name, err)
	}
	if len(got) != len(all) {
		t.Fatalf("version %d of %s has %d parts and modules, not %d", version, name, len(got), len(all))
	}
	for what := range all {
		if got[what] != all[what] {
			t.Fatalf("version %d of %s: other records in %s", version, name, what)
		}
	}
}

// blobs is all there is in a folder: names to bytes.
func blobs(t testing.TB, fsys vfs.FS, prefix string) map[string][]byte {
	t.Helper()
	all := map[string][]byte{}
	f := folder.Open(fsys)
	err := f.List(t.Context(), prefix, func(b repository.Blob) error {
		rc, err := f.Get(t.Context(), b.Name, 0, -1)
		if err != nil {
			return err
		}
		defer rc.Close()
		all[b.Name], err = io.ReadAll(rc)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

func bytesIn(blobs map[string][]byte) (n int64) {
	for _, b := range blobs {
		n += int64(len(b))
	}
	return n
}

// replace puts other bytes in the place of a blob.
func replace(t testing.TB, fsys vfs.FS, name string, content []byte) {
	t.Helper()
	if err := fsys.Remove(name); err != nil {
		t.Fatal(err)
	}
	f, err := fsys.OpenFile(name, vfs.Create)
	if err == nil {
		_, err = f.Write(content)
	}
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

// findings is what Verify tells of: "problem blob: affected", in order.
func findings(t testing.TB, r *repository.Repository) (all []string) {
	t.Helper()
	err := r.Verify(t.Context(), func(f repository.Finding) error {
		if f.Err == nil || f.Message != f.Err.Error() || !strings.Contains(f.Message, f.Blob) {
			t.Errorf("a finding without its error, or one that does not name the blob: %+v", f)
		}
		all = append(all, fmt.Sprintf("%s %.12s: %v", f.Problem, f.Blob, f.Affected))
		return nil
	}, nil)
	if err != nil {
		t.Fatalf("Verify: %v", err)
	}
	slices.Sort(all)
	return all
}

func wantSound(t testing.TB, what string, r *repository.Repository) {
	t.Helper()
	if all := findings(t, r); len(all) > 0 {
		t.Fatalf("%s: %q", what, all)
	}
}
