package sdktest

import (
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
)

// What a guest does wrong at the border is no result, however good its output.
func TestBorder(t *testing.T) {
	const a, b = "\x83\x60\x61a\x60", "\x83\x60\x61b\x60"
	read := func(c *border) { c.next(make([]byte, 100)) }
	emit := func(s string, flags uint32) func(*border) { return func(c *border) { c.emit([]byte(s), flags) } }
	fail := func(code abi.Code) func(*border) { return func(c *border) { c.fail(code, []byte{0xa0}) } }
	for name, c := range map[string]struct {
		native bool // the output is
		did    []func(*border)
		result int32
		want   string // the output, or words of the error
		failed bool
	}{
		"records":                  {did: []func(*border){read, emit(a+b, 0)}, want: a + b},
		"nothing":                  {did: []func(*border){read, emit("", 0)}},
		"fragments":                {did: []func(*border){read, emit(a, 0), emit(b[:1], 1), emit(b[1:], 1), emit("", 0), emit(a, 0)}, want: a + b + a},
		"native state":             {native: true, did: []func(*border){read, emit("x", 0), emit("y", 0)}, want: "xy"},
		"code without fail":        {did: []func(*border){read, emit(a, 0)}, result: 2, failed: true, want: "returned 2 and failed with 0"},
		"fail without code":        {did: []func(*border){read, fail(2)}, failed: true, want: "returned 0 and failed with 2"},
		"another code":             {did: []func(*border){read, fail(2)}, result: 5, failed: true, want: "returned 5 and failed with 2"},
		"failure":                  {did: []func(*border){fail(2), fail(5)}, result: 2, failed: true, want: "code 2: a0"},
		"failure of no code":       {did: []func(*border){read, fail(0)}, failed: true, want: "failed with code 0"},
		"record open":              {did: []func(*border){read, emit(a, 1)}, failed: true, want: "a record emitted in part"},
		"half a record":            {did: []func(*border){read, emit(a[:3], 0), emit(a[3:], 0)}, failed: true, want: "no record"},
		"two records in fragments": {did: []func(*border){read, emit(a, 1), emit(b, 0)}, failed: true, want: "fragments of 2 records"},
		"no record in fragments":   {did: []func(*border){read, emit("", 1), emit("", 0)}, failed: true, want: "fragments of 0 records"},
		"other flags":              {did: []func(*border){read, emit(a, 2)}, failed: true, want: "flags 0x2"},
		"fragment of native state": {native: true, did: []func(*border){read, emit("x", 1), emit("y", 0)}, failed: true, want: "fragment of native state"},
		"no room":                  {did: []func(*border){func(c *border) { c.next(nil) }, read}, failed: true, want: "room for no byte"},
		"input not read":           {did: []func(*border){emit(a, 0)}, failed: true, want: "before its input had ended"},
		"input read in part":       {did: []func(*border){func(c *border) { c.next(make([]byte, 2)) }}, failed: true, want: "before its input had ended"},
	} {
		call := &border{records: !c.native, input: []byte("a=\n")}
		for _, do := range c.did {
			do(call)
		}
		out, err := call.returned(c.result)
		if c.failed && (err == nil || !strings.Contains(err.Error(), c.want)) || !c.failed && (err != nil || string(out) != c.want) {
			t.Errorf("%s: %q, %v; want %q", name, out, err, c.want)
		}
	}
}
