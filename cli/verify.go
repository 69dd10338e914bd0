package cli

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func (p *program) verify() *cobra.Command {
	var asJSON, repair bool
	cmd := &cobra.Command{
		Use:   "verify [DIR|FILE]...",
		Short: "Check state files and data folders, and repair them",
		Long: `Verify reads everything there is in data folders, or in single state files, and checks it: structure,
checksums, every record and their number, that each file is what its name says, and that the serializers
of all states are kept and whole. Without an argument it checks the data folder of --data ($TORPOR_DATA).

A data folder must not be in use: stop its runtime first. Its lock (the file LOCK) is held meanwhile.
What is said of a file:

  ok             sound
  damaged        it is not what was written; what is still good of it is said
  torn           its end is a save that did not come to its end: nothing saved is lost, and the next start
                 cuts it off. A file that is named by itself is damaged then
  no-serializer  sound, but a module that it names, as its writer or as pinned, is not kept
  version        of a format this program does not know
  too-large      beyond a limit of this program
  unreadable     the disk or the permissions fail
  set-aside      damaged, moved aside before: not looked into
  temporary      left by a save that was interrupted: the next start removes it

With --repair, which needs data folders, a damaged file is moved aside, or, where its beginning is good,
what is behind that, so that the next start has the newest sound generation; serializers that this
program has built in are put back. It moves and copies only: no byte is lost by it.

The exit code tells what is wrong, after repairs: 0 nothing, 3 damage, 4 an unknown version, 5 a
serializer or file that is missing, 6 a data folder in use, 7 a limit passed, 1 anything else.`,
		Example: `  torpor verify
  torpor verify --repair /var/lib/torpor
  torpor verify --json backup/store.state | jq '.files[].status'`,
	}
	flags := cmd.Flags()
	addFlagsFor(flags, "data")
	flags.BoolVar(&asJSON, "json", false, "print JSON")
	flags.BoolVar(&repair, "repair", false, "move aside what is damaged")
	cmd.RunE = func(cmd *cobra.Command, names []string) error {
		if len(names) == 0 {
			s, err := readSettings(flags, p.environ, knownServices())
			if err != nil {
				return err
			}
			names = []string{s.Data}
		}
		return p.runVerify(cmd.Context(), names, repair, asJSON)
	}
	return cmd
}

// verifyError sums up what is wrong with the files that were checked.
type verifyError struct {
	bad, files int
	errs       []error
}

func (e *verifyError) Error() string {
	return fmt.Sprintf("%d of %d files are not sound: see above", e.bad, e.files)
}

func (e *verifyError) Unwrap() []error { return e.errs }

func (p *program) runVerify(ctx context.Context, names []string, repair, asJSON bool) error {
	run := verifyRun{bar: p.progress("verify")}
	var failed error // of the search itself
	for _, name := range names {
		if failed = run.verify(ctx, name, repair); failed != nil {
			break
		}
	}
	run.bar.close()
	out := verified{Sound: failed == nil && len(run.errs) == 0, Files: run.files}
	if failed != nil {
		out.Error = failed.Error()
	}
	if asJSON {
		if out.Files == nil {
			out.Files = []verifiedFile{}
		}
		if err := writeJSON(p.Out, out); err != nil {
			return err
		}
	} else if err := out.print(p.Out); err != nil {
		return err
	}
	if failed != nil {
		return failed
	}
	if len(run.errs) > 0 {
		return &verifyError{bad: len(run.errs), files: len(run.files), errs: run.errs}
	}
	return nil
}

// verified is what verify prints as JSON.
type verified struct {
	Sound bool           `json:"sound"`
	Error string         `json:"error,omitempty"` // why not everything was looked at
	Files []verifiedFile `json:"files"`
}

type verifiedFile struct {
	Path       string     `json:"path"`
	Kind       string     `json:"kind"`
	Status     string     `json:"status"`
	Size       int64      `json:"size"`
	Service    string     `json:"service,omitempty"`
	Part       string     `json:"part,omitempty"`
	Generation uint64     `json:"generation,omitempty"`
	Created    *time.Time `json:"created,omitempty"`
	Records    *uint64    `json:"records,omitempty"`
	Deltas     int        `json:"deltas,omitempty"`
	Good       int64      `json:"good_bytes,omitempty"` // of a damaged file
	Error      string     `json:"error,omitempty"`
	Repair     string     `json:"repair,omitempty"`
}

// verifyRun collects what is found.
type verifyRun struct {
	bar   *progress
	files []verifiedFile
	errs  []error // what is wrong and has not been repaired
}

func (r *verifyRun) verify(ctx context.Context, name string, repair bool) error {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("%s: %w", name, abi.ErrNotFound)
	case err != nil:
		return err
	case info.IsDir():
		return r.folder(ctx, name, repair)
	case repair:
		return usageError{fmt.Errorf("%s is a file: --repair needs the data folder it belongs to", name)}
	case !info.Mode().IsRegular():
		return usageError{fmt.Errorf("%s is neither a state file nor a data folder", name)}
	}
	f, err := os.Open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	found := statedir.VerifyFile(ctx, f, info.Size(), name)
	found.Torn = false // alone, it is to be whole
	r.add(found)
	return ctx.Err()
}

func (r *verifyRun) folder(ctx context.Context, name string, repair bool) (err error) {
	// Opening a folder makes it, and a slip of the finger is no data folder.
	if _, err := os.Stat(filepath.Join(name, "state")); err != nil {
		return fmt.Errorf("%s is no data folder, it has no folder state: %w", name, abi.ErrNotFound)
	}
	fsys, err := vfs.OS(name)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, fsys.Close()) }()
	return statedir.Verify(ctx, fsys, statedir.VerifyOptions{Repair: repair, Module: builtIn, Progress: r.bar.set}, r.add)
}

// builtIn finds a module of this program by its digest.
func builtIn(digest [32]byte) (wasm []byte, ok bool) {
	for _, m := range modules.All() {
		if sha256.Sum256(m.Wasm) == digest {
			return m.Wasm, true
		}
	}
	return nil, false
}

func (r *verifyRun) add(found statedir.Finding) {
	f := verifiedFile{Path: found.Path, Kind: string(found.Kind), Status: status(found), Size: found.Size, Repair: found.Repair}
	if found.Err != nil {
		f.Error = found.Err.Error()
		f.Good = found.Good
	}
	if s := found.State; s != nil {
		f.Service, f.Part, f.Generation, f.Deltas = s.Header.Service, s.Header.Part, s.Header.Generation, s.Info.Deltas
		f.Records = &s.Info.Records
		if !s.Header.Created.IsZero() {
			f.Created = &s.Header.Created
		}
	}
	r.files = append(r.files, f)
	if found.Left != nil && !found.Torn {
		r.errs = append(r.errs, found.Left)
	}
}

const statusTorn = "torn"

// status is the word for what is wrong.
func status(found statedir.Finding) string {
	switch {
	case found.Err == nil && (found.Kind == statedir.KindSetAside || found.Kind == statedir.KindTemporary):
		return string(found.Kind)
	case found.Err == nil:
		return "ok"
	case found.Torn:
		return statusTorn
	case found.Missing:
		return "no-serializer"
	case errors.Is(found.Err, abi.ErrCorrupt):
		return "damaged"
	case errors.Is(found.Err, abi.ErrVersion):
		return "version"
	case errors.Is(found.Err, abi.ErrTooLarge):
		return "too-large"
	default:
		return "unreadable"
	}
}

func (v verified) print(out io.Writer) error {
	tw := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	for _, f := range v.Files {
		what := ""
		if f.Generation > 0 {
			what = fmt.Sprintf("%s/%s generation %d, %d records", f.Service, f.Part, f.Generation, *f.Records)
			if f.Deltas > 0 {
				what += fmt.Sprintf(", %d deltas", f.Deltas)
			}
		}
		fmt.Fprintf(tw, "%s\t%s\t%s\n", f.Status, f.Path, what)
	}
	if err := tw.Flush(); err != nil {
		return err
	}
	for _, f := range v.Files {
		if f.Error == "" {
			continue
		}
		if f.Status == statusTorn {
			fmt.Fprintf(out, "\n%s: its last %d bytes are a save that did not come to its end; generation %d before them is whole\n", f.Path, f.Size-f.Good, f.Generation)
			continue
		}
		fmt.Fprintf(out, "\n%s: %s\n", f.Path, f.Error)
		if f.Good > 0 {
			fmt.Fprintf(out, "  its first %d of %d bytes are good: generation %d\n", f.Good, f.Size, f.Generation)
		}
		if f.Repair != "" {
			fmt.Fprintf(out, "  repaired: %s\n", f.Repair)
		}
	}
	if len(v.Files) == 0 && v.Error == "" {
		_, err := fmt.Fprintln(out, "there is no state here")
		return err
	}
	return nil
}
