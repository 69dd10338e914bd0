//go:build !linux

package statedir_test

import (
	"os"
	"testing"
)

// asOrdinaryUser runs f as someone whom permissions bind.
func asOrdinaryUser(t *testing.T, _ string, f func()) {
	t.Helper()
	if os.Geteuid() == 0 {
		t.Skip("permissions do not bind root")
	}
	f()
}
