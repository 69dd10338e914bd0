package pickle_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
)

// What a call may cost, whatever it is given: fuel and output grow with the input and no faster.
const (
	fuelAtLeast   = 100_000_000
	fuelPerByte   = 4000
	outputAtLeast = 64 << 10
	outputPerByte = 40
)

// mustBeCheap fails the test if a call that was given so many bytes took more than it may.
func mustBeCheap(t *complaints, m *module, name, op string, size int) {
	t.t.Helper()
	cost := m.costs.Of(op)
	if most := int64(fuelAtLeast + fuelPerByte*size); cost.Fuel > most {
		t.add("%s: %s of %d bytes took %d units of fuel, %d a byte; at most %d", name, op, size, cost.Fuel, cost.Fuel/int64(size+1), most)
	}
	if most := int64(outputAtLeast + outputPerByte*size); cost.Output > most {
		t.add("%s: %s of %d bytes gave %d bytes; at most %d", name, op, size, cost.Output, most)
	}
}

// TestHostile: pickles that are meant to do harm are data, or are refused with a clear error, soon.
func TestHostile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	original, result, canary := filepath.Join(dir, "original"), filepath.Join(dir, "result"), filepath.Join(dir, "canary")
	mustPython(t, "hostile.py", original, canary)
	m := compile(t, host.Limits{}, nil)
	failed := &complaints{t: t}
	compared, returned := newArchive(t, original+".compared"), newArchive(t, result)
	count := map[string]int{}
	entries(t, original, func(e entry) {
		records, again, err := m.roundTrip(e.data)
		mustBeCheap(failed, m, e.name, abi.OpSave, max(len(e.data), len(again)))
		if again != nil {
			mustBeCheap(failed, m, e.name, abi.OpLoad, len(records))
			if most := outputAtLeast + 10*len(e.data); len(again) > most {
				failed.add("%s: %d bytes have become %d", e.name, len(e.data), len(again))
			}
		}
		switch {
		case err == nil && e.meta.Want == "error":
			failed.add("%s: no error\n%s", e.name, shown(e.data))
		case err != nil && e.meta.Want == "graph":
			failed.add("%s: %v\n%s", e.name, err, shown(e.data))
		case err != nil && unclear(err, len(e.data)) != "":
			failed.add("%s: %v: %s\n%s", e.name, err, unclear(err, len(e.data)), shown(e.data))
		case err != nil:
			count["refused"]++
		default:
			count["kept"]++
			if e.meta.Shows != "" {
				if summary, err := m.inspect(records); err != nil || !bytes.Contains(summary, []byte(e.meta.Shows)) {
					failed.add("%s: inspect does not show %s: %q, %v", e.name, e.meta.Shows, summary, err)
				}
			}
			if e.meta.Compare {
				compared.add(t, e)
				returned.add(t, entry{name: e.name, data: again})
			}
		}
	})
	compared.close(t)
	returned.close(t)
	failed.done()
	t.Log(count, mustPython(t, "stubs.py", compared.path, returned.path))
	if _, err := os.Stat(canary); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("something that a pickle names has been called (%v)", err)
	}
}

// TestDamaged: a pickle cut off anywhere is refused; one with any byte changed is refused or is another
// pickle, which then comes back as what the interpreter takes it for. The conformance kit does the like to
// the fixtures.
func TestDamaged(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	mustPython(t, "opcodes.py", filepath.Join(dir, "all"))
	m := compile(t, host.Limits{}, nil)
	failed := &complaints{t: t}
	var seeds []entry
	entries(t, filepath.Join(dir, "all"), func(e entry) {
		several := strings.Contains(e.name, " in protocol ") && !strings.HasPrefix(string(e.data), "\x80\x05") // each in one protocol will do
		if e.meta.Want == "graph" && len(e.data) < 200 && len(e.data) > 8 && !several {
			seeds = append(seeds, e)
		}
	})
	masks := []byte{0x01, 0x04, 0x20, 0x80}
	tried := 1 // of them, for each byte; all have their turn
	if os.Getenv("TORPOR_PICKLE_THOROUGH") != "" {
		tried = len(masks)
	}
	original, result := newArchive(t, filepath.Join(dir, "original")), newArchive(t, filepath.Join(dir, "result"))
	cut, changed, accepted := 0, 0, 0
	for _, e := range seeds {
		for n := 1; n < len(e.data); n++ {
			cut++
			_, _, err := m.roundTrip(e.data[:n])
			switch {
			case err == nil && !(strings.Contains(e.name, "several") || strings.Contains(e.name, "hundred") || strings.Contains(e.name, "PROTO 0 and 1")):
				failed.add("%s cut at %d: no error\n%s", e.name, n, shown(e.data[:n]))
			case err != nil && unclear(err, n) != "":
				failed.add("%s cut at %d: %v: %s\n%s", e.name, n, err, unclear(err, n), shown(e.data[:n]))
			}
		}
		for at := range e.data {
			for i := range tried {
				mask := masks[(at+len(e.data)+i)%len(masks)]
				changed++
				data := bytes.Clone(e.data)
				data[at] ^= mask
				_, again, err := m.roundTrip(data)
				switch {
				case err == nil:
					accepted++
					if accepted%3 == 0 {
						original.add(t, entry{name: e.name, data: data, meta: meta{Want: "any"}})
						result.add(t, entry{name: e.name, data: again})
					}
				case unclear(err, len(data)) != "":
					failed.add("%s with byte %d xor %#x: %v: %s\n%s", e.name, at, mask, err, unclear(err, len(data)), shown(data))
				}
			}
		}
	}
	original.close(t)
	result.close(t)
	failed.done()
	t.Logf("%d cut, %d changed, of which %d are pickles", cut, changed, accepted)
	t.Log(mustPython(t, "stubs.py", original.path, result.path))
}
