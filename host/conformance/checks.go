package conformance

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// check is a [Check] and how it is made.
type check struct {
	Check
	of           kind // of what subjects
	needsRecords bool // it cannot be made with a native state that save refuses
	figures      bool // it has figures and no result
	run          func(context.Context, *trial) error
}

// RoundTrip is the name of the check whose records [Options.Keep] is given.
const RoundTrip = "round-trip"

const migration = "migration"

// checks is all there are, in the order of the report.
func checks() []check {
	return []check{
		{Check{"describe", "the descriptor is sound, and the same in every instance"}, whole, false, false, checkDescribe},
		{Check{RoundTrip, "what load makes of the records is the state again"}, state, false, false, checkRoundTrip},
		{Check{"records", "keys are unique in their partition, and in order if the module says ordered"}, state, true, false, checkRecords},
		{Check{"determinism", "the same input gives the same bytes, again and in another engine"}, state, true, false, checkDeterminism},
		{Check{"streaming", "the output does not depend on how the input is cut into pieces"}, state | older, true, false, checkStreaming},
		{Check{"no-trace", "a call leaves nothing behind that another one shows"}, state, true, false, checkNoTrace},
		{Check{"truncation", "a state that ends too early is refused, or sound"}, state, false, false, checkTruncation},
		{Check{"damage", "a state with bytes changed, added or lost is refused, or sound"}, state, false, false, checkDamage},
		{Check{"damaged-records", "records with other values, keys or order are refused, or make a sound state"}, state | older, true, false, checkDamagedRecords},
		{Check{"empty", "no input at all is refused, or sound"}, whole, false, false, checkEmpty},
		{Check{"settings", "a setting that the module cannot know is refused"}, whole, false, false, checkSettings},
		{Check{"inspect", "the summary is one CBOR map, the same each time"}, state, true, false, checkInspect},
		{Check{migration, "records of older schemas become today's state"}, whole | older, false, false, checkMigration},
		{Check{"cost", "figures: time, fuel and memory with the smallest and the largest fixture"}, whole, false, true, measureCost},
	}
}

// pieces is how small the pieces of input are cut.
func pieces() []int { return []int{1, 7, 4095} }

// MaxSmallPieces is the size of input up to which it is also given in pieces of a few bytes. Larger
// ones would take minutes.
const MaxSmallPieces = 1 << 20

// MaxInterpreted is the size of input up to which it is also given to the interpreter, which is some
// fifty times slower.
const MaxInterpreted = 256 << 10

func (s *session) offers(op string) bool { return slices.Contains(s.about.Operations, op) }

func checkDescribe(ctx context.Context, t *trial) error {
	for _, r := range []room{{piece: 1}, {interpreter: true}} {
		m, err := t.module(ctx, r)
		t.tried(1)
		var refused *host.ModuleError
		switch {
		case errors.As(err, &refused):
			t.fault("another instance does not come up: %s", t.said(abi.OpDescribe, err))
		case err != nil:
			return err
		case !reflect.DeepEqual(m.Descriptor(), t.about):
			t.fault("it describes itself as %+v in one instance and as %+v in another", t.about, m.Descriptor())
		}
	}
	for _, op := range t.about.Operations {
		if !slices.Contains([]string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect}, op) {
			t.note("it offers the operation %q, which this version of the ABI does not have", op)
		}
	}
	if reads := slices.Sorted(slices.Values(t.about.Reads)); len(slices.Compact(slices.Clone(reads))) < len(reads) {
		t.note("it lists a schema twice in reads %v", t.about.Reads)
	}
	if major, minor, ok := strings.Cut(t.about.Media, "/"); !ok || major == "" || minor == "" {
		t.note("its media %q is no media type, such as application/json", t.about.Media)
	}
	return nil
}

func checkRoundTrip(ctx context.Context, t *trial) error {
	t.tried(1)
	sub := t.subject
	if sub.refused != "" {
		t.fault("%s; a fixture is a state as the service writes it", sub.refused)
		return nil
	}
	t.add(t.comesBack(ctx, t.plain, "save took it", sub.native, sub.records))
	if !t.about.Canonical && t.Status == Passed && !bytes.Equal(sub.back, sub.native) {
		t.note("load gives another state: %s; the module does not say canonical, so nothing tells this from a state that save has lost some of: have fixtures that are as load writes them, or say canonical",
			differ(sub.back, sub.native))
	}
	if t.Status == Passed && t.Keep != nil {
		return t.Keep(sub.name, t.about.Schema, bytes.Clone(sub.records), bytes.Clone(sub.back))
	}
	return nil
}

// firstTwice names the first key that comes twice in its partition, "" if there is none.
func firstTwice(records []byte) (name string) {
	known := map[string]int{}
	n := 0
	for partition, key := range keys(records) {
		n++
		id := fmt.Sprintf("%d:%s%s", len(partition), partition, key)
		if first := known[id]; first > 0 {
			return fmt.Sprintf("of the same key %s in partition %q: records %d and %d", keyText(key), partition, first, n)
		}
		known[id] = n
	}
	return ""
}

// keys goes through records that a host has checked: partition and encoded key.
func keys(records []byte) func(yield func(partition, key []byte) bool) {
	return func(yield func(partition, key []byte) bool) {
		p := record.NewPull(records)
		for p.Offset() < len(records) && p.Err() == nil {
			p.Array()
			partition, key := p.Text(), p.Skip()
			p.Skip()
			if p.Err() == nil && !yield(partition, key) {
				return
			}
		}
	}
}

const maxKeyText = 64

// keyText is an encoded key for people.
func keyText(item []byte) string {
	key, text := record.NewPull(item).TextOrBytes()
	cut := ""
	if len(key) > maxKeyText {
		key, cut = key[:maxKeyText], "..."
	}
	if text {
		return fmt.Sprintf("%q%s", key, cut)
	}
	return fmt.Sprintf("h'%x'%s", key, cut)
}

func checkRecords(_ context.Context, t *trial) error {
	t.tried(1)
	records := t.subject.records
	if twice := firstTwice(records); twice != "" {
		t.fault("save gave two records %s; a key is unique in its partition", twice)
	}
	if !t.about.Ordered {
		return nil
	}
	last := map[string][]byte{}
	n := 0
	for partition, key := range keys(records) {
		n++
		if before, ok := last[string(partition)]; ok && bytes.Compare(before, key) > 0 {
			t.fault("the module says ordered, but in partition %q record %d, key %s, comes after key %s; encoded keys are compared, head included: a shorter text comes first",
				partition, n, keyText(key), keyText(before))
			return nil
		}
		last[string(partition)] = key
	}
	return nil
}

// same compares what a call gave with what it is to give.
func (t *trial) same(op, when string, got []byte, err error, want []byte) {
	t.tried(1)
	if err != nil {
		t.fault("%s: %s", when, t.said(op, err))
	} else if !bytes.Equal(got, want) {
		t.fault("%s, %s gives something else: %s", when, op, differ(got, want))
	}
}

// again makes a call in an instance that has been used.
func (t *trial) again(ctx context.Context, op string, want []byte, call func(module) ([]byte, error)) error {
	used, err := t.module(ctx, room{asLeft: true})
	if err != nil {
		return err
	}
	for range 2 { // the first one may be in an instance that has not been used
		got, err := call(used)
		t.same(op, "called again", got, err, want)
	}
	return nil
}

// alike holds what a call comes to in m against what it comes to with whole pieces.
func (s *session) alike(m module, what, op string, call func(module) ([]byte, error)) verdict {
	want, wantErr := call(s.plain)
	got, err := call(m)
	var refusal, wantRefusal *host.GuestError
	refused, wantRefused := errors.As(err, &refusal), errors.As(wantErr, &wantRefusal)
	switch {
	case err != nil && wantErr != nil:
		if refused != wantRefused || refused && refusal.Code != wantRefusal.Code {
			return faulty("%s, %s; with whole pieces %s", what, s.said(op, err), s.said(op, wantErr))
		}
	case err != nil:
		return faulty("%s, %s; with whole pieces it succeeds", what, s.said(op, err))
	case wantErr != nil:
		return faulty("%s, %s succeeds; with whole pieces %s", what, op, s.said(op, wantErr))
	case !bytes.Equal(got, want):
		return faulty("%s, %s gives something else: %s", what, op, differ(got, want))
	}
	return verdict{}
}

func checkDeterminism(ctx context.Context, t *trial) error {
	sub, schema := t.subject, t.about.Schema
	again := func(when string, m module) {
		records, err := t.save(ctx, m, sub.native)
		t.same(abi.OpSave, when, records, err, sub.records)
		back, err := t.load(ctx, m, schema, sub.records)
		t.same(abi.OpLoad, when, back, err, sub.back)
	}
	used, err := t.module(ctx, room{asLeft: true})
	if err != nil {
		return err
	}
	for range 2 { // the first call may be in an instance that has not been used
		again("called again", used)
	}
	for seed := range uint64(3) {
		other, err := t.module(ctx, room{seed: seed + 1})
		if err != nil {
			return err
		}
		again("with other random numbers (does the order of a map show?)", other)
	}
	if size := max(len(sub.native), len(sub.records)); size > MaxInterpreted {
		t.note("not tried in the interpreter: it is larger than %d bytes", MaxInterpreted)
	} else {
		interpreted, err := t.module(ctx, room{interpreter: true})
		if err != nil {
			return err
		}
		again("run by the interpreter instead of the compiler", interpreted)
	}

	later := t.call()
	later.Time += int64(time.Hour + time.Second)
	records, err := t.saveAs(ctx, t.plain, later, sub.native)
	t.tried(1)
	if err != nil || !bytes.Equal(records, sub.records) {
		t.note("what save gives depends on the time of the call: a state that did not change seems to have changed at each save")
	}
	back, err := t.loadAs(ctx, t.plain, later, schema, sub.records)
	t.tried(1)
	if err != nil || !bytes.Equal(back, sub.back) {
		t.note("what load gives depends on the time of the call")
	}
	return nil
}

func checkStreaming(ctx context.Context, t *trial) error {
	sub := t.subject
	if sub.kind == older && !sub.reads && !sub.migrates {
		t.skip("the module does not know this schema")
		return nil
	}
	size := max(len(sub.native), len(sub.records))
	if sub.kind == older {
		size = len(sub.old.Records)
	}
	var summary []byte
	var inspectErr error
	if sub.kind == state && t.offers(abi.OpInspect) {
		summary, inspectErr = t.inspect(ctx, t.plain, t.about.Schema, sub.records)
	}
	for i, piece := range pieces() {
		t.step(i, len(pieces()))
		if size > MaxSmallPieces && piece < 1000 {
			t.note("not tried in pieces of %d bytes: it is larger than %d bytes", piece, MaxSmallPieces)
			continue
		}
		m, err := t.module(ctx, room{piece: piece})
		if err != nil {
			return err
		}
		when := fmt.Sprintf("with its input in pieces of %d bytes", piece)
		if piece == 1 {
			when = "with its input byte by byte"
		}
		if sub.kind == older {
			if sub.reads {
				b, err := t.load(ctx, m, sub.old.Schema, sub.old.Records)
				t.same(abi.OpLoad, when, b, err, sub.back)
			}
			if sub.migrates {
				b, err := t.migrate(ctx, m, sub.old.Schema, sub.old.Records)
				t.same(abi.OpMigrate, when, b, err, sub.records)
			}
			continue
		}
		records, err := t.save(ctx, m, sub.native)
		t.same(abi.OpSave, when, records, err, sub.records)
		back, err := t.load(ctx, m, t.about.Schema, sub.records)
		t.same(abi.OpLoad, when, back, err, sub.back)
		if t.offers(abi.OpInspect) && inspectErr == nil {
			b, err := t.inspect(ctx, m, t.about.Schema, sub.records)
			t.same(abi.OpInspect, when, b, err, summary)
		}
		t.sameRefusal(ctx, m, when)
	}
	return nil
}

// sameRefusal holds how save ends on half of the state against how it ends with whole pieces.
func (t *trial) sameRefusal(ctx context.Context, m module, when string) {
	half := t.subject.native[:len(t.subject.native)/2]
	t.tried(1)
	t.add(t.alike(m, fmt.Sprintf("truncated to %d of %d bytes, and %s", len(half), len(t.subject.native), when), abi.OpSave,
		func(m module) ([]byte, error) { return t.save(ctx, m, half) }))
}

func checkNoTrace(ctx context.Context, t *trial) error {
	sub, schema := t.subject, t.about.Schema
	states := t.Fixtures.States
	other := states[(sub.index+1)%len(states)]
	used, err := t.module(ctx, room{asLeft: true})
	if err != nil {
		return err
	}
	// What becomes of the calls between is the affair of other checks.
	between := []struct {
		name   string
		native []byte
	}{
		{"fixture " + other.Name, other.Native},
		{"a state that ends in its middle", sub.native[:len(sub.native)/2]},
		{"an empty state", nil},
	}
	for _, b := range between {
		records, err := t.save(ctx, used, b.native)
		when := "after a save of " + b.name
		if err != nil {
			records = nil
		}
		got, err := t.save(ctx, used, sub.native)
		t.same(abi.OpSave, when, got, err, sub.records)

		_, _ = t.load(ctx, used, schema, records)
		when = "after a load of " + b.name
		got, err = t.load(ctx, used, schema, sub.records)
		t.same(abi.OpLoad, when, got, err, sub.back)
		got, err = t.save(ctx, used, sub.native)
		t.same(abi.OpSave, when, got, err, sub.records)
	}
	return nil
}

func checkTruncation(ctx context.Context, t *trial) error {
	native := t.subject.native
	lengths := t.truncations(len(native))
	if len(lengths) < len(native) {
		t.note("%d of %d lengths were tried", len(lengths), len(native))
	}
	return t.damagedNative(ctx, len(lengths), func(i int) (string, []byte, bool) {
		return fmt.Sprintf("truncated to %d of %d bytes", lengths[i], len(native)), native[:lengths[i]], true
	})
}

func checkDamage(ctx context.Context, t *trial) error {
	native := t.subject.native
	every := len(native)
	if every > MaxEveryByte {
		every = 0
	}
	count := DamageSamples
	if len(native) == 0 { // there is only one way to damage it
		count = EmptySamples
	}
	if t.Thorough {
		count *= ThoroughFactor
	}
	samples := t.samples(count, len(native))
	return t.damagedNative(ctx, every+samples, func(i int) (what string, b []byte, ok bool) {
		dice := t.dice(i)
		if i < every {
			what, b = changed(native, i, native[i]^1<<dice.IntN(8))
		} else {
			what, b = damage(native, dice)
		}
		return what, b, !bytes.Equal(b, native) // zeros set to zero, say
	})
}

func checkDamagedRecords(ctx context.Context, t *trial) error {
	sub := t.subject
	records, schema := sub.records, t.about.Schema
	if sub.kind == older {
		if !sub.reads && !sub.migrates {
			t.skip("the module does not know this schema")
			return nil
		}
		records, schema = sub.old.Records, sub.old.Schema
	}
	n, damaged := t.damagedRecords(records)
	if n == 0 {
		t.skip("it has no records")
		return nil
	}
	d := damages{op: abi.OpLoad, size: len(records),
		input: func(i int) (string, []byte, bool) {
			what, b := damaged(i)
			return what, b, b != nil && !bytes.Equal(b, records)
		},
		call:  func(m module, b []byte) ([]byte, error) { return t.load(ctx, m, schema, b) },
		sound: func(what string, b []byte) verdict { return t.soundRecords(ctx, t.plain, what, schema, b) },
	}
	if sub.migrates {
		d.op = abi.OpMigrate
		d.call = func(m module, b []byte) ([]byte, error) { return t.migrate(ctx, m, schema, b) }
		d.sound = func(what string, b []byte) verdict { return t.soundMigrated(ctx, t.plain, what, schema, b) }
	}
	return t.damaged(ctx, n, d)
}

func checkEmpty(ctx context.Context, t *trial) error {
	t.tried(2)
	t.add(t.soundNative(ctx, t.plain, "given an empty state", nil))
	t.add(t.soundRecords(ctx, t.plain, "given no records", t.about.Schema, nil))
	if t.offers(abi.OpInspect) {
		t.tried(1)
		if _, err := t.inspect(ctx, t.plain, t.about.Schema, nil); err != nil {
			t.add(verdict{fault: t.refusal("given no records", abi.OpInspect, err)})
		}
	}
	for _, schema := range t.about.Reads {
		if t.migrates(schema) {
			t.tried(1)
			t.add(t.soundMigrated(ctx, t.plain, fmt.Sprintf("given no records of schema %d", schema), schema, nil))
		}
	}
	return nil
}

// unknownSetting is one that no module knows.
const unknownSetting = "torpor-conformance-unknown"

func checkSettings(ctx context.Context, t *trial) error {
	native := t.Fixtures.States[0].Native
	records, _ := t.save(ctx, t.plain, native)
	call := t.call()
	call.Settings = maps.Clone(call.Settings)
	if call.Settings == nil {
		call.Settings = map[string]any{}
	}
	call.Settings[unknownSetting] = true
	_, saveErr := t.saveAs(ctx, t.plain, call, native)
	_, loadErr := t.loadAs(ctx, t.plain, call, t.about.Schema, records)
	for _, c := range []struct {
		op  string
		err error
	}{{abi.OpSave, saveErr}, {abi.OpLoad, loadErr}} {
		t.tried(1)
		var guest *host.GuestError
		switch {
		case c.err == nil:
			t.note("%s takes the setting %s, which it cannot know; a misspelled setting is worth refusing, with code 4 (unsupported)", c.op, unknownSetting)
		case !errors.As(c.err, &guest):
			t.fault("given the setting %s, %s; a setting that is not known is code 4 (unsupported)", unknownSetting, t.said(c.op, c.err))
		case guest.Code != abi.CodeUnsupported:
			t.note("given the setting %s, %s; a setting that is not known is code 4 (unsupported)", unknownSetting, t.said(c.op, c.err))
		}
	}
	return nil
}

func checkInspect(ctx context.Context, t *trial) error {
	if !t.offers(abi.OpInspect) {
		t.skip("the module does not offer it")
		return nil
	}
	sub := t.subject
	t.tried(1)
	summary, err := t.inspect(ctx, t.plain, t.about.Schema, sub.records)
	if err != nil {
		t.fault("of records that save made: %s", t.said(abi.OpInspect, err))
		return nil
	}
	if wrong := noMap(summary); wrong != "" {
		t.fault("what inspect gives is not one CBOR map with text keys: %s", wrong)
	}
	return t.again(ctx, abi.OpInspect, summary, func(m module) ([]byte, error) { return t.inspect(ctx, m, t.about.Schema, sub.records) })
}

// noMap says why b is not one map of the ABI.
func noMap(b []byte) string {
	p := record.NewPull(b)
	known := map[string]bool{}
	for range p.Map() {
		key := string(p.Text())
		p.Skip()
		if p.Err() == nil && known[key] {
			return fmt.Sprintf("it has the key %q twice", key)
		}
		known[key] = true
	}
	if err := p.End(); err != nil {
		return err.Error()
	}
	return ""
}

// migrates reports whether records of a schema can be given to migrate.
func (s *session) migrates(schema uint64) bool {
	return schema != s.about.Schema && s.offers(abi.OpMigrate)
}

func checkMigration(ctx context.Context, t *trial) error {
	if t.subject.kind == whole {
		t.untested()
		return nil
	}
	sub := t.subject
	old := sub.old
	t.tried(1)
	switch {
	case sub.refused != "":
		t.fault("%s", sub.refused)
		return nil
	case !sub.reads && !sub.migrates:
		t.fault("the module neither reads schema %d nor migrates from it: whoever has such a state loses it", old.Schema)
		return nil
	}
	if sub.reads {
		t.becomes(ctx, "load", sub.back)
	}
	if !sub.migrates {
		return nil
	}
	migrated := sub.records
	if err := t.again(ctx, abi.OpMigrate, migrated, func(m module) ([]byte, error) { return t.migrate(ctx, m, old.Schema, old.Records) }); err != nil {
		return err
	}
	if twice := firstTwice(migrated); twice != "" {
		t.fault("migrate gave two records %s", twice)
	}
	native, err := t.load(ctx, t.plain, t.about.Schema, migrated)
	if err != nil {
		t.fault("what migrate made cannot be loaded: %s", t.said(abi.OpLoad, err))
		return nil
	}
	if sub.reads && !bytes.Equal(native, sub.back) {
		t.fault("load makes another state of these records than migrate and load do: %s", differ(sub.back, native))
	}
	t.becomes(ctx, "migrate and load", native)
	if records, err := t.save(ctx, t.plain, native); err == nil && !bytes.Equal(records, migrated) {
		t.note("migrate does not make the records that save makes of the same state: %s", differ(migrated, records))
	}
	return nil
}

// becomes holds what older records became against what they are to become.
func (t *trial) becomes(ctx context.Context, by string, native []byte) {
	t.tried(1)
	if old := t.subject.old; old.Known && !bytes.Equal(native, old.Native) {
		t.fault("by %s they become another state than %s%s has: %s", by, t.subject.name, NativeEnding, differ(native, old.Native))
		return
	}
	records, err := t.save(ctx, t.plain, native)
	if err != nil {
		t.fault("by %s they become a state that cannot be saved: %s", by, t.said(abi.OpSave, err))
		return
	}
	t.add(t.comesBack(ctx, t.plain, "by "+by+" they become a state that save takes", native, records))
}

// untested notes what the fixtures do not show.
func (t *trial) untested() {
	shown := map[uint64]bool{}
	for _, old := range t.Fixtures.Old {
		shown[old.Schema] = true
	}
	others := 0
	for _, schema := range t.about.Reads {
		if schema == t.about.Schema {
			continue
		}
		others++
		if !shown[schema] {
			t.note("not tested: the module reads schema %d, and there is no fixture %s%s", schema, SchemaPath(schema, "NAME"), RecordsEnding)
		}
	}
	switch {
	case len(t.Fixtures.Old) > 0:
	case others > 0:
		t.skip("there are no fixtures of older schemas")
	default:
		t.skip("there are no older schemas")
	}
}

func measureCost(ctx context.Context, t *trial) error {
	m, err := t.module(ctx, room{costs: true})
	if err != nil {
		return err
	}
	bySize := func(a, b Fixture) int { return len(a.Native) - len(b.Native) }
	smallest, largest := slices.MinFunc(t.Fixtures.States, bySize), slices.MaxFunc(t.Fixtures.States, bySize)
	measured := []Fixture{smallest, largest} // in this order: guest memory does not shrink
	if smallest.Name == largest.Name {
		measured = measured[:1]
	}
	for _, f := range measured {
		var records []byte
		save := func() (err error) { records, err = t.save(ctx, m, f.Native); return err }
		load := func() error { _, err := t.load(ctx, m, t.about.Schema, records); return err }
		if !t.figure(f, abi.OpSave, save) || !t.figure(f, abi.OpLoad, load) {
			return nil // what is wrong is the affair of other checks
		}
		if t.offers(abi.OpInspect) {
			t.figure(f, abi.OpInspect, func() error { _, err := t.inspect(ctx, m, t.about.Schema, records); return err })
		}
	}
	return nil
}

// figure makes a call a few times and adds what it cost.
func (t *trial) figure(f Fixture, op string, call func() error) bool {
	fig := Figure{Fixture: f.Name, Op: op}
	for i := range CostRuns {
		if call() != nil {
			return false
		}
		c, ok := t.costs()
		if !ok {
			return false
		}
		if i == 0 || c.Duration < fig.Duration {
			fig.Duration = c.Duration
		}
		fig.Memory = max(fig.Memory, c.Memory)
		fig.Input, fig.Output, fig.Fuel = c.Input, c.Output, c.Fuel
	}
	if s := fig.Duration.Seconds(); s > 0 {
		fig.MBPerSecond = float64(len(f.Native)) / 1e6 / s
	}
	t.report.Figures = append(t.report.Figures, fig)
	return true
}
