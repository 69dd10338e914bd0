package server

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"sync"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Limits of remotes.
const (
	MaxRemotes        = 1000
	MaxRemoteURLBytes = 4 << 10
	maxRemotesBytes   = 8 << 20 // of RemotesFile: more than MaxRemotes of MaxRemoteURLBytes take
)

// RemotesFile is where [Config.Kept] has the definitions of remotes.
const RemotesFile = "remotes.json"

// remote is a place of a name where snapshots are shared, as LocalStack's clients define one. Its URL has placeholders
// where credentials go, which come with each call and are never kept.
type remote struct {
	Name      string   `json:"name"`
	Protocols []string `json:"protocols"`
	URL       string   `json:"remote_url"`
}

// remotes are the definitions. It is safe for concurrent use.
type remotes struct {
	kept vfs.FS // nil: they end with the process

	mu  sync.Mutex
	all map[string]remote
}

// openRemotes reads what is kept. A file that cannot be understood stays, under another name: it is no reason not to
// serve.
func openRemotes(kept vfs.FS, logger *slog.Logger) (*remotes, error) {
	rs := &remotes{kept: kept, all: map[string]remote{}}
	if kept == nil {
		return rs, nil
	}
	b, err := readSmall(kept, RemotesFile, maxRemotesBytes)
	if errors.Is(err, fs.ErrNotExist) {
		return rs, nil
	}
	var list []remote
	if err == nil {
		err = json.Unmarshal(b, &list)
	}
	for i := 0; err == nil && i < len(list); i++ {
		if err = list[i].check(); err == nil {
			rs.all[list[i].Name] = list[i]
		}
	}
	if err == nil {
		return rs, nil
	}
	clear(rs.all)
	const aside = RemotesFile + ".damaged"
	logger.Error("the definitions of remotes cannot be read; there are none until they are made again", "file", vfs.Path(kept, RemotesFile), "kept_as", aside, "error", err)
	if err := kept.Rename(RemotesFile, aside); err != nil {
		return nil, fmt.Errorf("definitions of remotes that cannot be read: %w", err)
	}
	return rs, nil
}

// readSmall reads a file of at most limit bytes.
func readSmall(fsys vfs.FS, name string, limit int64) ([]byte, error) {
	f, err := fsys.OpenFile(name, vfs.Read)
	if err != nil {
		return nil, err
	}
	size, err := f.Size()
	if err == nil && size > limit {
		err = fmt.Errorf("%s: %d bytes: %w; it may have %d", vfs.Path(fsys, name), size, abi.ErrTooLarge, limit)
	}
	var b []byte
	if err == nil {
		b, err = io.ReadAll(io.NewSectionReader(f, 0, size))
	}
	return b, errors.Join(err, f.Close())
}

// keep writes the definitions. The caller has the lock.
func (rs *remotes) keep(all map[string]remote) error {
	if rs.kept == nil {
		return nil
	}
	b, err := json.MarshalIndent(rs.sorted(all), "", "  ")
	if err != nil {
		return err
	}
	const temp = RemotesFile + ".tmp"
	if err := rs.kept.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := rs.kept.OpenFile(temp, vfs.Create)
	if err != nil {
		return err
	}
	if _, err := f.Write(append(b, '\n')); err != nil {
		return errors.Join(err, f.Close(), rs.kept.Remove(temp))
	}
	return vfs.Publish(rs.kept, f, vfs.Publication{Temp: temp, Name: RemotesFile})
}

func (*remotes) sorted(all map[string]remote) []remote {
	list := make([]remote, 0, len(all)) // never null
	for _, name := range slices.Sorted(maps.Keys(all)) {
		list = append(list, all[name])
	}
	return list
}

func (rs *remotes) list() []remote {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	return rs.sorted(rs.all)
}

// find finds a remote; the error wraps abi.ErrNotFound.
func (rs *remotes) find(name string) (remote, error) {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	r, ok := rs.all[name]
	if !ok {
		return remote{}, fmt.Errorf("remote %q: %w; the remotes are %q", name, abi.ErrNotFound, slices.Sorted(maps.Keys(rs.all)))
	}
	return r, nil
}

// put defines a remote, in place of one of its name.
func (rs *remotes) put(r remote) error {
	if err := r.check(); err != nil {
		return err
	}
	return rs.change(func(all map[string]remote) error {
		if all[r.Name] = r; len(all) > MaxRemotes {
			return fmt.Errorf("more than %d remotes: %w", MaxRemotes, abi.ErrTooLarge)
		}
		return nil
	})
}

func (rs *remotes) remove(name string) error {
	if _, err := rs.find(name); err != nil {
		return err
	}
	return rs.change(func(all map[string]remote) error {
		delete(all, name)
		return nil
	})
}

// change does what do does, in memory and on the disk, or not at all.
func (rs *remotes) change(do func(map[string]remote) error) error {
	rs.mu.Lock()
	defer rs.mu.Unlock()
	all := maps.Clone(rs.all)
	if err := do(all); err != nil {
		return err
	}
	err := rs.keep(all)
	if unsynced := (*vfs.UnsyncedError)(nil); err == nil || errors.As(err, &unsynced) {
		rs.all = all // as the file is
	}
	if err != nil {
		return fmt.Errorf("definitions of remotes: %w", err)
	}
	return nil
}

const placeholders = `\{[A-Za-z_][A-Za-z0-9_]{0,63}\}`

// isPlaceholder stands for a placeholder where a URL may have none.
const isPlaceholder = "torpor-placeholder"

// check refuses a definition that is none, or has credentials in it: what is defined is shown to everybody who asks, and
// kept.
func (r remote) check() error {
	if repository.CheckName(r.Name) != nil {
		return badRequest("the name %.200q cannot be a remote's: it may have 128 ASCII letters, digits, '.', '_' and '-', and begins with a letter or digit", r.Name)
	}
	if len(r.URL) > MaxRemoteURLBytes {
		return fmt.Errorf("remote %s: a URL of %d bytes: %w; it may have %d", r.Name, len(r.URL), abi.ErrTooLarge, MaxRemoteURLBytes)
	}
	if len(r.Protocols) > 16 {
		return badRequest("remote %s: it has %d protocols", r.Name, len(r.Protocols))
	}
	// No error shows the URL: there may be a password in it.
	u, err := url.Parse(regexp.MustCompile(placeholders).ReplaceAllString(r.URL, isPlaceholder))
	if err != nil || u.Scheme == "" {
		return badRequest("remote %s: its remote_url is no URL, as s3://bucket/prefix?access_key_id={access_key_id}&secret_access_key={secret_access_key}", r.Name)
	}
	literal := func(what string) error {
		return badRequest("remote %s: its remote_url has credentials in it (%s): put placeholders there, as {access_key_id}, and send the values as remote_params with each call, which are not kept",
			r.Name, what)
	}
	if u.User != nil {
		password, _ := u.User.Password()
		for _, s := range []string{u.User.Username(), password} {
			if s != "" && s != isPlaceholder {
				return literal("before the host")
			}
		}
	}
	query, err := url.ParseQuery(u.RawQuery)
	if err != nil {
		return badRequest("remote %s: the query of its remote_url cannot be read", r.Name)
	}
	for name, values := range query {
		if !slices.ContainsFunc([]string{"key", "secret", "token", "password", "credential", "signature"}, func(s string) bool { return strings.Contains(strings.ToLower(name), s) }) {
			continue
		}
		if slices.ContainsFunc(values, func(v string) bool { return v != "" && v != isPlaceholder }) {
			return literal("the parameter " + name)
		}
	}
	return nil
}

// remotesRoutes adds the routes of remotes.
func (s *server) remotesRoutes(route func(method, path string, h namedHandler)) {
	const path = podsPath + "/remotes"
	route(http.MethodGet, path, func(w http.ResponseWriter, r *http.Request, _ string) {
		writeJSON(w, http.StatusOK, struct {
			Remotes []remote `json:"remotes"`
		}{s.remotes.list()})
	})
	route(http.MethodGet, path+"/:name", func(w http.ResponseWriter, r *http.Request, name string) {
		found, err := s.remotes.find(name)
		if err != nil {
			s.fail(w, err)
			return
		}
		writeJSON(w, http.StatusOK, found)
	})
	route(http.MethodPost, path+"/:name", func(w http.ResponseWriter, r *http.Request, name string) {
		defined, err := readRemote(w, r, name)
		if err == nil {
			err = s.remotes.put(defined)
		}
		if err != nil {
			s.fail(w, err)
			return
		}
		writeJSON(w, http.StatusOK, defined)
	})
	route(http.MethodDelete, path+"/:name", func(w http.ResponseWriter, r *http.Request, name string) {
		if err := s.remotes.remove(name); err != nil {
			s.fail(w, err)
			return
		}
		writeJSON(w, http.StatusOK, struct {
			Name string `json:"name"`
		}{name})
	})
}

// readRemote reads the definition of the remote that the path names.
func readRemote(w http.ResponseWriter, r *http.Request, name string) (remote, error) {
	var got remote
	if err := readBody(w, r, &got); err != nil {
		return remote{}, err
	}
	if got.Name != "" && got.Name != name {
		return remote{}, badRequest("the body defines the remote %.200q, the path %.200q", got.Name, name)
	}
	got.Name = name
	if got.Protocols == nil {
		got.Protocols = []string{}
	}
	return got, nil
}

// maxBody is how long the JSON of a control call may be.
const maxBody = 1 << 20

// readBody reads a JSON body into v; none leaves v as it is.
func readBody(w http.ResponseWriter, r *http.Request, v any) error {
	b, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if long := (*http.MaxBytesError)(nil); errors.As(err, &long) {
		return fmt.Errorf("a body of more than %d bytes: %w", long.Limit, abi.ErrTooLarge)
	}
	if err != nil {
		return badRequest("the body cannot be read: %w", err)
	}
	if len(bytes.TrimSpace(b)) == 0 {
		return nil
	}
	if err := json.Unmarshal(b, v); err != nil {
		return badRequest("the body is not the JSON it should be: %w", err)
	}
	return nil
}
