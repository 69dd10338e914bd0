package statedir

import (
	"math"
	"path"
	"regexp"
	"strings"
	"testing"
)

func TestCheckName(t *testing.T) {
	for _, ok := range []string{"s3", "store", "backend", "cognito-idp", "0", "a_b", strings.Repeat("a", MaxNameBytes)} {
		if err := CheckName(ok); err != nil {
			t.Errorf("%q: %v", ok, err)
		}
	}
	for _, bad := range []string{"", ".", "..", ".hidden", "a.b", "a/b", `a\b`, "/a", "a/", "A", "S3", "a b", "-a", "_a",
		"ä", "a\x00", "a\n", "store.state", "c:", strings.Repeat("a", MaxNameBytes+1), strings.Repeat("a", 1<<20)} {
		err := CheckName(bad)
		if err == nil {
			t.Errorf("%q is allowed", bad)
		} else if len(err.Error()) > 500 {
			t.Errorf("the error about a long name is %d bytes", len(err.Error()))
		}
	}
}

func FuzzCheckName(f *testing.F) {
	for _, s := range []string{"s3", "", ".", "..", "../x", "a/b", "a\x00b", "A", "store.state", "con", "ﬁ"} {
		f.Add(s)
	}
	rule := regexp.MustCompile(`\A[a-z0-9][a-z0-9_-]{0,63}\z`)
	f.Fuzz(func(t *testing.T, s string) {
		ok := CheckName(s) == nil
		if ok != rule.MatchString(s) {
			t.Fatalf("CheckName(%q) says %t", s, ok)
		}
		if !ok {
			return
		}
		id := PartID{Service: s, Part: s}
		for _, f := range []stateFile{{kind: newest}, {kind: older}, {kind: damaged}, {kind: damaged, tail: true}, {kind: temp}} {
			f.part, f.generation = s, math.MaxUint64
			name := f.name()
			full := path.Join(id.folder(), name)
			if path.Dir(full) != statesFolder+"/"+s || path.Base(full) != name {
				t.Fatalf("%q leads to %s", s, full)
			}
			if len(name) > 255 {
				t.Fatalf("%q gives a file name of %d bytes", s, len(name))
			}
		}
	})
}

func TestParseName(t *testing.T) {
	for name, want := range map[string]stateFile{
		"store.state":                                        {part: "store"},
		"store.state.g000000000007":                          {part: "store", kind: older, generation: 7},
		"store.state.g1234567890123":                         {part: "store", kind: older, generation: 1234567890123},
		"store.state.tmp-12":                                 {part: "store", kind: temp, serial: 12},
		"store.state.corrupt-20261122T174203Z-g000000000007": {part: "store", kind: damaged, generation: 7},

		"store.state.corrupt-20261122T174203Z-g000000000007-tail": {part: "store", kind: damaged, generation: 7, tail: true},
	} {
		got, ok := parseName(name)
		got.since = want.since // compared by way of the name
		if !ok || got != want {
			t.Errorf("parseName(%q) = %+v, %t; want %+v", name, got, ok, want)
		}
	}
	// A file from elsewhere must not be taken for a generation, nor be removed as a temporary file.
	for _, name := range []string{"", "state", ".state", "store", "store.stat", "store.state~", "store.state.bak", "Store.state",
		"a.b.state", "store.state.g", "store.state.g7", "store.state.g0000000000007", "store.state.g000000000000",
		"store.state.g-00000000007", "store.state.g00000000000x", "store.state.g99999999999999999999999",
		"store.state.tmp-", "store.state.tmp-01", "store.state.tmp-x", "store.state.tmp-+1", "store.state.g000000000007.tmp-1",
		"store.state.corrupt-", "store.state.corrupt-20261122T174203Z", "store.state.corrupt-20261122T174203Z-g7",
		"store.state.corrupt-20261322T174203Z-g000000000007", "store.state.corrupt-20261122T174203.5Z-g000000000007",
		"store.state.corrupt-2026-11-22-g000000000007", "store.state.corrupt-20261122T174203Z-g000000000007-tail-tail",
		"store.state.corrupt-20261122T174203Z-g000000000007-head", "store.state.g000000000007-tail", "store.state-tail"} {
		if f, ok := parseName(name); ok {
			t.Errorf("parseName(%q) = %+v", name, f)
		}
	}
}

func FuzzParseName(f *testing.F) {
	for _, s := range []string{"store.state", "store.state.g000000000007", "store.state.tmp-12",
		"store.state.corrupt-20261122T174203Z-g000000000007", "store.state.corrupt-00000101T000000Z-g000000000001",
		"store.state.corrupt-20261122T174203Z-g000000000007-tail"} {
		f.Add(s)
		for i := range s {
			f.Add(s[:i])
		}
	}
	f.Fuzz(func(t *testing.T, name string) {
		if got, ok := parseName(name); ok && got.name() != name {
			t.Fatalf("parseName(%q) = %+v, whose name is %q", name, got, got.name())
		}
	})
}

func TestIsModuleTemp(t *testing.T) {
	digest := strings.Repeat("0f", 32)
	for name, want := range map[string]bool{
		digest + ".wasm.tmp-1": true, digest + ".wasm": false, digest[2:] + ".wasm.tmp-1": false,
		digest + ".wasm.tmp-": false, "x" + digest[1:] + ".wasm.tmp-1": false, "notes.wasm.tmp-1": false,
	} {
		if isModuleTemp(name) != want {
			t.Errorf("isModuleTemp(%q) = %t", name, !want)
		}
	}
}

func TestParseHolder(t *testing.T) {
	whole := `{"pid":12,"host":"h","since":"2026-11-22T17:42:03Z"}` + "\n"
	for n := range len(whole) {
		h := parseHolder([]byte(whole[:n]))
		if n < len(whole)-1 && h != (Holder{}) {
			t.Errorf("the first %d bytes give %+v", n, h)
		}
	}
	// Written over a longer one.
	if h := parseHolder([]byte(whole + `03Z"}` + "\n")); h.PID != 12 || h.Host != "h" || h.Since.IsZero() {
		t.Errorf("with a tail of another: %+v", h)
	}
}

func FuzzParseHolder(f *testing.F) {
	f.Add([]byte(`{"pid":12,"host":"h","since":"2026-11-22T17:42:03Z"}`))
	f.Add([]byte(""))
	f.Fuzz(func(t *testing.T, b []byte) {
		if msg := (&LockedError{Path: "LOCK", Holder: parseHolder(b)}).Error(); !strings.Contains(msg, "LOCK") {
			t.Fatal(msg)
		}
	})
}
