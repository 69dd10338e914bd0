package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/modules"
)

func (p *program) module() *cobra.Command {
	cmd := &cobra.Command{
		Use: "module", Short: "Work with serializer modules", Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	warm := &cobra.Command{
		Use:   "warm",
		Short: "Compile the built-in modules into the cache",
		Long: `Warm compiles the built-in serializers into the cache folder (--cache, or cache in the data folder),
so that the next start only loads them. A container image does it when it is built.`,
		Example: `  torpor module warm
  torpor module warm --cache /var/cache/torpor`,
		Args: args(cobra.NoArgs),
	}
	addFlagsFor(warm.Flags(), "cache", "data")
	warm.RunE = func(cmd *cobra.Command, _ []string) (err error) {
		s, err := readSettings(warm.Flags(), p.environ, knownServices())
		if err != nil {
			return err
		}
		ctx := cmd.Context()
		h, err := host.New(ctx, host.Config{CacheDir: cacheDir(s), Logger: newLogger(p.Err, s.LogLevel, s.LogFormat, p.env("NO_COLOR") != "")})
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, h.Close(ctx)) }()
		for _, m := range modules.All() {
			start := time.Now()
			c, err := h.Compile(ctx, m.Name, m.Wasm)
			if err != nil {
				return err
			}
			fmt.Fprintf(p.Out, "%s %s  %x  %v\n", m.Name, c.Descriptor().Version, c.Digest(), time.Since(start).Round(time.Microsecond))
		}
		return nil
	}
	cmd.AddCommand(warm)
	return cmd
}
