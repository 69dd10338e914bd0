package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/server"
)

func (p *program) health() *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running torpor how it is",
		Long: `Health asks the runtime at --url ($TORPOR_URL), or else the one that listens where --listen ($TORPOR_LISTEN)
says, and prints what it would lose if it died now. The exit code is 0 when every service is served,
otherwise 1: it is made for a container's health check. It needs no key.`,
		Example: `  torpor health
  torpor health --listen 127.0.0.1:4566 --json`,
		Args: args(cobra.NoArgs),
	}
	flags := cmd.Flags()
	addClientFlags(flags)
	flags.BoolVar(&asJSON, "json", false, "print the answer as it came")
	flags.DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		c, _, err := p.client(flags)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		return p.runHealth(ctx, c, asJSON)
	}
	return cmd
}

func (p *program) runHealth(ctx context.Context, c *client, asJSON bool) error {
	h, body, status, err := c.health(ctx)
	if err != nil {
		return err
	}
	if asJSON {
		if _, err := p.Out.Write(body); err != nil {
			return err
		}
	} else if err := printHealth(p.Out, h); err != nil {
		return err
	}
	if status != http.StatusOK {
		return errors.New("a service is not served: see above")
	}
	return nil
}

func printHealth(w io.Writer, h server.Health) error {
	fmt.Fprintf(w, "torpor %s: %s, persistence %s\n", h.Version, h.Status, h.Features["persistence"])
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SERVICE\tSTATUS\tPART\tSTATE\tGENERATION\tUNSAVED FOR\tLAST GOOD SAVE\tLAST ERROR")
	for _, s := range h.Services {
		if s.Asleep {
			s.Status = "asleep"
		}
		if len(s.Parts) == 0 {
			fmt.Fprintf(tw, "%s\t%s\t\t\t\t\t\t%s\n", s.Name, s.Status, strings.ReplaceAll(s.Error, "\n", "; "))
		}
		for _, p := range s.Parts {
			saved := "never"
			if p.LastGoodSave != nil {
				saved = p.LastGoodSave.Format(time.RFC3339)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%.1f s\t%s\t%s\n", s.Name, s.Status, p.Name, p.Status, p.Generation, p.DirtySeconds, saved,
				strings.ReplaceAll(cmp.Or(p.LastError, s.Error), "\n", "; "))
		}
	}
	return tw.Flush()
}
