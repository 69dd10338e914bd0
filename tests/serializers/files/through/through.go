// Package through takes states through a built-in serializer in package host, for the tests of those that
// keep bytes: raw and files.
package through

import (
	"bytes"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/host/conformance"
	"github.com/torpor-run/torpor/tests/need"
)

// Module is a serializer in a host of its own.
type Module struct {
	*host.Module
	Settings map[string]any
}

// New compiles a module.
func New(t testing.TB, name string, wasm []byte) *Module {
	t.Helper()
	h, err := host.New(t.Context(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(t.Context()) })
	m, err := h.Compile(t.Context(), name, wasm)
	if err != nil {
		t.Fatal(err)
	}
	return &Module{Module: m}
}

// Call is the parameters of all calls.
func (m *Module) Call() abi.Call {
	return abi.Call{Service: "folder", Part: "store", Schema: 1, Settings: m.Settings}
}

// Records is the records that save makes, one by one.
func (m *Module) Records(t testing.TB, native []byte) ([][]byte, error) {
	t.Helper()
	var all Sink
	err := m.Save(t.Context(), m.Call(), bytes.NewReader(native), &all)
	return all, err
}

// Native is the native state that load makes of records.
func (m *Module) Native(t testing.TB, records [][]byte) ([]byte, error) {
	t.Helper()
	var b bytes.Buffer
	err := m.Load(t.Context(), m.Call(), Reader(bytes.Join(records, nil)), &b)
	return b.Bytes(), err
}

// Summary is what inspect says.
func (m *Module) Summary(t testing.TB, records [][]byte) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := m.Inspect(t.Context(), m.Call(), Reader(bytes.Join(records, nil)), &b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// RoundTrip saves and loads and compares the bytes. It gives the records.
func (m *Module) RoundTrip(t testing.TB, native []byte) [][]byte {
	t.Helper()
	records, err := m.Records(t, native)
	if err != nil {
		t.Fatal(err)
	}
	got, err := m.Native(t, records)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, native) {
		t.Fatalf("load gives %d other bytes than the %d saved", len(got), len(native))
	}
	return records
}

// Sane holds any bytes against what a serializer may do with them: refuse them, or give records that load
// to the same bytes.
func (m *Module) Sane(t testing.TB, native []byte) {
	t.Helper()
	records, err := m.Records(t, native)
	var trap *host.GuestError
	switch {
	case errors.As(err, &trap) && trap.Code != 0 && trap.Code != abi.CodeInternal:
		return
	case err != nil:
		t.Fatalf("save of %d bytes: %v", len(native), err)
	}
	got, err := m.Native(t, records)
	if err != nil || !bytes.Equal(got, native) {
		t.Fatalf("%d bytes come back as %d others (%v)", len(native), len(got), err)
	}
}

// Reader reads records from memory.
func Reader(records []byte) record.Source {
	return record.NewReader(bytes.NewReader(records), record.DefaultMaxBytes)
}

// Sink keeps records one by one.
type Sink [][]byte

// WriteBatch implements record.Sink.
func (s *Sink) WriteBatch(b *record.Batch) error {
	for i := range b.Len() {
		*s = append(*s, bytes.Clone(b.Record(i)))
	}
	return nil
}

// Discard counts records and forgets them.
type Discard struct{ Records, Bytes int64 }

// WriteBatch implements record.Sink.
func (d *Discard) WriteBatch(b *record.Batch) error {
	d.Records += int64(b.Len())
	d.Bytes += int64(len(b.Data))
	return nil
}

// Bytes counts bytes and forgets them.
type Bytes struct{ N int64 }

// Write implements io.Writer.
func (b *Bytes) Write(p []byte) (int, error) {
	b.N += int64(len(p))
	return len(p), nil
}

// Key is a record's key, as text.
func Key(t testing.TB, rec []byte) string {
	t.Helper()
	b, err := record.NewReader(bytes.NewReader(rec), record.DefaultMaxBytes).ReadBatch()
	if err != nil {
		t.Fatal(err)
	}
	key, _ := b.Key(0)
	return string(key)
}

// Changed is how many records of now were not there before.
func Changed(before, now [][]byte) int {
	had := map[string]bool{}
	for _, r := range before {
		had[string(r)] = true
	}
	n := 0
	for _, r := range now {
		if !had[string(r)] {
			n++
		}
	}
	return n
}

// Conforms runs the conformance kit with the fixtures in a folder.
func Conforms(t *testing.T, name string, wasm []byte, folder string) {
	t.Helper()
	fixtures, err := conformance.ReadFixtures(os.DirFS(folder))
	if err != nil {
		t.Fatal(err)
	}
	report, err := conformance.Run(t.Context(), conformance.Options{Name: name, Wasm: wasm, Fixtures: fixtures, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range report.Results {
		if r.Status == conformance.Failed {
			t.Errorf("%s %s: %q", r.Check, r.Fixture, r.Failures)
		}
	}
	if !report.Passed || len(report.Results) == 0 {
		t.Errorf("%d results, not all passed", len(report.Results))
	}
}

// Unit runs the unit tests of a module on the machine itself.
func Unit(t *testing.T, name string) {
	t.Helper()
	rustc := need.Program(t, "rustc")
	dir := t.TempDir()
	root, err := filepath.Abs("../../..")
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{
		{rustc, "--edition", "2021", "-C", "opt-level=1", "--crate-type", "rlib", "--crate-name", "torpor", "-o", "libtorpor.rlib", filepath.Join(root, "sdk/rust/src/lib.rs")},
		{rustc, "--edition", "2021", "-C", "opt-level=1", "-D", "warnings", "--test", "--crate-name", name, "--extern", "torpor=libtorpor.rlib", "-o", "unit", filepath.Join(root, "modules", name, "src/lib.rs")},
		{filepath.Join(dir, "unit")},
	} {
		cmd := exec.CommandContext(t.Context(), args[0], args[1:]...)
		cmd.Dir = dir
		out, err := cmd.CombinedOutput()
		if err != nil {
			t.Fatalf("%q: %v\n%s", args, err, out)
		}
		if len(args) == 1 && !strings.Contains(string(out), " 0 failed; 0 ignored") {
			t.Errorf("%s", out)
		}
	}
}
