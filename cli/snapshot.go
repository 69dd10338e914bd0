package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/server"
)

func (p *program) snapshot() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "snapshot",
		Aliases: []string{"snapshots"},
		Short:   "Keep the state of services under a name, load it again, hand it to others",
		Long: `A snapshot is the state of some or all services at one time, kept under a name in the data folder
(snapshots/). Each save under the same name is its next version, numbered from 1; versions are never
changed. What versions have in common is kept once. An exported snapshot is one file, with all that is
needed to load it elsewhere.

These commands ask the running torpor. Where none answers, all but load work on the data folder, and say
so; save then takes what is saved.

A snapshot can be encrypted, by a passphrase or to public keys (age, SSH): --encrypt and --recipient. A
passphrase is taken from the file of --passphrase-file, from $` + passphraseVariable + `, or asked for on a
terminal.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return usageError{fmt.Errorf("unknown command %q; %s has %s", args[0], cmd.CommandPath(), strings.Join(commandNames(cmd), ", "))}
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.snapshotSave(), p.snapshotLoad(), p.snapshotList(), p.snapshotShow(), p.snapshotVersions(), p.snapshotRemove(),
		p.snapshotExport(), p.snapshotImport(), p.snapshotCollect(), p.snapshotVerify())
	return cmd
}

// either does something by asking the running torpor or, where none runs, with the snapshots in the data folder.
func either[T any](p *program, cmd *cobra.Command, online func(*place) (T, error), offline func(*place, *openedShelf) (T, error)) (out T, err error) {
	at, err := p.place(cmd)
	if err != nil {
		return out, err
	}
	if at.running {
		return online(at)
	}
	p.offline(at)
	shelf, err := openShelf(cmd.Context(), at.settings)
	if err != nil {
		return out, err
	}
	defer func() { err = errors.Join(err, shelf.Close()) }()
	return offline(at, shelf)
}

// named reads NAME or, with versions, NAME@VERSION.
func named(text string, versions bool) (snapshot.Reference, error) {
	ref, err := snapshot.ParseReference("snapshot:" + strings.TrimPrefix(text, "snapshot:"))
	if err == nil {
		err = repository.CheckName(ref.Name)
	}
	if err == nil && ref.Version > 0 && !versions {
		err = fmt.Errorf("%q names a version, and what is meant here is a snapshot with all of them: %s", text, ref.Name)
	}
	if err != nil {
		return ref, usageError{err}
	}
	return ref, nil
}

func (p *program) snapshotList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the snapshots there are",
		Long:  `List shows the name of each snapshot, its newest version and what that takes.`,
		Example: `  torpor snapshot list
  torpor snapshot list --json | jq -r '.snapshots[].name'`,
		Args: args(cobra.NoArgs),
	}
	addPlaceFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		all, err := either(p, cmd, func(at *place) (all server.Snapshots, err error) {
			err = at.ask(ctx, request{what: "list of snapshots", method: http.MethodGet, path: "/_torpor/snapshots"}, &all)
			return all, err
		}, func(_ *place, shelf *openedShelf) (server.Snapshots, error) {
			all, err := shelf.List(ctx)
			return server.Snapshots{Snapshots: append([]repository.Summary{}, all...)}, err
		})
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(p.Out, all)
		}
		if len(all.Snapshots) == 0 {
			_, err := fmt.Fprintln(p.Out, "there are no snapshots")
			return err
		}
		tw := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "NAME\tNEWEST\tVERSIONS\tSAVED\tSIZE\tSERVICES")
		for _, s := range all.Snapshots {
			fmt.Fprintf(tw, "%s\t%d\t%d\t%s\t%s\t%s\n", s.Name, s.Newest, s.Versions, day(s.Changed), bytesText(s.Size), services(s.Services, s.Encrypted))
		}
		return tw.Flush()
	}
	return cmd
}

// day is a time for people.
func day(at time.Time) string { return at.UTC().Format("2006-01-02 15:04:05Z") }

// services names those of a snapshot.
func services(all []string, encrypted bool) string {
	if encrypted {
		return "encrypted"
	}
	return strings.Join(all, ", ")
}

// versions gives the versions of a snapshot.
func (p *program) versions(cmd *cobra.Command, name string) (server.SnapshotVersions, error) {
	ctx := cmd.Context()
	return either(p, cmd, func(at *place) (all server.SnapshotVersions, err error) {
		err = at.ask(ctx, request{what: "versions of " + name, method: http.MethodGet, path: snapshotPath(name, "")}, &all)
		return all, err
	}, func(_ *place, shelf *openedShelf) (server.SnapshotVersions, error) {
		all, err := shelf.Versions(ctx, name)
		return server.SnapshotVersions{Name: name, Versions: append([]repository.Version{}, all...)}, err
	})
}

func (p *program) snapshotVersions() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "versions NAME",
		Short: "List the versions of a snapshot",
		Long: `Versions shows each version of a snapshot: when it was saved, what its states take (SIZE) and how much it
has added to what is kept (STORED), which is little where it has much in common with another one.`,
		Example: `  torpor snapshot versions before-upgrade
  torpor snapshot versions before-upgrade --json | jq '.versions[-1]'`,
		Args: args(cobra.ExactArgs(1)),
	}
	addPlaceFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ref, err := named(a[0], false)
		if err != nil {
			return err
		}
		all, err := p.versions(cmd, ref.Name)
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(p.Out, all)
		}
		tw := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
		fmt.Fprintln(tw, "VERSION\tSAVED\tSIZE\tSTORED\tSERVICES\tDESCRIPTION")
		for _, v := range all.Versions {
			fmt.Fprintf(tw, "%d\t%s\t%s\t%s\t%s\t%s\n", v.Number, day(v.Created), bytesText(v.Size), bytesText(v.Stored), services(v.Services, v.Encrypted), v.Description)
		}
		return tw.Flush()
	}
	return cmd
}

func (p *program) snapshotShow() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show NAME[@VERSION]",
		Short: "Show what a version of a snapshot holds",
		Long: `Show tells of a version of a snapshot, the newest unless one is named: when it was saved, by which
torpor, and of each part the generation, records and size. Of one that is encrypted only its number, time
and sizes are known.`,
		Example: `  torpor snapshot show before-upgrade
  torpor snapshot show before-upgrade@2 --json`,
		Args: args(cobra.ExactArgs(1)),
	}
	addPlaceFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ref, err := named(a[0], true)
		if err != nil {
			return err
		}
		all, err := p.versions(cmd, ref.Name)
		if err != nil {
			return err
		}
		if len(all.Versions) == 0 {
			return &repository.VersionError{Name: ref.Name}
		}
		at := len(all.Versions) - 1
		newest := all.Versions[at].Number
		if ref.Version > 0 {
			at = slices.IndexFunc(all.Versions, func(v repository.Version) bool { return v.Number == ref.Version })
		}
		if at < 0 {
			return &repository.VersionError{Name: ref.Name, Version: ref.Version, Newest: newest}
		}
		shown := server.SavedSnapshot{Name: ref.Name, Version: all.Versions[at]}
		if asJSON {
			return writeJSON(p.Out, shown)
		}
		return printVersion(p.Out, shown)
	}
	return cmd
}

func printVersion(out io.Writer, v server.SavedSnapshot) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	row := func(name, value string) {
		if value != "" {
			fmt.Fprintf(tw, "%s\t%s\n", name, value)
		}
	}
	row("snapshot", v.Name)
	row("version", fmt.Sprint(v.Number))
	row("saved", day(v.Created))
	row("by", v.Torpor)
	row("description", v.Description)
	row("size", fmt.Sprintf("%d bytes", v.Size))
	row("stored", fmt.Sprintf("%d bytes more than before", v.Stored))
	if v.Encrypted {
		row("encrypted", "yes")
	}
	if len(v.Parts) > 0 {
		fmt.Fprintf(tw, "\nSERVICE\tPART\tGENERATION\tRECORDS\tSIZE\tSERIALIZER\n")
	}
	for _, part := range v.Parts {
		fmt.Fprintf(tw, "%s\t%s\t%d\t%d\t%s\t%s\n", part.Service, part.Name, part.Generation, part.Records, bytesText(part.Size), part.Serializer)
	}
	return tw.Flush()
}

func (p *program) snapshotRemove() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "remove NAME[@VERSION]",
		Aliases: []string{"delete", "rm"},
		Short:   "Remove a version of a snapshot, or all of them",
		Long: `Remove takes a version of a snapshot away or, where none is named, all of them. Their numbers are not
given again. What only they needed stays on disk until torpor snapshot gc.

On a terminal it asks first; elsewhere it needs --yes.`,
		Example: `  torpor snapshot remove before-upgrade@1
  torpor snapshot remove before-upgrade --yes && torpor snapshot gc`,
		Args: args(cobra.ExactArgs(1)),
	}
	addPlaceFlags(cmd.Flags())
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ref, err := named(a[0], true)
		if err != nil {
			return err
		}
		what, versions := "snapshot "+ref.Name+" with all its versions", []uint64{}
		query := url.Values{}
		if ref.Version > 0 {
			what, versions = fmt.Sprintf("version %d of snapshot %s", ref.Version, ref.Name), []uint64{ref.Version}
			query.Set("version", strconv.FormatUint(ref.Version, 10))
		}
		if !yes {
			if err := p.confirm("Remove " + what + "?"); err != nil {
				return err
			}
		}
		ctx := cmd.Context()
		_, err = either(p, cmd, func(at *place) (struct{}, error) {
			_, err := at.answer(ctx, request{what: "remove " + what, method: http.MethodDelete, path: snapshotPath(ref.Name, ""), query: query})
			return struct{}{}, err
		}, func(_ *place, shelf *openedShelf) (struct{}, error) {
			return struct{}{}, shelf.Remove(ctx, ref.Name, versions...)
		})
		if err == nil {
			_, err = fmt.Fprintf(p.Out, "%s: removed\n", what)
		}
		return err
	}
	return cmd
}

func (p *program) snapshotCollect() *cobra.Command {
	var asJSON, dry bool
	var grace time.Duration
	cmd := &cobra.Command{
		Use:   "gc",
		Short: "Give back the space of what no version needs any more",
		Long: `Gc deletes what no version of any snapshot needs. What is younger than --grace stays: it may be of a
version that somebody is saving right now; --grace 0s is for where nobody is.`,
		Example: `  torpor snapshot gc --dry-run
  torpor snapshot gc --grace 0s`,
		Args: args(cobra.NoArgs),
	}
	addPlaceFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.Flags().BoolVar(&dry, "dry-run", false, "only say what would be done")
	cmd.Flags().DurationVar(&grace, "grace", repository.DefaultGrace, "how old what is deleted has to be")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		if grace < 0 {
			return usageError{fmt.Errorf("--grace is %v; it must not be below zero", grace)}
		}
		ctx := cmd.Context()
		bar := p.progress("gc")
		done, err := either(p, cmd, func(at *place) (done repository.Collected, err error) {
			r := request{what: "gc", method: http.MethodPost, path: "/_torpor/snapshots/gc", json: map[string]any{"dry_run": dry, "grace": grace.String()}}
			body, err := at.long(ctx, r, bar)
			if err == nil {
				err = understand(r.what, body, &done)
			}
			return done, err
		}, func(_ *place, shelf *openedShelf) (repository.Collected, error) {
			o := repository.CollectOptions{DryRun: dry, Grace: grace, Progress: bar.set}
			if grace == 0 {
				o.Grace = -1
			}
			return shelf.Collect(ctx, o)
		})
		bar.close()
		if err != nil {
			return err
		}
		if asJSON {
			return writeJSON(p.Out, done)
		}
		fmt.Fprintf(p.Out, "%s: %s (%d written anew), %d bytes\n", word(dry, "would be deleted", "deleted"), plural(done.Packs, "pack"), done.Rewrote, done.Freed)
		if done.Waiting > 0 {
			fmt.Fprintf(p.Out, "not needed, but younger than %v: %d bytes\n", grace, done.Waiting)
		}
		_, err = fmt.Fprintf(p.Out, "kept: %d bytes\n", done.Kept)
		return err
	}
	return cmd
}

func (p *program) snapshotVerify() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "verify",
		Short: "Check all that is kept of snapshots",
		Long: `Verify reads all that is kept of snapshots and checks that it is what was written. It tells what is
damaged or missing, and which versions cannot be read because of it. What is encrypted is checked as far
as that can be done without its key.

The exit code is 0 if nothing is wrong, 3 if something is damaged, 4 if something is of a later torpor, 5
if something is missing. For the states of services see torpor verify.`,
		Example: `  torpor snapshot verify
  torpor snapshot verify --json | jq '.findings[].affected'`,
		Args: args(cobra.NoArgs),
	}
	addPlaceFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		ctx := cmd.Context()
		bar := p.progress("verify")
		found, err := either(p, cmd, func(at *place) (found server.VerifiedSnapshots, err error) {
			r := request{what: "verify", method: http.MethodPost, path: "/_torpor/snapshots/verify"}
			body, err := at.long(ctx, r, bar)
			if err == nil {
				err = understand(r.what, body, &found)
			}
			return found, err
		}, func(_ *place, shelf *openedShelf) (server.VerifiedSnapshots, error) {
			return verifyShelf(ctx, shelf, bar)
		})
		bar.close()
		if err != nil {
			return err
		}
		if asJSON {
			err = writeJSON(p.Out, found)
		} else {
			err = printFindings(p.Out, found)
		}
		return errors.Join(err, wrongWith(found))
	}
	return cmd
}

func verifyShelf(ctx context.Context, shelf *openedShelf, bar *progress) (server.VerifiedSnapshots, error) {
	found := server.VerifiedSnapshots{Findings: []repository.Finding{}}
	err := shelf.Verify(ctx, func(f repository.Finding) error {
		f.Affected = append([]repository.Ref{}, f.Affected...)
		found.Findings = append(found.Findings, f)
		return nil
	}, bar.set)
	found.OK = len(found.Findings) == 0
	return found, err
}

func printFindings(out io.Writer, found server.VerifiedSnapshots) error {
	for _, f := range found.Findings {
		fmt.Fprintf(out, "%s: %s: %s\n", f.Problem, f.Blob, f.Message)
		for _, ref := range f.Affected {
			fmt.Fprintf(out, "  cannot be read, or not wholly: %s@%d\n", ref.Name, ref.Version)
		}
	}
	if found.LeftOut > 0 {
		fmt.Fprintf(out, "and %d more\n", found.LeftOut)
	}
	var err error
	if found.OK {
		_, err = fmt.Fprintln(out, "all sound")
	}
	return err
}

// wrongWith is the error that findings are.
func wrongWith(found server.VerifiedSnapshots) error {
	if found.OK {
		return nil
	}
	var errs []error
	for _, f := range found.Findings {
		switch f.Problem {
		case repository.ProblemMissing:
			errs = append(errs, abi.ErrNotFound)
		case repository.ProblemUnknown:
			errs = append(errs, abi.ErrVersion)
		default:
			errs = append(errs, abi.ErrCorrupt)
		}
	}
	return &findingsError{fmt.Sprintf("%s: see above", plural(len(found.Findings)+found.LeftOut, "problem")), errs}
}

// findingsError sums up what is wrong.
type findingsError struct {
	message string
	errs    []error
}

func (e *findingsError) Error() string   { return e.message }
func (e *findingsError) Unwrap() []error { return e.errs }
