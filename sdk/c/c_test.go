// Package c_test builds serializers in C as an author would, and runs them on the machine itself and in
// package host.
package c_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

// compiler finds a clang that links WebAssembly.
func compiler(t testing.TB) string {
	t.Helper()
	for _, name := range []string{"clang", "clang-14", "clang-15", "clang-16", "clang-17", "clang-18", "clang-19"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		if exec.Command(path, "--target=wasm32-unknown-unknown", "-nostdlib", "-Wl,--no-entry", "-x", "c", os.DevNull, "-o", filepath.Join(t.TempDir(), "nothing")).Run() == nil {
			return path
		}
	}
	need.Missing(t, "clang with wasm-ld (Debian: clang-14, lld-14)")
	return ""
}

// command runs a program in dir and fails the test if that fails.
func command(t testing.TB, dir string, env []string, name string, args ...string) string {
	t.Helper()
	cmd := exec.Command(name, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), env...)
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %v\n%s", cmd, err, out)
	}
	return string(out)
}

// flags are those of the README's build command; warnings are errors here.
func flags() []string {
	return []string{
		"--target=wasm32-unknown-unknown", "-std=c11", "-O3", "-mbulk-memory", "-ffreestanding", "-nostdlib",
		"-Wl,--no-entry", "-Wl,--stack-first", "-Wl,-z,stack-size=65536", "-Wl,--max-memory=1048576", "-Wl,--strip-all",
		"-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror",
	}
}

// build compiles sources in dir to a module; more flags may overrule the usual ones.
func build(t testing.TB, dir string, sources []string, more ...string) []byte {
	t.Helper()
	headers, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "module.wasm")
	args := append(append(flags(), "-I"+headers, "-o", out), more...)
	command(t, dir, nil, compiler(t), append(args, sources...)...)
	wasm, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return wasm
}

func settings(t testing.TB, more ...string) []byte {
	t.Helper()
	return build(t, "examples/settings", []string{"settings.c"}, more...)
}

// open compiles a module in package host. What it logs goes to log.
func open(t testing.TB, wasm []byte, log io.Writer) *host.Module {
	t.Helper()
	ctx := context.Background() // a test's own is done before its cleanups run
	h, err := host.New(ctx, host.Config{Logger: slog.New(slog.NewTextHandler(log, nil))})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = h.Close(ctx) })
	m, err := h.Compile(ctx, "c", wasm)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func TestSettings(t *testing.T) {
	t.Parallel()
	sdktest.Fixtures(t, "examples/settings/fixtures")
	wasm := settings(t)
	shape := open(t, wasm, t.Output()).Shape()
	if shape.MemoryMax != 1<<20 {
		t.Errorf("the module declares %d bytes of memory at most, want %d", shape.MemoryMax, 1<<20)
	}
	for _, i := range shape.Imports {
		if i.Module != abi.Namespace {
			t.Errorf("it imports %s of %s", i.Name, i.Module)
		}
	}
	sdktest.Settings(t, wasm)
	sdktest.LoadOrder(t, wasm)
	sdktest.LongNames(t, wasm)
}

// TestSettingsBuiltOtherwise: what the header has in place of libc is called, buffers are of other sizes,
// and what needs no optimizer is not in its hands.
func TestSettingsBuiltOtherwise(t *testing.T) {
	t.Parallel()
	for name, more := range map[string][]string{
		"as little as can be": {"-O0", "-mno-bulk-memory"},
		"with SIMD":           {"-msimd128", "-DTORPOR_INPUT_BYTES=140000"},
		"a small output":      {"-DTORPOR_OUTPUT_BYTES=16"},
	} {
		t.Run(name, func(t *testing.T) { sdktest.Settings(t, settings(t, more...)) })
	}
}

func TestLongLines(t *testing.T) {
	t.Parallel()
	const longest = 5_000_000
	sdktest.LongLines(t, settings(t, fmt.Sprintf("-DTORPOR_INPUT_BYTES=%d", longest+1000), "-Wl,--max-memory=8388608"), longest)
}

// TestFolderDoesNotShow: the same source gives the same bytes, wherever it lies and however often it is
// built, also when it is one file of several.
func TestFolderDoesNotShow(t *testing.T) {
	t.Parallel()
	wasm := settings(t)
	dir := filepath.Join(t.TempDir(), "another folder")
	if err := os.CopyFS(dir, os.DirFS("examples/settings")); err != nil {
		t.Fatal(err)
	}
	if again := build(t, dir, []string{"settings.c"}); !bytes.Equal(again, wasm) {
		t.Errorf("another folder gives other bytes (%d, %d)", len(again), len(wasm))
	}
	other := []byte("#include \"torpor.h\"\nvoid sort_of(void);\nvoid sort_of(void) { torpor_log(TORPOR_LOG_INFO, TORPOR_STR(\"x\")); }\n")
	if err := os.WriteFile(filepath.Join(dir, "other.c"), other, 0o600); err != nil {
		t.Fatal(err)
	}
	// The test is no part of the module, even where a build takes all files.
	open(t, build(t, dir, []string{"settings.c", "other.c", "settings_test.c"}), t.Output())
}

// TestNative runs the tests in C, with every compiler there is, under its sanitizers.
func TestNative(t *testing.T) {
	t.Parallel()
	headers, err := filepath.Abs(".")
	if err != nil {
		t.Fatal(err)
	}
	for _, cc := range []string{need.Program(t, "gcc"), compiler(t)} {
		for _, test := range []struct{ dir, source string }{{"examples/settings", "settings_test.c"}, {"testdata", "unit.c"}} {
			program := filepath.Join(t.TempDir(), "test")
			command(t, test.dir, nil, cc, "-std=c11", "-g", "-O1", "-fsanitize=address,undefined", "-fno-sanitize-recover=all",
				"-Wall", "-Wextra", "-Wconversion", "-Wshadow", "-Werror", "-I"+headers, "-o", program, test.source)
			if out := command(t, test.dir, nil, program); !strings.HasSuffix(out, "ok\n") {
				t.Errorf("%s by %s says %s", test.source, cc, out)
			}
		}
	}
}

// TestReadmes: what they show is what is built and tested.
func TestReadmes(t *testing.T) {
	t.Parallel()
	read := func(name string) string {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		return string(b)
	}
	block := func(text, lang string) string {
		m := regexp.MustCompile("(?s)```" + lang + "\n(.*?)```").FindStringSubmatch(text)
		if m == nil {
			t.Fatalf("no block of %s", lang)
		}
		return m[1]
	}
	readme, example := read("README.md"), read("examples/settings/README.md")
	if shown, is := block(readme, "c"), read("examples/settings/settings.c"); shown != is {
		t.Errorf("README.md shows\n%s\nexamples/settings/settings.c is\n%s", shown, is)
	}
	if block(readme, "sh") != block(example, "sh") {
		t.Errorf("README.md builds and tests with\n%s\nthe example's with\n%s", block(readme, "sh"), block(example, "sh"))
	}
	// The commands are run as they stand, where the compiler is called as they call it.
	bin, dir := t.TempDir(), filepath.Join(t.TempDir(), "sdk/examples/settings")
	if err := os.Symlink(compiler(t), filepath.Join(bin, "clang")); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(dir, os.DirFS("examples/settings")); err != nil {
		t.Fatal(err)
	}
	for _, header := range []string{"torpor.h", "torpor_test.h"} {
		if err := os.WriteFile(filepath.Join(dir, "../..", header), []byte(read(header)), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	command(t, dir, []string{"PATH=" + bin + string(os.PathListSeparator) + os.Getenv("PATH")}, "sh", "-euc", block(example, "sh"))
	if built := read(filepath.Join(dir, "settings.wasm")); built != string(settings(t)) {
		t.Errorf("the commands build %d bytes, the tests %d", len(built), len(settings(t)))
	}
}

// sink is a record.Sink that keeps the bytes.
type sink struct{ bytes.Buffer }

func (s *sink) WriteBatch(b *record.Batch) error { s.Write(b.Data); return nil }

// TestEvery runs a serializer that uses all there is.
func TestEvery(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	m := open(t, build(t, "testdata", []string{"every.c"}), &log)
	ctx := context.Background()
	call := abi.Call{Service: "orders", Part: "store", Schema: 2, Time: -5}
	save := func(native string) ([]byte, error) {
		var out sink
		err := m.Save(ctx, call, strings.NewReader(native), &out)
		return out.Bytes(), err
	}
	source := func(records []byte) record.Source { return record.NewReader(bytes.NewReader(records), 0) }

	want := abi.Descriptor{Name: "every", Version: "2.1", Schema: 2, Reads: []uint64{2, 1}, Media: "text/x-commands",
		Operations: []string{abi.OpSave, abi.OpLoad, abi.OpMigrate, abi.OpInspect}, Ordered: true, Memory: 65536 + 131072 + 65536}
	if d := m.Descriptor(); !reflect.DeepEqual(d, want) {
		t.Errorf("descriptor %+v, want %+v", d, want)
	}

	// One of every kind, three arrays deep.
	call.Settings = map[string]any{"depth": 3}
	records, err := save("every\nraw\n")
	if err != nil {
		t.Fatal(err)
	}
	kinds := record.AppendText(record.AppendText(record.AppendRecord(nil), "every"), "kind")
	for range 3 {
		kinds = record.AppendArray(kinds, 1)
	}
	kinds = record.AppendInt(record.AppendUint(record.AppendMap(kinds, 4), 1<<64-1), -1<<63)
	kinds = append(record.AppendInt(kinds, 1<<63-1), 0xfb, 0xbf, 0xf8, 0, 0, 0, 0, 0, 0)
	kinds = record.AppendText(record.AppendNull(record.AppendBool(kinds, true)), "grün")
	kinds = record.AppendInt(record.AppendTag(kinds, 1000), -5)
	kinds = record.AppendNull(record.AppendText(record.AppendText(record.AppendRecord(kinds), ""), "raw"))
	if !bytes.Equal(records, kinds) {
		t.Errorf("every kind is\n%x, want\n%x", records, kinds)
	}
	call.Settings = nil

	// Records longer than every buffer, in either direction.
	native := "size 10\nsize 65536\nsize 3000000\nsize 0\nsize 200000\n"
	long, err := save(native)
	if err != nil {
		t.Fatal(err)
	}
	var loaded bytes.Buffer
	if err := m.Load(ctx, call, source(long), &loaded); err != nil || loaded.String() != native {
		t.Errorf("load of long records gives %q, %v", &loaded, err)
	}

	var migrated sink
	up := call
	up.From, up.To = 1, 2
	if err := m.Migrate(ctx, up, source(records), &migrated); err != nil || !bytes.Contains(migrated.Bytes(), []byte("\x83\x63two\x64kind")) ||
		!bytes.HasSuffix(migrated.Bytes(), []byte("\x83\x63two\x63raw\xf6")) {
		t.Errorf("migrate gives %x, %v", migrated.Bytes(), err)
	}
	var summary bytes.Buffer
	wantSummary := record.AppendUint(record.AppendText(record.AppendMap(nil, 2), "records"), 2)
	wantSummary = record.AppendUint(record.AppendText(wantSummary, "bytes"), uint64(len(records)))
	if err := m.Inspect(ctx, call, source(records), &summary); err != nil || !bytes.Equal(summary.Bytes(), wantSummary) {
		t.Errorf("inspect gives %x, %v", summary.Bytes(), err)
	}

	// What goes wrong is told as it happened; and the next call is none the worse for it.
	for _, c := range []struct {
		native   string
		settings map[string]any
		code     abi.Code
		want     string
	}{
		{"size 1\nwhat\n", nil, abi.CodeCorrupt, "no command (offset 7)"},
		{"size 1\nfail 77\nsize 1\n", nil, 77, "failed as told at line 2 (offset 7)"},
		{"return 3\n", nil, abi.CodeVersion, "the serializer failed without saying why"},
		{"", map[string]any{"dept": 1}, abi.CodeUnsupported, "unknown setting; known are: depth width at settings.dept"},
		{"", map[string]any{"depth": "x"}, abi.CodeUnsupported, "a number of at most 100 is expected at settings.depth"},
	} {
		call.Settings = c.settings
		var ge *host.GuestError
		if _, err := save(c.native); !errors.As(err, &ge) || ge.Code != c.code || !strings.HasSuffix(err.Error(), c.want) {
			t.Errorf("%q: %v; want code %d, %q", c.native, err, c.code, c.want)
		}
	}
	call.Settings = map[string]any{"depth": 65} // with the map in them one more than there may be
	if _, err := save("every\n"); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("66 arrays deep: %v", err)
	}
	call.Settings = nil
	for _, bad := range []string{"junk\n", "trap\n"} {
		var me *host.ModuleError
		if _, err := save("size 1\n" + bad); !errors.As(err, &me) {
			t.Errorf("%q: %v", bad, err)
		}
	}
	if _, err := save("log of a line\n"); err != nil || !strings.Contains(log.String(), "level=WARN") || !strings.Contains(log.String(), "of a line") {
		t.Errorf("%v; the log is %s", err, &log)
	}
	if again, err := save(native); err != nil || !bytes.Equal(again, long) {
		t.Errorf("the same again gives %d bytes, %v; at first %d", len(again), err, len(long))
	}
}

func BenchmarkSettings(b *testing.B) { sdktest.Speed(b, settings(b)) }
