package modules_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/need"
)

// committedRustc is the compiler whose bytes are committed; build.sh says why.
const committedRustc = "1.63.0"

// wasmRustc is a rustc that compiles to WebAssembly, the one that build.sh would take first.
func wasmRustc(t *testing.T) (path, version string) {
	t.Helper()
	for _, c := range []string{"/usr/bin/rustc", "rustc"} {
		out, err := exec.Command(c, "--version").Output()
		if err != nil {
			continue
		}
		dir, err := exec.Command(c, "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
		if err != nil {
			continue
		}
		if core, _ := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "libcore-*.rlib")); len(core) > 0 {
			path, err := exec.LookPath(c)
			if err != nil {
				t.Fatal(err)
			}
			return path, strings.Fields(string(out))[1]
		}
	}
	need.Missing(t, "rustc with the target wasm32-unknown-unknown (Debian: rustc, libstd-rust-dev-wasm32, lld-14)")
	return "", ""
}

// command runs a program in dir and returns what it said.
func command(t *testing.T, dir string, env []string, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// TestBuildGivesTheCommittedBytes builds the modules from a copy in another folder, whose name has a
// blank, and compares; a module that its source does not give is found.
func TestBuildGivesTheCommittedBytes(t *testing.T) {
	t.Parallel()
	if _, version := wasmRustc(t); version != committedRustc {
		need.Missing(t, "rustc "+committedRustc+" at /usr/bin/rustc, whose bytes are committed")
	}
	root := filepath.Join(t.TempDir(), "another folder")
	for from, to := range map[string]string{".": "modules", "../sdk/rust": "sdk/rust"} {
		if err := os.CopyFS(filepath.Join(root, to), os.DirFS(from)); err != nil {
			t.Fatal(err)
		}
	}
	script := filepath.Join(root, "modules", "build.sh")
	if out, err := command(t, t.TempDir(), []string{"RUSTC="}, "sh", script, "--check"); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for _, m := range modules.All() { // one is enough for what follows
		if m.Name != "records" {
			if err := os.RemoveAll(filepath.Join(root, "modules", m.Name)); err != nil {
				t.Fatal(err)
			}
		}
	}
	wasm := filepath.Join(root, "modules", "records.wasm")
	committed, err := os.ReadFile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	changed := bytes.Replace(committed, []byte("record "), []byte("rekord "), 1)
	if bytes.Equal(changed, committed) {
		t.Fatal("nothing was changed")
	}
	if err := os.WriteFile(wasm, changed, 0o644); err != nil {
		t.Fatal(err)
	}
	out, err := command(t, t.TempDir(), []string{"RUSTC="}, "sh", script, "--check")
	if err == nil || !strings.Contains(out, "modules/records.wasm is not what its source builds to") {
		t.Errorf("a module of other bytes passes: %v\n%s", err, out)
	}
	if left, err := os.ReadFile(wasm); err != nil || !bytes.Equal(left, changed) {
		t.Errorf("--check changed the module (%v)", err)
	}
}

// TestBuildSaysWhatItCannot: a mistaken option or compiler is told, and nothing is built.
func TestBuildSaysWhatItCannot(t *testing.T) {
	before, err := os.ReadFile("records.wasm")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		env, arg, want string
	}{
		{"RUSTC=", "--chek", "unknown option --chek; usage: modules/build.sh [--check]"},
		{"RUSTC=/bin/false", "--check", "RUSTC=/bin/false has no target wasm32-unknown-unknown"},
	} {
		out, err := command(t, ".", []string{c.env}, "sh", "build.sh", c.arg)
		if err == nil || !strings.Contains(out, c.want) {
			t.Errorf("%s build.sh %s: %v\n%s", c.env, c.arg, err, out)
		}
	}
	if after, err := os.ReadFile("records.wasm"); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the module has changed (%v)", err)
	}
}

// TestSDK runs the unit tests of sdk/rust, with every compiler there is, and with warnings denied.
func TestSDK(t *testing.T) {
	t.Parallel()
	need.Program(t, "rustc")
	tried := map[string]bool{}
	for _, name := range []string{"rustc", "/usr/bin/rustc"} {
		rustc, err := exec.LookPath(name)
		if err != nil || tried[rustc] {
			continue
		}
		tried[rustc] = true
		dir := t.TempDir()
		if out, err := command(t, "..", nil, rustc, "--edition", "2021", "-D", "warnings", "--test", "--crate-name", "torpor",
			"-o", filepath.Join(dir, "unit"), "sdk/rust/src/lib.rs"); err != nil {
			t.Fatalf("%s: %v\n%s", rustc, err, out)
		}
		out, err := command(t, dir, nil, filepath.Join(dir, "unit"))
		if err != nil || !strings.Contains(out, " 0 failed; 0 ignored") {
			t.Errorf("%s: %v\n%s", rustc, err, out)
		}
		// Not as a guest, for which this compiler may have no target, but as it would be compiled for one.
		for _, crate := range [][]string{
			{"--crate-name", "torpor", "sdk/rust/src/lib.rs"},
			{"--crate-name", "records", "-C", "panic=abort", "--extern", "torpor=" + filepath.Join(dir, "libtorpor.rmeta"), "modules/records/src/lib.rs"},
		} {
			args := append([]string{"--edition", "2021", "-D", "warnings", "--crate-type", "rlib", "--emit", "metadata", "--out-dir", dir}, crate...)
			if out, err := command(t, "..", nil, rustc, args...); err != nil {
				t.Errorf("%s %v: %v\n%s", rustc, crate, err, out)
			}
		}
	}
}

// TestPanics: what sdk/rust/README.md says of panics, with std and without.
func TestPanics(t *testing.T) {
	t.Parallel()
	rustc, _ := wasmRustc(t)
	root, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	if out, err := command(t, dir, nil, rustc, "--edition", "2021", "--target", "wasm32-unknown-unknown", "-O", "-C", "panic=abort",
		"--crate-type", "rlib", "--crate-name", "torpor", "-o", "libtorpor.rlib", filepath.Join(root, "sdk/rust/src/lib.rs")); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	for name, c := range map[string]struct{ before, after string }{
		"no_std": {"#![no_std]\n", "torpor::panic_handler!();"},
		"std":    {"", "torpor::panic_hook!();"},
	} {
		t.Run("panic with "+name, func(t *testing.T) {
			source := c.before + `use torpor::{Call, Descriptor, Input, Output, Result, Serializer};
struct Panics;
impl Serializer for Panics {
    const DESCRIPTOR: Descriptor = Descriptor { name: "panics", version: "1", schema: 1, reads: &[1], media: "text/plain",
        operations: &["save", "load"], ordered: false, canonical: false };
    fn save(_: &Call<'_>, native: &mut Input<'_>, _: &mut Output<'_>) -> Result<()> {
        native.fill()?;
        let n = native.bytes()[9]; // panics
        native.consume(n as usize);
        Ok(())
    }
    fn load(_: &Call<'_>, _: &mut Input<'_>, _: &mut Output<'_>) -> Result<()> { Ok(()) }
}
torpor::serializer!(Panics);
` + c.after
			if err := os.WriteFile(filepath.Join(dir, name+".rs"), []byte(source), 0o644); err != nil {
				t.Fatal(err)
			}
			if out, err := command(t, dir, nil, rustc, "--edition", "2021", "--target", "wasm32-unknown-unknown", "-O", "-C", "panic=abort", "-C", "lto",
				"-C", "strip=symbols", "--crate-type", "cdylib", "--crate-name", name, "--extern", "torpor=libtorpor.rlib", name+".rs"); err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			wasm, err := os.ReadFile(filepath.Join(dir, name+".wasm"))
			if err != nil {
				t.Fatal(err)
			}
			g := newGuest(t, wasm)
			got := g.run(abi.ExportSave, &call{input: []byte("short"), native: true})
			before, _, _ := strings.Cut(source, "// panics")
			if want := fmt.Sprintf("the serializer panicked at %s.rs:%d", name, 1+strings.Count(before, "\n")); got.trap == nil || got.code != abi.CodeInternal || got.failure.Msg != want {
				t.Errorf("%v; want %q and a trap (%d bytes of module)", got, want, len(wasm))
			}
		})
	}
}
