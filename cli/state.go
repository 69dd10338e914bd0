package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/server"
)

// stateAction is what a command does to the state of services.
type stateAction struct {
	name, short, long, example string
	confirm                    string                 // "": nobody is asked
	done                       func(stateDone) string // what a service that fared well is told to have done
}

// stateDone is what the running torpor answers.
type stateDone struct {
	server.ServiceHealth
	Found *bool `json:"found"` // of load
}

// stateResult is what such a command prints of a service as JSON.
type stateResult struct {
	Service string     `json:"service"`
	Status  string     `json:"status"` // ok or error
	Error   string     `json:"error,omitempty"`
	Found   *bool      `json:"found,omitempty"` // of load: false, nothing is saved
	Parts   []partLine `json:"parts,omitempty"`
}

type partLine struct {
	Part       string `json:"part"`
	Generation uint64 `json:"generation"`
	Records    uint64 `json:"records"`
	Bytes      uint64 `json:"bytes"`
}

func (p *program) save() *cobra.Command {
	return p.stateCommand(stateAction{
		name: "save", short: "Save services now",
		long: `Save saves the services named, or all, whatever their save strategy is, and returns when that is committed to
disk. What has not changed since its last save is not saved again. All services are tried; one that could not
be saved is told of and makes the command fail.`,
		example: `  torpor save
  torpor save orders s3
  torpor save --json | jq '.services[] | select(.status == "error")'`,
		done: func(d stateDone) string { return "saved" + parts(d.Parts) },
	})
}

func (p *program) load() *cobra.Command {
	return p.stateCommand(stateAction{
		name: "load", short: "Give services the state that is saved",
		long: `Load gives the services named, or all, the newest state that is saved, in place of what they have: changes
since then are lost. A service of which nothing is saved stays as it is. To load a named snapshot or an
exported file, see torpor snapshot load.`,
		example: `  torpor load
  torpor load orders`,
		done: func(d stateDone) string {
			if d.Found != nil && !*d.Found {
				return "nothing is saved; the live state stays as it is"
			}
			return "loaded" + parts(d.Parts)
		},
	})
}

func (p *program) reset() *cobra.Command {
	return p.stateCommand(stateAction{
		name: "reset", short: "Empty services",
		long: `Reset empties the services named, or all: they are as if they had never had any state. What is saved of them
stays until the next save, which with most save strategies comes by itself: save a snapshot before, if you may
want it back.

On a terminal it asks first; elsewhere it needs --yes.`,
		example: `  torpor snapshot save before-reset && torpor reset --yes
  torpor reset orders`,
		confirm: "Empty %s? All that it has is lost.",
		done:    func(stateDone) string { return "is empty" },
	})
}

// parts tells of the saved parts of a service.
func parts(all []server.PartHealth) string {
	var words []string
	for _, p := range all {
		if p.Generation > 0 {
			words = append(words, fmt.Sprintf("%s generation %d, %d records", p.Name, p.Generation, p.Records))
		}
	}
	if len(words) == 0 {
		return ""
	}
	return ": " + strings.Join(words, "; ")
}

func (p *program) stateCommand(a stateAction) *cobra.Command {
	var asJSON, yes bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: a.name + " [SERVICE]...", Short: a.short, Long: a.long, Example: a.example}
	flags := cmd.Flags()
	addClientFlags(flags)
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	addTimeout(flags, &timeout)
	if a.confirm != "" {
		flags.BoolVarP(&yes, "yes", "y", false, "do not ask")
	}
	cmd.RunE = func(cmd *cobra.Command, services []string) error {
		c, _, err := p.controller(flags)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		what := strings.Join(services, ", ")
		if len(services) == 0 {
			h, _, _, err := c.health(ctx)
			if err != nil {
				return err
			}
			for _, s := range h.Services {
				services = append(services, s.Name)
			}
			what = "all services, which are " + strings.Join(services, ", ")
		}
		if a.confirm != "" && !yes {
			if err := p.confirm(fmt.Sprintf(a.confirm, what)); err != nil {
				return err
			}
		}
		return p.runState(ctx, c, a, services, asJSON)
	}
	return cmd
}

func (p *program) runState(ctx context.Context, c *client, a stateAction, services []string, asJSON bool) error {
	results := []stateResult{}
	var errs []error
	for _, name := range services {
		var done stateDone
		err := c.ask(ctx, serviceRequest(a.name, name), &done)
		result := stateResult{Service: name, Status: "ok", Found: done.Found}
		for _, part := range done.Parts {
			result.Parts = append(result.Parts, partLine{part.Name, part.Generation, part.Records, part.Bytes})
		}
		if err != nil {
			result.Status, result.Error = "error", err.Error()
			errs = append(errs, err)
		} else if !asJSON {
			fmt.Fprintf(p.Out, "%s: %s\n", name, a.done(done))
		}
		results = append(results, result)
		if ctx.Err() != nil {
			break
		}
	}
	if asJSON {
		if err := writeJSON(p.Out, map[string]any{"services": results}); err != nil {
			return err
		}
	}
	return errors.Join(errs...)
}

// confirm asks the person at the terminal; where there is none it is an error.
func (p *program) confirm(question string) error {
	if !isTerminal(p.In) {
		return usageError{errors.New("that is only done with --yes where there is no terminal to ask at")}
	}
	fmt.Fprintf(p.Err, "%s [y/N] ", question)
	answer, err := bufio.NewReader(p.In).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	switch strings.ToLower(strings.TrimSpace(answer)) {
	case "y", "yes":
		return nil
	}
	return errors.New("nothing was done")
}
