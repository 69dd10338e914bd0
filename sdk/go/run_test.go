package torpor_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// saves runs a save that returns err, or panics if it is told to, and gives what the host is told.
func saves(f func() error) error {
	h := torportest.Host{Call: abi.Call{Op: abi.OpSave}}
	_, err := h.Run(funcs{save: func(_ *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
		if err := f(); err != nil {
			return err
		}
		return drain(native)
	}})
	return err
}

func TestErrorsReachTheHost(t *testing.T) {
	own := &torpor.Error{Code: torpor.CodeUnsupported, Msg: "no", Path: "$.a", Offset: 7}
	for _, c := range []struct {
		err, sentinel error
		want          torpor.Error
	}{
		{own, nil, *own},
		{fmt.Errorf("line %d: %w", 3, own), nil, torpor.Error{Code: torpor.CodeUnsupported, Msg: "line 3: no", Path: "$.a", Offset: 7}},
		{fmt.Errorf("%w, twice", own), nil, torpor.Error{Code: torpor.CodeUnsupported, Msg: "no at $.a (offset 7), twice", Path: "$.a", Offset: 7}},
		{&torpor.Error{Msg: "no code"}, nil, torpor.Error{Code: torpor.CodeInternal, Msg: "no code"}},
		{&torpor.Error{Code: 63, Msg: "no such code"}, nil, torpor.Error{Code: torpor.CodeInternal, Msg: "no such code"}},
		{&torpor.Error{Code: -1, Msg: "no such code"}, nil, torpor.Error{Code: torpor.CodeInternal, Msg: "no such code"}},
		{&torpor.Error{Code: 64, Msg: "own code"}, nil, torpor.Error{Code: 64, Msg: "own code"}},
		{&torpor.Error{Code: torpor.CodeCorrupt, Msg: "at 0"}, abi.ErrCorrupt, torpor.Error{Code: torpor.CodeCorrupt, Msg: "at 0"}},
		{&torpor.Error{Code: torpor.CodeVersion, Msg: "v"}, abi.ErrVersion, torpor.Error{Code: torpor.CodeVersion, Msg: "v"}},
		{&torpor.Error{Code: torpor.CodeTooLarge, Msg: "l"}, abi.ErrTooLarge, torpor.Error{Code: torpor.CodeTooLarge, Msg: "l"}},
		{errors.New("plain"), nil, torpor.Error{Code: torpor.CodeInternal, Msg: "plain"}},
		{io.EOF, nil, torpor.Error{Code: torpor.CodeInternal, Msg: "EOF"}},
		{io.ErrUnexpectedEOF, abi.ErrCorrupt, torpor.Error{Code: torpor.CodeCorrupt, Msg: "unexpected EOF"}},
		{fmt.Errorf("x: %w", abi.ErrVersion), abi.ErrVersion, torpor.Error{Code: torpor.CodeVersion, Msg: "x: unsupported version"}},
		{fmt.Errorf("x: %w", abi.ErrTooLarge), abi.ErrTooLarge, torpor.Error{Code: torpor.CodeTooLarge, Msg: "x: too large"}},
	} {
		err := saves(func() error { return c.err })
		var e *torpor.Error
		if !errors.As(err, &e) || *e != c.want {
			t.Errorf("%v: %#v, want %#v", c.err, err, c.want)
		}
		if c.sentinel != nil && !errors.Is(err, c.sentinel) {
			t.Errorf("%v is not %v", err, c.sentinel)
		}
	}
}

func TestPanicsAreErrorsThatNameThePlace(t *testing.T) {
	var none *torpor.Error
	for _, c := range []struct {
		f    func() error
		want string
	}{
		{func() error { panic("a string") }, "the serializer panicked: a string in github.com/torpor-run/torpor/sdk/go_test.TestPanicsAreErrorsThatNameThePlace.func1 at run_test.go:"},
		{func() error { panic(errors.New("an error")) }, "the serializer panicked: an error in "},
		{func() error { panic(17) }, "the serializer panicked in github.com/torpor-run/torpor/sdk/go_test.TestPanics"},
		{func() error { none.Msg = "x"; return nil }, "the serializer panicked: runtime error: invalid memory address or nil pointer dereference in github.com/torpor-run/torpor/sdk/go_test.TestPanics"},
	} {
		err := saves(c.f)
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeInternal || !strings.HasPrefix(e.Msg, c.want) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestMessagesAreClippedAtACharacter(t *testing.T) {
	for _, s := range []string{strings.Repeat("x", 50), strings.Repeat("é", 30), "x" + strings.Repeat("漢", 20), strings.Repeat("😀", 20), "\xff\xfe", "", strings.Repeat("\x80", 50)} {
		for limit := 4; limit <= 52; limit++ {
			got := torpor.Clip(s, limit)
			if !utf8.ValidString(got) {
				t.Fatalf("%q clipped to %d is %q", s, limit, got)
			}
			if utf8.ValidString(s) && (!strings.HasPrefix(s, got) || len(got) > limit || len(s) <= limit && got != s || len(s) > limit && len(got) < limit-3) {
				t.Fatalf("%q clipped to %d is %q", s, limit, got)
			}
		}
	}
	err := saves(func() error { return errors.New(strings.Repeat("é", 1<<20)) })
	var e *torpor.Error
	if !errors.As(err, &e) || len(e.Msg) != torpor.MaxMsgBytes {
		t.Errorf("a message of 2 MB became one of %d bytes", len(e.Msg))
	}
}

func TestInputMustBeReadToItsEnd(t *testing.T) {
	for _, c := range []struct {
		read int
		want string
	}{
		{0, "the serializer returned before its input had ended"},
		{5, "the serializer returned before its input had ended (offset 5)"},
		{6, ""}, // all bytes taken, only the end not seen
	} {
		for _, late := range []bool{false, true} {
			h := torportest.Host{Call: abi.Call{Op: abi.OpSave}, Input: []byte("123456"), LateEnd: late}
			_, err := h.Run(funcs{save: func(_ *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
				_, err := io.ReadFull(native, make([]byte, c.read))
				return err
			}})
			if got := fmt.Sprint(err); c.want == "" && err != nil || c.want != "" && got != c.want {
				t.Errorf("%d of 6 bytes read: %v, want %q", c.read, err, c.want)
			}
		}
	}
}

func TestNothingExported(t *testing.T) {
	host := &script{}
	if status := torpor.Run(host, abi.OpDescribe, nil); status != int32(torpor.CodeInternal) || len(host.failures) != 1 ||
		!bytes.Contains(host.failures[0].data, []byte("torpor.Export")) {
		t.Errorf("status %d, %q", status, host.failures)
	}
}

type full struct {
	funcs
	d torpor.Descriptor
}

func (f full) Describe() torpor.Descriptor { return f.d }

func (full) Migrate(call *torpor.Call, records *torpor.Input, migrated *torpor.Output) error {
	if call.From != 1 || call.To != 2 {
		return &torpor.Error{Code: torpor.CodeVersion, Msg: fmt.Sprintf("no way from %d to %d", call.From, call.To)}
	}
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		migrated.RecordLike(r)
		migrated.Array(1)
		migrated.Put(r.Value)
	}
}

func (full) Inspect(_ *torpor.Call, records *torpor.Input, summary *torpor.Output) error {
	n := uint64(0)
	for {
		_, err := records.Record()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		n++
	}
	summary.Map(1)
	summary.Text("records")
	summary.Uint(n)
	return nil
}

func TestDescribe(t *testing.T) {
	d, err := torportest.Describe(funcs{})
	if got, want := fmt.Sprintf("%+v %v", d, err), "{Name:funcs Version:1 Schema:3 Reads:[3] Media:text/plain Operations:[save load] Ordered:false Canonical:false Memory:0 Nesting:} <nil>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f := full{d: torpor.Descriptor{Name: "full", Version: "2", Schema: 2, Reads: []uint64{1, 2}, Media: "m", Ordered: true, Canonical: true, Memory: 1 << 30, Nesting: "/"}}
	d, err = torportest.Describe(f)
	if got, want := fmt.Sprintf("%+v %v", d, err), "{Name:full Version:2 Schema:2 Reads:[1 2] Media:m Operations:[save load migrate inspect] Ordered:true Canonical:true Memory:1073741824 Nesting:/} <nil>"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	f.d.Operations = []string{abi.OpLoad, abi.OpSave}
	if d, err = torportest.Describe(f); err != nil || fmt.Sprint(d.Operations) != "[load save]" {
		t.Errorf("operations %v, %v", d.Operations, err)
	}
	for _, wrong := range []torpor.Descriptor{{Version: "1", Media: "m"}, {Name: "n", Media: "m"}, {Name: "n", Version: "1"}, {Name: "n", Version: "1", Media: "m", Schema: 1, Reads: []uint64{2}}} {
		if _, err := torportest.Describe(full{d: wrong}); err == nil {
			t.Errorf("%+v is accepted", wrong)
		}
	}
}

func TestMigrateAndInspect(t *testing.T) {
	one := record.AppendText(record.AppendText(record.AppendRecord(nil), "p"), "k")
	records := record.AppendUint(bytes.Clone(one), 5)
	got, err := torportest.Migrate(full{}, 1, 2, records)
	if want := record.AppendUint(record.AppendArray(one, 1), 5); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := torportest.Migrate(full{}, 2, 3, records); !errors.Is(err, abi.ErrVersion) || !strings.Contains(err.Error(), "no way from 2 to 3") {
		t.Errorf("%v", err)
	}
	got, err = torportest.Inspect(full{}, records)
	if want := record.AppendUint(record.AppendText(record.AppendMap(nil, 1), "records"), 1); err != nil || !bytes.Equal(got, want) {
		t.Errorf("%x, %v", got, err)
	}
	if _, err := torportest.Migrate(funcs{}, 1, 2, records); fmt.Sprint(err) != "this serializer does not offer migrate" {
		t.Errorf("%v", err)
	}
	if _, err := torportest.Inspect(funcs{}, records); fmt.Sprint(err) != "this serializer does not offer inspect" {
		t.Errorf("%v", err)
	}
}

func TestCall(t *testing.T) {
	c := abi.Call{Op: abi.OpSave, Service: "orders", Part: "store", Schema: 3, Time: -5,
		Settings: map[string]any{"depth": 2, "names": []any{"a", strings.Repeat("long", 1000)}}} // longer than the first buffer
	h := torportest.Host{Call: c}
	_, err := h.Run(funcs{save: func(call *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
		call.Log(torpor.LevelInfo, "hello")
		if call.Op != c.Op || call.Service != c.Service || call.Part != c.Part || call.Schema != 3 || call.From != 0 || call.To != 0 || call.Time != -5 {
			t.Errorf("%+v", call)
		}
		var seen []string
		err := call.Settings([]string{"names", "depth"}, func(name string, value *record.Pull) error {
			seen = append(seen, name)
			if name == "depth" && value.Uint() != 2 {
				t.Error("depth")
			}
			return nil
		})
		if err != nil || fmt.Sprint(seen) != "[depth names]" {
			t.Errorf("%v, %v", seen, err)
		}
		for _, each := range []struct {
			allowed []string
			f       func(string, *record.Pull) error
			want    torpor.Error
		}{
			{[]string{"depth"}, nil, torpor.Error{Code: torpor.CodeUnsupported, Msg: "unknown setting; known are: depth", Path: "settings.names"}},
			{[]string{"depth", "names"}, func(_ string, v *record.Pull) error { v.Uint(); return nil },
				torpor.Error{Code: torpor.CodeUnsupported, Msg: "an unsigned integer expected, found 0x82", Path: "settings.names"}},
			{[]string{"depth"}, func(string, *record.Pull) error { return &torpor.Error{Code: 64, Msg: "too deep"} }, torpor.Error{Code: 64, Msg: "too deep"}},
		} {
			f := each.f
			if f == nil {
				f = func(string, *record.Pull) error { return nil }
			}
			var e *torpor.Error
			if err := call.Settings(each.allowed, f); !errors.As(err, &e) || *e != each.want {
				t.Errorf("%#v, want %#v", err, each.want)
			}
		}
		return drain(native)
	}})
	if err != nil || fmt.Sprint(h.Lines()) != "[hello]" {
		t.Errorf("%v, logged %v", err, h.Lines())
	}
}

// arguments is a map of parameters with a key that is not known.
func arguments() []byte {
	b := record.AppendMap(nil, 8)
	for _, key := range []string{"op", "service", "part"} {
		b = record.AppendText(record.AppendText(b, key), "a "+key)
	}
	for i, key := range []string{"schema", "from", "to"} {
		b = record.AppendUint(record.AppendText(b, key), uint64(i+7))
	}
	b = record.AppendArray(record.AppendText(b, "later"), 0)
	b = record.AppendMap(record.AppendText(b, "settings"), 1)
	return record.AppendUint(record.AppendText(b, "depth"), 300)
}

func TestCallCutAnywhere(t *testing.T) {
	arg := arguments()
	for n := range len(arg) + 1 {
		ran := false
		host := &script{arg: arg[:n]}
		status := torpor.Run(host, abi.OpSave, funcs{save: func(call *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
			ran = true
			return drain(native)
		}})
		if (n == len(arg)) != ran || ran != (status == 0) || ran == (len(host.failures) == 1) {
			t.Fatalf("parameters cut at %d: ran %v, status %d, %q", n, ran, status, host.failures)
		}
	}
	none := record.AppendNull(record.AppendText(record.AppendMap(nil, 1), "settings"))
	status := torpor.Run(&script{arg: none}, abi.OpSave, funcs{save: func(call *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
		return errors.Join(call.Settings(nil, nil), drain(native))
	}})
	if status != 0 {
		t.Errorf("settings of null: status %d", status)
	}
	if status := torpor.Run(&script{arg: make([]byte, 64<<10+1)}, abi.OpSave, funcs{}); status != int32(torpor.CodeTooLarge) {
		t.Errorf("parameters above the limit: status %d", status)
	}
}

func FuzzCall(f *testing.F) {
	f.Add(arguments())
	f.Add([]byte{0xa1, 0x68, 's', 'e', 't', 't', 'i', 'n', 'g', 's', 0xa1, 0x61, 'x', 0xff})
	f.Add([]byte{0xa1, 0x68, 's', 'e', 't', 't', 'i', 'n', 'g', 's', 0xf6})
	f.Fuzz(func(t *testing.T, arg []byte) {
		host := &script{arg: arg}
		status := torpor.Run(host, abi.OpSave, funcs{save: func(call *torpor.Call, native *torpor.Input, _ *torpor.Output) error {
			if err := call.Settings([]string{"depth"}, func(_ string, v *record.Pull) error { v.Uint(); return nil }); err != nil {
				return err
			}
			return drain(native)
		}})
		if (status == 0) != (len(host.failures) == 0) {
			t.Fatalf("status %d, %q", status, host.failures)
		}
		for _, failure := range host.failures {
			p := record.NewPull(failure.data)
			p.Skip()
			if p.End() != nil || bytes.Contains(failure.data, []byte("panicked")) {
				t.Fatalf("%q", failure.data)
			}
		}
	})
}

func TestExport(t *testing.T) {
	t.Cleanup(torpor.Unexport)
	expectPanic := func(s torpor.Serializer, want string) {
		t.Helper()
		defer func() {
			if v := recover(); v == nil || !strings.Contains(fmt.Sprint(v), want) {
				t.Errorf("panic %v, want %q", v, want)
			}
		}()
		torpor.Export(s)
	}
	expectPanic(nil, "nil")
	torpor.Export(funcs{})
	expectPanic(funcs{}, "twice")
}
