package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strconv"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// reference reads one that a person has written.
func reference(text string) (snapshot.Reference, error) {
	ref, err := snapshot.ParseReference(text)
	if err != nil {
		return ref, usageError{err}
	}
	return ref, nil
}

// isFile tells whether a reference is to a file of whoever runs the program.
func isFile(ref snapshot.Reference) bool {
	return ref.Kind == snapshot.ReferenceArchive || ref.Kind == snapshot.ReferenceState
}

// opener opens what references point to.
type opener struct {
	*program
	*place
	secrets  *secrets
	services []string // of others nothing is opened; none: all
}

// open opens what a reference points to, in this process. Close it.
func (o *opener) open(ctx context.Context, ref snapshot.Reference) (in *snapshot.Snapshot, err error) {
	err = o.opening(o.secrets, func(k seal.Key) error {
		in, err = o.openWith(ctx, ref, k)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", ref, err)
	}
	return in, nil
}

func (o *opener) openWith(ctx context.Context, ref snapshot.Reference, k seal.Key) (*snapshot.Snapshot, error) {
	switch ref.Kind {
	case snapshot.ReferenceLive:
		if err := o.needed("the live state"); err != nil {
			return nil, err
		}
		return o.exported(ctx, "/_torpor/export", nil, k)
	case snapshot.ReferenceSaved:
		if o.running {
			fmt.Fprintf(o.Err, "torpor: %s is read from the data folder %s, to compare it with a file\n", ref, o.settings.Data)
		}
		return savedSnapshot(ctx, o.settings.Data, ref.Back, o.services...)
	case snapshot.ReferenceNamed:
		if o.running {
			query := url.Values{}
			if ref.Version > 0 {
				query.Set("version", strconv.FormatUint(ref.Version, 10))
			}
			return o.exported(ctx, snapshotPath(ref.Name, "/export"), query, k)
		}
		shelf, err := openShelf(ctx, o.settings)
		if err != nil {
			return nil, err
		}
		in, err := shelf.Open(ctx, ref.Name, ref.Version, k)
		if err != nil {
			return nil, errors.Join(err, shelf.Close())
		}
		in, err = closingToo(in, shelf.Close)
		return o.only(in, err)
	case snapshot.ReferenceArchive:
		in, err := openArchive(ctx, ref.Path, k, o.progress("check"))
		return o.only(in, err)
	}
	state, err := openStateFile(ctx, ref.Path)
	if err != nil {
		return nil, err
	}
	h := state.Header()
	in, err := snapshot.New(snapshot.Info{Created: h.Created}, []snapshot.Part{{Service: h.Service, Name: h.Part, File: state.File}}, nil, state.Close)
	if err != nil {
		return nil, errors.Join(err, state.Close())
	}
	return o.only(in, nil)
}

// only leaves out what was not asked for.
func (o *opener) only(in *snapshot.Snapshot, err error) (*snapshot.Snapshot, error) {
	if err != nil {
		return nil, err
	}
	some, err := in.Only(o.services...)
	if err != nil {
		return nil, errors.Join(err, in.Close())
	}
	return some, nil
}

// closingToo is a snapshot that closes something else with it.
func closingToo(in *snapshot.Snapshot, also func() error) (*snapshot.Snapshot, error) {
	out, err := snapshot.New(in.Info, in.Parts, in.Module, func() error { return errors.Join(in.Close(), also()) })
	if err != nil {
		return nil, errors.Join(err, in.Close(), also())
	}
	return out, nil
}

// exported has the running torpor export something, and opens that.
func (o *opener) exported(ctx context.Context, path string, query url.Values, k seal.Key) (_ *snapshot.Snapshot, err error) {
	if query == nil {
		query = url.Values{}
	}
	for _, s := range o.services {
		query.Add("services", s)
	}
	resp, err := o.do(ctx, request{what: "export", method: http.MethodGet, path: path, query: query, header: keyHeader(k)})
	if err != nil {
		return nil, err
	}
	defer resp.Body.Close()
	file, err := vfs.Scratch("")
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, file.Close()) }() // archive.Open keeps nothing of it
	size, err := io.Copy(file, resp.Body)
	if err != nil {
		return nil, fmt.Errorf("export: %w", err)
	}
	return archive.Open(ctx, file, size, archive.OpenOptions{})
}

// openArchive opens an exported file.
func openArchive(ctx context.Context, path string, k seal.Key, bar *progress) (_ *snapshot.Snapshot, err error) {
	defer bar.close()
	f, size, err := openFile(path)
	if err != nil {
		return nil, err
	}
	defer f.Close() // it was only read
	return archive.Open(ctx, f, size, archive.OpenOptions{Key: k, Progress: bar.set})
}

// openFile opens an exported file to be read.
func openFile(path string) (f *os.File, size int64, err error) {
	f, err = os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, 0, fmt.Errorf("file %s: %w", path, abi.ErrNotFound)
	}
	if err != nil {
		return nil, 0, err
	}
	info, err := f.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = usageError{fmt.Errorf("%s is no file", path)}
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, info.Size(), nil
}

// snapshotPath is where the native API has a named snapshot.
func snapshotPath(name, action string) string {
	return "/_torpor/snapshots/" + url.PathEscape(name) + action
}

// openedShelf is the repository in a data folder that may be in use.
type openedShelf struct {
	*repository.Repository
	shelf *shelf
}

func (s *openedShelf) Close() error { return s.shelf.Close() }

// openShelf opens the snapshots in the data folder.
func openShelf(ctx context.Context, s *settings) (*openedShelf, error) {
	at := &shelf{path: snapshotsFolder(s.Data)}
	r, err := repository.Open(ctx, repository.Config{Remote: at, Torpor: Version})
	if err != nil {
		return nil, errors.Join(err, at.Close())
	}
	return &openedShelf{r, at}, nil
}
