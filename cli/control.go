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

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/server"
)

// maxAnswerBytes bounds the answer of whatever listens there.
const maxAnswerBytes = 4 << 20

// ask sends a request to the runtime that listens there, and gives its answer.
func ask(ctx context.Context, method, listen, path string) (body []byte, status int, err error) {
	u := "http://" + reachable(listen) + path
	req, err := http.NewRequestWithContext(ctx, method, u, nil)
	if err != nil {
		return nil, 0, usageError{fmt.Errorf("listen address %q: %w", listen, err)}
	}
	// Straight to the address: what listens on this machine is not behind a proxy.
	transport := &http.Transport{DisableKeepAlives: true}
	resp, err := (&http.Client{Transport: transport}).Do(req)
	if err != nil {
		return nil, 0, fmt.Errorf("no torpor answers: %w", err)
	}
	defer resp.Body.Close()
	if body, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes)); err != nil {
		return nil, 0, fmt.Errorf("%s: %w", u, err)
	}
	return body, resp.StatusCode, nil
}

// serviceCommand is a command that tells the running torpor to do something with one service.
func (p *program) serviceCommand(action, short, long, example string, tell func(io.Writer, []byte) error) *cobra.Command {
	var asJSON bool
	var timeout time.Duration
	cmd := &cobra.Command{Use: action + " SERVICE", Short: short, Long: long, Example: example, Args: args(cobra.ExactArgs(1))}
	flags := cmd.Flags()
	addFlagsFor(flags, "listen")
	flags.BoolVar(&asJSON, "json", false, "print the answer as it came")
	flags.DurationVar(&timeout, "timeout", 10*time.Minute, "how long to wait for it")
	cmd.RunE = func(cmd *cobra.Command, words []string) error {
		s, err := readSettings(flags, p.environ, knownServices())
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		body, status, err := ask(ctx, http.MethodPost, s.Listen, "/_torpor/services/"+url.PathEscape(words[0])+"/"+action)
		if err != nil {
			return err
		}
		if status != http.StatusOK {
			return refusal(action+" "+words[0], body, status)
		}
		if asJSON {
			_, err := p.Out.Write(body)
			return err
		}
		return tell(p.Out, body)
	}
	return cmd
}

// refusal is the error that an answer means.
func refusal(what string, body []byte, status int) error {
	var said struct {
		Error struct{ Message, Hint string }
	}
	if json.Unmarshal(body, &said) != nil || said.Error.Message == "" {
		return fmt.Errorf("%s: the answer is %d %s, and not as torpor's are", what, status, http.StatusText(status))
	}
	err := fmt.Errorf("%s: %s", what, said.Error.Message)
	if said.Error.Hint != "" {
		err = fmt.Errorf("%w; %s", err, said.Error.Hint)
	}
	if status == http.StatusNotFound {
		err = notFound{err}
	}
	return err
}

// notFound marks an error that another process found to be abi.ErrNotFound.
type notFound struct{ error }

func (notFound) Is(target error) bool { return target == abi.ErrNotFound }

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
