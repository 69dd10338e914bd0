package project

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/tests/need"
)

// sourceDir is the root of the repository, wherever a test goes.
var sourceDir = func() string {
	dir, err := filepath.Abs("../..")
	if err != nil {
		panic(err)
	}
	return dir
}()

func repositoryAbs() fs.FS { return os.DirFS(sourceDir) }

func TestDetect(t *testing.T) {
	for name, c := range map[string]struct {
		files []string
		want  string
		say   string
	}{
		"Go":               {[]string{"go.mod", "main.go"}, "go", ""},
		"Go without files": {[]string{"go.mod"}, "", "torpor module new"},
		"Rust":             {[]string{"Cargo.toml", "src/lib.rs"}, "rust", ""},
		"C":                {[]string{"orders.c", "torpor-sdk/torpor.h"}, "c", ""},
		"C without SDK":    {[]string{"orders.c"}, "", "torpor-sdk/torpor.h"},
		"AssemblyScript":   {[]string{"asconfig.json", "package.json"}, "assemblyscript", ""},
		"nothing":          {nil, "", "torpor module new"},
		"two":              {[]string{"asconfig.json", "Cargo.toml"}, "", "rust and assemblyscript"},
	} {
		dir := t.TempDir()
		for _, f := range c.files {
			file := filepath.Join(dir, f)
			if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, nil, 0o600)); err != nil {
				t.Fatal(err)
			}
		}
		got, err := Detect(dir)
		refused := (*RefusedError)(nil)
		if got != c.want || (err == nil) != (c.say == "") || err != nil && (!errors.As(err, &refused) || !strings.Contains(err.Error(), c.say)) {
			t.Errorf("%s: Detect = %q, %v; want %q, %q", name, got, err, c.want, c.say)
		}
	}
	for _, no := range []string{filepath.Join(t.TempDir(), "none"), "build_test.go"} {
		if _, err := Detect(no); err == nil || !strings.Contains(err.Error(), "no folder") {
			t.Errorf("%s: %v", no, err)
		}
	}
}

// made makes a project.
func made(t *testing.T, o Options) string {
	t.Helper()
	o.Dir = filepath.Join(t.TempDir(), "made")
	if _, err := New(repositoryAbs(), o); err != nil {
		t.Fatal(err)
	}
	return o.Dir
}

// offline is how Go's projects must build: no network, whatever the environment of the tests says.
func offline(t *testing.T) {
	t.Setenv("GOPROXY", "off")
	t.Setenv("GOFLAGS", "-mod=mod")
}

func TestBuildGo(t *testing.T) {
	offline(t)
	var built [][]byte
	for _, disturbed := range []bool{false, true} {
		dir := made(t, Options{Name: "orders", Language: "go", Module: "example.org/shop-serializer"})
		if disturbed { // a workspace around it must not matter, nor what the environment has set
			if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "go.work"), []byte("go 1.26\n"), 0o600); err != nil {
				t.Fatal(err)
			}
			t.Setenv("GOWORK", filepath.Join(filepath.Dir(dir), "go.work"))
			t.Setenv("GOFLAGS", "-mod=mod -gcflags=-N -tags=other")
			t.Setenv("GOEXPERIMENT", "nosuchthing")
		}
		var out bytes.Buffer
		wasm, err := Build(t.Context(), dir, &out)
		if err != nil || wasm != filepath.Join(dir, "orders.wasm") {
			t.Fatalf("Build = %q, %v\n%s", wasm, err, out.String())
		}
		b, err := os.ReadFile(wasm)
		if err != nil || !bytes.HasPrefix(b, []byte("\x00asm\x01\x00\x00\x00")) {
			t.Fatalf("%q…, %v", b[:min(len(b), 8)], err)
		}
		built = append(built, b)
	}
	if !bytes.Equal(built[0], built[1]) {
		t.Error("in two folders the same project has become different modules")
	}
}

// builtNew makes a project, builds it and returns the module.
func builtNew(t *testing.T, o Options) []byte {
	t.Helper()
	dir := made(t, o)
	var out bytes.Buffer
	wasm, err := Build(t.Context(), dir, &out)
	if missing := (*MissingError)(nil); errors.As(err, &missing) {
		need.Missing(t, missing.What)
	}
	if err != nil || wasm != filepath.Join(dir, o.Name+".wasm") {
		t.Fatalf("Build = %q, %v\n%s", wasm, err, out.String())
	}
	b, err := os.ReadFile(wasm)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestBuildRustWhateverTheEnvironment(t *testing.T) {
	o := Options{Name: "shop-orders", Language: "rust"}
	before := builtNew(t, o)
	for name, value := range map[string]string{
		"RUSTFLAGS": "-C opt-level=0", "CARGO_ENCODED_RUSTFLAGS": "-Copt-level=0", "CARGO_PROFILE_RELEASE_OPT_LEVEL": "0",
		"CARGO_BUILD_TARGET": "no-such-target", "RUSTC_WRAPPER": "no-such-program",
	} {
		t.Setenv(name, value)
	}
	if !bytes.Equal(builtNew(t, o), before) {
		t.Error("the environment, or the folder, has made it another module")
	}
}

func TestBuildCWhateverTheEnvironment(t *testing.T) {
	o := Options{Name: "orders", Language: "c"}
	before := builtNew(t, o)
	dir := t.TempDir()
	for _, header := range []string{"stdint.h", "stddef.h", "stdbool.h"} {
		if err := os.WriteFile(filepath.Join(dir, header), []byte("#error not this one\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	t.Setenv("CPATH", dir)
	t.Setenv("C_INCLUDE_PATH", dir)
	if !bytes.Equal(builtNew(t, o), before) {
		t.Error("the environment, or the folder, has made it another module")
	}
}

// What is built has the name that New was given, wherever the project lies and whatever else is in it.
func TestBuildKeepsTheName(t *testing.T) {
	dir := made(t, Options{Name: "orders", Language: "c"}) // in a folder called made
	if err := os.WriteFile(filepath.Join(dir, "second.c"), []byte("int second;\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	wasm, err := Build(t.Context(), dir, &out)
	if missing := (*MissingError)(nil); errors.As(err, &missing) {
		need.Missing(t, missing.What)
	}
	if err != nil || filepath.Base(wasm) != "orders.wasm" {
		t.Errorf("Build = %q, %v\n%s", wasm, err, out.String())
	}
	for _, bad := range []string{"", "../orders", "a\nb"} {
		if err := os.WriteFile(filepath.Join(dir, nameFile), []byte(bad), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := Build(t.Context(), dir, &out)
		if refused := (*RefusedError)(nil); !errors.As(err, &refused) || !strings.Contains(err.Error(), "project-name") {
			t.Errorf("noted as %q: %v", bad, err)
		}
	}
	if err := os.Remove(filepath.Join(dir, nameFile)); err != nil {
		t.Fatal(err)
	}
	if wasm, err := Build(t.Context(), dir, &out); err != nil || filepath.Base(wasm) != "made.wasm" {
		t.Errorf("without a note: Build = %q, %v", wasm, err)
	}
}

func TestBuildEnvironment(t *testing.T) {
	kept := strings.Fields(`PATH=/bin HOME=/h TMPDIR=/t LANG=C GOCACHE=/c GOMODCACHE=/m GOPATH=/p GOPROXY=off GOPRIVATE=x GOTOOLCHAIN=local GOROOT=/go
		GOOGLE_APPLICATION_CREDENTIALS=/g CARGO_HOME=/ch CARGO_NET_OFFLINE=true CARGO_HTTP_PROXY=p CARGO_REGISTRIES_MINE_TOKEN=x RUSTUP_HOME=/ru
		RUSTUP_TOOLCHAIN=stable RUSTC=/rustc http_proxy=p HTTPS_PROXY=p NO_PROXY=x npm_config_registry=r SSL_CERT_FILE=/s LD_LIBRARY_PATH=/l`)
	dropped := strings.Fields(`GOFLAGS=x GOOS=x GOWASM=x GOEXPERIMENT=x GODEBUG=x GOFIPS140=x GO111MODULE=off GOWORK=x GO_EXTLINK_ENABLED=0 CGO_CFLAGS=x CGO_ENABLED=1
		RUSTFLAGS=x RUSTC_WRAPPER=x RUSTC_BOOTSTRAP=1 RUST_TARGET_PATH=x CARGO_ENCODED_RUSTFLAGS=x CARGO_PROFILE_RELEASE_LTO=x CARGO_BUILD_RUSTFLAGS=x
		CARGO_BUILD_TARGET=x CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=x CARGO_TARGET_DIR=x CARGO_INCREMENTAL=1 CPATH=x C_INCLUDE_PATH=x
		CFLAGS=x CFLAGS_wasm32=x LDFLAGS=x CCC_OVERRIDE_OPTIONS=x SOURCE_DATE_EPOCH=1 NODE_ENV=production NODE_OPTIONS=x GOFLAGS`)
	if got := buildEnvironment(slices.Concat(dropped, kept, dropped)); !slices.Equal(got, kept) {
		t.Errorf("given is %q, want %q", got, kept)
	}
}

func TestGoFlags(t *testing.T) {
	for flags, want := range map[string]string{
		"":                                  "-buildvcs=false",
		"-mod=mod":                          "-buildvcs=false -mod=mod",
		"-tags=x  --mod=vendor -modcacherw": "-buildvcs=false --mod=vendor -modcacherw",
		"-modfile=x -gcflags=-N '-ldflags=-X mod=x' -overlay=x": "-buildvcs=false",
	} {
		if got := goFlags(flags); got != want {
			t.Errorf("%q became %q, want %q", flags, got, want)
		}
	}
}

func TestLastElement(t *testing.T) {
	for path, want := range map[string]string{"example.org/a": "a", "example.org/a/v2": "a", "v2": "v2", "a": "a", "example.org/a/v1": "v1", "x/v10": "x"} {
		if got := lastElement(path); got != want {
			t.Errorf("%s: %s, want %s", path, got, want)
		}
	}
}

// A build that fails says so, shows what the compiler said, and leaves what was built before.
func TestBuildFails(t *testing.T) {
	offline(t)
	dir := made(t, Options{Name: "orders", Language: "go"})
	if err := errors.Join(os.WriteFile(filepath.Join(dir, "broken.go"), []byte("package main\n\nvar x int = \"y\"\n"), 0o600),
		os.WriteFile(filepath.Join(dir, "orders.wasm"), []byte("before"), 0o600)); err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	_, err := Build(t.Context(), dir, &out)
	failed := (*BuildError)(nil)
	if !errors.As(err, &failed) || !strings.Contains(err.Error(), "go build") || !strings.Contains(out.String(), "broken.go:3") {
		t.Errorf("Build = %v\n%s", err, out.String())
	}
	if b, err := os.ReadFile(filepath.Join(dir, "orders.wasm")); err != nil || string(b) != "before" {
		t.Errorf("what was built before is now %q, %v", b, err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Build(ctx, dir, &out); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(dir, ".orders*")); err != nil || len(left) > 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Without the compiler it is said what to install.
func TestBuildWithoutPrograms(t *testing.T) {
	for lang, say := range map[string]string{
		"go": "Go " + goVersion, "rust": "apt-get install cargo", "c": "apt-get install clang", "assemblyscript": "apt-get install nodejs npm",
	} {
		dir := made(t, Options{Name: "orders", Language: lang})
		t.Setenv("PATH", t.TempDir())
		_, err := Build(t.Context(), dir, &bytes.Buffer{})
		if missing := (*MissingError)(nil); !errors.As(err, &missing) || !strings.Contains(err.Error(), say) {
			t.Errorf("%s: %v, want it to say %q", lang, err, say)
		}
	}
	if _, err := Build(t.Context(), t.TempDir(), &bytes.Buffer{}); err == nil || !strings.Contains(err.Error(), "torpor module new") {
		t.Errorf("without a project: %v", err)
	}
}
