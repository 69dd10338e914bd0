package server

import (
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

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// podsPath begins the routes of snapshots, which LocalStack calls pods.
const podsPath = "/_localstack/pods"

// Headers of LocalStack's.
const (
	headerPodServices = "X-Localstack-Pod-Services" // of an export: the services in it, with commas between
	headerPodSize     = "X-Localstack-Pod-Size"     // of an export: its bytes
	headerSecret      = "X-Localstack-State-Secret" //nolint:gosec // a name; of the passphrase that a snapshot is, or is to be, encrypted with
)

// namedHandler answers a request to a route with a name in its path; "" where it has none.
type namedHandler func(w http.ResponseWriter, r *http.Request, name string)

// localstack adds the routes of LocalStack's that are about snapshots and resources.
func (s *server) localstack(e *echo.Echo) {
	route := func(method, path string, h namedHandler) {
		e.Add(method, path, func(c echo.Context) error {
			h(c.Response(), c.Request(), c.Param("name"))
			return nil
		})
	}
	pod := func(method, path string, h namedHandler) {
		route(method, podsPath+"/:name"+path, func(w http.ResponseWriter, r *http.Request, name string) {
			if err := checkPod(name); err != nil {
				s.fail(w, err)
				return
			}
			h(w, r, name)
		})
	}
	route(http.MethodGet, podsPath+"/state", s.exportPod)
	route(http.MethodGet, podsPath+"/state/metamodel", s.metamodel)
	route(http.MethodGet, podsPath+"/environment", s.environment)
	route(http.MethodGet, podsPath, s.pods)
	route(http.MethodPost, podsPath, s.importPod)
	pod(http.MethodPost, "", s.savePod)
	pod(http.MethodPut, "", s.loadPod)
	pod(http.MethodDelete, "", s.removePod)
	pod(http.MethodGet, "/versions", s.versionsOfPod)
	pod(http.MethodGet, "/diff", s.diffPod)
	s.remotesRoutes(route)
	route(http.MethodGet, platformPath+"/v1/cloudpods", s.platformList)
	route(http.MethodGet, platformPath+"/v1/cloudpods/:name", s.platformShow)
	route(http.MethodGet, "/_localstack/resources", s.resources)
}

func checkPod(name string) error {
	if err := repository.CheckName(name); err != nil {
		return marked{err, errBadRequest}
	}
	return nil
}

// podRequest is the body of calls about snapshots. LocalStack's clients send null for what they have nothing to say about.
type podRequest struct {
	Remote *struct {
		Name   string            `json:"remote_name"`
		Params map[string]string `json:"remote_params"` // credentials: never kept, never logged
	} `json:"remote"`
	Attributes struct {
		Services    []string `json:"services"`
		Description string   `json:"description"`
	} `json:"attributes"`
}

// repository is where a call's snapshots are.
func (s *server) repository(ctx context.Context, body podRequest) (*repository.Repository, error) {
	if body.Remote == nil {
		if s.Snapshots == nil {
			return nil, errNoSnapshots
		}
		return s.Snapshots, nil
	}
	found, err := s.remotes.find(body.Remote.Name)
	if err != nil {
		return nil, err
	}
	if s.Remotes == nil {
		scheme, _, _ := strings.Cut(found.URL, ":")
		return nil, marked{fmt.Errorf("remote %s: snapshots cannot be kept at %s remotes yet; without a remote they are kept in the data folder", found.Name, scheme), errNotHere}
	}
	place, err := s.Remotes(ctx, found.Name, found.URL, body.Remote.Params)
	if errors.Is(err, errors.ErrUnsupported) {
		return nil, fmt.Errorf("remote %s: %w", found.Name, err)
	}
	if err != nil { // what it is asked with is not enough, or no such thing
		return nil, badRequest("remote %s: %w", found.Name, err)
	}
	return repository.Open(ctx, repository.Config{Remote: place, Torpor: s.Version, Logger: s.Logger})
}

// versionOf reads the version that a call names; 0: none.
func versionOf(r *http.Request) (uint64, error) {
	text := r.URL.Query().Get("version")
	if text == "" {
		return 0, nil
	}
	n, err := strconv.ParseUint(text, 10, 63)
	if err != nil || n == 0 {
		return 0, badRequest("version is %.64q; versions are whole numbers from 1", text)
	}
	return n, nil
}

// boolOf reads a parameter that is true or false.
func boolOf(r *http.Request, name string) (bool, error) {
	text := r.URL.Query().Get(name)
	if text == "" {
		return false, nil
	}
	b, err := strconv.ParseBool(text)
	if err != nil {
		return false, badRequest("%s is %.64q; it may be true or false", name, text)
	}
	return b, nil
}

// strategyOf reads the parameter merge.
func strategyOf(r *http.Request) (snapshot.Strategy, error) {
	strategy, err := runtime.Parse("merge", r.URL.Query().Get("merge"), snapshot.Strategies())
	if err != nil {
		return "", marked{err, errBadRequest}
	}
	return strategy, nil
}

// closed logs that something could not be given back, of which no client needs to know.
func (s *server) closed(what string, err error) {
	if err != nil {
		s.Logger.Warn(what+" could not be closed", "error", err)
	}
}

// scratch is a temporary file that write has written, of size bytes. Close it.
func (s *server) scratch(write func(io.Writer) error) (f *vfs.ScratchFile, size int64, err error) {
	if f, err = vfs.Scratch(s.Scratch); err != nil {
		return nil, 0, err
	}
	if err = write(f); err == nil {
		size, err = f.Seek(0, io.SeekCurrent)
	}
	if err != nil {
		return nil, 0, errors.Join(err, f.Close())
	}
	return f, size, nil
}

// send answers with a temporary file.
func (s *server) send(w http.ResponseWriter, f *vfs.ScratchFile, size int64) {
	w.Header().Set("Content-Length", strconv.FormatInt(size, 10))
	w.Header().Set("Cache-Control", "no-store")
	if _, err := io.Copy(w, io.NewSectionReader(f, 0, size)); err != nil {
		s.Logger.Debug("an answer did not reach its client", "error", err)
	}
}

// environment tells what made a snapshot that is made now; the names are LocalStack's.
func (s *server) environment(w http.ResponseWriter, _ *http.Request, _ string) {
	writeJSON(w, http.StatusOK, struct {
		Version string `json:"localstack_version"`
		Ext     string `json:"localstack_ext_version"`
		Moto    string `json:"moto_ext_version"`
		Pro     bool   `json:"pro"`
	}{s.Version, s.Version, "", true}) // pro: snapshots made by LocalStack's clients are not held to be incomplete
}

// exportPod answers with the state of services, of all without any named, as one file.
func (s *server) exportPod(w http.ResponseWriter, r *http.Request, _ string) {
	var services []string
	for name := range strings.SplitSeq(r.URL.Query().Get("services"), ",") {
		if name = strings.TrimSpace(name); name != "" {
			services = append(services, name)
		}
	}
	name := r.URL.Query().Get("pod_name")
	if name != "" {
		if err := checkPod(name); err != nil {
			s.fail(w, err)
			return
		}
	}
	live, err := s.Runtime.Capture(r.Context(), services...)
	if err != nil {
		s.fail(w, err)
		return
	}
	defer s.closing(live)
	out := *live
	out.Name = name
	lock := seal.Lock{Passphrase: r.Header.Get(headerSecret)}
	f, size, err := s.scratch(func(to io.Writer) error {
		_, err := archive.Write(r.Context(), to, &out, archive.WriteOptions{Lock: lock})
		return err
	})
	if err != nil {
		s.fail(w, err)
		return
	}
	defer func() { s.closed("exported snapshot", f.Close()) }()
	s.Events.Tell(Event{Kind: EventSnapshot, Action: "export", Name: out.Name, Services: live.Services()})
	if name == "" {
		name = "snapshot-" + live.Created.UTC().Format("20060102T150405Z")
	}
	h := w.Header()
	h.Set("Content-Type", archive.MediaType)
	if !lock.IsZero() {
		h.Set("Content-Type", archive.SealedMediaType)
	}
	h.Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": name + archive.Extension}))
	h.Set(headerPodServices, strings.Join(live.Services(), ","))
	h.Set(headerPodSize, strconv.FormatInt(size, 10))
	s.send(w, f, size)
}

// pods lists the named snapshots.
func (s *server) pods(w http.ResponseWriter, r *http.Request, _ string) {
	var body podRequest
	err := readBody(w, r, &body)
	var all []cloudPod
	if err == nil {
		all, err = s.listPods(r, body)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		CloudPods []cloudPod `json:"cloudpods"`
	}{all})
}

func (s *server) listPods(r *http.Request, body podRequest) ([]cloudPod, error) {
	repo, err := s.repository(r.Context(), body)
	if err != nil {
		return nil, err
	}
	all, err := repo.List(r.Context())
	return cloudPods(all), err
}

// podVersions are the versions of a snapshot, at least one.
func (s *server) podVersions(r *http.Request, name string, body podRequest) ([]repository.Version, error) {
	if err := checkPod(name); err != nil {
		return nil, err
	}
	repo, err := s.repository(r.Context(), body)
	if err != nil {
		return nil, err
	}
	return repo.Versions(r.Context(), name)
}

func (s *server) versionsOfPod(w http.ResponseWriter, r *http.Request, name string) {
	var body podRequest
	err := readBody(w, r, &body)
	var versions []repository.Version
	if err == nil {
		versions, err = s.podVersions(r, name, body)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Versions []cloudPodVersion `json:"versions"`
	}{cloudPodVersions(versions)})
}

// podEvent is a line of the answer to saving and loading a named snapshot.
type podEvent struct {
	Event     string   `json:"event"` // service, completion
	Operation string   `json:"operation"`
	Service   string   `json:"service,omitempty"`
	Status    string   `json:"status"` // ok, error
	Message   string   `json:"message,omitempty"`
	Info      *podInfo `json:"info,omitempty"` // of a completion that is ok
}

// podInfo is what a saved or loaded snapshot is.
type podInfo struct {
	Name        string   `json:"name"`
	Version     uint64   `json:"version"`
	Services    []string `json:"services"`
	Size        int64    `json:"size"` // bytes of its states
	Description string   `json:"description,omitempty"`
	Torpor      string   `json:"localstack_version"`
	Encrypted   bool     `json:"encrypted"`
	Remote      string   `json:"remote,omitempty"`
}

// podDone answers with an event for each service and the completion.
func (*server) podDone(w http.ResponseWriter, operation string, info podInfo) {
	if info.Services == nil {
		info.Services = []string{}
	}
	out := &lineWriter{w: w}
	for _, name := range info.Services {
		if out.write(podEvent{Event: "service", Operation: operation, Service: name, Status: "ok"}) != nil {
			return
		}
	}
	_ = out.write(podEvent{Event: "completion", Operation: operation, Status: "ok", Info: &info})
}

// savePod saves the live state as the next version of a snapshot. All is done before the first line is sent: an error
// has its own status.
func (s *server) savePod(w http.ResponseWriter, r *http.Request, name string) {
	info, err := s.savedPod(w, r, name)
	if err != nil {
		s.fail(w, err)
		return
	}
	s.podDone(w, "save", info)
}

func (s *server) savedPod(w http.ResponseWriter, r *http.Request, name string) (podInfo, error) {
	var body podRequest
	if err := readBody(w, r, &body); err != nil {
		return podInfo{}, err
	}
	wanted, err := versionOf(r)
	if err != nil {
		return podInfo{}, err
	}
	repo, err := s.repository(r.Context(), body)
	if err != nil {
		return podInfo{}, err
	}
	if wanted > 0 {
		return podInfo{}, badRequest("version %d of snapshot %q: a save makes the next version, whose number is not to be chosen; leave version out", wanted, name)
	}
	lock := seal.Lock{Passphrase: r.Header.Get(headerSecret)}
	live, err := s.Runtime.Capture(r.Context(), body.Attributes.Services...)
	if err != nil {
		return podInfo{}, err
	}
	defer s.closing(live)
	start := time.Now()
	v, err := repo.Save(r.Context(), name, live, repository.SaveOptions{Description: body.Attributes.Description, Lock: lock})
	s.Events.Tell(Event{Kind: EventSnapshot, Action: "save", Name: name, Version: v.Number, Services: live.Services(), Seconds: time.Since(start).Seconds(), Error: textOf(err)})
	if err != nil {
		return podInfo{}, err
	}
	info := podInfo{Name: name, Version: v.Number, Services: live.Services(), Size: v.Size, Description: body.Attributes.Description, Torpor: s.Version, Encrypted: v.Encrypted}
	if body.Remote != nil {
		info.Remote = body.Remote.Name
	}
	return info, nil
}

// loadPod loads a version of a snapshot. That there is none such is told in the completion, where LocalStack's clients
// look for it; all other errors come before the first line and have their own status.
func (s *server) loadPod(w http.ResponseWriter, r *http.Request, name string) {
	info, err := s.loadedPod(w, r, name)
	if missing := (*repository.VersionError)(nil); errors.As(err, &missing) {
		_ = (&lineWriter{w: w}).write(podEvent{Event: "completion", Operation: "load", Status: "error", Message: textOfMissing(missing)})
		return
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	s.podDone(w, "load", info)
}

// textOfMissing is what LocalStack says where there is no such version: its clients look for these words.
func textOfMissing(e *repository.VersionError) string {
	if e.Newest == 0 {
		return fmt.Sprintf("Failed to get version information from platform: there is no snapshot %q", e.Name)
	}
	return fmt.Sprintf("Unable to load pod %s with version %d. The maximum version available in the remote storage is %d", e.Name, e.Version, e.Newest)
}

func (s *server) loadedPod(w http.ResponseWriter, r *http.Request, name string) (podInfo, error) {
	dry, err := boolOf(r, "dry_run")
	if err != nil {
		return podInfo{}, err
	}
	// What Torpor a state was saved by is no reason to refuse it: its format and its serializer are. So there is
	// nothing to ignore.
	if _, err := boolOf(r, "ignore_version_mismatches"); err != nil {
		return podInfo{}, err
	}
	in, strategy, err := s.openPod(w, r, name)
	if err != nil {
		return podInfo{}, err
	}
	defer s.closing(in)
	if _, err := s.apply(r.Context(), in, runtime.ApplyOptions{Strategy: strategy, DryRun: dry}); err != nil {
		return podInfo{}, incompatible(err)
	}
	return podInfo{Name: name, Version: in.Version, Services: in.Services(), Size: in.Size(), Description: in.Description, Torpor: in.Torpor}, nil
}

// openPod opens the version of a snapshot that a call names, and says how it is to be merged. Close it.
func (s *server) openPod(w http.ResponseWriter, r *http.Request, name string) (*snapshot.Snapshot, snapshot.Strategy, error) {
	var body podRequest
	if err := readBody(w, r, &body); err != nil {
		return nil, "", err
	}
	version, err := versionOf(r)
	if err != nil {
		return nil, "", err
	}
	strategy, err := strategyOf(r)
	if err != nil {
		return nil, "", err
	}
	repo, err := s.repository(r.Context(), body)
	if err != nil {
		return nil, "", err
	}
	in, err := repo.Open(r.Context(), name, version, seal.Key{Passphrase: r.Header.Get(headerSecret)})
	return in, strategy, incompatible(err)
}

func (s *server) removePod(w http.ResponseWriter, r *http.Request, name string) {
	var body podRequest
	err := readBody(w, r, &body)
	var repo *repository.Repository
	if err == nil {
		repo, err = s.repository(r.Context(), body)
	}
	if err == nil {
		err = repo.Remove(r.Context(), name)
		s.Events.Tell(Event{Kind: EventSnapshot, Action: "remove", Name: name, Error: textOf(err)})
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, struct {
		Name string `json:"pod_name"`
	}{name})
}
