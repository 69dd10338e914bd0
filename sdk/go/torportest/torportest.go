// Package torportest runs serializers in plain Go, by the rules of the border between host and guest
// (host/abi/ABI.md): output counts only if the input was read to its end and no record is left open,
// what is emitted as records is checked, and input may come in pieces of any size.
//
// [RoundTrip] is the test every serializer should have. [Save], [Load], [Migrate] and [Inspect] run
// one operation; a [Host] is one call with all there is to choose.
package torportest

import (
	"bytes"
	"cmp"
	"errors"
	"fmt"
	"maps"
	"slices"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// Host is one call: what a guest is given, and then what it did. It implements [torpor.Host]. It is
// used for one call and not safe for concurrent use.
type Host struct {
	// Call is the parameters; Op says which operation [Host.Run] runs. Settings may hold strings,
	// byte slices, bools, integers, nil, and slices ([]any) and maps (map[string]any) of these.
	Call abi.Call
	// Input is native state or records, as the operation wants it. It is not changed.
	Input []byte
	// Piece is the most bytes a piece of input has; 0 means as many as the guest has room for.
	Piece int
	// LateEnd makes the end of native input come alone, after the last piece.
	LateEnd bool

	arg    []byte
	read   int
	ends   []int // of the records of Input
	next   int   // the first of them that has not been given whole
	ended  bool
	out    bytes.Buffer
	open   int // where in out the fragments of an open record begin; -1: none is open
	fail   *torpor.Error
	breach error // what a real host would end the call for
	lines  []string
}

// Run runs the operation and gives its output, or the error of the call: a *[torpor.Error] if the
// serializer failed or panicked, another error if it broke a rule of the border.
func (h *Host) Run(s torpor.Serializer) ([]byte, error) {
	h.open = -1
	var err error
	if h.arg, err = appendCall(nil, h.Call); err != nil {
		return nil, fmt.Errorf("torportest: the call's parameters: %w", err)
	}
	if h.recordsIn() {
		var scan record.Scanner
		refs, err := scan.Scan(h.Input, nil)
		if err != nil {
			return nil, fmt.Errorf("torportest: the input of %s: %w", h.Call.Op, err)
		}
		for _, r := range refs {
			h.ends = append(h.ends, r.End)
		}
	}
	status := torpor.Run(h, h.Call.Op, s)
	switch {
	case h.breach != nil:
		return nil, fmt.Errorf("torportest: %s: %w", h.Call.Op, h.breach)
	case h.fail != nil:
		return nil, h.fail
	case status != 0:
		return nil, fmt.Errorf("torportest: %s returned %d without saying why", h.Call.Op, status)
	case h.open >= 0:
		return nil, fmt.Errorf("torportest: %s returned with a record emitted in part", h.Call.Op)
	case !h.ended && h.Call.Op != abi.OpDescribe:
		return nil, fmt.Errorf("torportest: %s returned before its input had ended", h.Call.Op)
	}
	return h.out.Bytes(), nil
}

// Lines is what the serializer has logged.
func (h *Host) Lines() []string { return h.lines }

func (h *Host) recordsIn() bool { return h.Call.Op != abi.OpSave && h.Call.Op != abi.OpDescribe }

func (h *Host) recordsOut() bool { return h.Call.Op == abi.OpSave || h.Call.Op == abi.OpMigrate }

// Next implements [torpor.Host].
func (h *Host) Next(buf []byte) int64 {
	if len(buf) == 0 {
		h.broke("it called next with room for no byte")
		return abi.NextFailed
	}
	room := len(buf)
	if h.Piece > 0 {
		room = min(room, h.Piece)
	}
	n := min(room, len(h.Input)-h.read)
	more := false
	if h.recordsIn() {
		n, more = h.nextRecords(room)
	}
	copy(buf, h.Input[h.read:h.read+n])
	h.read += n
	result := int64(n)
	// The end of records comes alone, as from package host.
	if h.read == len(h.Input) && (n == 0 || !h.LateEnd && !h.recordsIn()) {
		h.ended = true
		result |= abi.NextEnd
	}
	if more {
		result |= abi.NextMore
	}
	return result
}

// nextRecords is how many bytes of whole records fit in room, or how much of one that does not.
func (h *Host) nextRecords(room int) (n int, more bool) {
	if h.next == len(h.ends) {
		return 0, false
	}
	begin := 0
	if h.next > 0 {
		begin = h.ends[h.next-1]
	}
	if left := h.ends[h.next] - h.read; h.read > begin || left > room {
		if left > room {
			return room, true
		}
		h.next++
		return left, false
	}
	for ; h.next < len(h.ends) && h.ends[h.next]-h.read <= room; h.next++ {
		n = h.ends[h.next] - h.read
	}
	return n, false
}

// Emit implements [torpor.Host].
func (h *Host) Emit(p []byte, more bool) int32 {
	if h.breach != nil {
		return abi.EmitRefused
	}
	at := h.out.Len()
	h.out.Write(p)
	switch {
	case !h.recordsOut():
		if more {
			h.broke("it emitted a fragment where output has no records")
		}
	case more:
		if h.open < 0 {
			h.open = at
		}
	default:
		single := h.open >= 0
		if single {
			at, h.open = h.open, -1
		}
		var scan record.Scanner
		refs, err := scan.Scan(h.out.Bytes()[at:], nil)
		if err != nil {
			h.broke("what it emitted is no record: " + err.Error())
		} else if single && len(refs) != 1 {
			h.broke(fmt.Sprintf("the fragments it emitted make %d records, not one", len(refs)))
		}
	}
	if h.breach != nil {
		return abi.EmitRefused
	}
	return abi.EmitOK
}

// Arg implements [torpor.Host].
func (h *Host) Arg(buf []byte) int {
	if len(h.arg) <= len(buf) {
		copy(buf, h.arg)
	}
	return len(h.arg)
}

// Fail implements [torpor.Host].
func (h *Host) Fail(code torpor.Code, failure []byte) {
	if h.fail != nil { // the first is the cause
		return
	}
	e := &torpor.Error{Code: code}
	p := record.NewPull(failure)
	for range p.Map() {
		switch key := string(p.Text()); key {
		case "msg":
			e.Msg = string(p.Text())
		case "path":
			e.Path = string(p.Text())
		case "offset":
			e.Offset = p.Uint()
		default:
			p.Skip()
		}
	}
	if err := p.End(); err != nil {
		h.broke("it failed with a message that is no CBOR map: " + err.Error())
	}
	h.fail = e
}

// Log implements [torpor.Host].
func (h *Host) Log(_ torpor.Level, line string) {
	h.lines = append(h.lines, line[:min(len(line), abi.MaxLogBytes)])
}

func (h *Host) broke(reason string) {
	if h.breach == nil {
		h.breach = errors.New(reason)
	}
}

// Describe gives what s says about itself, as a host reads it.
func Describe(s torpor.Serializer) (abi.Descriptor, error) {
	h := Host{Call: abi.Call{Op: abi.OpDescribe}}
	out, err := h.Run(s)
	if err != nil {
		return abi.Descriptor{}, err
	}
	var d abi.Descriptor
	p := record.NewPull(out)
	for range p.Map() {
		switch key := string(p.Text()); key {
		case "name":
			d.Name = string(p.Text())
		case "version":
			d.Version = string(p.Text())
		case "schema":
			d.Schema = p.Uint()
		case "reads":
			for range p.Array() {
				d.Reads = append(d.Reads, p.Uint())
			}
		case "media":
			d.Media = string(p.Text())
		case "operations":
			for range p.Array() {
				d.Operations = append(d.Operations, string(p.Text()))
			}
		case "ordered":
			d.Ordered = p.Bool()
		case "canonical":
			d.Canonical = p.Bool()
		case "nesting":
			d.Nesting = string(p.Text())
		case "memory":
			d.Memory = p.Uint()
		default:
			p.Skip()
		}
	}
	if err := p.End(); err != nil {
		return d, fmt.Errorf("torportest: the descriptor: %w", err)
	}
	switch {
	case d.Name == "" || d.Version == "" || d.Media == "":
		return d, errors.New("torportest: the descriptor lacks name, version or media")
	case !slices.Contains(d.Reads, d.Schema):
		return d, fmt.Errorf("torportest: the serializer writes schema %d but reads only %v", d.Schema, d.Reads)
	}
	return d, nil
}

// Save gives the records of native state.
func Save(s torpor.Serializer, native []byte) ([]byte, error) {
	h := Host{Call: abi.Call{Op: abi.OpSave, Schema: s.Describe().Schema}, Input: native}
	return h.Run(s)
}

// Load gives the native state of records of the serializer's own schema.
func Load(s torpor.Serializer, records []byte) ([]byte, error) {
	h := Host{Call: abi.Call{Op: abi.OpLoad, Schema: s.Describe().Schema}, Input: records}
	return h.Run(s)
}

// Migrate gives records of schema to for those of schema from.
func Migrate(s torpor.Serializer, from, to uint64, records []byte) ([]byte, error) {
	h := Host{Call: abi.Call{Op: abi.OpMigrate, From: from, To: to}, Input: records}
	return h.Run(s)
}

// Inspect gives the summary of records of the serializer's own schema: one CBOR map.
func Inspect(s torpor.Serializer, records []byte) ([]byte, error) {
	h := Host{Call: abi.Call{Op: abi.OpInspect, Schema: s.Describe().Schema}, Input: records}
	return h.Run(s)
}

// RoundTrip checks that native comes back from its records: byte for byte if the serializer's
// descriptor says Canonical, else as a native state that has the same records. It does so with pieces
// of several sizes down to one byte and with the end of input alone, and each time the output must be
// the same. It returns the records. native should be small: a megabyte takes seconds.
func RoundTrip(tb testing.TB, s torpor.Serializer, native []byte) []byte {
	tb.Helper()
	d, err := Describe(s)
	if err != nil {
		tb.Fatal(err)
	}
	all := func(op string, input []byte) []byte {
		tb.Helper()
		var first []byte
		for i, piece := range []int{0, 0, 1, 2, 3, 7, 64, 1000} { // 0 twice: the same input, the same bytes
			for _, late := range []bool{false, true} {
				h := Host{Call: abi.Call{Op: op, Schema: d.Schema}, Input: input, Piece: piece, LateEnd: late}
				out, err := h.Run(s)
				if err != nil {
					tb.Fatalf("%s with pieces of %d bytes (0: as much as there is room for): %v", op, piece, err)
				}
				if i == 0 && !late {
					first = bytes.Clone(out)
				}
				if !bytes.Equal(out, first) {
					tb.Fatalf("%s is not the same each time: with pieces of %d bytes (0: as much as there is room for) %s", op, piece, differ(out, first))
				}
			}
		}
		return first
	}
	records := all(abi.OpSave, native)
	back := all(abi.OpLoad, records)
	if d.Canonical && !bytes.Equal(back, native) {
		tb.Fatalf("the serializer says Canonical, but load does not give back what save was given: %s", differ(back, native))
	}
	again := all(abi.OpSave, back)
	if !bytes.Equal(again, records) {
		tb.Fatalf("what load gave does not have the same records: %s", differ(again, records))
	}
	return records
}

// differ says where got leaves want.
func differ(got, want []byte) string {
	at := 0
	for at < len(got) && at < len(want) && got[at] == want[at] {
		at++
	}
	around := func(b []byte) []byte { return b[max(0, at-20):min(len(b), at+20)] }
	return fmt.Sprintf("byte %d of %d: ...%q..., want (of %d) ...%q...", at, len(got), around(got), len(want), around(want))
}

// appendCall adds the map that arg gives, as package host does.
func appendCall(dst []byte, c abi.Call) ([]byte, error) {
	pairs := map[string]any{"op": c.Op, "service": c.Service, "part": c.Part, "schema": c.Schema, "time": c.Time}
	if c.From != 0 {
		pairs["from"] = c.From
	}
	if c.To != 0 {
		pairs["to"] = c.To
	}
	if len(c.Settings) > 0 {
		pairs["settings"] = c.Settings
	}
	return appendValue(dst, pairs)
}

func appendValue(dst []byte, v any) ([]byte, error) {
	var err error
	switch v := v.(type) {
	case nil:
		return record.AppendNull(dst), nil
	case bool:
		return record.AppendBool(dst, v), nil
	case int:
		return record.AppendInt(dst, int64(v)), nil
	case int64:
		return record.AppendInt(dst, v), nil
	case uint64:
		return record.AppendUint(dst, v), nil
	case string:
		return record.AppendText(dst, v), nil
	case []byte:
		return record.AppendBytes(dst, v), nil
	case []any:
		dst = record.AppendArray(dst, len(v))
		for _, item := range v {
			if dst, err = appendValue(dst, item); err != nil {
				return nil, err
			}
		}
		return dst, nil
	case map[string]any:
		// In canonical order, shortest key first, as package host has it.
		keys := slices.SortedFunc(maps.Keys(v), func(a, b string) int {
			return cmp.Or(cmp.Compare(len(a), len(b)), cmp.Compare(a, b))
		})
		dst = record.AppendMap(dst, len(keys))
		for _, key := range keys {
			if dst, err = appendValue(record.AppendText(dst, key), v[key]); err != nil {
				return nil, fmt.Errorf("%s: %w", key, err)
			}
		}
		return dst, nil
	default:
		return nil, fmt.Errorf("a value of type %T", v)
	}
}
