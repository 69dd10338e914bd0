package server

import (
	"errors"
	"log/slog"
	"net/http"
	"strings"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/runtime"
)

// Config is what the server is made of.
type Config struct {
	Runtime  *runtime.Runtime
	Backends map[string]http.Handler // the services' own handlers, by service name
	Default  string                  // the service that gets what no other rule places
	Metrics  http.Handler            // answers /metrics
	Observer RequestObserver         // may be nil
	Logger   *slog.Logger
	Version  string
	Session  string // an id of this process's life
	Started  time.Time
}

// RequestObserver is told of every request that was passed to a service. It must be safe for
// concurrent use.
type RequestObserver interface {
	RequestServed(service string, status int, d time.Duration)
}

type server struct {
	Config
}

// New makes the handler of everything Torpor answers on its port. It is safe for concurrent use.
func New(cfg Config) http.Handler {
	s := &server{cfg}
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
	route := func(method, path string, h http.HandlerFunc) { e.Add(method, path, echo.WrapHandler(h)) }
	for _, m := range []string{http.MethodGet, http.MethodHead} {
		route(m, "/_localstack/health", s.localstackHealth)
		route(m, "/_localstack/info", s.localstackInfo)
		route(m, "/_torpor/health", s.health)
	}
	for action, run := range s.actions() {
		all := s.control(func(w http.ResponseWriter, r *http.Request) { s.runAll(w, r, run) })
		route(http.MethodPost, "/_localstack/state/"+action, all)
		e.Add(http.MethodPost, "/_localstack/state/:service/"+action, func(c echo.Context) error {
			s.control(func(w http.ResponseWriter, r *http.Request) { s.runOne(w, r, c.Param("service"), run) })(c.Response(), c.Request())
			return nil
		})
	}
	gateway := s.gateway()
	metrics := func(w http.ResponseWriter, r *http.Request) {
		// "metrics" is also a fine name for a bucket: a signed request is meant for S3.
		if isAWS(r) {
			gateway.ServeHTTP(w, r)
			return
		}
		s.Metrics.ServeHTTP(w, r)
	}
	route(http.MethodGet, "/metrics", metrics)
	route(http.MethodHead, "/metrics", metrics)

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
		gateway.ServeHTTP(w, r)
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
