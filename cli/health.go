package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/server"
)

// maxHealthBytes bounds the answer of whatever listens there.
const maxHealthBytes = 4 << 20

func (p *program) health() *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "health",
		Short: "Ask a running torpor how it is",
		Long: `Health asks the runtime that listens where --listen ($TORPOR_LISTEN) says, and prints what it would
lose if it died now. The exit code is 0 when every service is served, otherwise 1: it is made for a
container's health check.`,
		Example: `  torpor health
  torpor health --listen 127.0.0.1:4566 --json`,
		Args: args(cobra.NoArgs),
	}
	flags := cmd.Flags()
	addFlagsFor(flags, "listen")
	flags.BoolVar(&asJSON, "json", false, "print the answer as it came")
	flags.DurationVar(&timeout, "timeout", 5*time.Second, "how long to wait for the answer")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := readSettings(flags, p.environ, knownServices())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		return p.runHealth(ctx, s.Listen, asJSON)
	}
	return cmd
}

func (p *program) runHealth(ctx context.Context, listen string, asJSON bool) error {
	url := "http://" + reachable(listen) + "/_torpor/health"
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return usageError{fmt.Errorf("listen address %q: %w", listen, err)}
	}
	// Straight to the address: what listens on this machine is not behind a proxy.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return fmt.Errorf("no torpor answers: %w", err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxHealthBytes))
	if err != nil {
		return fmt.Errorf("%s: %w", url, err)
	}
	var h server.Health
	if err := json.Unmarshal(body, &h); err != nil || h.Status == "" {
		return fmt.Errorf("%s answered %s, and not as torpor does", url, resp.Status)
	}
	if asJSON {
		if _, err := p.Out.Write(body); err != nil {
			return err
		}
	} else if err := printHealth(p.Out, h); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("a service is not served: see above, or %s", url)
	}
	return nil
}

// reachable turns an address to listen on into one to call.
func reachable(listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return listen
	}
	if ip := net.ParseIP(host); host == "" || ip != nil && ip.IsUnspecified() {
		host = "127.0.0.1"
	}
	return net.JoinHostPort(host, port)
}

func printHealth(w io.Writer, h server.Health) error {
	fmt.Fprintf(w, "torpor %s: %s, persistence %s\n", h.Version, h.Status, h.Features["persistence"])
	tw := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SERVICE\tSTATUS\tPART\tSTATE\tGENERATION\tUNSAVED FOR\tLAST GOOD SAVE\tLAST ERROR")
	for _, s := range h.Services {
		for _, p := range s.Parts {
			saved := "never"
			if p.LastGoodSave != nil {
				saved = p.LastGoodSave.Format(time.RFC3339)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%d\t%.1f s\t%s\t%s\n", s.Name, s.Status, p.Name, p.Status, p.Generation, p.DirtySeconds, saved, strings.ReplaceAll(p.LastError, "\n", "; "))
		}
	}
	return tw.Flush()
}
