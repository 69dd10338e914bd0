package server

import (
	"context"
	"encoding/json"
	"net/http"

	"github.com/torpor-run/torpor/runtime"
)

// stateLine is one line of the NDJSON that state calls answer with, as in LocalStack.
type stateLine struct {
	Service string `json:"service"`
	Status  string `json:"status"` // ok or error
	Message string `json:"message,omitempty"`
}

// action is what a state call does to one service; message is for people.
type action struct {
	run func(context.Context, *runtime.Service) (message string, err error)
	// start: the call's body may say that the service is to run then, {"start": true}.
	start bool
}

// asked is the action with what the call's body asks for.
func (a action) asked(w http.ResponseWriter, r *http.Request) (action, error) {
	var body struct {
		Start bool `json:"start"`
	}
	if !a.start {
		return a, nil
	}
	if err := readBody(w, r, &body); err != nil || !body.Start {
		return a, err
	}
	return action{run: func(ctx context.Context, svc *runtime.Service) (string, error) {
		message, err := a.run(ctx, svc)
		if err == nil {
			err = svc.Wake(ctx)
		}
		return message, err
	}}, nil
}

func (s *server) actions() map[string]action {
	return map[string]action{
		"save": {run: func(ctx context.Context, svc *runtime.Service) (string, error) {
			return "", svc.Save(ctx)
		}},
		"load": {start: true, run: func(ctx context.Context, svc *runtime.Service) (string, error) {
			found, err := svc.Load(ctx)
			if err == nil && !found {
				return "nothing is saved; the live state stays as it is", nil
			}
			return "", err
		}},
		"reset": {run: func(ctx context.Context, svc *runtime.Service) (string, error) {
			return "", svc.Reset(ctx)
		}},
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
	run, err := run.asked(w, r)
	if err != nil {
		s.fail(w, err)
		return
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	enc := json.NewEncoder(w)
	for _, svc := range s.Runtime.Services() {
		message, err := run.run(r.Context(), svc)
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
	if err == nil {
		run, err = run.asked(w, r)
	}
	if err != nil {
		status, _ = statusOf(err)
	} else if message, err = run.run(r.Context(), svc); err != nil {
		status = http.StatusInternalServerError // whatever it was: LocalStack's clients know no other
	}
	w.Header().Set("Content-Type", "application/x-ndjson")
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(line(name, message, err))
}
