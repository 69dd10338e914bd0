package server

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

const (
	// MaxFindings is how many findings the answer of POST /_torpor/snapshots/verify tells of.
	MaxFindings = 1000
)

// Snapshots is the answer of GET /_torpor/snapshots.
type Snapshots struct {
	Snapshots []repository.Summary `json:"snapshots"`
}

// SnapshotVersions is the answer of GET /_torpor/snapshots/{name}.
type SnapshotVersions struct {
	Name     string               `json:"name"`
	Versions []repository.Version `json:"versions"`
}

// SavedSnapshot is the answer of calls that make a version.
type SavedSnapshot struct {
	Name string `json:"name"`
	repository.Version
}

// LoadedSnapshot is the answer of calls that load one.
type LoadedSnapshot struct {
	Name     string            `json:"name,omitempty"`
	Version  uint64            `json:"version,omitempty"`
	Merge    snapshot.Strategy `json:"merge"`
	DryRun   bool              `json:"dry_run"` // nothing was changed; what follows would be
	Services []AppliedService  `json:"services"`
}

// AppliedService is what loading a snapshot has done to a service.
type AppliedService struct {
	Service string        `json:"service"`
	Parts   []AppliedPart `json:"parts"`
}

// AppliedPart is what it has done to a part, in records.
type AppliedPart struct {
	Part string `json:"part"`
	snapshot.Merged
	Replaced []string `json:"replaced"` // the partitions that were replaced wholly
}

// VerifiedSnapshots is the answer of POST /_torpor/snapshots/verify.
type VerifiedSnapshots struct {
	OK       bool                 `json:"ok"`
	Findings []repository.Finding `json:"findings"`
	LeftOut  int                  `json:"left_out"` // findings beyond MaxFindings
}

// snapshots is where they are kept, and the name of the one a request is about.
func (s *server) snapshots(c echo.Context) (*repository.Repository, string, error) {
	name := c.Param("name")
	if name == "gc" || name == "verify" {
		return nil, name, badRequest("a snapshot cannot have the name %q, which is a route of its own", name)
	}
	if err := checkPod(name); err != nil {
		return nil, name, err
	}
	kept, err := s.repository(c.Request().Context(), podRequest{}) // the one of no remote
	return kept, name, err
}

// allSnapshots is where they are kept, for a request without parameters about all of them.
func (s *server) allSnapshots(r *http.Request) (*repository.Repository, error) {
	if err := parametersOf(r).done(); err != nil {
		return nil, err
	}
	return s.repository(r.Context(), podRequest{})
}

// version opens a version of a snapshot, and of that the services named, or all. Close it.
func (s *server) version(ctx context.Context, name string, version uint64, key seal.Key, services []string) (*snapshot.Snapshot, error) {
	kept, err := s.repository(ctx, podRequest{})
	if err != nil {
		return nil, err
	}
	all, err := kept.Open(ctx, name, version, key)
	if err != nil {
		return nil, err
	}
	return only(all, services)
}

// only is Snapshot.Only, and closes what it does not take from.
func only(all *snapshot.Snapshot, services []string) (*snapshot.Snapshot, error) {
	in, err := all.Only(services...)
	if err != nil {
		return nil, errors.Join(err, all.Close())
	}
	return in, nil
}

func (s *server) listSnapshots(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
	kept, err := s.allSnapshots(r)
	if err != nil {
		return err
	}
	all, err := kept.List(r.Context())
	if err == nil {
		writeJSON(w, http.StatusOK, Snapshots{append([]repository.Summary{}, all...)})
	}
	return err
}

func (s *server) showSnapshot(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	kept, name, err := s.snapshots(c)
	if err = errors.Join(err, parametersOf(r).done()); err != nil {
		return err
	}
	versions, err := kept.Versions(r.Context(), name)
	if err == nil {
		writeJSON(w, http.StatusOK, SnapshotVersions{name, append([]repository.Version{}, versions...)})
	}
	return err
}

func (s *server) saveSnapshot(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	kept, name, err := s.snapshots(c)
	if err = errors.Join(err, parametersOf(r).done()); err != nil {
		return err
	}
	var body struct {
		Services    []string `json:"services"`
		From        string   `json:"from"`
		Description string   `json:"description"`
		Passphrase  string   `json:"passphrase"`
		Recipients  []string `json:"recipients"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	from, err := reference(cmp.Or(body.From, string(snapshot.ReferenceLive)))
	if err != nil {
		return badRequest("from is %q: %w", body.From, err)
	}
	lock := seal.Lock{Passphrase: body.Passphrase, Recipients: body.Recipients}
	if err := lock.Check(); err != nil {
		return err
	}
	return s.long(w, r, http.StatusCreated, func(step steps) (any, error) {
		in, err := s.resolve(r.Context(), from, seal.Key{Passphrase: body.Passphrase}, body.Services)
		if err != nil {
			return nil, err
		}
		defer s.closing(in)
		return s.keep(r.Context(), kept, "save", name, in, repository.SaveOptions{Description: body.Description, Lock: lock, Progress: step("save")})
	})
}

// keep saves a snapshot as the next version of a name.
func (s *server) keep(ctx context.Context, kept *repository.Repository, action, name string, in *snapshot.Snapshot, o repository.SaveOptions) (any, error) {
	start := time.Now()
	v, err := kept.Save(ctx, name, in, o)
	s.Events.Tell(Event{Kind: EventSnapshot, Action: action, Name: name, Version: v.Number, Services: in.Services(),
		Seconds: time.Since(start).Seconds(), Error: textOf(err)})
	return SavedSnapshot{name, v}, err
}

func (s *server) removeSnapshot(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	kept, name, err := s.snapshots(c)
	p := parametersOf(r)
	var versions []uint64
	for _, text := range p.list("version") {
		n, err := strconv.ParseUint(text, 10, 64)
		if err != nil || n == 0 {
			p.wrong("version", text, "a version's number, from 1")
		}
		versions = append(versions, n)
	}
	if _, there := p.given["version"]; there && len(versions) == 0 {
		p.wrong("version", "", "a version's number, or left out to remove all") // which an empty one must not mean
	}
	if err = errors.Join(err, p.done()); err != nil {
		return err
	}
	err = kept.Remove(r.Context(), name, versions...)
	ev := Event{Kind: EventSnapshot, Action: "remove", Name: name, Error: textOf(err)}
	if len(versions) == 1 {
		ev.Version = versions[0]
	}
	s.Events.Tell(ev)
	if err == nil {
		w.WriteHeader(http.StatusNoContent)
	}
	return err
}

func (s *server) loadSnapshot(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	_, name, err := s.snapshots(c)
	if err = errors.Join(err, parametersOf(r).done()); err != nil {
		return err
	}
	var body struct {
		Version    uint64   `json:"version"`
		Services   []string `json:"services"`
		Merge      string   `json:"merge"`
		DryRun     bool     `json:"dry_run"`
		Passphrase string   `json:"passphrase"`
		Identities []string `json:"identities"`
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	merge, err := runtime.Parse("merge", body.Merge, snapshot.Strategies())
	if err != nil {
		return marked{err, errBadRequest}
	}
	return s.long(w, r, http.StatusOK, func(steps) (any, error) {
		in, err := s.version(r.Context(), name, body.Version, seal.Key{Passphrase: body.Passphrase, Identities: body.Identities}, body.Services)
		if err != nil {
			return nil, incompatible(err)
		}
		defer s.closing(in)
		return s.apply(r.Context(), in, runtime.ApplyOptions{Strategy: merge, DryRun: body.DryRun})
	})
}

// apply loads a snapshot.
func (s *server) apply(ctx context.Context, in *snapshot.Snapshot, o runtime.ApplyOptions) (any, error) {
	start := time.Now()
	applied, err := s.Runtime.Apply(ctx, in, o)
	if !o.DryRun {
		s.Events.Tell(Event{Kind: EventSnapshot, Action: "load", Name: in.Name, Version: in.Version, Services: in.Services(),
			Seconds: time.Since(start).Seconds(), Error: textOf(err)})
	}
	if err != nil {
		return nil, incompatible(err)
	}
	answer := LoadedSnapshot{Name: in.Name, Version: in.Version, Merge: o.Strategy, DryRun: o.DryRun, Services: []AppliedService{}}
	for _, a := range applied {
		service := AppliedService{Service: a.Service, Parts: []AppliedPart{}}
		for _, p := range a.Parts {
			service.Parts = append(service.Parts, AppliedPart{p.Part, p.Merged, p.Replaced})
		}
		answer.Services = append(answer.Services, service)
	}
	return answer, nil
}

func (s *server) collectSnapshots(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
	kept, err := s.allSnapshots(r)
	if err != nil {
		return err
	}
	var body struct {
		DryRun bool   `json:"dry_run"`
		Grace  string `json:"grace"` // "": the default
	}
	if err := readJSON(w, r, &body); err != nil {
		return err
	}
	o := repository.CollectOptions{DryRun: body.DryRun}
	if body.Grace != "" {
		grace, err := time.ParseDuration(body.Grace)
		if err != nil || grace < 0 {
			return badRequest("grace is %q; it may be a time such as 1h, 30m or 0s", body.Grace)
		}
		o.Grace = grace
		if grace == 0 {
			o.Grace = -1
		}
	}
	return s.long(w, r, http.StatusOK, func(step steps) (any, error) {
		o.Progress = step("collect")
		done, err := kept.Collect(r.Context(), o)
		if !o.DryRun {
			s.Events.Tell(Event{Kind: EventSnapshot, Action: "collect", Error: textOf(err)})
		}
		return done, err
	})
}

func (s *server) verifySnapshots(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
	kept, err := s.allSnapshots(r)
	if err != nil {
		return err
	}
	return s.long(w, r, http.StatusOK, func(step steps) (any, error) {
		answer := VerifiedSnapshots{Findings: []repository.Finding{}}
		err := kept.Verify(r.Context(), func(f repository.Finding) error {
			if len(answer.Findings) == MaxFindings {
				answer.LeftOut++
				return nil
			}
			f.Affected = append([]repository.Ref{}, f.Affected...)
			answer.Findings = append(answer.Findings, f)
			return nil
		}, step("verify"))
		answer.OK = len(answer.Findings) == 0
		return answer, err
	})
}

func (s *server) exportSnapshot(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	_, name, err := s.snapshots(c)
	if err != nil {
		return err
	}
	p := parametersOf(r)
	version := p.number("version", 1, 0, 1<<63)
	return s.export(w, r, p, func(services []string) (*snapshot.Snapshot, error) {
		key, err := keyOf(r)
		if err != nil {
			return nil, err
		}
		return s.version(r.Context(), name, version, key, services)
	})
}

func (s *server) exportLive(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
	return s.export(w, r, parametersOf(r), func(services []string) (*snapshot.Snapshot, error) {
		return s.Runtime.Capture(r.Context(), services...)
	})
}

// export answers with a snapshot as a file. p are the request's parameters, of which the caller has read its own.
func (s *server) export(w http.ResponseWriter, r *http.Request, p *parameters, open func(services []string) (*snapshot.Snapshot, error)) error {
	services := p.list("services")
	var rules []snapshot.Rule
	for _, text := range p.all("redact") {
		rule, err := snapshot.ParseRule(text)
		if err != nil {
			p.errs = append(p.errs, badRequest("parameter redact: %w", err))
		}
		rules = append(rules, rule)
	}
	unused := p.truth("redact_unused", false)
	encrypt := p.truth("encrypt", false)
	if err := p.done(); err != nil {
		return err
	}
	lock, err := lockOf(r, encrypt)
	if err != nil {
		return err
	}
	in, err := open(services)
	if err != nil {
		return err
	}
	defer s.closing(in)
	out := in
	if len(rules) > 0 {
		if out, err = s.redact(r.Context(), in, rules, unused); err != nil {
			return err
		}
		defer s.closing(out)
	}
	file, size, err := s.scratch(func(to io.Writer) error {
		_, err := archive.Write(r.Context(), to, out, archive.WriteOptions{Lock: lock})
		return err
	})
	s.Events.Tell(Event{Kind: EventSnapshot, Action: "export", Name: in.Name, Version: in.Version, Services: in.Services(), Error: textOf(err)})
	if err != nil {
		return err
	}
	defer func() { s.closed("exported snapshot", file.Close()) }()
	name := cmp.Or(in.Name, "torpor")
	if in.Version > 0 {
		name += "-" + strconv.FormatUint(in.Version, 10)
	}
	h := w.Header()
	h.Set("Content-Type", archive.MediaType)
	if !lock.IsZero() {
		h.Set("Content-Type", archive.SealedMediaType)
	}
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name + archive.Extension}))
	h.Set("X-Torpor-Services", strings.Join(in.Services(), ","))
	s.send(w, file, size)
	return nil
}

// redact is snapshot.Redact, and refuses a rule that did nothing unless that is said to be well: what it was to hide is
// then called otherwise, and would be handed out.
func (s *server) redact(ctx context.Context, in *snapshot.Snapshot, rules []snapshot.Rule, unused bool) (*snapshot.Snapshot, error) {
	out, done, err := snapshot.Redact(ctx, in, rules, snapshot.RedactOptions{Nesting: s.Nesting, Folder: s.Scratch})
	if err != nil {
		return nil, err
	}
	for _, d := range done {
		if d.Idle() && !unused {
			err := badRequest("nothing in the snapshot is what the rule %q is about; correct it, leave it out, or let it be (redact_unused=true; torpor snapshot export --redact-unused)", d.Rule)
			return nil, errors.Join(err, out.Close())
		}
	}
	return out, nil
}

func (s *server) importSnapshot(w http.ResponseWriter, r *http.Request, c echo.Context) error {
	kept, name, err := s.snapshots(c)
	if err != nil {
		return err
	}
	p := parametersOf(r)
	services := p.list("services")
	description, _ := p.text("description")
	encrypt := p.truth("encrypt", false)
	if err := p.done(); err != nil {
		return err
	}
	lock, err := lockOf(r, encrypt)
	if err != nil {
		return err
	}
	return s.imported(w, r, http.StatusCreated, services, func(in *snapshot.Snapshot, step steps) (any, error) {
		return s.keep(r.Context(), kept, "import", name, in, repository.SaveOptions{
			Description: cmp.Or(description, in.Description), Lock: lock, Progress: step("save")})
	})
}

func (s *server) importLive(w http.ResponseWriter, r *http.Request, _ echo.Context) error {
	p := parametersOf(r)
	services := p.list("services")
	merge, dry := choice(p, "merge", snapshot.Strategies()), p.truth("dry_run", false)
	if err := p.done(); err != nil {
		return err
	}
	return s.imported(w, r, http.StatusOK, services, func(in *snapshot.Snapshot, _ steps) (any, error) {
		return s.apply(r.Context(), in, runtime.ApplyOptions{Strategy: merge, DryRun: dry})
	})
}

// imported does something with the snapshot in a request's body, all of which has been checked before.
func (s *server) imported(w http.ResponseWriter, r *http.Request, status int, services []string, do func(*snapshot.Snapshot, steps) (any, error)) error {
	if strings.HasPrefix(strings.ToLower(r.Header.Get("Content-Type")), "multipart/") {
		return badRequest("the body is %s; send the file itself as the body, as application/octet-stream", r.Header.Get("Content-Type"))
	}
	key, err := keyOf(r)
	if err != nil {
		return err
	}
	file, size, err := s.upload(w, r)
	if err != nil {
		return err
	}
	defer func() { s.closed("imported snapshot", file.Close()) }()
	return s.long(w, r, status, func(step steps) (any, error) {
		in, err := archive.Open(r.Context(), file, size, archive.OpenOptions{Key: key, Folder: s.Scratch, Progress: step("check")})
		if errors.Is(err, abi.ErrCorrupt) {
			err = marked{err, errIncompatible} // it is the client's file that is damaged
		}
		if err == nil {
			in, err = only(in, services)
		}
		if err != nil {
			return nil, incompatible(err)
		}
		defer s.closing(in)
		return do(in, step)
	})
}

// upload copies a request's body to a temporary file, which lasts until it is closed.
func (s *server) upload(w http.ResponseWriter, r *http.Request) (file *vfs.ScratchFile, size int64, err error) {
	tooLarge := fmt.Errorf("the request's body: %w; it may have %d bytes", abi.ErrTooLarge, s.MaxUpload)
	if r.ContentLength > s.MaxUpload {
		return nil, 0, tooLarge
	}
	return s.scratch(func(to io.Writer) error {
		_, err := io.Copy(to, http.MaxBytesReader(w, r.Body, s.MaxUpload))
		if large := (*http.MaxBytesError)(nil); errors.As(err, &large) {
			return tooLarge
		}
		if errors.Is(err, io.ErrUnexpectedEOF) {
			return badRequest("the body was cut off: %w", err)
		}
		return err
	})
}
