package server

import (
	"errors"
	"fmt"
	"net/http"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
)

func TestStatusOfSnapshots(t *testing.T) {
	for _, c := range []struct {
		err    error
		status int
		code   string
	}{
		{badRequest("x"), http.StatusBadRequest, "bad_request"},
		{badRequest("x: %w", abi.ErrNotFound), http.StatusBadRequest, "bad_request"},
		{incompatible(fmt.Errorf("x: %w", abi.ErrVersion)), http.StatusUnprocessableEntity, "incompatible"},
		{incompatible(&runtime.UnknownPartsError{}), http.StatusUnprocessableEntity, "incompatible"},
		{incompatible(&repository.VersionError{}), http.StatusNotFound, "not_found"},
		{&noPodFileError{abi.ErrCorrupt}, http.StatusUnprocessableEntity, "incompatible"},
		{errNoSnapshots, http.StatusConflict, "snapshots_disabled"},
		{marked{errors.New("x"), errNotHere}, http.StatusNotImplemented, "not_implemented"},
		{fmt.Errorf("x: %w", seal.ErrKey), http.StatusForbidden, "no_key"},
		{fmt.Errorf("x: %w", seal.ErrLock), http.StatusBadRequest, "bad_request"},
	} {
		if status, code := statusOf(c.err); status != c.status || code != c.code {
			t.Errorf("%v: %d %s, want %d %s", c.err, status, code, c.status, c.code)
		}
	}
	if incompatible(nil) != nil {
		t.Error("nothing is not incompatible")
	}
}

// TestNoPodTakesARoute: a snapshot whose name is a route could be saved and not be told of.
func TestNoPodTakesARoute(t *testing.T) {
	for _, name := range []string{"state", "environment", "remotes", "", "-x", "a/b"} {
		if err := checkPod(name); !errors.Is(err, errBadRequest) {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"base", "My-pod_1.2", "versions", "diff"} {
		if err := checkPod(name); err != nil {
			t.Errorf("%q: %v", name, err)
		}
	}
}

// After half a load a client must not be told to try again in a second, as for a program that was just not up.
func TestStatusOfHalf(t *testing.T) {
	err := errors.Join(fmt.Errorf("service a: %w", runtime.ErrProcess), fmt.Errorf("service b: %w: %w", runtime.ErrHalf, runtime.ErrProcess))
	if status, code := statusOf(err); status != http.StatusInternalServerError {
		t.Errorf("%d %s", status, code)
	}
}
