package torportest_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// lines keeps each line as a record. Its fields make it bad.
type lines struct {
	torpor.Descriptor
	saved  func(records *torpor.Output, n int, line []byte)
	loaded func(native *torpor.Output, line []byte)
}

func sound() lines {
	return lines{Descriptor: torpor.Descriptor{Name: "lines", Version: "1", Schema: 1, Media: "text/plain", Canonical: true},
		saved: func(records *torpor.Output, n int, line []byte) {
			records.Record("", fmt.Sprintf("%08d", n))
			records.Bytes(line)
		},
		loaded: func(native *torpor.Output, line []byte) { native.Put(line) }}
}

func (s lines) Describe() torpor.Descriptor { return s.Descriptor }

func (s lines) Save(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	for n := 0; ; n++ {
		line, err := native.Until('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.saved(records, n, line)
	}
}

func (s lines) Load(_ *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		s.loaded(native, r.Items().Bytes())
		if err := r.End(); err != nil {
			return err
		}
	}
}

const text = "one\n\ntwo\nthree without an end"

// recorder is a testing.TB that notes that the test failed.
type recorder struct {
	testing.TB
	failed string
}

func (r *recorder) Helper() {}

func (r *recorder) Fatal(args ...any) { r.failed = fmt.Sprint(args...); runtime.Goexit() }

func (r *recorder) Fatalf(format string, args ...any) { r.Fatal(fmt.Sprintf(format, args...)) }

func roundTrip(t *testing.T, s torpor.Serializer) string {
	r := &recorder{TB: t}
	done := make(chan struct{})
	go func() {
		defer close(done)
		torportest.RoundTrip(r, s, []byte(text))
	}()
	<-done
	return r.failed
}

func TestRoundTripFindsBadSerializers(t *testing.T) {
	if failed := roundTrip(t, sound()); failed != "" {
		t.Errorf("a sound serializer: %s", failed)
	}
	for want, spoil := range map[string]func(s *lines, calls *int){
		"the descriptor lacks name": func(s *lines, _ *int) { s.Name = "" },
		"save is not the same each time: with pieces of 0 bytes": func(s *lines, calls *int) {
			s.saved = func(records *torpor.Output, n int, line []byte) {
				*calls++
				records.Record("", fmt.Sprintf("%08d %d", n, *calls))
				records.Bytes(line)
			}
		},
		"load with pieces of 0 bytes (0: as much as there is room for): the serializer panicked: no": func(s *lines, _ *int) {
			s.loaded = func(*torpor.Output, []byte) { panic("no") }
		},
		"the serializer says Canonical, but load does not give back what save was given: byte 0 of 29": func(s *lines, _ *int) {
			s.loaded = func(native *torpor.Output, line []byte) { native.Put(bytes.ToUpper(line)) }
		},
		"what load gave does not have the same records": func(s *lines, _ *int) {
			s.Canonical = false
			s.loaded = func(native *torpor.Output, line []byte) { native.Put(bytes.ToUpper(line)) }
		},
		"what it emitted is no record": func(s *lines, _ *int) {
			s.saved = func(records *torpor.Output, _ int, _ []byte) { records.Record("", "no value") }
		},
	} {
		s, calls := sound(), 0
		spoil(&s, &calls)
		if failed := roundTrip(t, s); !strings.Contains(failed, want) {
			t.Errorf("%q, want %q", failed, want)
		}
	}
	s := sound()
	s.Canonical = false // a claim it need not make
	if failed := roundTrip(t, s); failed != "" {
		t.Errorf("%s", failed)
	}
}

// past is a serializer that speaks to the host past the SDK, to break the rules of the border.
type past struct{ f func() }

func (past) Describe() torpor.Descriptor { return torpor.Descriptor{} }

func (p past) Save(_ *torpor.Call, in *torpor.Input, _ *torpor.Output) error {
	p.f()
	_, err := io.Copy(io.Discard, in)
	return err
}

func (p past) Load(call *torpor.Call, in *torpor.Input, out *torpor.Output) error {
	return p.Save(call, in, out)
}

func TestTheRulesOfTheBorder(t *testing.T) {
	one := record.AppendNull(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"))
	two := append(bytes.Clone(one), one...)
	for _, c := range []struct {
		name, op string
		f        func(h *torportest.Host)
		want     string
	}{
		{"no record", abi.OpSave, func(h *torportest.Host) { h.Emit([]byte{1}, false) }, "what it emitted is no record"},
		{"half a record", abi.OpSave, func(h *torportest.Host) { h.Emit(one[:3], false) }, "what it emitted is no record"},
		{"two in fragments", abi.OpSave, func(h *torportest.Host) { h.Emit(two[:3], true); h.Emit(two[3:], false) }, "make 2 records, not one"},
		{"none in fragments", abi.OpSave, func(h *torportest.Host) { h.Emit(nil, true); h.Emit(nil, false) }, "make 0 records, not one"},
		{"left open", abi.OpSave, func(h *torportest.Host) { h.Emit(one, true) }, "a record emitted in part"},
		{"a fragment of native state", abi.OpLoad, func(h *torportest.Host) { h.Emit([]byte("x"), true) }, "a fragment where output has no records"},
		{"no room", abi.OpSave, func(h *torportest.Host) { h.Next(nil) }, "room for no byte"},
		{"a failure that is none", abi.OpSave, func(h *torportest.Host) { h.Fail(2, []byte{0xff}) }, "no CBOR map"},
		{"a failure, then success", abi.OpSave, func(h *torportest.Host) {
			h.Fail(2, []byte{0xa1, 0x63, 'm', 's', 'g', 0x61, 'x'})
			h.Fail(3, []byte{0xa0})
		}, "x"},
	} {
		h := &torportest.Host{Call: abi.Call{Op: c.op}}
		if _, err := h.Run(past{func() { c.f(h) }}); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", c.name, err, c.want)
		}
	}
	for name, f := range map[string]func(h *torportest.Host){
		"whole": func(h *torportest.Host) { h.Emit(two, false) },
		"fragments": func(h *torportest.Host) {
			h.Emit(two[:3], true)
			h.Emit(nil, true)
			h.Emit(one[3:], false)
			h.Emit(one, false)
		},
		"an empty last fragment": func(h *torportest.Host) { h.Emit(one, true); h.Emit(nil, false); h.Emit(one, false) },
		"nothing in between":     func(h *torportest.Host) { h.Emit(one, false); h.Emit(nil, false); h.Emit(one, false) },
	} {
		h := &torportest.Host{Call: abi.Call{Op: abi.OpSave}}
		if out, err := h.Run(past{func() { f(h) }}); err != nil || !bytes.Equal(out, two) {
			t.Errorf("%s: %x, %v", name, out, err)
		}
	}
}

func TestPiecesOfRecords(t *testing.T) {
	var records []byte
	for _, n := range []int{1, 5, 300, 2, 2, 2, 40, 0} {
		records = record.AppendBytes(record.AppendText(record.AppendText(record.AppendRecord(records), ""), "k"), make([]byte, n))
	}
	var scan record.Scanner
	refs, err := scan.Scan(records, nil)
	if err != nil {
		t.Fatal(err)
	}
	ends := map[int]bool{}
	for _, r := range refs {
		ends[r.End] = true
	}
	for room := 1; room <= len(records)+1; room++ {
		h := torportest.Host{Call: abi.Call{Op: abi.OpLoad}, Input: records, Piece: room}
		_, err := h.Run(past{func() {
			at, open := 0, false
			for {
				buf := make([]byte, len(records)+10)
				got := h.Next(buf)
				n, more := int(uint32(got)), got&abi.NextMore != 0
				if n == 0 {
					if got != abi.NextEnd || at != len(records) || open {
						t.Fatalf("room for %d: %#x at %d", room, got, at)
					}
					return
				}
				if n > room || !bytes.Equal(buf[:n], records[at:at+n]) {
					t.Fatalf("room for %d: %d bytes at %d", room, n, at)
				}
				if at += n; more == ends[at] {
					t.Fatalf("room for %d: more is %v at %d", room, more, at)
				}
				open = more
			}
		}})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestInputThatIsNoRecords(t *testing.T) {
	if _, err := torportest.Load(sound(), []byte{1, 2, 3}); !errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("%v", err)
	}
}

func TestSettingsOfAnUnknownKind(t *testing.T) {
	h := torportest.Host{Call: abi.Call{Op: abi.OpSave, Settings: map[string]any{"x": []any{3.5}}}}
	if _, err := h.Run(sound()); err == nil || !strings.Contains(err.Error(), "settings: x: a value of type float64") {
		t.Errorf("%v", err)
	}
}
