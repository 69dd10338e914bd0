package conformance_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/host/conformance"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/need"
)

// cache is where package host keeps what it compiled for all tests.
var cache string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if cache, err = os.MkdirTemp("", "torpor-conformance"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(cache)
		code := m.Run()
		if err := goleak.Find(); code == 0 && err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

var built = struct {
	sync.Mutex
	wasm map[string][]byte
}{wasm: map[string][]byte{}}

// guest builds testdata/guest, once for each of its claims.
func guest(t testing.TB, claims string) []byte {
	t.Helper()
	built.Lock()
	defer built.Unlock()
	if wasm := built.wasm[claims]; wasm != nil {
		return wasm
	}
	out := filepath.Join(t.TempDir(), "guest.wasm")
	cmd := exec.Command(need.Program(t, "go"), "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w -X main.claims="+claims, "-o", out, "./testdata/guest")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	built.wasm[claims] = wasm
	return wasm
}

// recordOf is one record with a text or, in schema 1, a byte string as its value.
func recordOf(key string, value any) []byte {
	b := record.AppendText(record.AppendRecord(nil), "")
	b = record.AppendText(b, key)
	switch v := value.(type) {
	case []byte:
		return record.AppendBytes(b, v)
	case string:
		return record.AppendText(b, v)
	}
	panic(value)
}

// lines is fixtures for the guest.
func lines() *conformance.Fixtures {
	return &conformance.Fixtures{
		States: []conformance.Fixture{
			{Name: "empty", Native: nil},
			{Name: "small", Native: []byte("a=1\nb=two\nc=größ\n")},
		},
		Old: []conformance.OldRecords{
			{Name: "small", Schema: 1, Records: slices.Concat(recordOf("a", []byte("1")), recordOf("b", []byte("two")), recordOf("c", []byte("x"))),
				Native: []byte("a=1\nb=two\nc=x\n"), Known: true},
		},
	}
}

func options(wasm []byte, fixtures *conformance.Fixtures) conformance.Options {
	return conformance.Options{Name: "lines", Wasm: wasm, Fixtures: fixtures, CacheDir: filepath.Join(cache, "compiled"), Logger: slog.New(slog.DiscardHandler)}
}

func run(t testing.TB, o conformance.Options) *conformance.Report {
	t.Helper()
	r, err := conformance.Run(t.Context(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func find(t testing.TB, r *conformance.Report, check, fixture string) conformance.Result {
	t.Helper()
	for _, result := range r.Results {
		if result.Check == check && result.Fixture == fixture {
			return result
		}
	}
	t.Fatalf("no result of %s with %q in %+v", check, fixture, r.Results)
	return conformance.Result{}
}

// A module that is right passes every check, and each of them has tried something.
func TestSoundModules(t *testing.T) {
	t.Run("records", func(t *testing.T) {
		o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{
			{Name: "empty"},
			{Name: "one", Native: recordOf("a", "1")},
			{Name: "some", Native: slices.Concat(recordOf("a", "1"), recordOf("b", strings.Repeat("long", 2000)), recordOf("c", []byte{0, 1, 2}))},
		}})
		o.Name = "records"
		r := run(t, o)
		check(t, r)
		if d := r.Module.Descriptor; d.Name != "records" || r.Module.Size != int64(len(o.Wasm)) || len(r.Module.SHA256) != 64 {
			t.Errorf("module %+v", r.Module)
		}
		// Bytes changed inside a key may make it that of another record, which this serializer lets pass.
		if got := find(t, r, "truncation", "some"); got.Trials != conformance.TruncationSamples+conformance.PieceTrials || got.Noted != 1 {
			t.Errorf("%+v", got)
		}
		if got := find(t, r, "truncation", "one"); got.Trials != 2*len(o.Fixtures.States[1].Native) { // each again byte by byte
			t.Errorf("%+v", got)
		}
	})
	t.Run("canonical", func(t *testing.T) {
		o := options(guest(t, "canonical"), lines())
		o.Fixtures.States[1].Native = []byte("a=1\nö=\n")
		// Every check but the longest: calls of a Go guest take milliseconds.
		for _, c := range conformance.Checks() {
			if c.Name != "damage" {
				o.Only = append(o.Only, c.Name)
			}
		}
		r := run(t, o)
		check(t, r, "damage")
		if got := find(t, r, "migration", "schema-1/small"); got.Noted > 0 || got.Trials < 4 {
			t.Errorf("%+v", got)
		}
		if got := find(t, r, "damaged-records", "small"); got.Noted == 0 || !strings.Contains(got.Notes[0], "a state that save refuses") {
			t.Errorf("records in another order make no note: %+v", got)
		}
	})
	t.Run("not canonical", func(t *testing.T) {
		o := options(guest(t, "ordered"), lines())
		o.Settings = map[string]any{"break": "fold when saving"}
		o.Fixtures.States = append(o.Fixtures.States[:1], conformance.Fixture{Name: "small", Native: []byte("a=A\nb=B\n")})
		o.Fixtures.Old = nil
		o.Only = []string{"round-trip", "records", "determinism", "streaming", "no-trace", "truncation", "cost"}
		check(t, run(t, o), "describe", "damage", "damaged-records", "empty", "settings", "inspect")
	})
}

// check holds a report of a sound module against what it must be. skipped are the checks that may be.
func check(t *testing.T, r *conformance.Report, skipped ...string) {
	t.Helper()
	seen := map[string]bool{}
	for _, got := range r.Results {
		switch {
		case got.Status == conformance.Failed:
			t.Errorf("failed: %+v", got)
		case got.Status == conformance.Passed && (got.Trials == 0 || got.Trials != got.Planned) && got.Fixture != "empty" && got.Check != "migration":
			t.Errorf("passed without a trial: %+v", got)
		case got.Status == conformance.Passed:
			seen[got.Check] = true
		}
	}
	for _, c := range conformance.Checks() {
		if !seen[c.Name] && c.Name != "cost" && c.Name != "migration" && !slices.Contains(skipped, c.Name) {
			t.Errorf("%s was not passed with any fixture", c.Name)
		}
	}
	if !r.Passed {
		t.Error("not passed")
	}
	ops := map[string]bool{}
	for _, f := range r.Figures {
		if f.Duration <= 0 || f.Memory <= 0 {
			t.Errorf("figure %+v", f)
		}
		ops[f.Fixture+" "+f.Op] = true
	}
	if !ops["empty save"] || len(ops) != 6 {
		t.Errorf("figures for %v", ops)
	}
}

// Each check fails on a module that breaks what it checks, and says how.
func TestBrokenModules(t *testing.T) {
	for _, c := range []struct {
		how, check, fixture string
		status              conformance.Status
		says                string
	}{
		{"lose a line", "round-trip", "small", conformance.Failed, "the module says canonical: 13 bytes instead of 19, the first difference is at offset 4"},
		{"shout when loading", "round-trip", "small", conformance.Failed, "does not give back the same bytes"},
		{"repeat a key", "records", "small", conformance.Failed, `two records of the same key "a" in partition "": records 1 and 2`},
		{"show pieces", "streaming", "small", conformance.Failed, "with its input byte by byte, save gives something else"},
		{"show pieces", "round-trip", "small", conformance.Passed, ""},
		{"show a map's order", "round-trip", "small", conformance.Passed, ""},
		{"show a map's order", "determinism", "small", conformance.Failed, "with other random numbers (does the order of a map show?), save gives something else"},
		{"show the time", "determinism", "small", conformance.Passed, "depends on the time of the call"},
		{"crash at damage in pieces", "streaming", "small", conformance.Failed, "truncated to 9 of 19 bytes, and with its input byte by byte, save ended the process with exit code 3; with whole pieces save failed with code 2 (corrupt)"},
		{"crash at damage in pieces", "truncation", "small", conformance.Failed, "of 19 bytes, and with its input byte by byte, save ended the process"},
		{"crash at damage in pieces", "damage", "small", conformance.Failed, "and with its input byte by byte, save ended the process"},
		{"crash at a value in pieces", "damaged-records", "small", conformance.Failed, "record 1 of 3: its value replaced by null, and with its input byte by byte, load ended the process"},
		{"count calls", "round-trip", "small", conformance.Passed, ""},
		{"count calls", "determinism", "empty", conformance.Failed, "called again, save gives something else"},
		{"count calls", "no-trace", "small", conformance.Failed, "after a save of fixture empty, save gives something else"},
		{"remember a refusal", "determinism", "small", conformance.Passed, ""},
		{"remember a refusal", "no-trace", "small", conformance.Failed, "after a save of a state that ends in its middle, save gives something else"},
		{"crash at a cut", "truncation", "small", conformance.Failed, "truncated to 2 of 19 bytes, save ended the process with exit code 3; a serializer must refuse damaged input by fail"},
		{"panic at a cut", "truncation", "small", conformance.Failed, "code 1 blames the serializer"},
		{"blame itself at a cut", "truncation", "small", conformance.Failed, "truncated to 2 of 19 bytes, save failed with code 1 (internal): no end of line"},
		{"mend a cut", "truncation", "small", conformance.Failed, "save took it, but load does not give back the same bytes"},
		{"crash at damage", "damage", "small", conformance.Failed, "save ended the process"},
		{"crash at a value", "damaged-records", "small", conformance.Failed, "record 1 of 3: its value replaced by null, load ended the process"},
		{"crash in migrate", "damaged-records", "schema-1/small", conformance.Failed, "record 1 of 3: its value replaced by null, migrate ended the process"},
		{"crash at nothing", "empty", "", conformance.Failed, "given an empty state, save ended the process"},
		{"take any setting", "settings", "", conformance.Passed, "a misspelled setting is worth refusing"},
		{"misjudge settings", "settings", "", conformance.Passed, "save failed with code 2 (corrupt)"},
		{"crash at settings", "settings", "", conformance.Failed, "save ended the process"},
		{"list in inspect", "inspect", "small", conformance.Failed, "a map expected"},
		{"twice in inspect", "inspect", "small", conformance.Failed, `the key "lines" twice`},
		{"lose in migrate", "migration", "schema-1/small", conformance.Failed, "load makes another state of these records than migrate and load do"},
		{"refuse to migrate", "migration", "schema-1/small", conformance.Passed, ""},
		{"shout when loading", "migration", "schema-1/small", conformance.Failed, "by load they become another state than schema-1/small.native has"},
	} {
		t.Run(c.how+"/"+c.check, func(t *testing.T) {
			o := options(guest(t, "canonical"), lines())
			o.Only = []string{c.check}
			o.Settings = map[string]any{"break": c.how}
			r := run(t, o)
			got := find(t, r, c.check, c.fixture)
			if got.Status != c.status || r.Passed != (c.status == conformance.Passed) {
				t.Fatalf("%+v", got)
			}
			told := got.Failures
			if c.status == conformance.Passed {
				told = got.Notes
			}
			if !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, c.says) }) && c.says != "" || c.says == "" && len(told) > 0 {
				t.Errorf("it says %q, want %q", told, c.says)
			}
		})
	}
}

// A module is held to the limits of its own name.
func TestLimits(t *testing.T) {
	o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{{Name: "long", Native: recordOf("a", strings.Repeat("long", 32<<10))}}})
	o.Only = []string{"round-trip", "damaged-records"}
	o.Limits.RecordBytes = 64 << 10
	if got := find(t, run(t, o), "round-trip", "long"); got.Status != conformance.Failed {
		t.Errorf("a record larger than the limit: %+v", got)
	}
	o.Modules = map[string]host.Limits{"records": {RecordBytes: 256 << 10}, "long": {RecordBytes: 64 << 10}}
	r := run(t, o)
	if got := find(t, r, "damaged-records", "long"); !r.Passed || got.Trials == 0 {
		t.Errorf("a limit of its own: %+v", r.Results)
	}
	o.Modules["records"] = host.Limits{ModuleBytes: host.MinModuleBytes}
	if _, err := conformance.Run(t.Context(), o); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a limit of its own that it passes: %v", err)
	}
	o.Modules, o.Limits = nil, host.Limits{MemoryBytes: 1}
	if _, err := conformance.Run(t.Context(), o); err == nil {
		t.Error("a limit that cannot be set")
	}
}

// A module that computes much is tried with fewer samples, and it is counted; small fixtures are
// tried in full.
func TestTrialFuel(t *testing.T) {
	var long bytes.Buffer
	for i := range 1000 {
		fmt.Fprintf(&long, "%04d=value\n", i)
	}
	o := options(guest(t, "canonical"), &conformance.Fixtures{States: []conformance.Fixture{{Name: "long", Native: long.Bytes()}, {Name: "small", Native: []byte("a=1\n")}}})
	o.Only = []string{"truncation", "damage", "damaged-records"}
	r := run(t, o)
	for _, check := range o.Only {
		got := find(t, r, check, "long")
		if got.Status != conformance.Passed || got.Trials < conformance.MinTrials || got.Trials > 256 || got.Left < 100 {
			t.Errorf("%+v", got)
		}
	}
	if got := find(t, r, "damage", "small"); got.Trials < conformance.DamageSamples || got.Left > 0 {
		t.Errorf("%+v", got)
	}
}

// What a module says of itself is held against what it does.
func TestFalseClaims(t *testing.T) {
	o := options(guest(t, "ordered"), &conformance.Fixtures{States: []conformance.Fixture{{Name: "order", Native: []byte("aa=1\nb=2\n")}}})
	o.Only = []string{"records", "round-trip", "migration"}
	r := run(t, o)
	got := find(t, r, "records", "order")
	if got.Status != conformance.Failed || !strings.Contains(got.Failures[0], `record 2, key "b", comes after key "aa"`) {
		t.Errorf("%+v", got)
	}
	if got := find(t, r, "round-trip", "order"); got.Status != conformance.Passed {
		t.Errorf("%+v", got)
	}
	if got := find(t, r, "migration", ""); got.Status != conformance.Skipped || !strings.Contains(strings.Join(got.Notes, " "), "reads schema 1, and there is no fixture schema-1/NAME.records") {
		t.Errorf("%+v", got)
	}

	o.Settings = map[string]any{"break": "grow when loading"}
	if got := find(t, run(t, o), "round-trip", "order"); got.Status != conformance.Failed || !strings.Contains(got.Failures[0], "does not have the same records") {
		t.Errorf("not canonical, and not stable either: %+v", got)
	}
}

// Records of a schema that the module does not know are lost to whoever has them.
func TestUnreadableSchema(t *testing.T) {
	o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{{Name: "empty"}},
		Old: []conformance.OldRecords{{Name: "old", Schema: 7, Records: recordOf("a", "1")}}})
	o.Only = []string{"migration"}
	r := run(t, o)
	if got := find(t, r, "migration", "schema-7/old"); got.Status != conformance.Failed || !strings.Contains(got.Failures[0], "from schema 7 to 1: migrate failed with code 3 (version)") {
		t.Errorf("%+v", got)
	}
}

// A fixture that the module refuses fails one check and is not passed over by the others.
func TestRefusedFixture(t *testing.T) {
	o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{{Name: "bad", Native: []byte("no records")}}})
	r := run(t, o)
	if got := find(t, r, "round-trip", "bad"); r.Passed || got.Status != conformance.Failed || !strings.Contains(got.Failures[0], "the fixture cannot be saved: save failed with code 2 (corrupt)") {
		t.Errorf("%+v", got)
	}
	if got := find(t, r, "streaming", "bad"); got.Status != conformance.Skipped || got.Reason == "" {
		t.Errorf("%+v", got)
	}
	o.Only = []string{"streaming"}
	if r := run(t, o); r.Passed {
		t.Errorf("passed, and nothing was checked: %+v", r)
	}
}

// The same options give the same report, figures apart, and the order is that of Checks.
func TestReportIsStable(t *testing.T) {
	o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{{Name: "b", Native: recordOf("b", "1")}, {Name: "a", Native: recordOf("a", "2")}}})
	first, second := run(t, o), run(t, o)
	if !reflect.DeepEqual(first.Results, second.Results) {
		t.Errorf("%+v\n%+v", first.Results, second.Results)
	}
	var order []string
	for _, r := range first.Results {
		order = append(order, r.Check+" "+r.Fixture)
	}
	var want []string
	for _, c := range conformance.Checks() {
		switch c.Name {
		case "describe", "empty", "settings", "migration":
			want = append(want, c.Name+" ")
		case "cost":
		default:
			want = append(want, c.Name+" b", c.Name+" a")
		}
	}
	if !slices.Equal(order, want) {
		t.Errorf("order %q", order)
	}

	// The seed chooses other damages, and nothing else.
	told := func(seed uint64) []string {
		o := options(guest(t, "canonical"), lines())
		o.Seed, o.Only, o.Settings = seed, []string{"damage"}, map[string]any{"break": "crash at damage"}
		return find(t, run(t, o), "damage", "small").Failures
	}
	if one := told(1); slices.Equal(one, told(2)) || !slices.Equal(one, told(1)) {
		t.Errorf("%q", one)
	}

	var back conformance.Report
	text, err := json.Marshal(first)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &back); err != nil || !reflect.DeepEqual(&back, first) {
		t.Errorf("%v: %s", err, text)
	}
}

// Progress only goes forward, to its end.
func TestProgress(t *testing.T) {
	o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{{Name: "a", Native: recordOf("a", "1")}}})
	o.Only = []string{"truncation", "damage"}
	var last conformance.Progress
	checks := map[string]bool{}
	o.Progress = func(p conformance.Progress) {
		if p.Done < last.Done || p.Done > p.Total || p.Total < last.Total {
			t.Errorf("%+v after %+v", p, last)
		}
		last = p
		checks[p.Check] = true
	}
	run(t, o)
	if last.Done != last.Total || last.Total == 0 || !checks["damage"] || !checks["truncation"] {
		t.Errorf("ends with %+v after %v", last, checks)
	}
}

// Keep is given what can be the older records of the next version.
func TestKeep(t *testing.T) {
	native := slices.Concat(recordOf("a", "1"), recordOf("b", "2"))
	o := options(modules.Records(), &conformance.Fixtures{States: []conformance.Fixture{{Name: "a", Native: native}}})
	o.Only = []string{"round-trip"}
	kept := 0
	o.Keep = func(fixture string, schema uint64, records, back []byte) error {
		if kept++; fixture != "a" || schema != 1 || !bytes.Equal(records, native) || !bytes.Equal(back, native) {
			t.Errorf("%s of schema %d: %q, %q", fixture, schema, records, back)
		}
		return nil
	}
	if run(t, o); kept != 1 {
		t.Errorf("kept %d times", kept)
	}
	full := errors.New("disk full")
	o.Keep = func(string, uint64, []byte, []byte) error { return full }
	if _, err := conformance.Run(t.Context(), o); !errors.Is(err, full) {
		t.Errorf("error %v", err)
	}
}

func TestRunRefuses(t *testing.T) {
	some := &conformance.Fixtures{States: []conformance.Fixture{{Name: "a", Native: recordOf("a", "1")}}}
	o := options(modules.Records(), nil)
	if _, err := conformance.Run(t.Context(), o); !errors.Is(err, conformance.ErrNoFixtures) {
		t.Errorf("no fixtures: %v", err)
	}
	o.Fixtures, o.Only = some, []string{"everything"}
	if _, err := conformance.Run(t.Context(), o); !errors.Is(err, conformance.ErrUnknownCheck) {
		t.Errorf("unknown check: %v", err)
	}
	var refused *host.ModuleError
	if _, err := conformance.Run(t.Context(), options([]byte("no module"), some)); !errors.As(err, &refused) || !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("no module: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	o = options(modules.Records(), some)
	o.Progress = func(p conformance.Progress) {
		if p.Check == "damage" {
			cancel()
		}
	}
	if r, err := conformance.Run(ctx, o); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v, %+v", err, r)
	}
}
