package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server/gateway"
)

// errWaking ends the wait of a request for its service.
var errWaking = errors.New("it took too long")

// nobody is the label of requests that no service takes.
const nobody = "none"

// gateway passes a request to its service: it waits while the service is woken and while requests are held, and
// answers itself where the service cannot.
func (s *server) gateway() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, original *http.Request) {
		v := &visit{server: s, start: time.Now(), label: nobody, rec: &statusRecorder{ResponseWriter: w, status: http.StatusOK}}
		defer v.observe()
		// A copy: the server looks at the body it made to know in what state the connection is.
		r := new(http.Request)
		*r = *original
		route := s.router.Route(r)
		if route.Service == "" {
			writeError(v.rec, http.StatusNotFound, "no_service", "no service takes "+r.Method+" "+r.URL.Path+" of host "+r.Host,
				"see match in the configuration of the services, and /_torpor/health for those there are")
			return
		}
		svc, err := s.Runtime.Service(route.Service)
		backend, ok := s.Backends[route.Service]
		if err == nil && !ok {
			err = fmt.Errorf("service %s has no way in: %w", route.Service, abi.ErrNotFound)
		}
		if err != nil {
			s.fail(v.rec, err)
			return
		}
		v.service, v.label, v.backend = svc, route.Service, backend
		v.serve(r, &route)
	})
}

// visit is one request to a service.
type visit struct {
	server  *server
	service *runtime.Service
	backend Backend
	rec     *statusRecorder
	start   time.Time
	label   string
	once    sync.Once
}

// observe tells of the request, once.
func (v *visit) observe() {
	v.once.Do(func() {
		if v.server.Observer != nil {
			v.server.Observer.RequestServed(v.label, v.rec.status, time.Since(v.start))
		}
	})
}

func (v *visit) serve(r *http.Request, route *gateway.Route) {
	proxy, proxied := v.backend.Handler.(*gateway.Proxy)
	reads := proxied && v.server.reads[v.label].Only(r, route)
	leave, err := v.enter(r.Context())
	if err != nil {
		v.refuse(err)
		return
	}
	r = route.Apply(r)
	if !proxied {
		defer leave()
		v.backend.Handler.ServeHTTP(v.rec, r)
		return
	}
	pass := gateway.Visit{Leave: leave, Hold: v.backend.Save == runtime.SaveOnRequest, Release: v.backend.Upgraded != UpgradedHold,
		Active: v.service.Activity, Every: min(v.backend.Idle/4, maxActive),
		Switched: func() {
			v.service.Changed()
			v.rec.status = http.StatusSwitchingProtocols
			v.observe() // how long it lasts is not how long an answer took
		},
		Written: func() { v.written(r.Context()) }}
	if !reads {
		pass.Changed = v.service.Changed
	}
	proxy.Pass(v.rec, r, pass)
}

// maxActive is how long at most between two signs that a service with a switched connection is in use.
const maxActive = 10 * time.Second

// enter lets the request into the service, or gives up when it has waited for too long.
func (v *visit) enter(ctx context.Context) (leave func(), err error) {
	// A timer that each request sets and stops costs more than all else here: the scheduler wakes a thread for it.
	if leave, ok := v.service.EnterNow(ctx); ok {
		return leave, nil
	}
	if v.backend.WakeTimeout > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, v.backend.WakeTimeout, errWaking)
		defer cancel()
	}
	return v.service.Enter(ctx)
}

// refuse answers a request that was not let in. Clients that are told 503 try again, those of AWS included.
func (v *visit) refuse(err error) {
	code, hint := "service_unavailable", "see /_torpor/health; if the service's configuration was changed, put it right; load its state again with POST /_localstack/state/"+v.label+
		"/load, or give it up with POST /_localstack/state/"+v.label+"/reset (not one of a newer format)"
	message := err.Error()
	switch {
	case errors.Is(err, errWaking):
		code, hint = "service_waking", "try again; wake_timeout in the service's configuration says how long a request waits"
		message = fmt.Sprintf("%s: %v", message, v.backend.WakeTimeout)
	case errors.Is(err, runtime.ErrProcess):
		code, hint = "service_unavailable", "see /_torpor/health and what the program said in the log; the next request starts it again"
	}
	v.rec.Header().Set("Retry-After", "1")
	writeError(v.rec, http.StatusServiceUnavailable, code, message, hint)
}

// written marks what came over a switched connection. With ON_REQUEST it saves it too, as no end of a request
// will, where the connection does not count as one.
func (v *visit) written(ctx context.Context) {
	if v.service.Status().Status != runtime.StatusRunning {
		return // the connection ends because the service was stopped, and has been saved
	}
	v.service.Changed()
	if v.backend.Save != runtime.SaveOnRequest || v.backend.Upgraded == UpgradedHold {
		return
	}
	if _, err := v.service.Sync(context.WithoutCancel(ctx)); err != nil {
		v.server.Logger.Error("what a switched connection brought to the service could not be saved", "service", v.label, "error", err)
	}
}

// statusRecorder remembers the status of an answer. Unwrap lets http.ResponseController reach what the
// underlying writer can do.
type statusRecorder struct {
	http.ResponseWriter
	status int
	wrote  bool
}

func (r *statusRecorder) WriteHeader(status int) {
	// Of 1xx answers only 101 is the last one.
	if !r.wrote && (status >= 200 || status == http.StatusSwitchingProtocols) {
		r.status, r.wrote = status, true
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *statusRecorder) Write(b []byte) (int, error) {
	r.wrote = true
	return r.ResponseWriter.Write(b)
}

func (r *statusRecorder) Flush() {
	r.wrote = true
	_ = http.NewResponseController(r.ResponseWriter).Flush()
}

func (r *statusRecorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }
