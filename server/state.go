package server

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"

	"github.com/torpor-run/torpor/runtime"
)

// stateLine is one line of the NDJSON that state calls answer with, as in LocalStack.
type stateLine struct {
	Service string `json:"service"`
	Status  string `json:"status"` // ok or error
	Message string `json:"message,omitempty"`
}

// action is what a state call does to one service; message is for people.
type action func(context.Context, *runtime.Service) (message string, err error)

func (s *server) actions() map[string]action {
	return map[string]action{
		"save": func(ctx context.Context, svc *runtime.Service) (string, error) {
			return "", svc.Save(ctx)
		},
		"load": func(ctx context.Context, svc *runtime.Service) (string, error) {
			found, err := svc.Load(ctx)
			if err == nil && !found {
				return "nothing is saved; the live state stays as it is", nil
			}
			return "", err
		},
		"reset": func(ctx context.Context, svc *runtime.Service) (string, error) {
			return "", svc.Reset(ctx)
		},
	}
}

// control guards a route that changes state: a page of another web origin, which a browser would let
// send such a request unasked, is refused.
func (s *server) control(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" {
			if u, err := url.Parse(origin); err != nil || u.Host != r.Host {
				writeError(w, http.StatusForbidden, "foreign_origin", "control calls from the web origin "+origin+" are refused", "call without an Origin header, or from a page Torpor itself serves")
				return
			}
		}
		h(w, r)
	}
}

func line(name, message string, err error) stateLine {
	if err != nil {
		return stateLine{Service: name, Status: "error", Message: err.Error()}
	}
	return stateLine{Service: name, Status: "ok", Message: message}
}

// runAll answers with a line for each service as soon as it is done. The status is 200: each line says
// how its service fared.
func (s *server) runAll(w http.ResponseWriter, r *http.Request, run action) {
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, svc := range s.Runtime.Services() {
		message, err := run(r.Context(), svc)
		if encErr := enc.Encode(line(svc.Name(), message, err)); encErr != nil {
			return // the client has gone; so has its context
		}
		_ = http.NewResponseController(w).Flush()
	}
}

func (s *server) runOne(w http.ResponseWriter, r *http.Request, name string, run action) {
	status := http.StatusOK
	svc, err := s.Runtime.Service(name)
	var message string
	if err != nil {
		status, _ = statusOf(err)
	} else if message, err = run(r.Context(), svc); err != nil {
		status = http.StatusInternalServerError // whatever it was: LocalStack's clients know no other
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(line(name, message, err))
}
