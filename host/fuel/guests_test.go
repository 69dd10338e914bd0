package fuel

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/need"
)

// goGuest builds the example serializer for a to-do service's state.
func goGuest(t testing.TB) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "module.wasm")
	cmd := exec.Command(need.Program(t, "go"), "build", "-buildmode=c-shared", "-trimpath", "-ldflags=-s -w", "-o", out, "../../sdk/go/examples/todo/testdata/v1")
	cmd.Env = append(os.Environ(), "GOOS=wasip1", "GOARCH=wasm")
	if msg, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, msg)
	}
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

// todoState is a state of the to-do service with n tasks, in parts.
func todoState(n int) (parts [][]byte) {
	part := []byte(`{"format":"todo","schema":1}` + "\n")
	for i := range n {
		part = append(part, `{"id":"`+string(appendDigits(nil, i))+`","list":"home","title":"Buy milk \u003cb\u003e 漢字","assignee":"Ada Lovelace","due":"2026-05-01T18:00","priority":2,"done":false,"tags":["shop","food"]}`+"\n"...)
		if len(part) > 16<<10 {
			parts, part = append(parts, part), nil
		}
	}
	part = append(part, `{"tasks":`...)
	digits := bytes.TrimLeft(appendDigits(nil, n), "0")
	return append(parts, append(append(part, digits...), "}\n"...))
}

func appendDigits(dst []byte, n int) []byte {
	for d := 1_000_000; d > 0; d /= 10 {
		dst = append(dst, byte('0'+n/d%10))
	}
	return dst
}

// Real serializers give the same bytes with and without a counter and on both engines, and use the same
// fuel each time.
func TestSerializers(t *testing.T) {
	for _, g := range []struct {
		name  string
		wasm  []byte
		parts [][]byte
	}{
		{"records", modules.Records(), someRecords(200_000)},
		{"todo", goGuest(t), todoState(300)},
	} {
		metered := mustInstrument(t, g.wasm, Options{})
		if again := mustInstrument(t, g.wasm, Options{}); !bytes.Equal(again, metered) {
			t.Fatalf("%s: another result the second time", g.name)
		}
		t.Logf("%s: %d bytes become %d", g.name, len(g.wasm), len(metered))
		var want []byte
		var used []int64
		for _, e := range engines {
			if e.name == interpreter.name && testing.Short() {
				continue
			}
			for i, wasm := range [][]byte{g.wasm, metered, metered} {
				s := newSerializer(t, e, wasm, plenty)
				s.keep = true
				u := s.call(t, abi.ExportSave, g.parts)
				if want == nil {
					want = bytes.Clone(s.output.Bytes())
				}
				if len(want) < 10_000 || !bytes.Equal(s.output.Bytes(), want) {
					t.Errorf("%s, %s, run %d: %d bytes, not the %d of the first", g.name, e.name, i, s.output.Len(), len(want))
				}
				if i > 0 {
					used = append(used, u)
				}
			}
		}
		for _, u := range used {
			if u != used[0] || u < int64(len(want)) {
				t.Errorf("%s: used %d", g.name, used)
			}
		}
	}
}
