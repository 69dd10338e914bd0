package main

import (
	"errors"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

func TestSettings(t *testing.T) {
	torportest.RoundTrip(t, settings{}, []byte("colour=green\nname=Ada = Lovelace\nzoom=\n"))

	_, err := torportest.Save(settings{}, []byte("name=Ada\ncolour=green\n"))
	if !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("lines out of order: %v", err)
	}
}

func TestBadFiles(t *testing.T) {
	for _, native := range []string{"name", "name=Ada", "name\n", "=Ada\n", "a=1\na=2\n", "a=\xff\n", "\n", "a=1\n\n"} {
		var e *torpor.Error
		if records, err := torportest.Save(settings{}, []byte(native)); !errors.As(err, &e) || e.Code != torpor.CodeCorrupt {
			t.Errorf("%q became %x, %v", native, records, err)
		}
	}
	if _, err := torportest.Load(settings{}, []byte("\x83\x60\x61a\x01")); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("a record whose value is a number: %v", err)
	}
}
