package pickle_test

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
)

// TestOpcodes: every opcode there is, in pickles written by hand. They are kept, or refused where the
// interpreter refuses them.
func TestOpcodes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	original, result := filepath.Join(dir, "original"), filepath.Join(dir, "result")
	mustPython(t, "opcodes.py", original)
	m := compile(t, host.Limits{}, nil)
	failed := &complaints{t: t}
	out := newArchive(t, result)
	count := map[string]int{}
	entries(t, original, func(e entry) {
		_, again, err := m.roundTrip(e.data)
		r := entry{name: e.name, data: again}
		if err != nil {
			r.meta.Error = err.Error()
		}
		out.add(t, r)
		count[e.meta.Want]++
		var refused *host.GuestError
		switch {
		case err == nil:
			if e.meta.Want == "error" || e.meta.Want == "buffer" {
				failed.add("%s: no error\n%s\n%s", e.name, shown(e.data), shown(again))
			}
		case e.meta.Want == "graph":
			failed.add("%s: %v\n%s", e.name, err, shown(e.data))
		case unclear(err, len(e.data)) != "":
			failed.add("%s: %v: %s\n%s", e.name, err, unclear(err, len(e.data)), shown(e.data))
		case e.meta.Want == "buffer" && (!errors.As(err, &refused) || refused.Code != abi.CodeUnsupported || !strings.Contains(refused.Failure.Msg, "out-of-band")):
			failed.add("%s: %v; want code %d and words of out-of-band buffers", e.name, err, abi.CodeUnsupported)
		case strings.HasPrefix(e.name, "PROTO ") && !errors.Is(err, abi.ErrVersion):
			failed.add("%s: %v; want an error of the version", e.name, err)
		}
	})
	out.close(t)
	failed.done()
	t.Log(count, mustPython(t, "stubs.py", original, result))
}
