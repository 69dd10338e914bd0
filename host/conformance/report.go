package conformance

import (
	"fmt"
	"time"

	"github.com/torpor-run/torpor/host/abi"
)

// Report is what [Run] found out. Its order depends on the options alone: results in the order of
// [Checks], then of the fixtures. The field names of its JSON are part of what "torpor module test
// --json" promises.
type Report struct {
	Module  Module   `json:"module"`
	Seed    uint64   `json:"seed"`
	Passed  bool     `json:"passed"` // no result is failed
	Results []Result `json:"results"`
	Figures []Figure `json:"figures"` // what calls cost; none if the check "cost" was not chosen
	Notes   []string `json:"notes"`   // of [Fixtures]
}

// Module says what was tested.
type Module struct {
	Name       string     `json:"name"` // as given in the options
	SHA256     string     `json:"sha256"`
	Size       int64      `json:"size"` // of the .wasm, in bytes
	Descriptor Descriptor `json:"descriptor"`
}

// Descriptor is the module's own, see [abi.Descriptor].
type Descriptor struct {
	Name       string   `json:"name"`
	Version    string   `json:"version"`
	Schema     uint64   `json:"schema"`
	Reads      []uint64 `json:"reads"`
	Media      string   `json:"media"`
	Operations []string `json:"operations"`
	Ordered    bool     `json:"ordered"`
	Canonical  bool     `json:"canonical"`
	Memory     uint64   `json:"memory"`
	Nesting    string   `json:"nesting"`
}

func describe(d abi.Descriptor) Descriptor { return Descriptor(d) }

// Status is the verdict of one check.
type Status string

// The verdicts.
const (
	Passed  Status = "passed"
	Failed  Status = "failed"
	Skipped Status = "skipped"
)

// Result is what one check found with one fixture, or with the module as a whole.
type Result struct {
	Check   string `json:"check"`
	Fixture string `json:"fixture,omitempty"` // its name, "schema-N/NAME" for older records; "" for the module as a whole
	Status  Status `json:"status"`
	Reason  string `json:"reason,omitempty"` // why it was skipped
	// Trials is how many inputs were tried, Planned how many there were to try: it is more if the check
	// gave up after MaxFailures failures.
	Trials  int `json:"trials"`
	Planned int `json:"planned"`
	// Left is how many more there are that were not planned, because the fixture is large or the module
	// computes much: see TrialBytes and TrialFuel.
	Left int `json:"left,omitempty"`
	// Failures tells the first MaxExamples of the Failed trials that failed; Notes those of the Noted
	// things worth knowing.
	Failures []string `json:"failures,omitempty"`
	Failed   int      `json:"failed"`
	Notes    []string `json:"notes,omitempty"`
	Noted    int      `json:"noted"`
}

// Bounds on a [Result].
const (
	MaxFailures = 20 // after so many a check gives up on a fixture
	MaxExamples = 3  // so many failures, and so many notes, are told in words
)

func (r *Result) fault(format string, args ...any) {
	r.Status = Failed
	if r.Failed++; len(r.Failures) < MaxExamples {
		r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
	}
}

func (r *Result) note(format string, args ...any) {
	if r.Noted++; len(r.Notes) < MaxExamples {
		r.Notes = append(r.Notes, fmt.Sprintf(format, args...))
	}
}

func (r *Result) skip(reason string) { r.Status, r.Reason = Skipped, reason }

// tried counts inputs that were tried.
func (r *Result) tried(n int) { r.Trials, r.Planned = r.Trials+n, r.Planned+n }

// add counts what came of one trial.
func (r *Result) add(v verdict) {
	if v.fault != "" {
		r.fault("%s", v.fault)
	}
	if v.note != "" {
		r.note("%s", v.note)
	}
}

// verdict is what came of one trial: nothing, or what is wrong or worth knowing.
type verdict struct {
	fault, note string
	none        bool // there was nothing to try
}

func faulty(format string, args ...any) verdict {
	return verdict{fault: fmt.Sprintf(format, args...)}
}

// Figure is what one operation cost with one fixture: the best of [CostRuns] calls.
type Figure struct {
	Fixture     string        `json:"fixture"`
	Op          string        `json:"op"`
	Input       int64         `json:"input"`  // bytes
	Output      int64         `json:"output"` // bytes
	Duration    time.Duration `json:"duration_ns"`
	MBPerSecond float64       `json:"mb_per_second"` // of native state, in 10^6 bytes
	Fuel        int64         `json:"fuel"`          // 0 if the host does not count it
	Memory      int64         `json:"memory"`        // bytes of guest memory at the end: its high-water mark
}

// CostRuns is how often a call is made to learn what it costs.
const CostRuns = 3

// Progress is how far [Run] has come. Done and Total are in parts that say nothing but their ratio.
type Progress struct {
	Check, Fixture string
	Done, Total    int64
}
