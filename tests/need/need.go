// Package need is for tests that can only run where something beyond Go is: a program, a right, a file
// system. Such a test begins with one call of this package and is skipped where the thing is missing,
// saying what was missing. Where the environment has CI=true a missing thing is a failure instead: a
// test that CI silently skips protects nothing.
package need

import (
	"os"
	"os/exec"
	"testing"
)

// Program gives the path of the program called name.
func Program(t testing.TB, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		Missing(t, "the program "+name)
	}
	return path
}

// Root goes on only if the tests run as the superuser: why says what that is needed for.
func Root(t testing.TB, why string) {
	t.Helper()
	if os.Geteuid() != 0 {
		Missing(t, "the superuser's rights, to "+why)
	}
}

// Missing skips the test for want of what, or fails it where CI=true. It does not return.
func Missing(t testing.TB, what string) {
	t.Helper()
	if os.Getenv("CI") == "true" {
		t.Fatalf("this test needs %s, which is not here; in CI (CI=true) it must be", what)
	}
	t.Skipf("this test needs %s, which is not here", what)
}
