package cli

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/server"
)

const (
	minInterval     = 100 * time.Millisecond
	defaultInterval = 2 * time.Second
)

// statusOffline is the status of a service whose state lies in a data folder that no runtime is known to have.
const statusOffline = "offline"

// statusReport is what status prints as JSON.
type statusReport struct {
	Running     bool                   `json:"running"`
	URL         string                 `json:"url,omitempty"`  // of the running torpor
	Data        string                 `json:"data,omitempty"` // where none runs: the data folder
	Why         string                 `json:"why,omitempty"`  // none runs
	Version     string                 `json:"version,omitempty"`
	Status      string                 `json:"status,omitempty"` // as in health: ok, degraded, error
	Persistence string                 `json:"persistence,omitempty"`
	Services    []server.ServiceHealth `json:"services"`
}

type statusOptions struct {
	json, watch bool
	interval    time.Duration
}

func (p *program) status() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status [SERVICE]...",
		Short: "Show services and their state: live, saved, unsaved",
		Long: `Status prints a table of the services named, or of all: their status and parts, the newest generation of
each part, when it was saved, for how long changes have not been saved, and what it takes. With --watch
it does so again and again, on a terminal in place, until it is interrupted.

Where no torpor answers, it shows what the data folder holds, and says so. Nothing is changed, and the
data folder may be in use. With --json it prints one object; with --watch one a line.

The exit code is 0 whatever the services' status is: torpor health is made for health checks.`,
		Example: `  torpor status
  torpor status --watch
  torpor status --offline --data /var/lib/torpor
  torpor status --json | jq -r '.services[] | select(.parts[].status == "dirty").name'`,
	}
	flags := cmd.Flags()
	addPlaceFlags(flags)
	flags.BoolVar(&o.json, "json", false, "print JSON")
	flags.BoolVarP(&o.watch, "watch", "w", false, "print it again and again, until interrupted")
	flags.DurationVar(&o.interval, "interval", defaultInterval, "with --watch: how often")
	cmd.RunE = func(cmd *cobra.Command, services []string) error {
		if o.interval < minInterval {
			return usageError{fmt.Errorf("--interval is %v; it must be at least %v", o.interval, minInterval)}
		}
		at, err := p.place(cmd)
		if err != nil {
			return err
		}
		if o.watch {
			return p.watchStatus(cmd.Context(), at, o, services)
		}
		report, err := at.report(cmd.Context(), services)
		if err != nil {
			return err
		}
		if o.json {
			return writeJSON(p.Out, report)
		}
		return p.printStatus(p.Out, report)
	}
	return cmd
}

// report tells of the services named, or of all.
func (at *place) report(ctx context.Context, services []string) (statusReport, error) {
	if !at.running {
		return at.offlineReport(ctx, services)
	}
	r := statusReport{Running: true, URL: at.base, Version: at.how.Version, Status: at.how.Status,
		Persistence: at.how.Features["persistence"], Services: []server.ServiceHealth{}}
	if len(services) == 0 {
		r.Services = append(r.Services, at.how.Services...)
	}
	for _, name := range services {
		s, err := serviceIn(at.how, name)
		if err != nil {
			return r, err
		}
		r.Services = append(r.Services, s)
	}
	return r, nil
}

func (at *place) offlineReport(ctx context.Context, services []string) (statusReport, error) {
	r := statusReport{Data: at.settings.Data, Why: at.why, Services: []server.ServiceHealth{}}
	found, err := savedParts(at.settings.Data, services...)
	if err != nil {
		return r, fmt.Errorf("%s; %w", at.why, err)
	}
	for _, p := range found {
		if n := len(r.Services); n == 0 || r.Services[n-1].Name != p.Service {
			r.Services = append(r.Services, server.ServiceHealth{Name: p.Service, Status: statusOffline, Parts: []server.PartHealth{}})
		}
		last := &r.Services[len(r.Services)-1]
		last.Parts = append(last.Parts, p.health(ctx))
	}
	return r, nil
}

// health tells of a saved part what a runtime would.
func (p savedPart) health(ctx context.Context) server.PartHealth {
	h := server.PartHealth{Name: p.Part, Status: "saved"}
	o, err := p.open(ctx, 0)
	if err != nil {
		h.Status, h.LastError = "error", err.Error()
		return h
	}
	header, info := o.Header(), o.Info()
	h.Serializer, h.Generation, h.LastGoodSave = header.Serializer.Name, header.Generation, &header.Created
	h.Records, h.Bytes, h.FileBytes, h.Deltas = info.Records, info.Raw, info.Size, info.Deltas
	if err := o.Close(); err != nil {
		h.LastError = err.Error()
	}
	return h
}

// watchStatus prints the status until it is interrupted.
func (p *program) watchStatus(ctx context.Context, at *place, o statusOptions, services []string) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ticks := time.NewTicker(o.interval)
	defer ticks.Stop()
	inPlace := !o.json && isTerminal(p.Out) && p.env("TERM") != "dumb"
	for {
		var b bytes.Buffer
		report, err := at.report(ctx, services)
		switch {
		case err != nil && !inPlace:
			return err
		case err != nil:
			fmt.Fprintln(&b, err)
		case o.json:
			err = json.NewEncoder(&b).Encode(report)
		default:
			err = p.printStatus(&b, report)
		}
		if err == nil || inPlace {
			_, err = p.Out.Write(redrawn(b.Bytes(), inPlace))
		}
		if err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		if at.alone {
			continue
		}
		// One that is restarted meanwhile is waited for, also where it was named.
		if err := at.look(ctx); err != nil {
			at.running, at.why = false, err.Error()
		}
	}
}

// redrawn is text that takes the place of what was printed before, on a terminal.
func redrawn(text []byte, inPlace bool) []byte {
	if !inPlace {
		return text
	}
	const home, endLine, below = "\x1b[H", "\x1b[K\n", "\x1b[J"
	return []byte(home + strings.ReplaceAll(string(text), "\n", endLine) + below)
}

func (p *program) printStatus(w io.Writer, r statusReport) error {
	if r.Running {
		fmt.Fprintf(w, "torpor %s at %s: %s, persistence %s\n", r.Version, r.URL, r.Status, r.Persistence)
	} else {
		fmt.Fprintf(w, "%s: this is of the data folder %s\n", r.Why, r.Data)
	}
	if len(r.Services) == 0 {
		_, err := fmt.Fprintln(w, "there are no services")
		return err
	}
	var table bytes.Buffer
	tw := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(tw, "SERVICE\tSTATUS\tPART\tSTATE\tGENERATION\tSAVED\tUNSAVED FOR\tRECORDS\tSIZE")
	colours := []colour{bold}
	var wrong []string
	for _, s := range r.Services {
		if s.Asleep {
			s.Status = "asleep"
		}
		if s.Error != "" {
			wrong = append(wrong, s.Name+": "+s.Error)
		}
		if len(s.Parts) == 0 {
			fmt.Fprintf(tw, "%s\t%s\t-\t-\t-\t-\t-\t-\t-\n", s.Name, s.Status)
			colours = append(colours, statusColour(s, ""))
		}
		for _, part := range s.Parts {
			if part.LastError != "" {
				wrong = append(wrong, s.Name+"/"+part.Name+": "+part.LastError)
			}
			generation, records, bytes := "-", "-", "-"
			if part.Generation > 0 {
				generation, records, bytes = fmt.Sprint(part.Generation), fmt.Sprint(part.Records), bytesText(part.FileBytes)
			}
			fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\t%s\n", s.Name, s.Status, part.Name, part.Status, generation,
				savedAgo(part), unsaved(part), records, bytes)
			colours = append(colours, statusColour(s, part.Status))
		}
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	paint := p.paint()
	for i, line := range strings.Split(strings.TrimSuffix(table.String(), "\n"), "\n") {
		if line = strings.TrimRight(line, " "); colours[i] != "" {
			line = paint(colours[i], line)
		}
		fmt.Fprintln(w, line)
	}
	for _, message := range wrong {
		fmt.Fprintln(w, strings.ReplaceAll(message, "\n", "; "))
	}
	return nil
}

// statusColour is that of a row.
func statusColour(s server.ServiceHealth, part string) colour {
	switch {
	case s.Status == "error" || part == "error":
		return red
	case part == "dirty" || s.Error != "":
		return yellow
	}
	return ""
}

func savedAgo(part server.PartHealth) string {
	switch {
	case part.LastGoodSave == nil && part.Generation == 0:
		return "never"
	case part.LastGoodSave == nil:
		return "-"
	}
	return span(time.Since(*part.LastGoodSave)) + " ago"
}

func unsaved(part server.PartHealth) string {
	if part.DirtySeconds <= 0 {
		return "-"
	}
	return span(time.Duration(part.DirtySeconds * float64(time.Second)))
}

// span is a duration for people, in one unit.
func span(d time.Duration) string {
	d = max(d, 0)
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%d s", d/time.Second)
	case d < time.Hour:
		return fmt.Sprintf("%d min", d/time.Minute)
	case d < 48*time.Hour:
		return fmt.Sprintf("%d h", d/time.Hour)
	}
	return fmt.Sprintf("%d days", d/(24*time.Hour))
}

// bytesText is bytes for people, with three digits or so.
func bytesText(n int64) string {
	const units = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	v, unit := float64(n)/(1<<10), 0
	for v >= 1023.5 && unit < len(units)-1 {
		v /= 1 << 10
		unit++
	}
	if v < 9.95 {
		return fmt.Sprintf("%.1f %ciB", v, units[unit])
	}
	return fmt.Sprintf("%.0f %ciB", v, units[unit])
}

// serviceIn finds a service in what health says.
func serviceIn(h server.Health, name string) (server.ServiceHealth, error) {
	var names []string
	for _, s := range h.Services {
		if s.Name == name {
			return s, nil
		}
		names = append(names, s.Name)
	}
	return server.ServiceHealth{}, fmt.Errorf("service %q: %w; there are %s", name, abi.ErrNotFound, cmp.Or(strings.Join(names, ", "), "none"))
}
