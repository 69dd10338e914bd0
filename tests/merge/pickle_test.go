package merge_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

// TestPickle: states as LocalStack keeps them, made, merged and compared by Python.
func TestPickle(t *testing.T) {
	interpreter := need.Program(t, "python3")
	m := through.New(t, "pickle", modules.Pickle())
	d := m.Descriptor()
	if d.Nesting != ".[!" {
		t.Fatalf("nesting %q", d.Nesting)
	}
	dir := t.TempDir()
	const count = 100
	run := func(command string) {
		out, err := exec.CommandContext(t.Context(), interpreter, "merging.py", command, dir, fmt.Sprint(count)).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %.6000s", err, out)
		}
	}
	run("make")
	for seed := range count {
		file := func(name string) string { return filepath.Join(dir, fmt.Sprint(seed), name+".pickle") }
		read := func(name string) *statefile.File {
			b, err := os.ReadFile(file(name))
			if err != nil {
				t.Fatal(err)
			}
			return state(t, m, b)
		}
		live, in := read("live"), read("in")
		for _, s := range snapshot.Strategies() {
			merged, counts := merge(t, d, s, live, in)
			got, err := native(t, m, merged)
			if err != nil {
				t.Fatalf("seed %d, %s, %+v: %v\n%s\n\nlive\n%s\n\nin\n%s", seed, s, counts, err, show(t, merged), show(t, live), show(t, in))
			}
			if err := os.WriteFile(file(string(s)), got, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		if seed < 10 {
			properties(t, d, live, in)
		}
	}
	run("check")
}
