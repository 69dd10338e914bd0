package runtime

import (
	"context"
	"testing"
)

// TestEnterNow: who need not wait is let in and counted; while requests are held, or the service does not run, nobody
// is, and nobody is counted.
func TestEnterNow(t *testing.T) {
	s := &Service{rt: &Runtime{}, gate: newGate(), status: StatusRunning}
	if leave, ok := s.EnterNow(t.Context()); !ok { // no state directory: there is nothing to hold for
		t.Error("not let in")
	} else {
		leave()
	}
	if !s.gate.enterNow() || s.gate.count() != 1 {
		t.Errorf("%d inside", s.gate.count())
	}
	s.gate.leave()
	if err := s.gate.hold(context.Background()); err != nil {
		t.Fatal(err)
	}
	if s.gate.enterNow() || s.gate.count() != 0 {
		t.Errorf("held, and %d inside", s.gate.count())
	}
	s.gate.release()
	if !s.gate.enterNow() {
		t.Error("not let in after the release")
	}
	for _, status := range []Status{StatusAvailable, StatusStarting, StatusStopping, StatusError} {
		s.status = status
		if _, ok := s.EnterNow(t.Context()); ok {
			t.Errorf("let in while %s", status)
		}
	}
}
