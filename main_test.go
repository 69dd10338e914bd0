package main

import (
	"bytes"
	"io/fs"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/sdk/project"
)

// TestSDKs: what is embedded is what torpor module new copies from a checkout; not less, or a project would
// not build, and no more, such as what somebody's build has left beside it.
func TestSDKs(t *testing.T) {
	checkout := os.DirFS(".")
	want, err := project.Sources(checkout)
	if err != nil {
		t.Fatal(err)
	}
	got, err := project.Sources(sdks)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s is not embedded: name it at sdks in main.go", name)
			continue
		}
		a, aerr := fs.ReadFile(checkout, name)
		b, berr := fs.ReadFile(sdks, name)
		if aerr != nil || berr != nil || !bytes.Equal(a, b) {
			t.Errorf("%s: embedded are %d bytes, there are %d; %v, %v", name, len(b), len(a), aerr, berr)
		}
	}
	allowed := append(want, "LICENSE")
	err = fs.WalkDir(sdks, ".", func(name string, e fs.DirEntry, err error) error {
		if err == nil && !e.IsDir() && !slices.Contains(allowed, name) && !strings.HasSuffix(name, "_test.go") {
			t.Errorf("%s is embedded and of no use: see sdks in main.go", name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(want) < 20 {
		t.Errorf("only %d files: is this the root of the repository?", len(want))
	}
}
