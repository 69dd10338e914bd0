package sourcetest

import (
	"context"
	"fmt"
	"testing"

	"github.com/torpor-run/torpor/runtime"
)

// Fixture is a live service with its source, made for one check.
type Fixture struct {
	// Source is what is tested.
	Source runtime.Source

	// Put brings the service into state n, for n from 1, by the door its requests use, from whatever state
	// it is in. Different n are different states, and none is the empty one. If the source is atomic, Put
	// from n-1 to n is one change. It may fail the test, in the goroutine of the test only; the suite calls
	// it from there alone, but during Capture of an atomic source from another.
	Put func(n int)

	// State is the service's state as its requests see it: equal texts are equal states. Times and other
	// things that differ between two services of the same state are left out, unless Restore must keep them.
	State func() string

	// Sound tells of the beginning of a native state whether it is a native state itself, as that of a
	// sequence of records without an end is between two of them. Nil: no shorter beginning is.
	Sound func(beginning []byte) bool

	// Opaque says that any bytes are a native state to this source, which only keeps them: whether they are
	// one is for others to judge.
	Opaque bool

	// Request is one request that changes something, sent by several goroutines at once while the source
	// is restoring. It may fail as the service's requests may; it must not hang. Nil: the service is stopped
	// while its state is replaced, and there are none.
	Request func(n int)

	// Left lists what the source has put on the disk beside the service's state. Nil: it puts nothing there.
	Left func() []string

	// Close ends the service; nil if nothing needs to be ended.
	Close func()
}

// Test runs the suite. open is called for each check, and may use its t for temporary folders.
func Test(t *testing.T, open func(t *testing.T) Fixture) {
	for _, c := range checks() {
		t.Run(c.name, func(t *testing.T) {
			// Whatever is written to the system's folder for temporary files is seen by the check.
			t.Setenv("TMPDIR", t.TempDir())
			f := open(t)
			if f.Close != nil {
				defer f.Close()
			}
			if err := c.run(t.Context(), f); err != nil {
				if skip, ok := err.(skipped); ok { //nolint:errorlint // made here, never wrapped
					t.Skip(string(skip))
				}
				t.Error(err)
			}
		})
	}
}

// check is one rule. It gives the first breach, so that a test of this package can see it fail.
type check struct {
	name string
	run  func(ctx context.Context, f Fixture) error
}

// skipped says why a check means nothing for a source.
type skipped string

func (s skipped) Error() string { return string(s) }

func checks() []check {
	return []check{
		{"Restore gives back what was captured", restores},
		{"a capture stays what it was", fixed},
		{"captures are independent", independent},
		{"Reset empties", empties},
		{"a cut native state is refused", refusesCut},
		{"a damaged native state is refused", refusesDamage},
		{"a failing reader changes nothing", survivesReader},
		{"a failing writer is told", tellsWriter},
		{"a context that has ended", obeysContext},
		{"requests during Restore", survivesRequests},
		{"nothing is left behind", leavesNothing},
		{"an atomic capture is of one moment", atomic},
	}
}

// breach is an error of the source under test.
func breach(format string, args ...any) error { return fmt.Errorf(format, args...) }
