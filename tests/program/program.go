// Package program builds torpor for tests that run it as its users do.
package program

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Run builds the program, puts its path into file, runs the tests and removes it again. It returns the exit
// code, for TestMain. Every user may run the program. Where BUILT_TORPOR names a program it is taken instead, so that
// a run of the tests of many packages builds it once.
func Run(m *testing.M, file *string) int {
	dir, err := os.MkdirTemp("", "torpor-program-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer func() { _ = os.RemoveAll(dir) }()
	if err := os.Chmod(dir, 0o755); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	*file = filepath.Join(dir, "torpor")
	if built := os.Getenv("BUILT_TORPOR"); built != "" {
		program, err := os.ReadFile(built)
		if err == nil {
			err = os.WriteFile(*file, program, 0o755)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	}
	build := exec.Command("go", "build", "-o", *file, "github.com/torpor-run/torpor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		fmt.Fprintf(os.Stderr, "go build: %v\n%s", err, out)
		return 1
	}
	return m.Run()
}
