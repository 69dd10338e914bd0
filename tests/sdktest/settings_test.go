package sdktest

import (
	"bytes"
	"testing"
)

// The reference is what all languages are held to, so it is held to bytes written down here.
func TestReference(t *testing.T) {
	for native, want := range map[string]string{
		"":                "",
		"=\n":             "\x83\x60\x60\x60",
		"a=1\nb==\n":      "\x83\x60\x61a\x611\x83\x60\x61b\x61=",
		"a=\nä=ü\nö=\n":   "\x83\x60\x61a\x60\x83\x60\x62ä\x62ü\x83\x60\x62ö\x60",
		"aa=1\nab=\nb=\n": "\x83\x60\x62aa\x611\x83\x60\x62ab\x60\x83\x60\x61b\x60",
	} {
		if got, bad := recordsOf([]byte(native)); bad != -1 || string(got) != want {
			t.Errorf("%q becomes %q, %d; want %q", native, got, bad, want)
		}
	}
	for native, want := range map[string]int{
		"a": 0, "a=1": 0, "\n": 0, "a=1\nb": 4, "a=1\n\n": 4, "b=\na=\n": 3, "a=\na=\n": 3, "a=\n=\n": 3, "=\n=\n": 2, "a=\xff\n": 0, "a=1\nb=\xed\xa0\x80\n": 4,
	} {
		if got, bad := recordsOf([]byte(native)); bad != want || got != nil {
			t.Errorf("%q becomes %q, %d; want nothing, %d", native, got, bad, want)
		}
	}
}

// Every fixture is a state, and together they have what settings must keep.
func TestFixtureStates(t *testing.T) {
	all := states(t)
	var together []byte
	for name, native := range all {
		if _, bad := recordsOf(native); bad != -1 {
			t.Errorf("%s is no state at %d", name, bad)
		}
		together = append(together, native...)
	}
	if len(all) != 4 || len(all["empty.txt"]) != 0 || len(all["long.txt"]) < 20_000 {
		t.Errorf("%d fixtures, an empty one of %d bytes, a long one of %d", len(all), len(all["empty.txt"]), len(all["long.txt"]))
	}
	for _, has := range []string{"=\n", " = ", "\U0001f600", "\u2028", "\ufeff"} {
		if !bytes.Contains(together, []byte(has)) {
			t.Errorf("no fixture has %q", has)
		}
	}
	Fixtures(t, "fixtures")
}
