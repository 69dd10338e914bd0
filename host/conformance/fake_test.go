package conformance

import (
	"bytes"
	"context"
	"errors"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// The checks here are of what package host does not let a module do, or should it ever: then the kit
// is what tells.

// fake is a module that passes records on as they are, unless told otherwise.
type fake struct {
	d    abi.Descriptor
	save func(native []byte) ([]byte, error)
	load func(records []byte) ([]byte, error)
}

func (f *fake) Descriptor() abi.Descriptor { return f.d }

func (f *fake) Save(_ context.Context, _ abi.Call, native io.Reader, sink record.Sink) error {
	in, err := io.ReadAll(native)
	if err != nil {
		return err
	}
	out, err := f.save(in)
	if err != nil {
		return err
	}
	var scan record.Scanner
	refs, err := scan.Scan(out, nil)
	if err != nil {
		return &host.GuestError{Op: abi.OpSave, Code: abi.CodeCorrupt, Failure: abi.Failure{Msg: err.Error()}}
	}
	return sink.WriteBatch(&record.Batch{Data: out, Refs: refs})
}

func (f *fake) Load(_ context.Context, _ abi.Call, records record.Source, native io.Writer) error {
	var in []byte
	for {
		b, err := records.ReadBatch()
		if err == io.EOF {
			break
		} else if err != nil {
			return err
		}
		in = append(in, b.Data...)
	}
	out, err := f.load(in)
	if err != nil {
		return err
	}
	_, err = native.Write(out)
	return err
}

func (f *fake) Migrate(context.Context, abi.Call, record.Source, record.Sink) error {
	return errors.ErrUnsupported
}

func (f *fake) Inspect(context.Context, abi.Call, record.Source, io.Writer) error {
	return errors.ErrUnsupported
}

func newFake() *fake {
	pass := func(b []byte) ([]byte, error) { return b, nil }
	return &fake{save: pass, load: pass, d: abi.Descriptor{Name: "fake", Version: "1", Schema: 1, Reads: []uint64{1},
		Media: abi.MediaRecords, Operations: []string{abi.OpSave, abi.OpLoad}, Canonical: true}}
}

func fakeRecord(key, value string) []byte {
	return record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), key), value)
}

// examine runs checks of a fake with two fixtures, a and b.
func examine(t *testing.T, in func(room) module, only ...string) []Result {
	t.Helper()
	s := &session{
		Options: Options{Name: "fake", Fixtures: &Fixtures{States: []Fixture{
			{"a", fakeRecord("a", "1")}, {"b", slices.Concat(fakeRecord("a", "1"), fakeRecord("b", "2"))}}}},
		chosen: slices.DeleteFunc(checks(), func(c check) bool { return !slices.Contains(only, c.Name) }),
		module: func(_ context.Context, r room) (module, error) { return in(r), nil },
		costs:  func() (host.CallCost, bool) { return host.CallCost{}, false },
	}
	report, err := s.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return report.Results
}

func always(f *fake) func(room) module { return func(room) module { return f } }

func TestChecksOfWhatTheHostPrevents(t *testing.T) {
	for _, c := range []struct {
		name, check, says string
		in                func() func(room) module
	}{
		{"calls are counted", "determinism", "called again, save gives something else", func() func(room) module {
			f, n := newFake(), byte(0)
			f.save = func(b []byte) ([]byte, error) {
				n++
				return slices.Concat(b, fakeRecord("calls", string('a'+n%26))), nil
			}
			return always(f)
		}},
		{"the interpreter differs", "determinism", "run by the interpreter instead of the compiler, load gives something else", func() func(room) module {
			f, g := newFake(), newFake()
			g.load = func(b []byte) ([]byte, error) { return append(b, 0), nil }
			return func(r room) module {
				if r.interpreter {
					return g
				}
				return f
			}
		}},
		{"the last state shows", "no-trace", "after a save of fixture b, save gives something else", func() func(room) module {
			f, last := newFake(), []byte(nil)
			f.save = func(b []byte) ([]byte, error) {
				out := b
				if last != nil && !bytes.Equal(last, b) {
					out = slices.Concat(b, fakeRecord("last", string(last[:1])))
				}
				last = b
				return out, nil
			}
			return always(f)
		}},
		{"the last records show", "no-trace", "after a load of fixture b, load gives something else", func() func(room) module {
			f, last := newFake(), 0
			f.load = func(b []byte) ([]byte, error) {
				out := b
				if last > len(b) {
					out = b[:min(1, len(b))]
				}
				last = len(b)
				return out, nil
			}
			return always(f)
		}},
		{"a refusal shows", "no-trace", "after a save of a state that ends in its middle", func() func(room) module {
			f, sour := newFake(), false
			f.save = func(b []byte) ([]byte, error) {
				var scan record.Scanner
				if _, err := scan.Scan(b, nil); err != nil {
					sour = true
				} else if sour {
					return nil, nil
				}
				return b, nil
			}
			return always(f)
		}},
		{"instances describe themselves differently", "describe", "it describes itself as", func() func(room) module {
			f, g := newFake(), newFake()
			g.d.Version = "2"
			return func(r room) module {
				if r.piece == 1 {
					return g
				}
				return f
			}
		}},
		{"a code that means nothing", "truncation", "that code means nothing", func() func(room) module {
			f := newFake()
			f.save = func(b []byte) ([]byte, error) {
				var scan record.Scanner
				if _, err := scan.Scan(b, nil); err != nil {
					return nil, &host.GuestError{Op: abi.OpSave, Code: 17, Failure: abi.Failure{Msg: "odd"}}
				}
				return b, nil
			}
			return always(f)
		}},
		{"records of damage that load refuses", "truncation", "save took it, but the records cannot be loaded", func() func(room) module {
			f := newFake()
			f.load = func(b []byte) ([]byte, error) {
				if len(b) == 0 {
					return nil, &host.GuestError{Op: abi.OpLoad, Code: abi.CodeCorrupt}
				}
				return b, nil
			}
			return always(f)
		}},
		{"a state that load makes of damage and that does not come back", "damaged-records", "load took it, but", func() func(room) module {
			f := newFake()
			f.load = func(b []byte) ([]byte, error) {
				if bytes.Contains(b, []byte("torpor")) {
					return slices.Concat(b, b), nil
				}
				return b, nil
			}
			return always(f)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			for _, r := range examine(t, c.in(), c.check) {
				if r.Status == Failed && strings.Contains(r.Failures[0], c.says) {
					return
				}
			}
			t.Errorf("%+v", examine(t, c.in(), c.check))
		})
	}
	for _, r := range examine(t, always(newFake()), "determinism", "no-trace", "describe", "truncation", "damaged-records") {
		if r.Status != Passed {
			t.Errorf("without a fault: %+v", r)
		}
	}
}

func TestDescriptorNotes(t *testing.T) {
	f := newFake()
	f.d.Operations = append(f.d.Operations, "dance")
	f.d.Reads = []uint64{1, 1}
	f.d.Media = "json"
	r := examine(t, always(f), "describe")[0]
	if r.Status != Passed || r.Noted != 3 {
		t.Errorf("%+v", r)
	}
}

// A check gives up on a module that fails all the time, at the same place on every machine.
func TestGivesUp(t *testing.T) {
	f := newFake()
	f.save = func(b []byte) ([]byte, error) { return nil, errors.New("no") }
	for _, r := range examine(t, always(f), "damage") {
		if r.Trials > block || r.Trials < MaxFailures || r.Planned <= block || r.Failed != r.Trials || len(r.Failures) != MaxExamples {
			t.Errorf("%+v", r)
		}
	}
}

func newTrial(seed uint64, thorough bool) *trial {
	return &trial{session: &session{Options: Options{Seed: seed, Thorough: thorough}}, Result: &Result{Check: "truncation", Fixture: "x"}, subject: &subject{}}
}

func TestTruncations(t *testing.T) {
	for _, n := range []int{0, 1, 100, MaxEveryTruncation, MaxEveryTruncation + 1, 20_000, 1 << 20, MaxFixtureBytes} {
		got := newTrial(1, false).truncations(n)
		want := n
		switch {
		case n > MaxEveryTruncation && n <= 1<<19:
			want = TruncationSamples
		case n > MaxEveryTruncation:
			want = max(TrialBytes/n, MinTrials)
		}
		if len(got) != want || !slices.IsSorted(got) || len(slices.Compact(slices.Clone(got))) != want {
			t.Errorf("of %d bytes: %d lengths, want %d: %v", n, len(got), want, got)
		}
		if n > 0 && (got[0] != 0 || got[len(got)-1] != n-1) {
			t.Errorf("of %d bytes: from %d to %d", n, got[0], got[len(got)-1])
		}
	}
	if got := newTrial(1, true).truncations(20_000); len(got) != 20_000 {
		t.Errorf("thorough: %d", len(got))
	}
	if slices.Equal(newTrial(1, false).truncations(20_000), newTrial(2, false).truncations(20_000)) {
		t.Error("the seed does not matter")
	}
}

func TestSamples(t *testing.T) {
	for _, c := range []struct {
		n, size int
		fuel    int64
		want    int
	}{
		{512, 100, 0, 512},
		{512, 1 << 20, 0, 256},
		{512, 1000, TrialFuel / 100, 100},
		{512, 1000, TrialFuel / 600, 512},
		{512, 1000, 2 * TrialFuel, MinTrials},
		{512, MaxEveryByte, 2 * TrialFuel, 512},
		{10, 1000, 2 * TrialFuel, 10},
	} {
		tr := newTrial(1, false)
		tr.subject.fuel = c.fuel
		if got := tr.samples(c.n, c.size); got != c.want || tr.Left != c.n-c.want {
			t.Errorf("%+v: %d", c, got)
		}
		if tr.Thorough = true; tr.samples(c.n, c.size) != c.n {
			t.Errorf("%+v: not all when thorough", c)
		}
	}
}

// Each way to damage records gives sound records, other than those there were.
func TestDamagedRecords(t *testing.T) {
	var records []byte
	for i := range 1000 {
		records = append(records, fakeRecord(string(rune('a'+i)), "value")...)
	}
	tr := newTrial(1, false)
	n, at := tr.damagedRecords(records)
	if n < DamagedRecords*30 {
		t.Errorf("%d ways", n)
	}
	var scan record.Scanner
	none := 0
	seen := map[string]bool{}
	for i := range n {
		what, b := at(i)
		if b == nil {
			none++
			continue
		}
		if _, err := scan.Scan(b, nil); err != nil || bytes.Equal(b, records) {
			t.Errorf("%s: %v", what, err)
		}
		seen[what] = true
	}
	if none > n/10 || len(seen) < n*9/10 || !seen["record 1 of 1000: left out"] || !seen["record 1000 of 1000: twice"] {
		t.Errorf("%d of %d do not apply, %d are different", none, n, len(seen))
	}
	if n, _ := tr.damagedRecords(nil); n != 0 {
		t.Errorf("%d ways to damage nothing", n)
	}
	for _, few := range []int{1, 2, 3} {
		if n, at := tr.damagedRecords(bytes.Repeat(fakeRecord("k", "v"), few)); n == 0 {
			t.Errorf("%d records: no way", few)
		} else if what, _ := at(n - 1); !strings.HasPrefix(what, "record ") {
			t.Error(what)
		}
	}
}

// Damages are all sorts, and each says truly what it is about.
func TestDamage(t *testing.T) {
	native := []byte("0123456789abcdef0123456789abcdef")
	longer, shorter, same := 0, 0, 0
	for i := range 500 {
		what, b := damage(native, newTrial(1, false).dice(i))
		again, c := damage(native, newTrial(1, false).dice(i))
		if what != again || !bytes.Equal(b, c) || what == "" {
			t.Fatalf("%s and %s", what, again)
		}
		switch {
		case len(b) > len(native):
			longer++
		case len(b) < len(native):
			shorter++
		default:
			same++
		}
	}
	if longer < 100 || shorter < 30 || same < 100 {
		t.Errorf("%d longer, %d shorter, %d as long", longer, shorter, same)
	}
	if _, b := damage(nil, newTrial(1, false).dice(0)); len(b) == 0 {
		t.Error("nothing is damaged by nothing")
	}
}
