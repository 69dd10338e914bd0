package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/sdk/project"
)

// ofProject makes what package project refuses a usage error.
func ofProject(err error) error {
	var refused *project.RefusedError
	if errors.As(err, &refused) {
		return usageError{err}
	}
	return err
}

func (p *program) moduleNew() *cobra.Command {
	var o project.Options
	cmd := &cobra.Command{
		Use:   "new NAME --lang " + strings.Join(project.Languages(), "|"),
		Short: "Write a project for a serializer",
		Long: `New writes a project that builds and passes its tests as it is: a small serializer called NAME for files of
lines "name=value", its tests, states to test it with (fixtures), and a copy of the SDK (torpor-sdk). It
needs nothing else of Torpor's sources. Make it yours from there; its README.md says how.

NAME has lower-case letters, digits and single '-' between them. The folder must not exist, or be empty;
either all of the project is written or nothing.`,
		Example: `  torpor module new orders --lang go
  torpor module new orders --lang go --module github.com/you/shop-serializer
  torpor module new orders --lang rust --dir serializers/orders`,
		Args: args(cobra.ExactArgs(1)),
	}
	f := cmd.Flags()
	f.StringVar(&o.Language, "lang", "", "language: "+strings.Join(project.Languages(), ", "))
	f.StringVar(&o.Dir, "dir", "", "folder to write (default: NAME in this one)")
	f.StringVar(&o.Module, "module", "", "path of the Go module (default: example.org/NAME)")
	cmd.RunE = func(_ *cobra.Command, a []string) error {
		if o.Name = a[0]; isBuiltIn(o.Name) {
			return usageError{fmt.Errorf("name %q is that of a serializer that is built in, beside which no other is kept; choose another, such as orders", o.Name)}
		}
		dir, err := project.New(p.sdks, o)
		if err != nil {
			return ofProject(err)
		}
		fmt.Fprintf(p.Out, `%s is a serializer in %s, in the folder %s. What next:

  cd %s
  torpor module build
  torpor module test %s.wasm
  torpor module add %s.wasm

README.md there says how to run its own tests and how to make it yours.
`, o.Name, o.Language, dir, quoted(dir), o.Name, o.Name)
		return nil
	}
	return cmd
}

// quoted is a path for a shell.
func quoted(path string) string {
	if strings.ContainsAny(path, " \t\n'\"\\$`*?[](){}<>|&;~#!") {
		return "'" + strings.ReplaceAll(path, "'", `'\''`) + "'"
	}
	return path
}

func (p *program) moduleBuild() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "build [DIR]",
		Short: "Build a project and check what comes out",
		Long: `Build builds the serializer in a folder (default: this one) to NAME.wasm there, with the compiler of its
language and the flags that give the same bytes wherever the folder lies; flags in the environment, such as
GOFLAGS and RUSTFLAGS, do not count. NAME is what torpor module new was given, as torpor-sdk/project-name
says, else the project's in its language. Then build compiles the module under the limits that serve has, and
prints what it is. What the compiler says goes to standard error.

  Go              go.mod and *.go; needs go
  Rust            Cargo.toml; needs cargo, rustc and its target wasm32-unknown-unknown
  C               *.c and torpor-sdk/torpor.h; needs clang and lld
  AssemblyScript  asconfig.json; needs node and, for the first build, npm`,
		Example: `  torpor module build
  torpor module build orders --json | jq -r .sha256`,
		Args: args(cobra.MaximumNArgs(1)),
	}
	addFlagsFor(cmd.Flags(), "cache", "data")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		dir := "."
		if len(a) > 0 {
			dir = a[0]
		}
		return p.withModules(cmd, func(ctx context.Context, _ *settings, h *moduleHost) error {
			path, err := project.Build(ctx, dir, p.Err)
			if err != nil {
				return ofProject(err)
			}
			wasm, err := os.ReadFile(path)
			if err != nil {
				return fmt.Errorf("module: %w", err)
			}
			info, err := h.look(ctx, filepath.Base(path), wasm)
			if err != nil {
				return fmt.Errorf("%s was built, and is refused: %w", path, err)
			}
			info.Path = path
			if asJSON {
				return writeJSON(p.Out, info)
			}
			return info.print(p.Out, false)
		})
	}
	return cmd
}
