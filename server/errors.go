package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"syscall"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/server/gateway"
)

// statusOf is the one place where errors become HTTP statuses; code is the word in the JSON body.
func statusOf(err error) (status int, code string) {
	switch {
	case errors.Is(err, runtime.ErrBusy):
		return http.StatusServiceUnavailable, "busy"
	case errors.Is(err, runtime.ErrExternal):
		return http.StatusConflict, "external"
	case errors.Is(err, runtime.ErrLost):
		return http.StatusConflict, "lost"
	case errors.Is(err, runtime.ErrProcess):
		return http.StatusServiceUnavailable, "process"
	// Behind those above: that a service's program is not found does not mean that the service is not.
	case errors.Is(err, abi.ErrNotFound):
		return http.StatusNotFound, "not_found"
	case errors.Is(err, abi.ErrCorrupt):
		return http.StatusInternalServerError, "corrupt"
	case errors.Is(err, abi.ErrVersion):
		return http.StatusInternalServerError, "unsupported_version"
	case errors.Is(err, abi.ErrTooLarge):
		return http.StatusRequestEntityTooLarge, "too_large"
	case errors.Is(err, syscall.ENOSPC):
		return http.StatusInsufficientStorage, "no_space"
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, context.Canceled):
		return http.StatusServiceUnavailable, "unavailable"
	default:
		return http.StatusInternalServerError, "internal"
	}
}

func writeError(w http.ResponseWriter, status int, code, message, hint string) {
	gateway.WriteError(w, status, code, message, hint)
}

func (s *server) fail(w http.ResponseWriter, err error) {
	status, code := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeError(w, status, code, err.Error(), "")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The status is out: a client that has gone away is the only thing left to go wrong.
	_ = json.NewEncoder(w).Encode(v)
}
