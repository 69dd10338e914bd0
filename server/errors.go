package server

import (
	"context"
	"encoding/json"
	"errors"
	"net/http"
	"syscall"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
)

// statusOf is the one place where errors become HTTP statuses; code is the word in the JSON body.
func statusOf(err error) (status int, code string) {
	switch {
	case errors.Is(err, abi.ErrNotFound):
		return http.StatusNotFound, "not_found"
	case errors.Is(err, runtime.ErrBusy):
		return http.StatusInternalServerError, "busy"
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

// errorBody is the form of every error Torpor itself answers with.
type errorBody struct {
	Error struct {
		Code    string `json:"code"`
		Message string `json:"message"`
		Hint    string `json:"hint,omitempty"`
	} `json:"error"`
}

func writeError(w http.ResponseWriter, status int, code, message, hint string) {
	var b errorBody
	b.Error.Code, b.Error.Message, b.Error.Hint = code, message, hint
	writeJSON(w, status, b)
}

func (s *server) fail(w http.ResponseWriter, err error) {
	status, code := statusOf(err)
	writeError(w, status, code, err.Error(), "")
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The status is out: a client that has gone away is the only thing left to go wrong.
	_ = json.NewEncoder(w).Encode(v)
}
