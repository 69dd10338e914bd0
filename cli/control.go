package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/torpor-run/torpor/server"
)

// serviceCommand is a command that tells the running torpor to do something with one service.
func (p *program) serviceCommand(action, short, long, example string, tell func(io.Writer, []byte) error) *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: action + " SERVICE", Short: short, Long: long, Example: example, Args: args(cobra.ExactArgs(1))}
	flags := cmd.Flags()
	addClientFlags(flags)
	flags.BoolVar(&asJSON, "json", false, "print the answer as it came")
	addTimeout(flags, &timeout)
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		c, _, err := p.controller(flags)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		body, err := c.answer(ctx, serviceRequest(action, words[0]))
		if err != nil {
			return err
		}
		if asJSON {
			_, err := p.Out.Write(body)
			return err
		}
		return tell(p.Out, body)
	}
	return cmd
}

// serviceRequest is a request to do something with a service.
func serviceRequest(action, service string) request {
	return request{what: action + " " + service, method: http.MethodPost, path: "/_torpor/services/" + url.PathEscape(service) + "/" + action}
}

func addTimeout(flags *pflag.FlagSet, timeout *time.Duration) {
	flags.DurationVar(timeout, "timeout", patience, "how long to wait for it")
}

func (p *program) sleep() *cobra.Command {
	return p.serviceCommand("sleep", "Save a service and stop it",
		`Sleep saves a service, whatever its save strategy is, and stops its program, or gives the memory of one
that runs inside torpor back. Its next request, or torpor wake, starts it again with the state it had. It
returns when the service sleeps; one that sleeps already is left alone.`,
		`  torpor sleep orders`, printService)
}

func (p *program) wake() *cobra.Command {
	return p.serviceCommand("wake", "Start a service and give it its state back",
		`Wake returns when the service can serve requests: its program is ready, and its state is loaded as its load
strategy says. One that is awake is left alone.`,
		`  torpor wake orders`, printService)
}

func (p *program) sync() *cobra.Command {
	return p.serviceCommand("sync", "Return when everything acknowledged so far is saved",
		`Sync is a barrier for scripts: it returns once everything that the service has acknowledged before is
committed to disk, and prints the generation of each part that holds it. What has not changed is not saved
again.`,
		`  torpor sync orders
  torpor sync orders --json`, printSynced)
}

func printService(w io.Writer, body []byte) error {
	var s server.ServiceHealth
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("the answer is not as torpor's are: %w", err)
	}
	if s.Asleep {
		_, err := fmt.Fprintf(w, "%s is asleep\n", s.Name)
		return err
	}
	_, err := fmt.Fprintf(w, "%s is %s\n", s.Name, s.Status)
	return err
}

func printSynced(w io.Writer, body []byte) error {
	var s server.Synced
	if err := json.Unmarshal(body, &s); err != nil {
		return fmt.Errorf("the answer is not as torpor's are: %w", err)
	}
	if len(s.Parts) == 0 {
		_, err := fmt.Fprintf(w, "nothing of %s is kept: it has no parts\n", s.Service)
		return err
	}
	for _, part := range s.Parts {
		if _, err := fmt.Fprintf(w, "%s/%s: generation %d\n", s.Service, part.Part, part.Generation); err != nil {
			return err
		}
	}
	return nil
}
