package main

import (
	"testing"
	"time"
)

// All ways to bring a state through give it back; newHosts looks. The times of fresh calls are of calls.
func TestHosts(t *testing.T) {
	var states []nativeState
	for _, size := range []int64{20_000, 300_000} {
		s, err := newNativeState(t.TempDir(), newSynthetic(size))
		if err != nil {
			t.Fatal(err)
		}
		states = append(states, s)
	}
	h, err := newHosts(t.Context(), t.TempDir(), states)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := h.close(t.Context()); err != nil {
			t.Error(err)
		}
	}()
	for range 2 {
		if d, err := h.fresh(t.Context()); err != nil || d <= 0 {
			t.Error(d, err)
		}
	}
	if err := h.alone.nothing(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestShort(t *testing.T) {
	for d, want := range map[time.Duration]string{93: "93 ns", 1234: "1.2 µs", 999_900: "999.9 µs", 12_345_678: "12.35 ms"} {
		if got := short(d); got != want {
			t.Errorf("%d: %s, want %s", d, got, want)
		}
	}
}
