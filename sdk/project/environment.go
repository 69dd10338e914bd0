package project

import (
	"slices"
	"strings"
)

// buildEnvironment is what of an environment the programs of a build are given. What tells a compiler what
// to make of the same sources is left out: flags, folders to look for headers in, profiles, another target.
// What tells where things are and how to get them stays: PATH, HOME, caches, proxies, the choice of a toolchain.
func buildEnvironment(environ []string) []string {
	return slices.DeleteFunc(slices.Clone(environ), func(variable string) bool {
		name, _, _ := strings.Cut(variable, "=")
		return changesBuild(name)
	})
}

// changesBuild reports whether a variable may change what compilers make. Of those that begin as go's, cargo's
// and rustc's do, only the known ones do not.
func changesBuild(name string) bool {
	begins := func(with ...string) bool {
		return slices.ContainsFunc(with, func(w string) bool { return strings.HasPrefix(name, w) })
	}
	switch {
	case strings.Contains(name, "FLAGS"): // GOFLAGS, RUSTFLAGS, CARGO_ENCODED_RUSTFLAGS, CFLAGS, CGO_CFLAGS
		return true
	case begins("CARGO_"):
		return name != "CARGO_HOME" && !begins("CARGO_NET_", "CARGO_HTTP_", "CARGO_REGISTRY_", "CARGO_REGISTRIES_", "CARGO_TERM_")
	case begins("RUST"):
		return name != "RUSTC" && !begins("RUSTUP_") // $RUSTC is honoured, and said to be
	case begins("GO") && (begins("GO_") || !strings.Contains(name, "_")): // not GOOGLE_…
		return !slices.Contains([]string{"GOAUTH", "GOCACHE", "GOCACHEPROG", "GOENV", "GOINSECURE", "GOMODCACHE", "GONOPROXY", "GONOSUMDB",
			"GOPATH", "GOPRIVATE", "GOPROXY", "GOROOT", "GOSUMDB", "GOTMPDIR", "GOTOOLCHAIN", "GOVCS"}, name)
	}
	return begins("CCC_", "CGO_") || slices.Contains([]string{
		"CPATH", "C_INCLUDE_PATH", "CPLUS_INCLUDE_PATH", "OBJC_INCLUDE_PATH", "LIBRARY_PATH", "COMPILER_PATH", "GCC_EXEC_PREFIX", "SDKROOT",
		"SOURCE_DATE_EPOCH", "NODE_ENV", "NODE_OPTIONS", "NODE_PATH"}, name)
}
