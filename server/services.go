package server

import (
	"context"
	"errors"
	"net/http"
	"time"

	"github.com/labstack/echo/v4"

	"github.com/torpor-run/torpor/runtime"
)

// services adds the routes of single services: POST /_torpor/services/{service}/{sleep,wake,sync,save,load,reset}, and
// the state URLs of parts that are handed over.
func (s *server) services(e *echo.Echo) {
	for action, run := range map[string]func(context.Context, *runtime.Service) (any, error){"sleep": s.saved(s.sleep), "wake": s.saved(s.wake),
		"sync": s.saved(s.sync), "save": s.saved(s.saveService), "load": s.saved(s.loadService), "reset": s.resetService} {
		e.Add(http.MethodPost, "/_torpor/services/:service/"+action, func(c echo.Context) error {
			s.runService(c.Response(), c.Request(), c.Param("service"), run)
			return nil
		})
	}
	for _, m := range []string{http.MethodPut, http.MethodGet, http.MethodHead, http.MethodDelete} {
		e.Add(m, "/_torpor/services/:service/parts/:part/state", func(c echo.Context) error {
			s.push(c.Response(), c.Request(), c.Param("service"), c.Param("part"))
			return nil
		})
	}
}

func (s *server) runService(w http.ResponseWriter, r *http.Request, name string, run func(context.Context, *runtime.Service) (any, error)) {
	svc, err := s.Runtime.Service(name)
	var answer any
	if err == nil {
		answer, err = run(r.Context(), svc)
	}
	if err != nil {
		s.fail(w, err)
		return
	}
	writeJSON(w, http.StatusOK, answer)
}

// saved is run for what takes persistence: without it, that is what its error is about.
func (s *server) saved(run func(context.Context, *runtime.Service) (any, error)) func(context.Context, *runtime.Service) (any, error) {
	return func(ctx context.Context, svc *runtime.Service) (any, error) {
		answer, err := run(ctx, svc)
		if err != nil && !s.Runtime.Persistent() && !errors.Is(err, runtime.ErrExternal) && !errors.Is(err, runtime.ErrProcess) {
			err = marked{err, errNothingSaved}
		}
		return answer, err
	}
}

func (s *server) sleep(ctx context.Context, svc *runtime.Service) (any, error) {
	err := svc.Sleep(ctx)
	return s.serviceHealth(svc), err
}

func (s *server) wake(ctx context.Context, svc *runtime.Service) (any, error) {
	err := svc.Wake(ctx)
	return s.serviceHealth(svc), err
}

// Synced is the answer of POST /_torpor/services/{service}/sync.
type Synced struct {
	Service string       `json:"service"`
	Parts   []SyncedPart `json:"parts"`
}

// SyncedPart is one part in [Synced].
type SyncedPart struct {
	Part       string     `json:"part"`
	Generation uint64     `json:"generation"` // that holds what was acknowledged before the call; 0: there was never anything to save
	SavedAt    *time.Time `json:"saved_at"`   // null: never
}

func (s *server) sync(ctx context.Context, svc *runtime.Service) (any, error) {
	parts, err := svc.Sync(ctx)
	answer := Synced{Service: svc.Name(), Parts: []SyncedPart{}}
	for _, p := range parts {
		sp := SyncedPart{Part: p.Part, Generation: p.Generation}
		if !p.SavedAt.IsZero() {
			at := p.SavedAt.UTC()
			sp.SavedAt = &at
		}
		answer.Parts = append(answer.Parts, sp)
	}
	return answer, err
}

// push hands a request for a part's state to the source that keeps it.
func (s *server) push(w http.ResponseWriter, r *http.Request, service, part string) {
	h, ok := s.Push[service+"/"+part]
	if !ok {
		writeError(w, http.StatusNotFound, "not_found", "there is no service "+service+" with a part "+part+" whose state is handed over",
			"give the part the source push in the configuration")
		return
	}
	// What is saved must be there before it is asked for, and before it is replaced. A service that is being woken asks
	// for it itself, and must not wait for that.
	if svc, err := s.Runtime.Service(service); err == nil && svc.Status().Status == runtime.StatusAvailable {
		if err := svc.Wake(r.Context()); err != nil {
			s.fail(w, err)
			return
		}
	}
	h.ServeHTTP(w, r)
}
