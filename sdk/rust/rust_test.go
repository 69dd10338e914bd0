// Package rust_test builds the example in Rust as an author would, and runs it on the machine itself and
// in package host.
package rust_test

import (
	"bytes"
	"context"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

// toolchain is a cargo and the rustc that came with it, which may not know another's.
type toolchain struct{ cargo, rustc string }

// toolchains are those of the machine: what is found first, and Debian's.
func toolchains() []toolchain {
	var all []toolchain
	for _, names := range [][2]string{{"cargo", "rustc"}, {"/usr/bin/cargo", "/usr/bin/rustc"}} {
		cargo, err := exec.LookPath(names[0])
		if err != nil {
			continue
		}
		rustc, err := exec.LookPath(names[1])
		if err != nil || len(all) > 0 && all[0].rustc == rustc {
			continue
		}
		all = append(all, toolchain{cargo, rustc})
	}
	return all
}

// forWasm tells whether a rustc can compile to WebAssembly.
func forWasm(rustc string) bool {
	dir, err := exec.Command(rustc, "--print", "target-libdir", "--target", "wasm32-unknown-unknown").Output()
	if err != nil {
		return false
	}
	core, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(dir)), "libcore-*.rlib"))
	return err == nil && len(core) > 0
}

// wasmToolchain is one that compiles to WebAssembly.
func wasmToolchain(t testing.TB) toolchain {
	t.Helper()
	for _, c := range toolchains() {
		if forWasm(c.rustc) {
			return c
		}
	}
	need.Missing(t, "cargo, and its rustc with the target wasm32-unknown-unknown (Debian: cargo, rustc, libstd-rust-dev-wasm32, lld-14)")
	return toolchain{}
}

// command runs a program in dir and fails the test if that fails.
func command(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// checkout copies the crate and its example to a folder, and gives that of the example: cargo leaves its
// files beside the source.
func checkout(t testing.TB) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "the SDK")
	if err := os.CopyFS(root, os.DirFS(".")); err != nil {
		t.Fatal(err)
	}
	return filepath.Join(root, "examples/settings")
}

// build builds the module of the example in dir.
func build(t testing.TB, c toolchain, dir string) []byte {
	t.Helper()
	command(t, dir, []string{"RUSTC=" + c.rustc, "CARGO_TARGET_DIR=target", "RUSTFLAGS=-D warnings"}, c.cargo,
		"build", "--offline", "--release", "--target", "wasm32-unknown-unknown")
	wasm, err := os.ReadFile(filepath.Join(dir, "target/wasm32-unknown-unknown/release/settings.wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// edit replaces what stands once in a file.
func edit(t testing.TB, file, old, by string) {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Count(string(text), old) != 1 {
		t.Fatalf("%s has %q %d times", file, old, strings.Count(string(text), old))
	}
	if err := os.WriteFile(file, []byte(strings.Replace(string(text), old, by, 1)), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSettings(t *testing.T) {
	sdktest.Fixtures(t, "examples/settings/fixtures")
	c := wasmToolchain(t)
	dir := checkout(t)
	wasm := build(t, c, dir)

	ctx := context.Background()
	h, err := host.New(ctx, host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(ctx)
	m, err := h.Compile(ctx, "settings", wasm)
	if err != nil {
		t.Fatal(err)
	}
	shape := m.Shape()
	if shape.MemoryMax != 16<<20 {
		t.Errorf("the module declares %d bytes of memory at most, want %d", shape.MemoryMax, 16<<20)
	}
	for _, i := range shape.Imports {
		if i.Module != abi.Namespace {
			t.Errorf("it imports %s of %s", i.Name, i.Module)
		}
	}

	sdktest.Settings(t, wasm)
	sdktest.LoadOrder(t, wasm)
	sdktest.LongNames(t, wasm)

	t.Run("built again", func(t *testing.T) {
		if err := os.RemoveAll(filepath.Join(dir, "target")); err != nil {
			t.Fatal(err)
		}
		if again := build(t, c, dir); !bytes.Equal(again, wasm) {
			t.Errorf("the same source in the same folder gives other bytes (%d, %d)", len(again), len(wasm))
		}
	})
	t.Run("long lines", func(t *testing.T) {
		edit(t, filepath.Join(dir, "src/lib.rs"), "serializer!(Lines);", "serializer!(Lines, input = 6_000_000, output = 1_000);")
		sdktest.LongLines(t, build(t, c, dir), 5_000_000)
	})
}

// TestNative runs the example's tests with every cargo there is.
func TestNative(t *testing.T) {
	need.Program(t, "cargo")
	for _, c := range toolchains() {
		dir := checkout(t)
		out := command(t, dir, []string{"RUSTC=" + c.rustc, "CARGO_TARGET_DIR=target", "RUSTFLAGS=-D warnings"}, c.cargo, "test", "--offline")
		if !strings.Contains(out, "5 passed; 0 failed; 0 ignored") {
			t.Errorf("%s: %s", c.cargo, out)
		}
	}
}

// TestReadmes: what they show is what is built and tested.
func TestReadmes(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readme, example := read("README.md"), read("examples/settings/README.md")
	blocks := func(text, lang string, n int) []string {
		found := regexp.MustCompile("(?s)```"+lang+"\n(.*?)```").FindAllStringSubmatch(text, -1)
		if len(found) != n {
			t.Fatalf("%d blocks of %s, want %d", len(found), lang, n)
		}
		var all []string
		for _, f := range found {
			all = append(all, f[1])
		}
		return all
	}
	program, _, ok := strings.Cut(read("examples/settings/src/lib.rs"), "\n#[cfg(test)]")
	if shown := blocks(readme, "rust", 1)[0]; !ok || shown != program {
		t.Errorf("README.md shows\n%s\nexamples/settings/src/lib.rs is\n%s", shown, program)
	}
	if shown := blocks(readme, "toml", 1)[0]; shown != read("examples/settings/Cargo.toml") {
		t.Errorf("README.md shows\n%s\nwhich is not examples/settings/Cargo.toml", shown)
	}
	shell := blocks(readme, "sh", 2)
	if short := blocks(example, "sh", 1)[0]; short != shell[0] {
		t.Errorf("README.md builds with\n%s\nthe example's with\n%s", shell[0], short)
	}

	// The commands are run as they stand, where the compiler is called as they call it.
	c := wasmToolchain(t)
	bin := t.TempDir()
	for name, path := range map[string]string{"cargo": c.cargo, "rustc": c.rustc} {
		// No link, by whose name a rustup would tell what it is called as.
		if err := os.WriteFile(filepath.Join(bin, name), []byte("#!/bin/sh\nexec "+path+" \"$@\"\n"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	env := []string{"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH"), "TORPOR=" + root, "CARGO_NET_OFFLINE=true", "CARGO_TARGET_DIR=target"}
	dir := checkout(t)
	command(t, dir, env, "sh", "-euc", shell[0])
	byCargo := read(filepath.Join(dir, "settings.wasm"))
	command(t, dir, env, "sh", "-euc", shell[1])
	byRustc := read(filepath.Join(dir, "settings.wasm"))
	for name, wasm := range map[string]string{"cargo": byCargo, "rustc": byRustc} {
		t.Run("by "+name, func(t *testing.T) { sdktest.Settings(t, []byte(wasm)) })
	}
}

func BenchmarkSettings(b *testing.B) { sdktest.Speed(b, build(b, wasmToolchain(b), checkout(b))) }
