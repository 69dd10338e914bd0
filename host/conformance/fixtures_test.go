package conformance_test

import (
	"bytes"
	"errors"
	"io/fs"
	"strings"
	"testing"
	"testing/fstest"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/conformance"
)

func file(b []byte) *fstest.MapFile { return &fstest.MapFile{Data: b} }

func TestReadFixtures(t *testing.T) {
	one := recordOf("a", "1")
	got, err := conformance.ReadFixtures(fstest.MapFS{
		"b.json": file([]byte("{}")), "a.json": file(nil), ".hidden": file([]byte("x")), "README.md": file([]byte("x")),
		"schema-10/x.records": file(one), "schema-2/x.json.records": file(one), "schema-2/x.json.native": file([]byte("native")),
		"schema-2/alone.native": file(nil), "schema-2/notes.txt": file(nil), "schema-2/.x.records": file(nil), "notes/x": file(nil),
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got.States) != 2 || got.States[0].Name != "a.json" || got.States[1].Name != "b.json" || string(got.States[1].Native) != "{}" {
		t.Errorf("states %+v", got.States)
	}
	if len(got.Old) != 2 || got.Old[0].Name != "x.json" || got.Old[0].Schema != 2 || !got.Old[0].Known || string(got.Old[0].Native) != "native" ||
		got.Old[1].Schema != 10 || got.Old[1].Known || !bytes.Equal(got.Old[1].Records, one) {
		t.Errorf("older records %+v", got.Old)
	}
	for i, want := range []string{"folder notes was not looked into", "schema-2/notes.txt", "there is no alone.records"} {
		if len(got.Notes) != 3 || !strings.Contains(got.Notes[i], want) {
			t.Errorf("notes %q", got.Notes)
		}
	}
}

func TestReadFixturesRefuses(t *testing.T) {
	large := make([]byte, conformance.MaxFixtureBytes+1)
	many := fstest.MapFS{}
	for i := range conformance.MaxFixtures + 1 {
		many[strings.Repeat("x", i%100+1)+strings.Repeat("y", i/100)] = file(nil)
	}
	sum := fstest.MapFS{}
	for i := range conformance.MaxFixturesBytes/conformance.MaxFixtureBytes + 1 {
		sum[strings.Repeat("x", i+1)] = file(large[1:])
	}
	for _, c := range []struct {
		name string
		fsys fs.FS
		err  error
		says string
	}{
		{"nothing", fstest.MapFS{}, conformance.ErrNoFixtures, "put one native state"},
		{"older records only", fstest.MapFS{"schema-1/a.records": file(nil)}, conformance.ErrNoFixtures, ""},
		{"too large", fstest.MapFS{"a": file(large)}, abi.ErrTooLarge, "fixture a"},
		{"too many", many, abi.ErrTooLarge, "more than 1000 files"},
		{"too large together", sum, abi.ErrTooLarge, "together"},
		{"no records", fstest.MapFS{"a": file(nil), "schema-1/a.records": file([]byte("x"))}, abi.ErrCorrupt, "schema-1/a.records"},
	} {
		t.Run(c.name, func(t *testing.T) {
			if _, err := conformance.ReadFixtures(c.fsys); !errors.Is(err, c.err) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("%v", err)
			}
		})
	}
}
