package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

func TestLines(t *testing.T) {
	torportest.RoundTrip(t, lines{}, []byte("colour=green\nname=Ada = Lovelace\nzoom=\n"))

	_, err := torportest.Save(lines{}, []byte("name=Ada\ncolour=green\n"))
	if !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("lines out of order: %v", err)
	}
}

// Every fixture comes back as it was. Add the states that your service writes.
func TestFixtures(t *testing.T) {
	fixtures, err := filepath.Glob("fixtures/*.*")
	if err != nil || len(fixtures) == 0 {
		t.Fatalf("no fixtures: %v", err)
	}
	for _, name := range fixtures { // not the folders with records of older schemas, which torpor module test reads
		t.Run(filepath.Base(name), func(t *testing.T) {
			native, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			torportest.RoundTrip(t, lines{}, native)
		})
	}
}

func TestBadFiles(t *testing.T) {
	for native, offset := range map[string]uint64{
		"name": 0, "name=Ada": 0, "name\n": 0, "\n": 0, "a=1\n\n": 4, "a=1\na=2\n": 4, "=1\n=2\n": 3, "b=1\na=2\n": 4, "a=\xff\n": 0, "a=1\nb": 4,
	} {
		_, err := torportest.Save(lines{}, []byte(native))
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeCorrupt || e.Offset != offset || e.Msg != "not a line of name=value in UTF-8, sorted by name" {
			t.Errorf("%q: %v, want offset %d", native, err, offset)
		}
	}
	torportest.RoundTrip(t, lines{}, []byte("=no name\na=\n"))
	torportest.RoundTrip(t, lines{}, []byte("long="+strings.Repeat("x", 100_000)+"\n"))

	if _, err := torportest.Load(lines{}, []byte("\x83\x60\x61a\x01")); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a record whose value is a number: %v", err)
	}
	for what, records := range map[string]string{
		"names out of order": "\x83\x60\x61b\x60\x83\x60\x61a\x60", "a name twice": "\x83\x60\x61a\x60\x83\x60\x61a\x60",
		"a name of bytes": "\x83\x60\x41a\x60", "a value that is not UTF-8": "\x83\x60\x61a\x61\xff",
	} {
		if _, err := torportest.Load(lines{}, []byte(records)); !errors.Is(err, abi.ErrCorrupt) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// What the configuration asks for and this serializer does not know is refused, not passed over.
func TestUnknownSetting(t *testing.T) {
	for _, op := range []string{abi.OpSave, abi.OpLoad} {
		h := torportest.Host{Call: abi.Call{Op: op, Schema: 1, Settings: map[string]any{"indent": 2}}}
		_, err := h.Run(lines{})
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeUnsupported || !strings.HasSuffix(e.Path, ".indent") {
			t.Errorf("%s: %v", op, err)
		}
	}
}
