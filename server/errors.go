package server

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"syscall"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/server/gateway"
)

// What is wrong with a call, for statusOf. Errors are marked with these, which say nothing to people.
var (
	errBadRequest   = errors.New("bad request")
	errIncompatible = errors.New("incompatible")                                     // what a client wants loaded cannot be loaded here
	errNoSnapshots  = errors.New("there is no place where named snapshots are kept") // Config.Snapshots is nil
	errNothingSaved = errors.New("persistence is disabled")
	errGone         = errors.New("gone")            // what there was once, and a client goes on with
	errNotHere      = errors.New("not implemented") // Config has no function for it
)

// marked is an error of one of the kinds above, with its own text only.
type marked struct {
	error
	mark error
}

func (e marked) Unwrap() []error { return []error{e.error, e.mark} }

func badRequest(format string, args ...any) error {
	return marked{fmt.Errorf(format, args...), errBadRequest}
}

// incompatible marks what says that a snapshot is not one that can be loaded here, and leaves other errors as they are.
func incompatible(err error) error {
	if unknown := (*runtime.UnknownPartsError)(nil); errors.As(err, &unknown) || errors.Is(err, abi.ErrVersion) {
		return marked{err, errIncompatible}
	}
	return err
}

// statusOf is the one place where errors become HTTP statuses; code is the word in the JSON body.
func statusOf(err error) (status int, code string) {
	switch {
	// What the client asked for is what is wrong, whatever else the error says about it.
	case errors.Is(err, errBadRequest):
		return http.StatusBadRequest, "bad_request"
	case errors.Is(err, errNothingSaved):
		return http.StatusConflict, "persistence_disabled"
	case errors.Is(err, errGone):
		return http.StatusGone, "gone"
	case errors.Is(err, runtime.ErrHalf):
		return http.StatusInternalServerError, "half_loaded"
	case errors.Is(err, errIncompatible), unfit(err):
		return http.StatusUnprocessableEntity, "incompatible"
	case errors.Is(err, errNoSnapshots):
		return http.StatusConflict, "snapshots_disabled"
	case errors.Is(err, errNotHere), errors.Is(err, errors.ErrUnsupported):
		return http.StatusNotImplemented, "not_implemented"
	case errors.Is(err, seal.ErrKey):
		return http.StatusForbidden, "no_key"
	case errors.Is(err, seal.ErrLock):
		return http.StatusBadRequest, "bad_request"
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

// unfit reports whether a snapshot is what keeps it from being loaded here, and not this machine.
func unfit(err error) bool {
	return errors.Is(err, runtime.ErrUnloadable) && !errors.Is(err, syscall.ENOSPC) &&
		!errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded)
}

func writeError(w http.ResponseWriter, status int, code, message, hint string) {
	gateway.WriteError(w, status, code, message, hint)
}

func (s *server) fail(w http.ResponseWriter, err error) {
	status, code := statusOf(err)
	if status == http.StatusServiceUnavailable {
		w.Header().Set("Retry-After", "1")
	}
	writeError(w, status, code, err.Error(), hintOf(code))
}

// hintOf is what to do about an error that does not say it itself.
func hintOf(code string) string {
	if code == "persistence_disabled" {
		return "start Torpor with PERSISTENCE=1"
	}
	return ""
}

func writeJSON(w http.ResponseWriter, status int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(status)
	// The status is out: a client that has gone away is the only thing left to go wrong.
	_ = json.NewEncoder(w).Encode(v)
}
