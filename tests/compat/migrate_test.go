package compat_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/tests/live"
)

// kept is the module of which the golden files say that it wrote them: its digest is in their headers.
const kept = "module"

// successor is the built-in serializer of records as a later one might be: of another name or schema, and
// with a migration that gives every record the value true.
type successor struct {
	*host.Module
	name     string
	schema   uint64
	migrated []abi.Call
}

func (s *successor) Descriptor() abi.Descriptor {
	d := s.Module.Descriptor()
	d.Name, d.Version, d.Schema, d.Reads = s.name, "9.0.0", s.schema, []uint64{s.schema}
	return d
}

func (s *successor) Migrate(_ context.Context, call abi.Call, records record.Source, sink record.Sink) error {
	s.migrated = append(s.migrated, call)
	for {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := sink.WriteBatch(allTrue(b)); err != nil {
			return err
		}
	}
}

// allTrue gives the records of a batch with true for a value.
func allTrue(b *record.Batch) *record.Batch {
	out := &record.Batch{}
	for i, r := range b.Refs {
		start := len(out.Data)
		out.Data = record.AppendBool(append(out.Data, b.Data[r.Start:r.Value]...), true)
		out.Refs = append(out.Refs, record.Ref{Start: start, Partition: start + r.Partition - r.Start, Key: start + r.Key - r.Start,
			Value: start + r.Value - r.Start, End: len(out.Data)})
		if out.Value(i)[0] != 0xf5 {
			panic("not the value")
		}
	}
	return out
}

// start loads the state that lies in a file system, as a program does that is started.
func start(t *testing.T, fsys vfs.FS, serializer runtime.Serializer, compile func(context.Context, string, []byte) (runtime.Serializer, error)) (*live.Part, *runtime.Service) {
	t.Helper()
	logger := slog.New(slog.DiscardHandler)
	dir, err := statedir.Open(fsys, statedir.Options{Logger: logger})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := dir.Close(); err != nil {
			t.Error(err)
		}
	})
	part := &live.Part{}
	rt, err := runtime.New(runtime.Config{Dir: dir, Compile: compile, Logger: logger, Services: []runtime.ServiceConfig{{
		Name: "s3", Save: runtime.SaveManual, Load: runtime.LoadOnStartup,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: serializer, Source: part, Dirty: &part.Dirty}}}}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := rt.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	if err := rt.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	svc, err := rt.Service("s3")
	if err != nil {
		t.Fatal(err)
	}
	return part, svc
}

// put makes a file, and the folders it is in.
func put(t *testing.T, fsys vfs.FS, name string, content []byte) {
	t.Helper()
	for i, c := range name {
		if c == '/' {
			_ = fsys.Mkdir(name[:i]) // it may be there; if not, the next call says so
		}
	}
	f, err := fsys.OpenFile(name, vfs.Create)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Write(content); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		t.Fatal(err)
	}
}

// Every golden file of every version loads: with the serializer that wrote it, with one of a newer schema,
// which migrates it, and with another one, for which the module that wrote it is taken from where it was
// kept. What was loaded can be saved and loaded once more.
func TestGoldenFilesLoadAndMigrate(t *testing.T) {
	h, err := host.New(t.Context(), host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := h.Close(context.Background()); err != nil {
			t.Error(err)
		}
	})
	module, err := h.Compile(t.Context(), "records", modules.Records())
	if err != nil {
		t.Fatal(err)
	}
	for _, golden := range goldenFiles(t) {
		t.Run(filepath.Base(golden), func(t *testing.T) {
			file := readFile(t, golden)
			f, err := open(file)
			if err != nil {
				t.Fatal(err)
			}
			if f.Header().Serializer.Digest != sha256.Sum256([]byte(kept)) {
				t.Fatal("a golden file of another module: keep that one in this test, too")
			}
			want := readAll(t, f)
			var s record.Scanner
			refs, err := s.Scan(want, nil)
			if err != nil {
				t.Fatal(err)
			}
			changed := allTrue(&record.Batch{Data: want, Refs: refs}).Data

			for name, c := range map[string]struct {
				serializer *successor
				want       []byte
				compiles   bool
				migrates   bool
			}{
				"the serializer that wrote it": {serializer: &successor{Module: module, name: "records", schema: 1}, want: want},
				"a newer schema":               {serializer: &successor{Module: module, name: "records", schema: 2}, want: changed, migrates: true},
				"another serializer":           {serializer: &successor{Module: module, name: "successor", schema: 2}, want: want, compiles: true},
			} {
				t.Run(name, func(t *testing.T) {
					disk := vfs.NewMem()
					put(t, disk, "state/api_states/s3/store.state", file)
					put(t, disk, fmt.Sprintf("modules/%x.wasm", f.Header().Serializer.Digest), []byte(kept))
					var compiled []string
					part, svc := start(t, disk, c.serializer, func(_ context.Context, _ string, wasm []byte) (runtime.Serializer, error) {
						compiled = append(compiled, string(wasm))
						return module, nil
					})
					if st := svc.Status(); st.Status != runtime.StatusRunning || st.Parts[0].Err != nil || st.Parts[0].Generation != f.Header().Generation {
						t.Fatalf("status %+v", st)
					}
					if !bytes.Equal(part.Native, c.want) {
						t.Errorf("%d bytes of native state, want others, %d", len(part.Native), len(c.want))
					}
					if (len(compiled) == 1 && compiled[0] == kept) != c.compiles || len(compiled) > 1 {
						t.Errorf("modules compiled: %q", compiled)
					}
					if calls := c.serializer.migrated; len(calls) == 1 != c.migrates || len(calls) > 1 || c.migrates && (calls[0].From != 1 || calls[0].To != 2) {
						t.Errorf("migrations: %+v", calls)
					}
					part.Dirty.Mark("all")
					if err := svc.Save(t.Context()); err != nil {
						t.Fatal(err)
					}
					if g := svc.Status().Parts[0].Generation; g != f.Header().Generation+1 {
						t.Errorf("saved as generation %d after %d", g, f.Header().Generation)
					}
					again, _ := start(t, disk.Kill(), c.serializer, nil)
					if !bytes.Equal(again.Native, c.want) {
						t.Error("saved and loaded once more it is another")
					}
					if len(c.serializer.migrated) > 1 {
						t.Error("and it was migrated once more")
					}
				})
			}
		})
	}
}
