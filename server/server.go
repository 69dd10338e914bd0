package server

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server/gateway"
)

// Config is what the server is made of.
type Config struct {
	Runtime  *runtime.Runtime
	Backends map[string]Backend      // the services' ways in, by service name
	Rules    []gateway.Rule          // which requests are whose
	Default  string                  // the service that gets what no rule claims; "": nobody does
	Push     map[string]http.Handler // state URLs of parts that are handed over, by "service/part"
	// Processes tells of a service's program, for health: something that makes JSON, such as a [Process]. May be
	// nil, and ok false: there is none.
	Processes func(service string) (process any, ok bool)
	Access    Access          // who may control
	Init      http.Handler    // answers GET /_localstack/init and /_localstack/init/{stage}; may be nil
	Metrics   http.Handler    // answers /metrics
	Observer  RequestObserver // may be nil
	Events    *Events         // what GET /_torpor/events tells; nil: there is no such route
	Logger    *slog.Logger
	Version   string
	Session   string // an id of this process's life
	Started   time.Time

	Snapshots *repository.Repository // where named snapshots are kept; nil: nowhere
	// Saved is the runtime's state directory, to read single generations; nil: they cannot be read.
	Saved *statedir.Dir
	// Nesting gives abi.Descriptor.Nesting of a serializer that states were written by, for what is redacted; nil: keys are flat.
	Nesting func(statefile.Serializer) string
	// Scratch is the folder for temporary files, which have no names; "": the system's.
	Scratch string
	// MaxUpload is how many bytes a snapshot may have that a client hands over; 0: DefaultMaxUpload.
	MaxUpload int64
	// Kept is the folder where the definitions of remotes are kept, in RemotesFile; nil: they end with the process.
	Kept vfs.FS
	// Remotes opens a remote that a client has defined. url has placeholders, as {access_key_id}, for what is in params,
	// which are secrets. nil: there are none that could be opened.
	// It asks nobody yet: an error is that what it is given is not enough, or wraps errors.ErrUnsupported.
	Remotes func(ctx context.Context, name, url string, params map[string]string) (repository.Remote, error)
	// Resources says which records of a service are resources that LocalStack's clients show, by service.
	Resources map[string]Resource
	// Restart and Kill begin what POST /_localstack/health asks for, and return at once; nil: it is answered with 501.
	Restart, Kill func() error
}

// DefaultMaxUpload is the default of [Config.MaxUpload].
const DefaultMaxUpload = 64 << 30

// Backend is how requests get into a service, and what is known of them.
type Backend struct {
	// Handler is the service's own, where it is in this process and marks its changes itself, or a
	// *gateway.Proxy.
	Handler http.Handler
	// WakeTimeout is how long a request waits for the service to be woken, and while requests are held; 0: as
	// long as it takes.
	WakeTimeout time.Duration

	// What follows is for a service behind a proxy.

	Reads    gateway.Reads        // which requests only read
	Save     runtime.SaveStrategy // the service's; with ON_REQUEST an answer waits until what it changed is saved
	Idle     time.Duration        // the service's; 0: it is never put to sleep
	Upgraded Upgraded
}

// Upgraded says what a connection that is no longer HTTP (a WebSocket) counts as.
type Upgraded string

// What it can count as. In both cases the service does not become idle.
const (
	// UpgradedRelease: it does not hold saves up, and what goes to the service marks it changed, once a second.
	UpgradedRelease Upgraded = "release"
	// UpgradedHold: a request under way until it ends.
	UpgradedHold Upgraded = "hold"
)

// Process is what health tells of a service's program.
type Process struct {
	State    string `json:"state"`
	PID      int    `json:"pid,omitempty"`
	Address  string `json:"address,omitempty"`
	Restarts int    `json:"restarts"`
	LastExit string `json:"last_exit,omitempty"` // how it ended last by itself
}

// RequestObserver is told of every request that was passed to a service. It must be safe for
// concurrent use.
type RequestObserver interface {
	RequestServed(service string, status int, d time.Duration)
}

type server struct {
	Config
	router *gateway.Router
	reads  map[string]*gateway.Reading // by service
	guard  *guard
	routes []*echo.Route // that there are

	remotes *remotes
}

// New makes the handler of everything Torpor answers on its port. It is safe for concurrent use. An error says
// what is wrong with the rules, or with who may control.
func New(cfg Config) (http.Handler, error) {
	s := &server{Config: cfg, reads: map[string]*gateway.Reading{}}
	if err := s.route(); err != nil {
		return nil, err
	}
	var err error
	if s.guard, err = cfg.Access.guard(s.Rules, s.Logger); err != nil {
		return nil, err
	}
	if s.remotes, err = openRemotes(s.Kept, s.Logger); err != nil {
		return nil, err
	}
	if s.MaxUpload < 0 {
		return nil, fmt.Errorf("MaxUpload is %d bytes; it may be from 1, or 0 for %d", s.MaxUpload, int64(DefaultMaxUpload))
	}
	if s.MaxUpload == 0 {
		s.MaxUpload = DefaultMaxUpload
	}
	return s.handler(), nil
}

// route looks the rules through.
func (s *server) route() (err error) {
	if s.router, err = gateway.NewRouter(s.Rules, s.Default); err != nil {
		return err
	}
	for _, r := range s.Rules {
		if _, there := s.Backends[r.Service]; !there {
			return fmt.Errorf("a rule names the service %s, which there is not", r.Service)
		}
	}
	for name, b := range s.Backends {
		if s.reads[name], err = b.Reads.Compile(); err != nil {
			return fmt.Errorf("service %s: %w", name, err)
		}
		if _, err = runtime.Parse("upgraded of service "+name, string(b.Upgraded), []Upgraded{UpgradedRelease, UpgradedHold}); err != nil {
			return err
		}
		if b.Handler == nil {
			return fmt.Errorf("service %s has no handler", name)
		}
	}
	return nil
}

func (s *server) handler() http.Handler {
	e := echo.New()
	e.HideBanner, e.HidePort = true, true
	// Echo's own answers (no such route, wrong method) take the form of all other errors.
	e.HTTPErrorHandler = func(err error, c echo.Context) {
		status := http.StatusInternalServerError
		var he *echo.HTTPError
		if errors.As(err, &he) {
			status = he.Code
		}
		writeError(c.Response(), status, strings.ToLower(strings.ReplaceAll(http.StatusText(status), " ", "_")),
			c.Request().Method+" "+c.Request().URL.Path+": "+http.StatusText(status), "see the HTTP reference in README.md for the routes there are")
	}
	e.Use(s.guard.admission)
	route := func(method, path string, h http.HandlerFunc) { e.Add(method, path, echo.WrapHandler(h)) }
	route(http.MethodPost, "/_localstack/health", s.healthAction)
	for _, m := range []string{http.MethodGet, http.MethodHead} {
		route(m, "/_localstack/health", s.localstackHealth)
		route(m, "/_localstack/info", s.localstackInfo)
		route(m, "/_torpor/health", s.health)
	}
	for action, run := range s.actions() {
		all := func(w http.ResponseWriter, r *http.Request) { s.runAll(w, r, run) }
		route(http.MethodPost, "/_localstack/state/"+action, all)
		e.Add(http.MethodPost, "/_localstack/state/:service/"+action, func(c echo.Context) error {
			s.runOne(c.Response(), c.Request(), c.Param("service"), run)
			return nil
		})
	}
	s.services(e)
	s.native(e)
	s.localstack(e)
	if s.Init != nil {
		for _, m := range []string{http.MethodGet, http.MethodHead} {
			route(m, initPath, s.Init.ServeHTTP)
			route(m, initPath+"/:stage", s.Init.ServeHTTP)
		}
	}
	pass := s.gateway()
	metrics := func(w http.ResponseWriter, r *http.Request) {
		// "metrics" is also a fine name for a bucket: a signed request is meant for S3.
		if isAWS(r) {
			pass.ServeHTTP(w, r)
			return
		}
		s.Metrics.ServeHTTP(w, r)
	}
	route(http.MethodGet, "/metrics", metrics)
	route(http.MethodHead, "/metrics", metrics)
	s.routes = e.Routes()

	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// Echo's router cleans and decodes paths, which for an object's key would be damage; so it
		// sees only the paths that are Torpor's.
		if own(r.URL.Path) {
			e.ServeHTTP(w, r)
			return
		}
		if r.URL.Path == "/metrics" && (r.Method == http.MethodGet || r.Method == http.MethodHead) {
			e.ServeHTTP(w, r)
			return
		}
		pass.ServeHTTP(w, r)
	})
}

// own tells Torpor's paths from the services'. No bucket name begins with an underscore.
func own(path string) bool {
	return strings.HasPrefix(path, "/_localstack/") || strings.HasPrefix(path, "/_torpor/") ||
		path == "/_localstack" || path == "/_torpor"
}

// isAWS reports whether a request is signed as AWS clients sign, in version 4 or 2, by header or in the
// URL.
func isAWS(r *http.Request) bool {
	a, q := r.Header.Get("Authorization"), r.URL.Query()
	return strings.HasPrefix(a, "AWS4-") || strings.HasPrefix(a, "AWS ") || q.Has("X-Amz-Signature") || q.Has("AWSAccessKeyId")
}
