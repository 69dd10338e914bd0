// Package assemblyscript builds the example as an author would and runs the modules in package host.
package assemblyscript_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"hash"
	"io"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

const (
	example = "examples/settings"
	trouble = "testdata/trouble"
)

// lab is a folder that is there for all tests and gone afterwards.
var lab string

func TestMain(m *testing.M) {
	os.Exit(func() int {
		var err error
		if lab, err = os.MkdirTemp("", "torpor-sdk-assemblyscript"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(lab)
		return m.Run()
	}())
}

var projects struct {
	sync.Mutex
	dir  string // a copy of the SDK with the example's packages installed
	wasm map[string][]byte
}

// install copies the SDK, example and all, and installs the example's packages, as its lock file says.
func install(t testing.TB) string {
	t.Helper()
	npm := need.Program(t, "npm")
	need.Program(t, "node")
	projects.Lock()
	defer projects.Unlock()
	if projects.dir != "" {
		return projects.dir
	}
	dir := filepath.Join(lab, "sdk")
	copySDK(t, dir)
	cmd := exec.Command(npm, "ci", "--ignore-scripts", "--prefer-offline")
	cmd.Dir = filepath.Join(dir, example)
	if out, err := cmd.CombinedOutput(); err != nil {
		need.Missing(t, fmt.Sprintf("what %v installs (%v; it said:\n%s)", cmd, err, out))
	}
	// The other module has the example's packages.
	if err := os.Symlink(filepath.Join(dir, example, "node_modules"), filepath.Join(dir, trouble, "node_modules")); err != nil {
		t.Fatal(err)
	}
	projects.dir, projects.wasm = dir, map[string][]byte{}
	return dir
}

// copySDK copies this folder without what a build leaves in it.
func copySDK(t testing.TB, to string) {
	t.Helper()
	err := filepath.WalkDir(".", func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case d.Name() == "node_modules":
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return os.MkdirAll(filepath.Join(to, name), 0o755)
		case strings.HasSuffix(name, ".wasm"):
			return nil
		}
		content, err := os.ReadFile(name)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(to, name), content, 0o644)
	})
	if err != nil {
		t.Fatal(err)
	}
}

// build builds the module of a project, once for all tests.
func build(t testing.TB, project string) []byte {
	t.Helper()
	dir := install(t)
	projects.Lock()
	defer projects.Unlock()
	if wasm := projects.wasm[project]; wasm != nil {
		return wasm
	}
	wasm := compileAt(t, filepath.Join(dir, project))
	projects.wasm[project] = wasm
	return wasm
}

// compileAt runs the compiler in the folder of a project, by the command of the example's package.json.
func compileAt(t testing.TB, dir string) []byte {
	t.Helper()
	cmd := exec.Command(filepath.Join("node_modules", ".bin", "asc"), "--config", "asconfig.json")
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	wasm, err := os.ReadFile(filepath.Join(dir, filepath.Base(dir)+".wasm"))
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func TestSettings(t *testing.T) {
	sdktest.Fixtures(t, example+"/fixtures")
	wasm := build(t, example)
	sdktest.Settings(t, wasm)
	sdktest.LoadOrder(t, wasm)
	sdktest.LongLines(t, wasm, 5<<20)
}

func BenchmarkSettings(b *testing.B) { sdktest.Speed(b, build(b, example)) }

// npm test builds the example and passes, and the same source gives the same module, wherever it lies.
func TestNPMTest(t *testing.T) {
	dir := install(t)
	elsewhere := filepath.Join(lab, "another", "place")
	copySDK(t, elsewhere)
	packages := filepath.Join(elsewhere, example, "node_modules")
	if err := os.Mkdir(packages, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"assemblyscript": filepath.Join(dir, example, "node_modules", "assemblyscript"),
		".bin":           filepath.Join(dir, example, "node_modules", ".bin"),
		"torpor":         elsewhere,
	} {
		if err := os.Symlink(target, filepath.Join(packages, name)); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.Command(need.Program(t, "npm"), "test")
	cmd.Dir = filepath.Join(elsewhere, example)
	out, err := cmd.CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("gives unicode.txt back")) {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	wasm, err := os.ReadFile(filepath.Join(cmd.Dir, "settings.wasm"))
	if err != nil || !bytes.Equal(wasm, build(t, example)) {
		t.Errorf("in another folder another module is built (%v)", err)
	}
}

// What a host may ask of a module: nothing imported but the ABI, and a maximum for its memory.
func TestShape(t *testing.T) {
	for _, project := range []string{example, trouble} {
		m, _ := compile(t, project, t.Output())
		s := m.Shape()
		for _, i := range s.Imports {
			if i.Module != abi.Namespace {
				t.Errorf("%s imports %s.%s", project, i.Module, i.Name)
			}
		}
		if s.MemoryMax != 256<<20 {
			t.Errorf("%s declares %d bytes of memory at most", project, s.MemoryMax)
		}
	}
}

// No lock file says where a package came from, so that it can be had from any registry.
func TestLockFiles(t *testing.T) {
	lock, err := os.ReadFile(example + "/package-lock.json")
	if err != nil {
		t.Fatal(err)
	}
	if bytes.Contains(lock, []byte("://registry")) || bytes.Contains(lock, []byte(".tgz")) {
		t.Error("package-lock.json names where a package came from")
	}
	if n := bytes.Count(lock, []byte(`"integrity": "sha512-`)); n != 3 {
		t.Errorf("package-lock.json has %d hashes of packages; want 3", n)
	}
}

// What the README shows is what is built and tested.
func TestReadmeShowsTheExample(t *testing.T) {
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	readme := read("README.md")
	for kind, file := range map[string]string{"ts": "assembly/index.ts", "json": "asconfig.json"} {
		blocks := regexp.MustCompile("(?s)```"+kind+"\n(.*?)```").FindAllStringSubmatch(readme, -1)
		if len(blocks) != 1 {
			t.Fatalf("%d blocks of %s in README.md, want 1", len(blocks), kind)
		}
		if want := read(filepath.Join(example, file)); blocks[0][1] != want {
			t.Errorf("README.md shows\n%s\n%s is\n%s", blocks[0][1], file, want)
		}
	}
	test := read(example + "/test.mjs")
	for _, block := range regexp.MustCompile("(?s)```js\n(.*?)```").FindAllStringSubmatch(readme, -1) {
		if !strings.Contains(test, block[1]) {
			t.Errorf("README.md shows\n%s\nwhich test.mjs lacks", block[1])
		}
	}
	// The settings of a module are the same everywhere but for its name.
	if a, b := read(example+"/asconfig.json"), read(trouble+"/asconfig.json"); strings.ReplaceAll(a, "settings", "trouble") != b {
		t.Error("the asconfig.json of trouble is not that of the example")
	}
}

// compile builds and compiles a module. What it logs goes to log.
func compile(t testing.TB, project string, log io.Writer) (*host.Module, *sdktest.Costs) {
	t.Helper()
	return sdktest.Compile(t, filepath.Base(project), build(t, project), host.Config{
		CacheDir: filepath.Join(lab, "compiled"), Logger: slog.New(slog.NewTextHandler(log, nil)),
		Limits: host.Limits{SliceFuel: 20_000_000_000}, // one makes garbage for long without a word
	})
}

var call = abi.Call{
	Service: "shop", Part: "store", Schema: 2, Time: 1_800_000_000_000_000_000,
	Settings: map[string]any{"depth": uint64(7), "größe": "größer"},
}

func save(m *host.Module, native string) ([]byte, error) {
	var out sdktest.Records
	err := m.Save(context.Background(), call, strings.NewReader(native), &out)
	return out.Bytes(), err
}

func load(m *host.Module, records []byte) (string, error) {
	var out bytes.Buffer
	err := m.Load(context.Background(), call, record.NewReader(bytes.NewReader(records), 0), &out)
	return out.String(), err
}

// begun is a record of which only the value is lacking.
func begun(key string) []byte {
	return record.AppendText(record.AppendText(record.AppendRecord(nil), ""), key)
}

// What goes wrong in a guest is told as it happened, and the next call knows nothing of it.
func TestTrouble(t *testing.T) {
	var log bytes.Buffer
	m, _ := compile(t, trouble, &log)
	for _, c := range []struct {
		native, want string
		code         abi.Code
	}{
		{"ok\nthrow\n", "the serializer panicked: on purpose at assembly/index.ts:", abi.CodeInternal},
		{"assert 0\n", "the serializer panicked: n is too small at assembly/index.ts:", abi.CodeInternal},
		{"index 9\n", "the serializer panicked: index out of range at ~lib/torpor/assembly/bytes.ts:", abi.CodeInternal},
		{"array 5\n", "the serializer panicked: Index out of range at ~lib/array.ts:", abi.CodeInternal},
		{"null\n", "the serializer panicked: Unexpected 'null' (not assigned or failed cast) at assembly/index.ts:", abi.CodeInternal},
		{"cast -1\n", "the serializer panicked: Invalid length at ~lib/", abi.CodeInternal},
		{"half\n", "the serializer panicked: Unpaired surrogate at ~lib/string.ts:", abi.CodeInternal},
		{"\xff\n", "the serializer panicked: these bytes are not UTF-8 at ~lib/torpor/assembly/bytes.ts:", abi.CodeInternal},
		{"ok\nerror\nok\n", "gone at a path (offset 3)", 64},
		{"long 5000\n", strings.Repeat("é", 2048) + " at " + strings.Repeat("ü", 2048), abi.CodeVersion},
		{"limit 20\n1234567890123456789\n12345678901234567890\n", "longer than the limit of this serializer, 20 bytes (offset 29)", abi.CodeTooLarge},
		{"limit 0\nx\n", "longer than the limit of this serializer, 0 bytes (offset 8)", abi.CodeTooLarge},
	} {
		_, err := save(m, c.native)
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Code != c.code || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v; want code %d, %q", c.native, err, c.code, c.want)
		}
	}
	for native, want := range map[string]string{
		"unreachable\n": "torpor_save trapped: wasm error: unreachable",
		"short\nok\n":   "it returned before its input had ended",
	} {
		var me *host.ModuleError
		// Input that was given with its end is all told, so the short one needs more of it.
		if _, err := save(m, native+strings.Repeat("ok\n", 1<<20)); !errors.As(err, &me) || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v; want %q", native, err, want)
		}
	}
	if _, err := save(m, "log\n"); err != nil || !strings.Contains(log.String(), `level=WARN msg="serializer: logged größer"`) {
		t.Errorf("logging gives %v, and the log is\n%s", err, &log)
	}
}

// Each call gets what it is called with, and nothing of the one before.
func TestCall(t *testing.T) {
	m, _ := compile(t, trouble, t.Output())
	want := record.AppendText(record.AppendText(record.AppendRecord(nil), "shop"), "store")
	want = record.AppendUint(record.AppendText(record.AppendArray(want, 7), "save"), 2)
	want = record.AppendInt(want, call.Time)
	want = record.AppendText(record.AppendUint(want, 7), "größer")
	want = record.AppendBytes(record.AppendUint(want, 1), strings.Repeat("call\ncall\n\x00", 64)[3:])
	for range 3 {
		if got, err := save(m, "call\n"); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("save gives %x, %v; want %x", got, err, want)
		}
	}
	for _, c := range []struct {
		setting string
		value   any
		want    string
	}{
		{"depth", 10, "at most 9 expected at settings.depth"},
		{"depht", 1, "unknown setting; known are: depth größe at settings.depht"},
		{"depth", "deep", "an unsigned integer expected, found 0x64 at settings.depth"},
		{"größe", []any{}, "a text string expected, found 0x80 at settings.größe"},
	} {
		with := call
		with.Settings = map[string]any{c.setting: c.value}
		err := m.Save(t.Context(), with, strings.NewReader("call\n"), &sdktest.Records{})
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Code != abi.CodeUnsupported || !strings.Contains(err.Error(), c.want) {
			t.Errorf("setting %s: %v; want %q", c.setting, err, c.want)
		}
	}
}

// What is read of a setting stays what it was while the input goes on, and beside other settings.
func TestSettingsOutlastTheInput(t *testing.T) {
	m, _ := compile(t, trouble, t.Output())
	var native strings.Builder
	var want []byte
	for i := range 20_000 {
		fmt.Fprintf(&native, "%c%cz\n", 'a'+i%23, 'a'+i%19)
		want = record.AppendText(record.AppendText(record.AppendRecord(want), "größer"), string(rune('a'+i%23)))
		want = record.AppendText(record.AppendArray(want, 3), "größer")
		want = record.AppendText(record.AppendText(want, string(rune('a'+i%19))), "z")
	}
	want = record.AppendUint(append(want, begun("depth")...), 7)
	got, err := save(m, "settings\n"+native.String())
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("save gives %d bytes, %v; want %d; it begins %.40q, %.40q is wanted", len(got), err, len(want), got, want)
	}
	for _, c := range []struct {
		setting string
		value   any
		want    string
	}{
		{"depth", "deep", "an unsigned integer expected, found 0x64 at settings.depth"},
		{"größe", 1, "a text string expected, found 0x01 at settings.größe"},
	} {
		with := call
		with.Settings = map[string]any{"depth": 7, "größe": "x", c.setting: c.value}
		err := m.Save(t.Context(), with, strings.NewReader("settings\n"+native.String()), &sdktest.Records{})
		var ge *host.GuestError
		if !errors.As(err, &ge) || ge.Code != abi.CodeUnsupported || !strings.Contains(err.Error(), c.want) {
			t.Errorf("setting %s: %v; want %q", c.setting, err, c.want)
		}
	}
}

// What settings took is given back when the call ends: an instance has many calls, and these need more
// memory than its maximum between them.
func TestSettingsMemoryIsGivenBack(t *testing.T) {
	build(t, trouble)
	const script = `
import { open } from "../../testing.mjs";
const trouble = await open("trouble.wasm");
for (let i = 0; i < 10; i++) {
  const records = trouble.save("settings 500000\\n", { settings: { depth: 7, "größe": "größer" } });
  if (records.length != 9) throw new Error(records.length + " bytes");
}`
	cmd := exec.Command(need.Program(t, "node"), "--input-type=module", "--eval", script)
	cmd.Dir = filepath.Join(install(t), trouble)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

// Output takes bytes and strings; anything else is an error of the compiler and not garbage in a record.
func TestOutputTakesBytesOnly(t *testing.T) {
	dir := install(t)
	asc := filepath.Join("node_modules", ".bin", "asc")
	project := t.TempDir()
	if err := os.Symlink(filepath.Join(dir, example, "node_modules"), filepath.Join(project, "node_modules")); err != nil {
		t.Fatal(err)
	}
	const begin = `import { Bytes, Kept, Output, Record } from "torpor";
export * from "torpor/exports";

@unmanaged
class Own { at: usize; length: i32; }

@unmanaged
class Part extends Bytes {}

export function wrong(out: Output, record: Record, kept: Kept, own: Own, part: Part): void {
`
	const wanted = "a string, Bytes or Uint8Array is wanted here"
	for _, c := range []struct{ statements, want string }{
		{"out.encoded(record.encoded); out.text(kept); out.bytes(part); out.write(new Uint8Array(1)); out.record('', 'x');", ""},
		{"out.encoded(record);", wanted},
		{"out.bytes(own);", wanted},
		{"out.record('', 7);", wanted},
	} {
		if err := os.WriteFile(filepath.Join(project, "wrong.ts"), []byte(begin+c.statements+"\n}\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(asc, "wrong.ts", "--noEmit", "--use", "abort=~lib/torpor/assembly/error/abort")
		cmd.Dir = project
		out, err := cmd.CombinedOutput()
		if c.want == "" && (err != nil || len(out) > 0) || c.want != "" && (err == nil || !strings.Contains(string(out), c.want)) {
			t.Errorf("%s gives %v; want %q in\n%s", c.statements, err, c.want, out)
		}
	}
}

// Everything that Output writes is what a reader of records takes it for.
func TestKindsWritten(t *testing.T) {
	m, _ := compile(t, trouble, t.Output())
	want := record.AppendArray(begun("kinds"), 16)
	want = record.AppendUint(record.AppendUint(want, 0), 1<<64-1)
	want = record.AppendInt(record.AppendInt(record.AppendInt(want, -1), -1<<63), 1<<63-1)
	want = record.AppendBytes(record.AppendText(want, "é"), "bytes")
	want = record.AppendNull(record.AppendBool(record.AppendBool(want, true), false))
	want = append(want, 0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0)
	want = record.AppendUint(record.AppendTag(want, 1000), 65536)
	want = record.AppendArray(record.AppendText(record.AppendMap(want, 1), "k"), 0)
	want = record.AppendText(want, "abc")
	want = record.AppendUint(record.AppendUint(want, 255), 256)
	got, err := save(m, "kinds\n")
	if err != nil || !bytes.Equal(got, want) {
		t.Fatalf("save gives %x, %v; want %x", got, err, want)
	}
	const shown = "/kinds [0,18446744073709551615,-1,-9223372036854775808,9223372036854775807,\"é\",<5>,true,false,null," +
		"item(251,9),1000(65536),{\"k\":[]},\"abc\",255,256]\n"
	if back, err := load(m, got); err != nil || back != shown {
		t.Errorf("load shows %q, %v; want %q", back, err, shown)
	}
}

// Everything that Reader reads, and what it says of what is not there.
func TestKindsRead(t *testing.T) {
	m, _ := compile(t, trouble, t.Output())
	deep := append(bytes.Repeat([]byte{0x81}, 63), 0x80)
	texts := func(a, b string) []byte {
		return record.AppendText(record.AppendText(record.AppendArray(nil, 2), a), b)
	}
	for _, c := range []struct {
		key   string
		value []byte
		want  string // what load shows, or where it begins with !, the error
	}{
		{"uint", []byte{0x17}, "23"},
		{"uint", []byte{0x18, 24}, "24"},
		{"uint", []byte{0x19, 1, 0}, "256"},
		{"uint", []byte{0x1a, 0, 1, 0, 0}, "65536"},
		{"uint", []byte{0x1b, 0, 0, 0, 1, 0, 0, 0, 0}, "4294967296"},
		{"uint", []byte{0x20}, "!an unsigned integer expected, found 0x20 (offset 7)"},
		{"int", []byte{0x20}, "-1"},
		{"int", []byte{0x3b, 0x7f, 255, 255, 255, 255, 255, 255, 255}, "-9223372036854775808"},
		{"int", []byte{0x3b, 0x80, 0, 0, 0, 0, 0, 0, 0}, "!an integer of 64 bits expected, found 0x3b (offset 6)"},
		{"int", []byte{0x1b, 0x80, 0, 0, 0, 0, 0, 0, 0}, "!an integer of 64 bits expected, found 0x1b (offset 6)"},
		{"int", []byte{0x60}, "!an integer expected, found 0x60 (offset 6)"},
		{"bytes", []byte{0x42, 'a', 'b'}, "ab"},
		{"bytes", []byte{0x61, 'a'}, "!a byte string expected, found 0x61 (offset 8)"},
		{"text", []byte{0x62, 0xc3, 0xa9}, "é"},
		{"text", []byte{0x62, 0xc3, 0x28}, "!a text string that is not UTF-8 (offset 7)"},
		{"array", []byte{0x80}, ""},
		{"array", []byte{0x81, 0x01}, "!bytes after the end (offset 9)"},
		{"array", []byte{0xa0}, "!an array expected, found 0xa0 (offset 8)"},
		{"map", []byte{0xa0}, ""},
		{"map", []byte{0xf6}, "!a map expected, found 0xf6 (offset 6)"},
		{"tag", []byte{0xc1, 0x01}, "!bytes after the end (offset 7)"},
		{"tag", []byte{0x01}, "!a tag expected, found 0x01 (offset 6)"},
		{"bool", []byte{0xf4}, ""},
		{"bool", []byte{0xf6}, "!true or false expected, found 0xf6 (offset 7)"},
		{"float", []byte{0xf9, 0x3e, 0x00}, "1.5"},
		{"float", []byte{0xf9, 0x00, 0x01}, "5.960464477539063e-8"},
		{"float", []byte{0xf9, 0x7b, 0xff}, "65504.0"},
		{"float", []byte{0xf9, 0x80, 0x00}, "0.0"},
		{"float", []byte{0xf9, 0xfc, 0x00}, "-Infinity"},
		{"float", []byte{0xf9, 0x7e, 0x00}, "NaN"},
		{"float", []byte{0xfa, 0x3f, 0xc0, 0, 0}, "1.5"},
		{"float", []byte{0xfb, 0xbf, 0xf8, 0, 0, 0, 0, 0, 0}, "-1.5"},
		{"float", []byte{0xf5}, "!a float expected, found 0xf5 (offset 8)"},
		{"any", []byte{0xf8, 0x20}, "item(248,2)"},
		{"any", deep, strings.Repeat("[", 64) + strings.Repeat("]", 64)},
		{"any", record.AppendText(nil, strings.Repeat("x", 300_000)), `"300000"`},
		{"compare", texts("größe", "größe"), "=0="},
		{"compare", texts("größe", "grö"), ">0!"},
		{"compare", texts("12345678a", "12345678b"), "<0!"},
		{"compare", texts("abcdefghijk", "k"), "<10!"},
		{"compare", texts("abcdefgh\xc3\xa9", "ü"), "<8!"},
		{"compare", texts("", "x"), "<-1!"},
		{"compare", texts("x", ""), ">-!"},
	} {
		back, err := load(m, append(begun(c.key), c.value...))
		if want, bad := strings.CutPrefix(c.want, "!"); bad {
			var ge *host.GuestError
			if !errors.As(err, &ge) || ge.Code != abi.CodeCorrupt || !strings.Contains(err.Error(), want) {
				t.Errorf("%s %x: %q, %v; want %q", c.key, c.value, back, err, want)
			}
		} else if want = "/" + c.key + " " + want + "\n"; err != nil || back != want {
			t.Errorf("%s %x: %q, %v; want %q", c.key, c.value, back, err, want)
		}
	}
}

// Values longer than every buffer leave in fragments and come back, and the order of records stays.
func TestLongRecords(t *testing.T) {
	m, c := compile(t, trouble, t.Output())
	native := "value 10\nvalue 65536\nstring 1\nvalue 30000000\nvalue 0\nstring 300000\nbytes 65536\nstring 2\n"
	records, err := save(m, native)
	if err != nil {
		t.Fatal(err)
	}
	want := "/v0 <10>\n/v9 <65536>\np/s21 \"größe 😀\"\n/v30 <30000000>\n/v45 <0>\np/s53 \"3600000\"\np/" +
		strings.Repeat("\x00", 65536) + "(bytes) <65536>\np/s79 \"größe 😀größe 😀\"\n"
	if back, err := load(m, records); err != nil || back != want {
		t.Errorf("load gives %d bytes, %v; want %d", len(back), err, len(want))
	}
	t.Logf("save took %d bytes of memory, load %d", c.Of(abi.OpSave).Memory, c.Of(abi.OpLoad).Memory)
	if mem := c.Of(abi.OpSave).Memory; mem > 32<<20 {
		t.Errorf("save of values that it writes in pieces took %d bytes of memory", mem)
	}
	var out sdktest.Records
	migrate := call
	migrate.From, migrate.To = 1, 2
	if err := m.Migrate(t.Context(), migrate, record.NewReader(bytes.NewReader(records), 0), &out); err != nil || !bytes.Equal(out.Bytes(), records) {
		t.Errorf("migrate gives %d bytes, %v; want the %d it was given", out.Len(), err, len(records))
	}
	var summary bytes.Buffer
	err = m.Inspect(t.Context(), call, record.NewReader(bytes.NewReader(records), 0), &summary)
	if want := record.AppendUint(record.AppendText(record.AppendMap(nil, 1), "records"), 8); err != nil || !bytes.Equal(summary.Bytes(), want) {
		t.Errorf("inspect gives %x, %v; want %x", summary.Bytes(), err, want)
	}
}

// A guest's memory follows the longest record, not the state and not the garbage it makes.
func TestMemoryStaysBounded(t *testing.T) {
	size := 200 << 20
	if testing.Short() {
		size = 10 << 20
	}
	m, c := compile(t, example, t.Output())
	plain := call
	plain.Schema, plain.Settings = 1, nil
	in := &lines{left: size / 100, sum: sha256.New()}
	pipe := make(batches, 4)
	saved := make(chan error, 1)
	go func() {
		defer close(pipe)
		saved <- m.Save(t.Context(), plain, in, pipe)
	}()
	out := sha256.New()
	if err := m.Load(t.Context(), plain, pipe, out); err != nil {
		t.Error(err)
		for range pipe { // so that save comes to its end
		}
	}
	if err := <-saved; err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.Sum(nil), in.sum.Sum(nil)) {
		t.Error("load gave back other bytes than save was given")
	}
	for _, op := range []string{abi.OpSave, abi.OpLoad} {
		mem := c.Of(op).Memory
		t.Logf("%s of %d MB took %d bytes of memory", op, size>>20, mem)
		if mem == 0 || mem > 1<<20 {
			t.Errorf("%s took %d bytes of memory; want at most %d", op, mem, 1<<20)
		}
	}

	m, c = compile(t, trouble, t.Output())
	garbage := size / 8192 // strings of 4,096 characters, two bytes each
	records, err := save(m, fmt.Sprintf("garbage %d\n", garbage))
	if want := record.AppendUint(begun("garbage"), 4097); err != nil || !bytes.Equal(records, want) {
		t.Errorf("save gives %x, %v; want %x", records, err, want)
	}
	mem := c.Of(abi.OpSave).Memory
	t.Logf("a call that made %d MB of garbage took %d bytes of memory", size>>20, mem)
	if mem > 4<<20 {
		t.Errorf("a call that made %d MB of garbage took %d bytes of memory", size>>20, mem)
	}
}

// batches hands the records of one call to another.
type batches chan *record.Batch

func (c batches) WriteBatch(b *record.Batch) error { c <- b.Clone(); return nil }

func (c batches) ReadBatch() (*record.Batch, error) {
	if b, ok := <-c; ok {
		return b, nil
	}
	return nil, io.EOF
}

// lines is a state of the example, 100 bytes a line, made while it is read.
type lines struct {
	left, made int
	pending    []byte
	sum        hash.Hash // of what was read
}

func (l *lines) Read(p []byte) (int, error) {
	if len(l.pending) == 0 {
		if l.left == 0 {
			return 0, io.EOF
		}
		n := min(l.left, 1000)
		l.left -= n
		l.pending = slices.Grow(l.pending, n*100)
		for range n {
			l.pending = fmt.Appendf(l.pending, "setting.%010d=%080d\n", l.made, l.made)
			l.made++
		}
	}
	n := copy(p, l.pending)
	l.pending = l.pending[n:]
	l.sum.Write(p[:n])
	return n, nil
}

// Limits and windows mean the same however the input is cut, and wherever its end is told.
func TestPieces(t *testing.T) {
	ctx := context.Background()
	wasm := build(t, trouble)
	for _, piece := range []int{0, 1, 7, 20, 21} {
		h, err := host.New(ctx, host.Config{CacheDir: filepath.Join(lab, "compiled"), Logger: slog.New(slog.DiscardHandler), InputPiece: piece})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = h.Close(ctx) })
		m, err := h.Compile(ctx, "trouble", wasm)
		if err != nil {
			t.Fatal(err)
		}
		for native, whole := range map[string]bool{
			"limit 20\n1234567890123456789\n": true, "limit 20\n12345678901234567890": true,
			"limit 20\n12345678901234567890\n": false, "limit 20\n123456789012345678901": false,
		} {
			_, err := save(m, native)
			if whole && err != nil || !whole && !errors.Is(err, abi.ErrTooLarge) {
				t.Errorf("%q in pieces of %d: %v", native, piece, err)
			}
		}
		rest := strings.Repeat("0123456789", 20_000)
		want := record.AppendBytes(record.AppendUint(record.AppendArray(begun("window"), 3), 10), rest)
		want = record.AppendUint(want, uint64(10+len(rest)))
		for _, native := range []string{"window 07\n" + rest, "window 64\n" + rest} {
			if got, err := save(m, native); err != nil || !bytes.Equal(got, want) {
				t.Errorf("%.10q in pieces of %d gives %d bytes, %v; want %d", native, piece, len(got), err, len(want))
			}
		}
	}
}

// Comparing and searching eight bytes at a time gives what a byte at a time gives.
func TestBytes(t *testing.T) {
	m, _ := compile(t, trouble, t.Output())
	random := rand.New(rand.NewPCG(1, 2))
	text := func() string {
		b := make([]byte, random.IntN(28))
		for i := range b {
			b[i] = "aaaaaab\x00\x7f"[random.IntN(9)]
		}
		if len(b) > 2 && random.IntN(3) == 0 {
			copy(b[random.IntN(len(b)-1):], "é")
		}
		return string(b)
	}
	var records []byte
	var want strings.Builder
	for range 3000 {
		a := text()
		b := text()
		if random.IntN(3) == 0 {
			b = a[:random.IntN(len(a)+1)] + b
		}
		if random.IntN(5) == 0 || !utf8.ValidString(b) {
			b = a
		}
		found, same := "-", "!"
		if b != "" {
			found = strconv.Itoa(strings.IndexByte(a, b[0]))
			if a == b {
				same = "="
			}
		}
		fmt.Fprintf(&want, "/compare %c%s%s\n", "<=>"[strings.Compare(a, b)+1], found, same)
		records = append(records, begun("compare")...)
		records = record.AppendText(record.AppendText(record.AppendArray(records, 2), a), b)
	}
	got, err := load(m, records)
	if err != nil {
		t.Fatal(err)
	}
	lines := strings.SplitAfter(got, "\n")
	for i, want := range strings.SplitAfter(want.String(), "\n") {
		if i >= len(lines) || lines[i] != want {
			t.Fatalf("pair %d gives %q, want %q", i, lines[min(i, len(lines)-1)], want)
		}
	}
}
