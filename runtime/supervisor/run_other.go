//go:build !unix

package supervisor

import (
	"errors"
	"fmt"
	"syscall"
)

// guardProgram refuses: a service could not be ended with all that it has begun.
func guardProgram() (string, error) {
	return "", fmt.Errorf("programs of services cannot be run on this system, which has no process groups; run it yourself and configure its upstream: %w",
		errors.ErrUnsupported)
}

func ownSession() *syscall.SysProcAttr { return nil }

func killGroup(int) {}

func signalName(int) string { return "" }
