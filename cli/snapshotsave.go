package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

func (p *program) snapshotSave() *cobra.Command {
	var asJSON bool
	var description, from string
	var secrets secrets
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "save NAME [SERVICE]...",
		Short: "Save the state of services as the next version of a snapshot",
		Long: `Save keeps the state of the services named, or of all, as the next version of the snapshot NAME: as it is
now, each service's at one moment, whether it is saved or not. Where no torpor runs, it keeps the newest
generations that are saved. A version is there wholly, or not at all. --from takes another state: what is saved
(saved), what was saved before it (saved~1, saved~2 …), or a version of a snapshot (snapshot:NAME@VERSION).

A name has letters, digits, '.', '_' and '-'; upper and lower case are told apart. With a passphrase
(--passphrase-file, $` + passphraseVariable + `, or --encrypt to be asked for one) or --recipient the version is
encrypted.`,
		Example: `  torpor snapshot save before-upgrade
  torpor snapshot save before-the-mistake --from saved~1
  torpor snapshot save orders-demo orders s3 --description "three customers"
  torpor snapshot save shared --recipient age1ql3z7hjy54pw3hyww5ayyfg7zqgvc7w3j2elw8zmrj2kg5sfn9aqmcac8p`,
		Args: args(cobra.MinimumNArgs(1)),
	}
	f := cmd.Flags()
	addPlaceFlags(f)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.StringVar(&description, "description", "", "what is to be said of it")
	f.StringVar(&from, "from", "", "the state to keep: live, saved, saved~N or snapshot:NAME@VERSION (default: live, or saved where no torpor runs)")
	f.StringVar(&secrets.passphraseFile, "passphrase-file", "", "file with the passphrase to encrypt by (default: $"+passphraseVariable+")")
	secrets.addLock(f)
	addTimeout(f, &timeout)
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		ref, err := named(a[0], false)
		if err != nil {
			return err
		}
		source := snapshot.Reference{Kind: snapshot.ReferenceSaved} // where no torpor runs
		if from != "" {
			if source, err = snapshot.ParseReference(from); err != nil {
				return usageError{err}
			}
			if source.Kind == snapshot.ReferenceArchive || source.Kind == snapshot.ReferenceState {
				return usageError{fmt.Errorf("--from %s is a file: make it a snapshot with torpor snapshot import", from)}
			}
		}
		lock, err := p.lock(&secrets, true)
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		bar := p.progress("save")
		saved, err := either(p, cmd, func(at *place) (saved server.SavedSnapshot, err error) {
			r := request{what: "save snapshot " + ref.Name, method: http.MethodPost, path: snapshotPath(ref.Name, ""), json: map[string]any{
				"services": append([]string{}, a[1:]...), "from": from, "description": description, "passphrase": lock.Passphrase, "recipients": append([]string{}, lock.Recipients...)}}
			body, err := at.long(ctx, r, bar)
			if err == nil {
				err = understand(r.what, body, &saved)
			}
			return saved, err
		}, func(at *place, shelf *openedShelf) (server.SavedSnapshot, error) {
			in, err := shelf.source(ctx, at.settings.Data, source, seal.Key{Passphrase: lock.Passphrase}, a[1:]...)
			if err != nil {
				return server.SavedSnapshot{}, err
			}
			return shelf.keep(ctx, ref.Name, in, repository.SaveOptions{Description: description, Lock: lock, Progress: bar.set})
		})
		bar.close()
		if err != nil {
			return err
		}
		return p.printSaved(saved, asJSON)
	}
	return cmd
}

// source opens a state that is to be kept, where no torpor runs.
func (s *openedShelf) source(ctx context.Context, data string, ref snapshot.Reference, key seal.Key, services ...string) (*snapshot.Snapshot, error) {
	switch ref.Kind {
	case snapshot.ReferenceLive:
		return nil, errors.New("no torpor runs, so there is no live state")
	case snapshot.ReferenceSaved:
		return savedSnapshot(ctx, data, ref.Back, services...)
	}
	all, err := s.Open(ctx, ref.Name, ref.Version, key)
	if err != nil {
		return nil, err
	}
	in, err := all.Only(services...)
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return in, nil
}

// keep saves a snapshot, which it closes, as the next version of a name.
func (s *openedShelf) keep(ctx context.Context, name string, in *snapshot.Snapshot, o repository.SaveOptions) (_ server.SavedSnapshot, err error) {
	defer func() { err = errors.Join(err, in.Close()) }()
	if len(in.Parts) == 0 {
		return server.SavedSnapshot{}, errors.New("there is no state to keep: nothing is saved")
	}
	v, err := s.Save(ctx, name, in, o)
	return server.SavedSnapshot{Name: name, Version: v}, err
}

func (p *program) printSaved(saved server.SavedSnapshot, asJSON bool) error {
	if asJSON {
		return writeJSON(p.Out, saved)
	}
	_, err := fmt.Fprintf(p.Out, "snapshot %s, version %d: %s, %d bytes, of which %d are new%s\n", saved.Name, saved.Number, strings.Join(saved.Services, ", "),
		saved.Size, saved.Stored, word(saved.Encrypted, "; encrypted", ""))
	return err
}

// maxReplaced is how many partitions are named of each part; --json has all.
const maxReplaced = 10

func (p *program) snapshotLoad() *cobra.Command {
	var asJSON, dry bool
	var merge string
	var secrets secrets
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:   "load NAME[@VERSION]|FILE [SERVICE]...",
		Short: "Load a snapshot, or an exported file, into the services",
		Long: `Load gives services the state that a snapshot has of them: of all services in it, or of those named. FILE
is an exported snapshot: a path with a "/" in it, or one that ends in .snapshot; - is standard input. It
is all or nothing: if one service cannot take its state, all get back what they had.

What becomes of what they have now, --merge says:

  account-region-merge   each account and region in the snapshot takes the place of the one there is; others stay
  overwrite              the snapshot takes the place of all there is
  service-merge          each record takes the place of the one of the same key; all others stay

With --dry-run nothing is changed: it is said what would be. It needs a running torpor.`,
		Example: `  torpor snapshot load before-upgrade --merge overwrite
  torpor snapshot load before-upgrade@2 orders --dry-run
  torpor snapshot load ./demo.snapshot --passphrase-file secret.txt`,
		Args: args(cobra.MinimumNArgs(1)),
	}
	f := cmd.Flags()
	addClientFlags(f)
	f.BoolVar(&asJSON, "json", false, "print JSON")
	f.BoolVar(&dry, "dry-run", false, "only say what would change")
	f.StringVar(&merge, "merge", string(snapshot.Strategies()[0]), "what becomes of what there is: "+names(snapshot.Strategies()))
	secrets.addKey(f)
	addTimeout(f, &timeout)
	fixed(cmd, "merge", words(snapshot.Strategies()))
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		if _, err := oneOf("--merge", merge, snapshot.Strategies()); err != nil {
			return err
		}
		at, err := p.place(cmd)
		if err == nil {
			err = at.needed("loading a snapshot")
		}
		if err != nil {
			return err
		}
		ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
		defer cancel()
		bar := p.progress("load")
		var body []byte
		if isExported(a[0]) {
			query := url.Values{"merge": {merge}, "dry_run": {fmt.Sprint(dry)}, "services": a[1:]}
			body, err = p.send(ctx, at, a[0], "/_torpor/import", query, &secrets, seal.Lock{}, bar)
		} else {
			body, err = p.loadNamed(ctx, at, a, map[string]any{"merge": merge, "dry_run": dry}, &secrets, bar)
		}
		bar.close()
		if err != nil {
			return err
		}
		var loaded server.LoadedSnapshot
		if err := understand("load", body, &loaded); err != nil {
			return err
		}
		if asJSON {
			return writeJSON(p.Out, loaded)
		}
		return printLoaded(p.Out, loaded)
	}
	return cmd
}

// isExported tells an exported file from a name.
func isExported(arg string) bool {
	return arg == "-" || strings.ContainsRune(filepath.ToSlash(arg), '/') || strings.HasSuffix(arg, archive.Extension)
}

func (p *program) loadNamed(ctx context.Context, at *place, a []string, body map[string]any, s *secrets, bar *progress) (answer []byte, err error) {
	ref, err := named(a[0], true)
	if err != nil {
		return nil, err
	}
	body["version"], body["services"] = ref.Version, append([]string{}, a[1:]...)
	err = p.opening(s, func(k seal.Key) error {
		body["passphrase"], body["identities"] = k.Passphrase, append([]string{}, k.Identities...)
		answer, err = at.long(ctx, request{what: "load " + ref.String(), method: http.MethodPost, path: snapshotPath(ref.Name, "/load"), json: body}, bar)
		return err
	})
	return answer, err
}

// send sends an exported file, or standard input where it is -, to the running torpor.
func (p *program) send(ctx context.Context, at *place, file, path string, query url.Values, s *secrets, lock seal.Lock, bar *progress) (answer []byte, err error) {
	in, size, closeIn, err := p.input(file)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, closeIn()) }()
	err = p.opening(s, func(k seal.Key) error {
		header := keyHeader(k)
		addLockHeader(header, lock)
		bar.step("send")
		body := bar.of(io.NewSectionReader(in, 0, size), size)
		answer, err = at.long(ctx, request{what: file, method: http.MethodPost, path: path, query: query, header: header, body: body, size: size}, bar)
		return err
	})
	return answer, err
}

// input opens a file to be read at any place; - is all of standard input.
func (p *program) input(file string) (in io.ReaderAt, size int64, closeIn func() error, err error) {
	if file != "-" {
		f, size, err := openFile(file)
		if err != nil {
			return nil, 0, nil, err
		}
		return f, size, f.Close, nil
	}
	f, err := vfs.Scratch("")
	if err != nil {
		return nil, 0, nil, err
	}
	if size, err = io.Copy(f, p.In); err != nil {
		return nil, 0, nil, errors.Join(fmt.Errorf("standard input: %w", err), f.Close())
	}
	return f, size, f.Close, nil
}

func printLoaded(out io.Writer, loaded server.LoadedSnapshot) error {
	for _, s := range loaded.Services {
		for _, part := range s.Parts {
			fmt.Fprintf(out, "%s/%s: %d added, %d changed, %d removed, %d kept\n", s.Service, part.Part, part.Added, part.Changed, part.Removed, part.Kept)
			for i, name := range part.Replaced {
				if i == maxReplaced {
					fmt.Fprintf(out, "  and %d more\n", len(part.Replaced)-i)
					break
				}
				fmt.Fprintf(out, "  replaced wholly: %s\n", cmp.Or(name, "what belongs to no account"))
			}
		}
	}
	var err error
	switch {
	case len(loaded.Services) == 0:
		_, err = fmt.Fprintln(out, "there is no state in it: nothing was loaded")
	case loaded.DryRun:
		_, err = fmt.Fprintln(out, "this is what loading it would do; nothing was changed")
	}
	return err
}
