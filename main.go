// Command torpor pauses and resumes the state of services. See README.md, or run it with --help.
package main

import (
	"context"
	"os"

	"github.com/torpor-run/torpor/cli"
)

func main() {
	os.Exit(cli.Run(context.Background(), cli.Streams{In: os.Stdin, Out: os.Stdout, Err: os.Stderr}, os.Environ(), os.Args[1:]))
}
