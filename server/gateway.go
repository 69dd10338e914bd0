package server

import (
	"net/http"
	"time"
)

// gateway passes a request to its service: it waits while requests are held or the state is being
// loaded, and answers itself where the service cannot.
func (s *server) gateway() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		start := time.Now()
		name := s.Default
		rec := &statusRecorder{ResponseWriter: w, status: http.StatusOK}
		if s.Observer != nil {
			defer func() { s.Observer.RequestServed(name, rec.status, time.Since(start)) }()
		}
		svc, err := s.Runtime.Service(name)
		if err != nil {
			s.fail(rec, err)
			return
		}
		leave, err := svc.Enter(r.Context())
		if err != nil {
			rec.Header().Set("Retry-After", "1")
			writeError(rec, http.StatusServiceUnavailable, "service_unavailable", err.Error(),
				"see /_torpor/health; load the service's state again with POST /_localstack/state/"+name+"/load, or give it up with POST /_localstack/state/"+name+"/reset (not one of a newer format)")
			return
		}
		defer leave()
		s.Backends[name].ServeHTTP(rec, r)
	})
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
