package project

import (
	"path/filepath"
	"slices"
	"strings"
)

func cLanguage() language {
	return language{
		name:     "c",
		template: "sdk/c/examples/settings",
		sdk:      []string{"sdk/c"},
		strip:    "sdk/c/",
		ours:     []string{"Makefile", "README.md"},
		also:     func(Options) map[string]string { return map[string]string{".gitignore": "/*.wasm\n"} },
		detect: func(dir string, files []string) bool {
			return hasSuffix(files, ".c") && cHeaders(dir) != ""
		},
		build: buildC,
	}
}

// cHeaders is the folder torpor.h is in, from that of a project: its copy, or the SDK around an example.
func cHeaders(dir string) string {
	for _, folder := range []string{sdkFolder, "../.."} {
		if exists(dir, folder, "torpor.h") {
			return folder
		}
	}
	return ""
}

const cRemedy = "on Debian: apt-get install clang lld; elsewhere install LLVM with lld"

func buildC(b *builder) error {
	clang, err := b.need("the program clang", cRemedy, "clang", "clang-19", "clang-18", "clang-17", "clang-16", "clang-15", "clang-14")
	if err != nil {
		return err
	}
	ld, err := b.need("the linker wasm-ld", cRemedy, "wasm-ld", "wasm-ld-19", "wasm-ld-18", "wasm-ld-17", "wasm-ld-16", "wasm-ld-15", "wasm-ld-14")
	if err != nil {
		return err
	}
	sources, err := filepath.Glob(filepath.Join(b.dir, "*.c"))
	if err != nil {
		return err
	}
	sources = slices.DeleteFunc(sources, func(s string) bool { return strings.HasSuffix(s, "_test.c") })
	for i, s := range sources {
		sources[i] = filepath.Base(s)
	}
	switch {
	case b.name != "":
	case len(sources) == 1:
		b.name = strings.TrimSuffix(sources[0], ".c")
	default:
		b.name = filepath.Base(b.dir)
	}
	// A small stack that lies first, so that an overflow traps, and a declared maximum of memory.
	args := append([]string{"--target=wasm32-unknown-unknown", "-std=c11", "-O3", "-mbulk-memory", "-ffreestanding", "-nostdlib",
		"-I" + cHeaders(b.dir), "-Wall", "-Wextra", "-fuse-ld=" + ld, "-Wl,--no-entry", "-Wl,--stack-first",
		"-Wl,-z,stack-size=65536", "-Wl,--max-memory=1048576", "-Wl,--strip-all", "-o", b.result}, sources...)
	return b.run(nil, clang, args...)
}
