package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/remote/s3"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// snapshotsFolder is where snapshots are kept in the data folder.
func snapshotsFolder(data string) string { return filepath.Join(data, "snapshots") }

// remote opens a place for snapshots that a client of the API has defined. Where its URL says nothing of region and endpoint,
// the variables count that AWS's own clients look at.
func (p *program) remote(_ context.Context, _, url string, params map[string]string) (repository.Remote, error) {
	scheme, _, _ := strings.Cut(url, ":")
	if scheme != "s3" {
		return nil, fmt.Errorf("snapshots cannot be kept at %.20s remotes, only at s3: %w", scheme, errors.ErrUnsupported)
	}
	c, err := s3.Parse(url, params, s3.Config{Region: cmp.Or(p.env("AWS_REGION"), p.env("AWS_DEFAULT_REGION")),
		Endpoint: cmp.Or(p.env("AWS_ENDPOINT_URL_S3"), p.env("AWS_ENDPOINT_URL"))})
	if err != nil {
		return nil, err
	}
	return s3.Open(c)
}

// shelf is a folder of snapshots as a [repository.Remote]. The folder is made when the first is put into it: a data folder
// is left alone by those who keep nothing in it.
type shelf struct {
	path string

	mu     sync.Mutex
	fsys   *vfs.OSFS
	remote *folder.Folder // nil: not opened yet
}

// open gives the folder; where it is not to be made, nil says that it is not there.
func (s *shelf) open(create bool) (*folder.Folder, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.remote != nil {
		return s.remote, nil
	}
	if _, err := os.Stat(s.path); errors.Is(err, fs.ErrNotExist) && !create {
		return nil, nil
	}
	fsys, err := vfs.OS(s.path)
	if err != nil {
		return nil, fmt.Errorf("folder of snapshots: %w", err)
	}
	s.fsys, s.remote = fsys, folder.Open(fsys)
	return s.remote, nil
}

// there gives the folder to look for a blob in.
func (s *shelf) there(name string) (*folder.Folder, error) {
	f, err := s.open(false)
	if err == nil && f == nil {
		err = fmt.Errorf("%s: %w: there is no folder %s", name, abi.ErrNotFound, s.path)
	}
	return f, err
}

// Close closes the folder.
func (s *shelf) Close() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.fsys == nil {
		return nil
	}
	err := s.fsys.Close()
	s.fsys, s.remote = nil, nil
	return err
}

// Put implements [repository.Remote].
func (s *shelf) Put(ctx context.Context, name string, r io.Reader, size int64) error {
	f, err := s.open(true)
	if err != nil {
		return err
	}
	return f.Put(ctx, name, r, size)
}

// Get implements [repository.Remote].
func (s *shelf) Get(ctx context.Context, name string, offset, length int64) (io.ReadCloser, error) {
	f, err := s.there(name)
	if err != nil {
		return nil, err
	}
	return f.Get(ctx, name, offset, length)
}

// Stat implements [repository.Remote].
func (s *shelf) Stat(ctx context.Context, name string) (repository.Blob, error) {
	f, err := s.there(name)
	if err != nil {
		return repository.Blob{}, err
	}
	return f.Stat(ctx, name)
}

// List implements [repository.Remote].
func (s *shelf) List(ctx context.Context, prefix string, each func(repository.Blob) error) error {
	f, err := s.open(false)
	if f == nil || err != nil {
		return err
	}
	return f.List(ctx, prefix, each)
}

// Delete implements [repository.Remote].
func (s *shelf) Delete(ctx context.Context, name string) error {
	f, err := s.open(false)
	if f == nil || err != nil {
		return err
	}
	return f.Delete(ctx, name)
}
