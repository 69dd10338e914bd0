package conformance

import (
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Options is what [Run] is to do.
type Options struct {
	Name     string // of the module, for messages
	Wasm     []byte
	Fixtures *Fixtures
	// Only names the checks to run; none means all of [Checks].
	Only []string
	// Seed chooses the damages and what is sampled of large fixtures.
	Seed uint64
	// Thorough tries every truncation of fixtures of any size, and many more damages.
	Thorough bool
	// Settings are given to every call, for modules that need some.
	Settings map[string]any
	// Keep, if not nil, is given the records of each fixture that the check "round-trip" passed, and the
	// native state that load makes of them. What it is given it may keep. Its error ends Run.
	Keep func(fixture string, schema uint64, records, native []byte) error
	// Limits and Modules are the host's. The module is held to those of its own name, as its descriptor has
	// it, if Modules has them, and never to more than MaxCallTime and MaxOutputBytes.
	Limits  host.Limits
	Modules map[string]host.Limits
	// CacheDir is where package host keeps what it compiled: the module is needed in several hosts. "" means
	// that each compiles it.
	CacheDir string
	Logger   *slog.Logger   // required; what the module logs
	Progress func(Progress) // may be nil; called from one goroutine at a time
}

// The most that fields of [Options.Limits] come to here. Fixtures are small, and a module that is
// handed damage and does not come back shall not hold up the rest for long.
const (
	MaxCallTime    = time.Minute
	MaxOutputBytes = 1 << 30
)

// Check is one of the things that are checked.
type Check struct {
	Name  string `json:"name"`
	About string `json:"about"` // one line
}

// Checks lists what there is to check, in the order of the report.
func Checks() []Check {
	var list []Check
	for _, c := range checks() {
		list = append(list, c.Check)
	}
	return list
}

// ErrUnknownCheck says that [Options.Only] names a check that there is not.
var ErrUnknownCheck = errors.New("unknown check")

// Run holds a module against fixtures. It returns an error, and no report, if it cannot: host's own
// *host.ModuleError for a module that package host refuses, [ErrUnknownCheck], [ErrNoFixtures], ctx's,
// that of Keep. All that is wrong with the module otherwise is in the report.
//
// It runs as many calls at a time as there are processors, up to 4, and holds the fixtures and, for each
// call, a few times the size of the largest one in memory.
func Run(ctx context.Context, o Options) (*Report, error) {
	if o.Fixtures == nil || len(o.Fixtures.States) == 0 {
		return nil, ErrNoFixtures
	}
	chosen := checks()
	for _, name := range o.Only {
		if !slices.ContainsFunc(chosen, func(c check) bool { return c.Name == name }) {
			return nil, fmt.Errorf("%w %q", ErrUnknownCheck, name)
		}
	}
	if len(o.Only) > 0 {
		chosen = slices.DeleteFunc(chosen, func(c check) bool { return !slices.Contains(o.Only, c.Name) })
	}
	o.Limits = capped(o.Limits)
	report, err := o.run(ctx, chosen)
	if err != nil {
		return nil, err
	}
	report.Module.Name, report.Module.Size = o.Name, int64(len(o.Wasm))
	report.Module.SHA256 = fmt.Sprintf("%x", sha256.Sum256(o.Wasm))
	return report, nil
}

func (o Options) run(ctx context.Context, chosen []check) (report *Report, err error) {
	rooms := &rooms{options: o, open: map[room]*opened{}}
	defer func() {
		if cerr := rooms.close(ctx); cerr != nil && err == nil {
			report, err = nil, cerr
		}
	}()
	m, err := rooms.module(ctx, room{})
	if err != nil {
		return nil, err
	}
	if own, ok := o.Modules[m.Descriptor().Name]; ok {
		o.Limits, o.Modules = capped(filled(own, o.Limits)), nil
		return o.run(ctx, chosen)
	}
	s := &session{Options: o, chosen: chosen, module: rooms.module, costs: rooms.cost}
	return s.run(ctx)
}

// filled is l with the fields of base where its own are zero.
func filled(l, base host.Limits) host.Limits {
	from := base.Bounds()
	for i, f := range l.Bounds() {
		*f.Value = cmp.Or(*f.Value, *from[i].Value)
	}
	return l
}

func capped(l host.Limits) host.Limits {
	l.CallTime = min(cmp.Or(l.CallTime, MaxCallTime), MaxCallTime)
	l.OutputBytes = min(cmp.Or(l.OutputBytes, MaxOutputBytes), MaxOutputBytes)
	return l
}

// module is what checks need of a *host.Module.
type module interface {
	Descriptor() abi.Descriptor
	Save(ctx context.Context, call abi.Call, native io.Reader, sink record.Sink) error
	Load(ctx context.Context, call abi.Call, records record.Source, native io.Writer) error
	Migrate(ctx context.Context, call abi.Call, records record.Source, sink record.Sink) error
	Inspect(ctx context.Context, call abi.Call, records record.Source, w io.Writer) error
}

// room is one way to run the module: each has a host of its own.
type room struct {
	piece       int    // host.Config.InputPiece
	interpreter bool   // host.Config.Interpreter
	asLeft      bool   // host.Config.AsLeft
	seed        uint64 // host.Config.Seed
	costs       bool   // where costs are measured: no call comes before
}

// session is one run.
type session struct {
	Options
	chosen []check
	module func(context.Context, room) (module, error)
	costs  func() (host.CallCost, bool) // of the call that ended last

	plain  module
	about  abi.Descriptor
	done   int64 // steps that are done
	report Report
}

// kind is a kind of [subject].
type kind byte

const (
	whole kind = 1 << iota // the module as a whole
	state                  // a native state
	older                  // older records
)

// subject is what a check looks at.
type subject struct {
	kind   kind
	name   string // "" for the module as a whole
	index  int    // among those of its kind
	native []byte
	old    *OldRecords

	// What save makes of a native state and load of its records; or load of older records, if it reads
	// them, and what migrate makes of them, if it does; or why not.
	records, back   []byte
	reads, migrates bool
	refused         string
	fuel            int64 // that these calls took
}

// stepParts is how finely progress is told of one check with one fixture.
const stepParts = 1000

func (s *session) run(ctx context.Context) (*Report, error) {
	var err error
	if s.plain, err = s.module(ctx, room{}); err != nil {
		return nil, err
	}
	s.about = s.plain.Descriptor()
	s.report = Report{Seed: s.Seed, Passed: true, Results: []Result{}, Figures: []Figure{}, Notes: append([]string{}, s.Fixtures.Notes...)}
	s.report.Module.Descriptor = describe(s.about)

	subjects := []*subject{{kind: whole}}
	for i, f := range s.Fixtures.States {
		subjects = append(subjects, &subject{kind: state, name: f.Name, index: i, native: f.Native})
	}
	for i := range s.Fixtures.Old {
		old := &s.Fixtures.Old[i]
		subjects = append(subjects, &subject{kind: older, name: SchemaPath(old.Schema, old.Name), index: i, old: old})
	}
	total := 0
	for _, sub := range subjects {
		for _, c := range s.chosen {
			if c.of&sub.kind != 0 {
				total++
			}
		}
	}
	for _, sub := range subjects {
		if err := s.look(ctx, sub, total); err != nil {
			return nil, err
		}
		sub.records, sub.back = nil, nil // only one fixture's at a time
	}
	order := map[string]int{}
	for i, c := range s.chosen {
		order[c.Name] = i
	}
	slices.SortStableFunc(s.report.Results, func(a, b Result) int { return order[a.Check] - order[b.Check] })
	s.step(Progress{}, 0, 0, total)
	return &s.report, nil
}

// look runs the chosen checks on one subject.
func (s *session) look(ctx context.Context, sub *subject, total int) error {
	s.prepare(ctx, sub)
	for _, c := range s.chosen {
		if c.of&sub.kind == 0 {
			continue
		}
		r := Result{Check: c.Name, Fixture: sub.name, Status: Passed}
		t := &trial{session: s, Result: &r, subject: sub, total: total}
		t.step(0, 1)
		if err := s.one(ctx, c, t); err != nil {
			return err
		}
		s.done++
		if err := ctx.Err(); err != nil { // whatever the check made of it
			return fmt.Errorf("conformance of %s: %w", s.Name, err)
		}
		if c.figures {
			continue
		}
		s.report.Passed = s.report.Passed && r.Status != Failed
		s.report.Results = append(s.report.Results, r)
	}
	return nil
}

func (s *session) one(ctx context.Context, c check, t *trial) error {
	if c.needsRecords && t.subject.refused != "" {
		// Told once, by the check that it is the affair of, and never passed over in silence.
		teller := RoundTrip
		if t.subject.kind == older {
			teller = migration
		}
		if slices.ContainsFunc(s.chosen, func(c check) bool { return c.Name == teller }) {
			t.skip("there are no records to check it with: see " + teller)
		} else {
			t.tried(1)
			t.fault("%s", t.subject.refused)
		}
		return nil
	}
	return c.run(ctx, t)
}

// prepare makes once what all checks of a subject need.
func (s *session) prepare(ctx context.Context, sub *subject) {
	var err error
	burnt := func() {
		if c, ok := s.costs(); ok {
			sub.fuel += c.Fuel
		}
	}
	switch sub.kind {
	case state:
		sub.records, err = s.save(ctx, s.plain, sub.native)
		if burnt(); err != nil {
			sub.refused = "the fixture cannot be saved: " + s.said(abi.OpSave, err)
			return
		}
		sub.back, err = s.load(ctx, s.plain, s.about.Schema, sub.records)
		if burnt(); err != nil {
			sub.refused = "its records cannot be loaded: " + s.said(abi.OpLoad, err)
		}
	case older:
		schema := sub.old.Schema
		if sub.reads = slices.Contains(s.about.Reads, schema); sub.reads {
			sub.back, err = s.load(ctx, s.plain, schema, sub.old.Records)
			if burnt(); err != nil {
				sub.refused = fmt.Sprintf("the module says that it reads schema %d, but %s", schema, s.said(abi.OpLoad, err))
				return
			}
		}
		if !s.migrates(schema) {
			return
		}
		sub.records, err = s.migrate(ctx, s.plain, schema, sub.old.Records)
		burnt()
		var guest *host.GuestError
		switch {
		case err == nil:
			sub.migrates = true
		case sub.reads && errors.As(err, &guest) && guest.Code == abi.CodeVersion: // load does it
		default:
			sub.refused = fmt.Sprintf("from schema %d to %d: %s", schema, s.about.Schema, s.said(abi.OpMigrate, err))
		}
	}
}

func (s *session) step(p Progress, done, of, total int) {
	if s.Progress == nil {
		return
	}
	p.Total = int64(total) * stepParts
	p.Done = s.done * stepParts
	if of > 0 {
		p.Done += int64(done) * stepParts / int64(of)
	}
	s.Progress(p)
}

// trial is one check of one subject under way.
type trial struct {
	*session
	*Result
	subject *subject
	total   int
}

// step tells that done of of inputs have been tried.
func (t *trial) step(done, of int) {
	t.session.step(Progress{Check: t.Check, Fixture: t.Fixture}, done, of, t.total)
}

// maxWorkers bounds the calls, and so the memory, at a time.
const maxWorkers = 4

// block is how many trials run before their failures are looked at. It does not depend on the machine,
// so that neither does the report.
const block = 64

// each makes n trials, several at a time.
func (t *trial) each(ctx context.Context, n int, try func(i int) verdict) {
	t.Planned += n
	workers := min(runtime.GOMAXPROCS(0), maxWorkers)
	verdicts := make([]verdict, block)
	before := t.Failed
	for begin := 0; begin < n && t.Failed-before < MaxFailures && ctx.Err() == nil; begin += block {
		t.step(begin, n)
		todo := min(block, n-begin)
		next := make(chan int, todo)
		for i := range todo {
			next <- i
		}
		close(next)
		var wg sync.WaitGroup
		for range min(workers, todo) {
			wg.Go(func() {
				for i := range next {
					verdicts[i] = verdict{}
					if ctx.Err() == nil {
						verdicts[i] = try(begin + i)
					}
				}
			})
		}
		wg.Wait()
		for _, v := range verdicts[:todo] {
			if v.none {
				t.Planned--
				continue
			}
			t.add(v)
			t.Trials++
		}
	}
}

// opened is a host with the module.
type opened struct {
	host   *host.Host
	module *host.Module
}

// rooms opens hosts as they are needed.
type rooms struct {
	options Options
	open    map[room]*opened

	mu   sync.Mutex
	last host.CallCost
	some bool
}

func (r *rooms) module(ctx context.Context, want room) (module, error) {
	if o := r.open[want]; o != nil {
		return o.module, nil
	}
	cfg := host.Config{CacheDir: r.options.CacheDir, Limits: r.options.Limits, Logger: r.options.Logger,
		InputPiece: want.piece, Interpreter: want.interpreter, AsLeft: want.asLeft, Seed: want.seed, Observer: r}
	h, err := host.New(ctx, cfg)
	if err != nil {
		return nil, err
	}
	m, err := h.Compile(ctx, r.options.Name, r.options.Wasm)
	if err != nil {
		return nil, errors.Join(err, h.Close(ctx))
	}
	r.open[want] = &opened{h, m}
	return m, nil
}

func (r *rooms) close(ctx context.Context) error {
	var err error
	for _, o := range r.open {
		err = errors.Join(err, o.host.Close(context.WithoutCancel(ctx))) // no call is under way
	}
	return err
}

// ModuleCompiled implements host.Observer.
func (r *rooms) ModuleCompiled(string, time.Duration, error) {}

// ModuleCalled implements host.Observer.
func (r *rooms) ModuleCalled(_, _ string, c host.CallCost) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.last, r.some = c, true
}

func (r *rooms) cost() (host.CallCost, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.last, r.some
}
