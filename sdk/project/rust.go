package project

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

const rustTarget = "wasm32-unknown-unknown"

func rustLanguage() language {
	return language{
		name:     "rust",
		reserved: rustReserved(),
		template: "sdk/rust/examples/settings",
		sdk:      []string{"sdk/rust"},
		strip:    "sdk/rust/",
		ours:     []string{"Cargo.toml"},
		also:     func(Options) map[string]string { return map[string]string{".gitignore": "/target\n/*.wasm\n"} },
		detect:   func(_ string, files []string) bool { return slices.Contains(files, "Cargo.toml") },
		build:    buildRust,
	}
}

// rustReserved lists what no crate can well be called, as cargo new has it: the keywords, and the crates that
// come with the compiler.
func rustReserved() []string {
	return strings.Fields("abstract alloc as async await become box break const continue core crate do dyn else enum extern false final fn for if impl in " +
		"let loop macro match mod move mut override priv proc-macro pub ref return self static std struct super test trait true try type typeof unsafe " +
		"unsized use virtual where while yield")
}

const rustRemedy = "on Debian: apt-get install cargo rustc libstd-rust-dev-wasm32 lld; elsewhere install Rust from https://rustup.rs, then rustup target add " + rustTarget

func buildRust(b *builder) error {
	cargo, rustc, err := b.rust()
	if err != nil {
		return err
	}
	env := []string{"RUSTC=" + rustc, "CARGO_TARGET_DIR=" + filepath.Join(b.dir, "target")}
	args := []string{"build", "--release", "--lib", "--target", rustTarget, "--message-format=json-render-diagnostics"}
	// Paths stand in panic messages; --config adds to the flags a project has set for the target itself.
	remap := []string{"--remap-path-prefix=" + b.dir + "=."}
	if home, err := os.UserHomeDir(); err == nil {
		remap = append([]string{"--remap-path-prefix=" + home + "=~"}, remap...)
	}
	flags, err := json.Marshal(remap) // which is a list in TOML, too
	if err != nil {
		return err
	}
	args = append(args, "--config", "target."+rustTarget+".rustflags="+string(flags))
	cmd := b.command(env, cargo, args...)
	var messages bytes.Buffer
	cmd.Stdout, cmd.Stderr = &messages, b.out
	if err := b.failed(cmd, cmd.Run()); err != nil {
		return err
	}
	built, err := cdylib(messages.Bytes())
	if err != nil {
		return err
	}
	wasm, err := os.ReadFile(built.file)
	if err != nil {
		return err
	}
	if b.name == "" {
		b.name = built.name
	}
	return os.WriteFile(b.result, wasm, 0o600)
}

// rust finds cargo and rustc of one toolchain, for others need not understand each other, that can compile to
// WebAssembly: of several on one machine not the first need be it. $RUSTC wins, as with cargo itself.
func (b *builder) rust() (cargo, rustc string, err error) {
	if cargo, err = b.need("the program cargo", rustRemedy, "cargo"); err != nil {
		return "", "", err
	}
	if rustc := os.Getenv("RUSTC"); rustc != "" {
		if !b.hasRustTarget(rustc) {
			return "", "", &MissingError{b.language, "the target " + rustTarget + " of $RUSTC, " + rustc + ",", rustRemedy}
		}
		return cargo, rustc, nil
	}
	for _, folder := range filepath.SplitList(os.Getenv("PATH")) {
		cargo, cargoErr := exec.LookPath(filepath.Join(folder, "cargo"))
		rustc, rustcErr := exec.LookPath(filepath.Join(folder, "rustc"))
		if cargoErr == nil && rustcErr == nil && b.hasRustTarget(rustc) {
			return cargo, rustc, nil
		}
	}
	return "", "", &MissingError{b.language, "a cargo and, beside it, a rustc with the target " + rustTarget, rustRemedy}
}

func (b *builder) hasRustTarget(rustc string) bool {
	folder, err := b.command(nil, rustc, "--print", "target-libdir", "--target", rustTarget).Output()
	if err != nil {
		return false
	}
	core, err := filepath.Glob(filepath.Join(strings.TrimSpace(string(folder)), "libcore-*.rlib"))
	return err == nil && len(core) > 0
}

type rustModule struct{ name, file string }

// cdylib finds the module in what cargo tells of a build.
func cdylib(messages []byte) (rustModule, error) {
	var found []rustModule
	for line := range bytes.Lines(messages) {
		var m struct {
			Reason string
			Target struct {
				Name string
				Kind []string
			}
			Filenames []string
		}
		if json.Unmarshal(line, &m) != nil || m.Reason != "compiler-artifact" || !slices.Contains(m.Target.Kind, "cdylib") {
			continue
		}
		for _, f := range m.Filenames {
			if strings.HasSuffix(f, ".wasm") {
				// A crate's own name may have '-', which its library's has not.
				found = append(found, rustModule{strings.ReplaceAll(m.Target.Name, "_", "-"), f})
			}
		}
	}
	if len(found) != 1 {
		return rustModule{}, &BuildError{Command: "cargo build", Err: errors.New(`the crate has to have one library, with crate-type = ["cdylib"] in Cargo.toml`)}
	}
	return found[0], nil
}
