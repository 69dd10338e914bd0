package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// Streams are the standard streams of one run of the program.
type Streams struct {
	In       io.Reader
	Out, Err io.Writer
}

// program is one run: what commands share.
type program struct {
	Streams
	environ []string
	sdks    fs.FS
}

// Run runs the command line args with the environment environ ("KEY=value") and returns the exit code.
// sdks is the root of Torpor's sources, or as much of it as package project needs to make projects.
// Errors have been written to streams.Err. It is safe for concurrent use as far as the streams are.
func Run(ctx context.Context, sdks fs.FS, streams Streams, environ, args []string) int {
	p := &program{Streams: streams, environ: environ, sdks: sdks}
	root := p.root()
	root.SetArgs(append([]string{}, args...)) // nil would be those of this process
	root.SetIn(streams.In)
	root.SetOut(streams.Out)
	root.SetErr(streams.Err)
	err := root.ExecuteContext(ctx)
	if err != nil && !errors.Is(err, errDifferent) {
		fmt.Fprintf(streams.Err, "torpor: %v\n", err)
	}
	return exitCode(err)
}

// exitTable is the table of exit codes for the help.
func exitTable() string {
	var b strings.Builder
	for code, meaning := range exitMeanings() {
		fmt.Fprintf(&b, "  %d  %s\n", code, meaning)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

func (p *program) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "torpor",
		Short: "Pause and resume the state of services",
		Long: `Torpor stands in front of stateful services, saves their state through sandboxed serializers
and gives it back after a restart.

Commands that look at or change what services have ask the running torpor: at --url, or $TORPOR_URL, or else
where --listen says that it listens. Where none answers, those that can do it take what the data folder
holds, and say so.

Exit codes:
` + exitTable(),
		Example: `  torpor serve
  torpor status --watch
  torpor snapshot save before-upgrade
  torpor diff snapshot:before-upgrade live`,
		SilenceUsage:  true,
		SilenceErrors: true,
		Version:       version().Version,
		// Without a command, help; with a mistaken one, an error.
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; the commands are %s", args[0], strings.Join(commandNames(cmd), ", "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, args []string) error { return cmd.Help() },
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		var unknown *pflag.NotExistError
		if errors.As(err, &unknown) {
			return usageError{fmt.Errorf("%w; %s has %s", err, cmd.CommandPath(), strings.Join(flagNames(cmd), ", "))}
		}
		return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
	})
	root.AddCommand(p.serve(), p.status(), p.save(), p.load(), p.reset(), p.sleep(), p.wake(), p.sync(), p.records(), p.diff(), p.snapshot(),
		p.inspect(), p.verify(), p.health(), p.module(), p.config(), p.versionCommand())
	return root
}

func commandNames(cmd *cobra.Command) []string {
	var names []string
	for _, c := range cmd.Commands() {
		if c.IsAvailableCommand() {
			names = append(names, c.Name())
		}
	}
	return names
}

func flagNames(cmd *cobra.Command) []string {
	var names []string
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		if !f.Hidden {
			names = append(names, "--"+f.Name)
		}
	})
	return names
}

// args checks positional arguments as usage errors.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, a []string) error {
		if err := check(cmd, a); err != nil {
			return usageError{fmt.Errorf("%w; see %s --help", err, cmd.CommandPath())}
		}
		return nil
	}
}

// Version is what this program is. It is the release's number; between releases, the next one's with
// -dev behind it.
const Version = "0.1.0-dev"

type build struct{ Version, Revision, GoVersion string }

func version() build {
	b := build{Version: Version}
	if info, ok := debug.ReadBuildInfo(); ok {
		b.GoVersion = info.GoVersion
		for _, s := range info.Settings {
			if s.Key == "vcs.revision" {
				b.Revision = s.Value
			}
		}
	}
	return b
}

func (p *program) versionCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use: "version", Short: "Print the version", Args: args(cobra.NoArgs),
		Long: `Version prints the version of this program, the revision it was built from and the Go it was built with.`,
		Example: `  torpor version
  torpor version --json | jq -r .version`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			b := version()
			if asJSON {
				return writeJSON(p.Out, map[string]string{"version": b.Version, "revision": b.Revision, "go": b.GoVersion})
			}
			_, err := fmt.Fprintf(p.Out, "torpor %s %s %s\n", b.Version, b.Revision, b.GoVersion)
			return err
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	return cmd
}
