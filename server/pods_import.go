package server

import (
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

// mediaBytes is the media type of bytes of which nothing more is known.
const mediaBytes = "application/octet-stream"

// importPod loads a snapshot that is the request's body, or its multipart field pod. It is all or nothing: an error
// before the first line means that nothing has changed, and none comes behind it.
func (s *server) importPod(w http.ResponseWriter, r *http.Request, _ string) {
	strategy, err := strategyOf(r)
	var services []string
	if err == nil {
		services, err = s.importedPod(r, strategy)
	}
	if bad := (*noPodFileError)(nil); errors.As(err, &bad) && mediaOf(r) == mediaBytes {
		// LocalStack's own clients look for that in a line only; they all send this media type.
		_ = (&lineWriter{w: w}).write(line("", "", err))
		return
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	out := begin(w, http.StatusCreated)
	for _, name := range services {
		if out.write(line(name, "", nil)) != nil {
			return
		}
	}
}

func (s *server) importedPod(r *http.Request, strategy snapshot.Strategy) ([]string, error) {
	in, err := s.openUpload(r)
	if err != nil {
		return nil, err
	}
	defer s.closing(in)
	_, err = s.apply(r.Context(), in, runtime.ApplyOptions{Strategy: strategy})
	return in.Services(), incompatible(err)
}

func mediaOf(r *http.Request) string {
	media, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return media
}

// noPodFileError says that what a client sent is no exported snapshot, or a damaged one. Its text has the words that
// LocalStack's clients look for; so has that of what is no zip archive at all, of package archive.
type noPodFileError struct{ err error }

func (e *noPodFileError) Error() string   { return "invalid pod file: " + e.err.Error() }
func (e *noPodFileError) Unwrap() []error { return []error{errIncompatible, e.err} }

// openUpload checks and opens the snapshot that a client sends. Close it.
func (s *server) openUpload(r *http.Request) (*snapshot.Snapshot, error) {
	body, err := upload(r)
	if err != nil {
		return nil, err
	}
	f, size, err := s.scratch(func(to io.Writer) error {
		n, err := io.Copy(to, io.LimitReader(body, s.MaxUpload+1))
		if err == nil && n > s.MaxUpload {
			err = fmt.Errorf("a snapshot of more than %d bytes: %w", s.MaxUpload, abi.ErrTooLarge)
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	defer func() { s.closed("uploaded snapshot", f.Close()) }()
	if size == 0 {
		return nil, badRequest("there is no snapshot in the request: send one as its body, or as the file pod of a form")
	}
	in, err := archive.Open(r.Context(), f, size, archive.OpenOptions{Key: seal.Key{Passphrase: r.Header.Get(headerSecret)}, Folder: s.Scratch})
	if err == nil || !errors.Is(err, abi.ErrCorrupt) {
		return in, incompatible(err)
	}
	return nil, &noPodFileError{err}
}

// upload is the snapshot in a request.
func upload(r *http.Request) (io.Reader, error) {
	if mediaOf(r) != "multipart/form-data" {
		return r.Body, nil
	}
	form, err := r.MultipartReader()
	if err != nil {
		return nil, badRequest("the form cannot be read: %w", err)
	}
	for {
		field, err := form.NextPart()
		if errors.Is(err, io.EOF) {
			return nil, badRequest("expected a single file with name 'pod'")
		}
		if err != nil {
			return nil, badRequest("the form cannot be read: %w", err)
		}
		if field.FormName() == "pod" {
			return field, nil
		}
	}
}
