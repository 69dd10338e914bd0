package host

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// These tests hold the host against its specification, abi/ABI.md.

func specification(t *testing.T) string {
	t.Helper()
	b, err := os.ReadFile("abi/ABI.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func sectionOf(t *testing.T, spec, title string) string {
	t.Helper()
	_, rest, ok := strings.Cut(spec, "\n## "+title+"\n")
	if !ok {
		t.Fatalf("ABI.md has no section %q", title)
	}
	section, _, _ := strings.Cut(rest, "\n## ")
	return section
}

func TestImportsAreThoseOfTheSpecification(t *testing.T) {
	rows := regexp.MustCompile("(?m)^\\| `(\\w+)` \\| `\\(([^)]*)\\)(?: -> (\\w+))?` \\|").
		FindAllStringSubmatch(sectionOf(t, specification(t), "Imports"), -1)
	var got, want []string
	for _, row := range rows {
		var params []string
		for p := range strings.SplitSeq(row[2], ", ") {
			_, kind, _ := strings.Cut(p, " ")
			params = append(params, kind)
		}
		want = append(want, fmt.Sprintf("%s (%s) -> (%s)", row[1], strings.Join(params, ", "), row[3]))
	}
	for _, f := range imports(abi.Namespace) {
		got = append(got, f.name+" "+signature(f.params, f.results))
	}
	if !slices.Equal(got, want) {
		t.Errorf("the host's imports\n%q\nABI.md's\n%q", got, want)
	}
}

func TestWASIIsThatOfTheSpecification(t *testing.T) {
	section := sectionOf(t, specification(t), "WASI")
	allowed := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| (`[^|]*`) \\|").FindAllStringSubmatch(section, -1) {
		for name := range strings.SplitSeq(row[1], ", ") {
			allowed[strings.Trim(name, "`")] = true
		}
	}
	if len(allowed) < 10 {
		t.Fatalf("ABI.md allows %v", allowed)
	}
	r := wazero.NewRuntime(t.Context())
	defer r.Close(t.Context())
	if _, err := wasi_snapshot_preview1.Instantiate(t.Context(), r); err != nil {
		t.Fatal(err)
	}
	// The functions are the host's own: their types are held against those of wazero, which are the
	// standard's.
	there := r.Module(wasi_snapshot_preview1.ModuleName).ExportedFunctionDefinitions()
	for _, f := range imports(wasiNamespace) {
		if !allowed[f.name] {
			t.Errorf("the host has %s, which ABI.md does not allow", f.name)
		}
		delete(allowed, f.name)
		if d := there[f.name]; d == nil || signature(d.ParamTypes(), d.ResultTypes()) != signature(f.params, f.results) {
			t.Errorf("%s %s is not the standard's", f.name, signature(f.params, f.results))
		}
	}
	for name := range allowed {
		t.Errorf("ABI.md allows %s, which the host does not have", name)
	}
}

// crossing is one import call of a transcript.
type crossing struct {
	what  string // as in ABI.md, without its bytes
	bytes []byte
}

func (c crossing) String() string { return fmt.Sprintf("%s: %x", c.what, c.bytes) }

// scene is one call of an export.
type scene struct {
	export    string
	crossings []crossing
}

// only is the crossings of the given imports.
func (s scene) only(names ...string) (some []crossing) {
	for _, c := range s.crossings {
		name, _, _ := strings.Cut(c.what, "(")
		if slices.Contains(names, name) {
			some = append(some, c)
		}
	}
	return some
}

func transcript(t *testing.T) (scenes []scene) {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```transcript\n(.*?)```").FindAllStringSubmatch(specification(t), -1) {
		for line := range strings.Lines(block[1]) {
			line, _, _ = strings.Cut(line, ";")
			word := strings.TrimSpace(line)
			indent := len(line) - len(strings.TrimLeft(line, " "))
			switch {
			case word == "":
			case indent == 0:
				scenes = append(scenes, scene{export: word})
			default:
				s := &scenes[len(scenes)-1]
				digits := word
				if indent == 2 {
					var what string
					what, digits, _ = strings.Cut(word, ":")
					s.crossings = append(s.crossings, crossing{what: what})
				}
				b, err := hex.DecodeString(strings.ReplaceAll(digits, " ", ""))
				if err != nil {
					t.Fatalf("%q: %v", line, err)
				}
				last := &s.crossings[len(s.crossings)-1]
				last.bytes = append(last.bytes, b...)
			}
		}
	}
	if len(scenes) < 3 {
		t.Fatalf("%d scenes in ABI.md", len(scenes))
	}
	return scenes
}

// tape is an input and output that write down what crosses the border.
type tape struct {
	in        input
	out       output
	crossings []crossing
}

func (p *tape) next(buf []byte) (int, bool, bool, error) {
	n, ended, more, err := p.in.next(buf)
	what := fmt.Sprintf("next(cap %d) = %d", len(buf), n)
	if ended {
		what += " end"
	}
	if more {
		what += " more"
	}
	p.crossings = append(p.crossings, crossing{what, bytes.Clone(buf[:n])})
	return n, ended, more, err
}

func (p *tape) emit(b []byte, more bool) error {
	what := fmt.Sprintf("emit(%d)", len(b))
	if more {
		what = fmt.Sprintf("emit(%d more)", len(b))
	}
	p.crossings = append(p.crossings, crossing{what, bytes.Clone(b)})
	return p.out.emit(b, more)
}

func (p *tape) open() bool { return p.out.open() }

type discard struct{}

func (discard) WriteBatch(*record.Batch) error { return nil }

// The host does, byte for byte, what the transcript says.
func TestTranscript(t *testing.T) {
	h, err := New(t.Context(), Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		t.Fatal(err)
	}
	defer h.Close(t.Context())
	m, err := h.Compile(t.Context(), "records", modules.Records())
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range transcript(t) {
		t.Run(fmt.Sprintf("%d %s", i, s.export), func(t *testing.T) {
			call := abi.Call{Op: strings.TrimPrefix(s.export, "torpor_"), Service: "orders", Part: "store", Schema: 1,
				Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).UnixNano()}
			var input []byte
			for _, c := range s.only("next") {
				input = append(input, c.bytes...)
			}
			p := &tape{in: &nativeInput{r: bytes.NewReader(input)}, out: &nativeOutput{w: &bytes.Buffer{}}}
			if s.export == abi.ExportSave || s.export == abi.ExportMigrate {
				p.out = m.recordOutput(discard{})
			} else {
				p.in = &recordInput{src: record.NewReader(bytes.NewReader(input), 0)}
			}
			err := m.call(t.Context(), s.export, call, p, p)

			if want := s.only("next", "emit"); fmt.Sprint(p.crossings) != fmt.Sprint(want) {
				t.Errorf("what crossed\n%v\nABI.md's\n%v", p.crossings, want)
			}
			for _, c := range s.only("arg") {
				arg, err := h.encode.Marshal(call)
				if err != nil || !bytes.Equal(arg, c.bytes) || !strings.HasSuffix(c.what, fmt.Sprint(" = ", len(arg))) {
					t.Errorf("arg gives %x, %v; ABI.md: %v", arg, err, c)
				}
			}
			if s.crossings[len(s.crossings)-1].what == "return 0" {
				if err != nil {
					t.Error(err)
				}
				return
			}
			failed := s.only("fail")
			var ge *GuestError
			if len(failed) != 1 || !errors.As(err, &ge) {
				t.Fatalf("%v; ABI.md: %v", err, failed)
			}
			var want abi.Failure
			if err := h.decode.Unmarshal(failed[0].bytes, &want); err != nil {
				t.Fatal(err)
			}
			if what := fmt.Sprintf("fail(%d, %d)", ge.Code, len(failed[0].bytes)); ge.Failure != want || what != failed[0].what {
				t.Errorf("%s: %+v; ABI.md: %s: %+v", what, ge.Failure, failed[0].what, want)
			}
		})
	}
}

// Whatever the bytes, the look at a module's sections neither panics nor blames anything but the module.
func FuzzSections(f *testing.F) {
	f.Add(modules.Records())
	f.Add([]byte("\x00asm\x01\x00\x00\x00"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x02\x07\x01\x01e\x01m\x02\x00\x01"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x02\x08\x01\x01e\x01m\x03\x7f\x00\x05"))
	f.Add([]byte("\x00asm\x01\x00\x00\x00\x05\x04\x01\x01\x02\x04\x08\x01\x00"))
	limits, err := Limits{}.withDefaults(Limits{})
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, wasm []byte) {
		c := &code{limits: limits, name: "fuzzed", wasm: wasm}
		err := c.checkSections()
		var me *ModuleError
		if err != nil && (!errors.As(err, &me) || me.Module != "fuzzed" || me.Op != opCompile || me.Reason == "") {
			t.Fatalf("%#v", err)
		}
	})
}

// Every truncation of a real module is damage, or lacks sections that the compiler will miss.
func TestSectionsTruncated(t *testing.T) {
	limits, err := Limits{}.withDefaults(Limits{})
	if err != nil {
		t.Fatal(err)
	}
	wasm := modules.Records()
	sound := 0
	for n := range len(wasm) {
		err := (&code{limits: limits, wasm: wasm[:n]}).checkSections()
		if err == nil {
			sound++
		} else if !errors.Is(err, abi.ErrCorrupt) {
			t.Fatalf("first %d bytes: %v", n, err)
		}
	}
	if sound > 20 { // one for each section that ends there
		t.Errorf("%d truncations pass", sound)
	}
}
