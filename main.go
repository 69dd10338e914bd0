// Command torpor pauses and resumes the state of services. See README.md, or run it with --help.
package main

import (
	"context"
	"embed"
	"os"

	"github.com/torpor-run/torpor/cli"
	"github.com/torpor-run/torpor/runtime/supervisor"
)

// sdks are the sources that torpor module new copies, named one by one, so that nothing comes along that a
// build or npm has left beside them. TestSDKs compares.
//
//go:embed LICENSE
//go:embed sdk/go/*.go sdk/go/*.md sdk/go/jsonscan/*.go sdk/go/torportest/*.go
//go:embed sdk/go/examples/settings/.gitignore sdk/go/examples/settings/*.go sdk/go/examples/settings/*.md sdk/go/examples/settings/fixtures
//go:embed host/abi/*.go host/abi/*.md host/abi/record/*.go
//go:embed sdk/rust/*.toml sdk/rust/*.md sdk/rust/src
//go:embed sdk/rust/examples/settings/.gitignore sdk/rust/examples/settings/Cargo.toml sdk/rust/examples/settings/*.md
//go:embed sdk/rust/examples/settings/build.rs sdk/rust/examples/settings/fixtures sdk/rust/examples/settings/src
//go:embed sdk/c/*.h sdk/c/*.md sdk/c/examples/settings/.gitignore sdk/c/examples/settings/*.c sdk/c/examples/settings/*.md
//go:embed sdk/c/examples/settings/fixtures
//go:embed sdk/assemblyscript/*.json sdk/assemblyscript/*.md sdk/assemblyscript/*.ts sdk/assemblyscript/*.mjs sdk/assemblyscript/assembly
//go:embed sdk/assemblyscript/examples/settings/.npmrc sdk/assemblyscript/examples/settings/*.json sdk/assemblyscript/examples/settings/*.mjs sdk/assemblyscript/examples/settings/*.md
//go:embed sdk/assemblyscript/examples/settings/assembly sdk/assemblyscript/examples/settings/fixtures
var sdks embed.FS

func main() {
	// Begun again as the guard of a service's program: see package supervisor.
	if code, guarded := supervisor.Guard(os.Args[1:]); guarded {
		os.Exit(code)
	}
	os.Exit(cli.Run(context.Background(), sdks, cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Environ(), os.Args[1:]))
}
