package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/host/conformance"
	"github.com/torpor-run/torpor/modules"
)

// moduleTest runs the command in a folder with records.wasm and the fixtures one.cbor and two.cbor.
func moduleTest(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	var out, errs bytes.Buffer
	p := &program{Streams: Streams{In: strings.NewReader(""), Out: &out, Err: &errs}}
	cmd := p.moduleTest()
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	cmd.SetArgs(args)
	cmd.SetOut(&out)
	cmd.SetErr(&errs)
	err := cmd.ExecuteContext(context.Background())
	if err != nil {
		fmt.Fprintf(&errs, "torpor: %v\n", err)
	}
	return out.String(), errs.String(), exitCode(err)
}

func smallRecord(key, value string) []byte {
	return record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), key), value)
}

// folderToTest makes the working folder one with records.wasm and two fixtures.
func folderToTest(t *testing.T) {
	t.Helper()
	t.Chdir(t.TempDir())
	if err := os.Mkdir("fixtures", 0o755); err != nil {
		t.Fatal(err)
	}
	rewrite(t, "records.wasm", modules.Records())
	rewrite(t, "fixtures/one.cbor", smallRecord("a", "1"))
	rewrite(t, "fixtures/two.cbor", append(smallRecord("a", "1"), smallRecord("b", "2")...))
}

func TestModuleTestPasses(t *testing.T) {
	folderToTest(t)
	out, errs, code := moduleTest(t, "records.wasm")
	if code != 0 || errs != "" {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	for _, want := range []string{"records 1.", "says        canonical, not ordered", "truncation       passed   2 fixtures, 36 trials",
		"migration        skipped  there are no older schemas", "MEMORY", "one.cbor       save", "all passed: 13 checks in "} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if left, err := os.ReadDir("."); err != nil || len(left) != 2 {
		t.Errorf("it left %v, %v", left, err)
	}

	out, _, code = moduleTest(t, "records.wasm", "--json", "--seed", "7", "--fixtures", "fixtures")
	var report conformance.Report
	d := json.NewDecoder(strings.NewReader(out))
	d.DisallowUnknownFields()
	if err := d.Decode(&report); err != nil || code != 0 {
		t.Fatalf("exit code %d: %v: %s", code, err, out)
	}
	if !report.Passed || report.Seed != 7 || report.Module.Name != "records.wasm" || len(report.Results) < 20 || len(report.Figures) == 0 {
		t.Errorf("%+v", report)
	}
}

func TestModuleTestFails(t *testing.T) {
	folderToTest(t)
	rewrite(t, "fixtures/cut.cbor", smallRecord("a", "1")[:4])
	rewrite(t, "fixtures/notes", nil)
	if err := os.Mkdir("fixtures/old", 0o755); err != nil {
		t.Fatal(err)
	}
	out, errs, code := moduleTest(t, "records.wasm", "--only", "round-trip", "--only", "determinism")
	if code != exitFailure || errs != "torpor: 1 of 2 checks failed: see above\n" {
		t.Errorf("exit code %d: %s", code, errs)
	}
	for _, want := range []string{"round-trip   FAILED  1 of 4 fixtures, 4 trials", "round-trip, cut.cbor FAILED: 1 time\n  the fixture cannot be saved: save failed with code 2 (corrupt)",
		"determinism  passed  3 fixtures", "note: folder old was not looked into"} {
		if !strings.Contains(out, want) {
			t.Errorf("it does not say %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "MEMORY") || strings.Contains(out, "all passed") {
		t.Errorf("it says too much:\n%s", out)
	}
	out, errs, code = moduleTest(t, "records.wasm", "--json", "--only", "round-trip")
	var report conformance.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || report.Passed || code != exitFailure || errs == "" {
		t.Errorf("exit code %d, %v: %s%s", code, err, out, errs)
	}
}

func TestModuleTestRefuses(t *testing.T) {
	folderToTest(t)
	if err := os.Mkdir("empty", 0o755); err != nil {
		t.Fatal(err)
	}
	rewrite(t, "no.wasm", []byte("no module"))
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"no module", nil, exitUsage, "torpor module build"},
		{"two modules", []string{"a.wasm", "b.wasm"}, exitUsage, "name one module"},
		{"a module that is not there", []string{"nowhere.wasm"}, exitNotFound, "nowhere.wasm"},
		{"a folder", []string{"./fixtures"}, exitUsage, "is no file"},
		{"no WebAssembly", []string{"no.wasm"}, exitCorrupt, "no.wasm"},
		{"fixtures that are not there", []string{"records.wasm", "--fixtures", "nowhere"}, exitNotFound, "nowhere"},
		{"no fixtures", []string{"records.wasm", "--fixtures", "empty"}, exitUsage, "empty: no fixtures: put one native state"},
		{"a file of fixtures", []string{"records.wasm", "--fixtures", "no.wasm"}, exitUsage, "is no folder"},
		{"an unknown check", []string{"records.wasm", "--only", "everything"}, exitUsage, "round-trip, records"},
		{"half a setting", []string{"records.wasm", "--setting", "schema"}, exitUsage, "NAME=VALUE"},
		{"a setting twice", []string{"records.wasm", "--setting", "a=1", "--setting", "a=2"}, exitUsage, "twice"},
		{"records without a round trip", []string{"records.wasm", "--only", "damage", "--write-records", "x"}, exitUsage, "--only round-trip"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errs, code := moduleTest(t, c.args...)
			if code != c.code || !strings.Contains(errs, c.says) || out != "" {
				t.Errorf("exit code %d, want %d: %s%s", code, c.code, out, errs)
			}
		})
	}
	if err := os.Rename("fixtures", "elsewhere"); err != nil {
		t.Fatal(err)
	}
	if _, errs, code := moduleTest(t, "records.wasm"); code != exitUsage || !strings.Contains(errs, "name one with --fixtures") {
		t.Errorf("exit code %d: %s", code, errs)
	}
}

// The module is held to the limits of serve, those of its own name too.
func TestModuleTestLimits(t *testing.T) {
	folderToTest(t)
	rewrite(t, "other.wasm", modules.Records())
	config := func(text string) []string {
		rewrite(t, "torpor.yaml", []byte(text))
		return []string{"TORPOR_CONFIG=torpor.yaml"}
	}
	small := "limit_size: 8KiB\n"
	for _, c := range []struct {
		name, module, config string
		code                 int
	}{
		{"too large for all", "records.wasm", small, exitTooLarge},
		{"its name may be larger", "records.wasm", small + "modules:\n  records:\n    limit_size: 1MiB\n", exitOK},
		{"too large for its name", "other.wasm", "modules:\n  records:\n    limit_size: 8KiB\n", exitTooLarge},
		{"too large for the name of its file", "other.wasm", "modules:\n  other:\n    limit_size: 8KiB\n", exitTooLarge},
		{"too large for another", "records.wasm", "modules:\n  other:\n    limit_size: 8KiB\n", exitOK},
	} {
		t.Run(c.name, func(t *testing.T) {
			environ := config(c.config)
			if _, errs, code := torpor(t, environ, "module", "inspect", "./"+c.module); code != c.code {
				t.Errorf("inspect: exit code %d, want %d: %s", code, c.code, errs)
			}
			if out, errs, code := torpor(t, environ, "module", "test", c.module, "--only", "round-trip"); code != c.code {
				t.Errorf("exit code %d, want %d: %s%s", code, c.code, out, errs)
			}
		})
	}
}

// A setting reaches the module, as what it is.
func TestModuleTestSettings(t *testing.T) {
	folderToTest(t)
	if out, errs, code := moduleTest(t, "records.wasm", "--setting", "schema=1", "--only", "round-trip"); code != 0 {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if out, _, code := moduleTest(t, "records.wasm", "--setting", "schema=2", "--only", "round-trip"); code != exitFailure || !strings.Contains(out, "(version)") {
		t.Errorf("exit code %d: %s", code, out)
	}
	got, err := partSettings([]string{"n=12", "big=18446744073709551615", "f=1.5", "text=a b", "list=[1,{\"k\":-2}]", "quoted=\"12\"", "two=1 2", "huge=1e999", "brace=5}", "bracket=[1]]", "spaced= 7 "})
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]any{"n": int64(12), "big": uint64(18446744073709551615), "f": 1.5, "text": "a b",
		"list": []any{int64(1), map[string]any{"k": int64(-2)}}, "quoted": "12", "two": "1 2", "huge": "1e999", "brace": "5}", "bracket": "[1]]", "spaced": int64(7)}
	if fmt.Sprintf("%#v", got) != fmt.Sprintf("%#v", want) {
		t.Errorf("%#v", got)
	}
}

// What is written is what the next version is tested with, and it is never written over.
func TestModuleTestWritesRecords(t *testing.T) {
	folderToTest(t)
	write := func() (string, string, int) {
		return moduleTest(t, "records.wasm", "--write-records", "fixtures", "--only", "round-trip", "--only", "migration")
	}
	if out, errs, code := write(); code != 0 || !strings.Contains(out, "4 files written to fixtures") {
		t.Fatalf("exit code %d: %s%s", code, out, errs)
	}
	if got := content(t, filepath.Join("fixtures", "schema-1", "one.cbor.records")); !bytes.Equal(got, smallRecord("a", "1")) {
		t.Errorf("%q", got)
	}
	out, errs, code := write()
	if code != 0 || !strings.Contains(out, "0 files written") || !strings.Contains(out, "migration   passed  2 fixtures") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	rewrite(t, "fixtures/one.cbor", smallRecord("a", "other"))
	if _, errs, code := write(); code != exitFailure || !strings.Contains(errs, "schema-1/one.cbor.records is there and has other content") {
		t.Errorf("exit code %d: %s", code, errs)
	}
	if got := content(t, filepath.Join("fixtures", "schema-1", "one.cbor.records")); !bytes.Equal(got, smallRecord("a", "1")) {
		t.Errorf("written over: %q", got)
	}
}

// That records cannot be written does not keep back what was found, and leaves nothing half written.
func TestModuleTestCannotWriteRecords(t *testing.T) {
	folderToTest(t)
	rewrite(t, "kept", nil)
	out, errs, code := moduleTest(t, "records.wasm", "--json", "--only", "round-trip", "--write-records", "kept")
	var report conformance.Report
	if err := json.Unmarshal([]byte(out), &report); err != nil || !report.Passed || len(report.Results) != 2 {
		t.Errorf("%v: %s", err, out)
	}
	if code != exitFailure || strings.Count(errs, "--write-records: ") != 1 {
		t.Errorf("exit code %d: %s", code, errs)
	}

	rewrite(t, "fixtures/cut.cbor", smallRecord("a", "1")[:4])
	if _, errs, code = moduleTest(t, "records.wasm", "--json", "--only", "round-trip", "--write-records", "kept"); code != exitFailure ||
		!strings.Contains(errs, "--write-records: ") || !strings.Contains(errs, "1 of 1 checks failed") {
		t.Errorf("exit code %d: %s", code, errs)
	}

	// A folder in the place of the file: the rename fails, and what was to be renamed goes.
	if err := os.MkdirAll("full/taken", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := writeWhole("full/taken", []byte("x")); err == nil {
		t.Error("written over a folder")
	}
	if left, err := os.ReadDir("full"); err != nil || len(left) != 1 {
		t.Errorf("it left %v, %v", left, err)
	}
	if err := writeWhole("full/whole", []byte("x")); err != nil || string(content(t, "full/whole")) != "x" {
		t.Error(err)
	}
}

// onWrite does something at the first thing written.
type onWrite struct {
	bytes.Buffer
	do func()
}

func (w *onWrite) Write(b []byte) (int, error) {
	if w.Len() == 0 {
		w.do()
	}
	return w.Buffer.Write(b)
}

// The compiled modules of a run without a data folder are removed; where they cannot be, it is told.
func TestModuleTestRemovesItsCache(t *testing.T) {
	folderToTest(t)
	temp := filepath.Join(t.TempDir(), "temp")
	if err := os.Mkdir(temp, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", temp)
	left := 0
	out := &onWrite{do: func() {
		if there, err := os.ReadDir(temp); err == nil {
			left = len(there)
		}
	}}
	test := func() error {
		cmd := (&program{Streams: Streams{In: strings.NewReader(""), Out: out, Err: io.Discard}}).moduleTest()
		cmd.SilenceUsage, cmd.SilenceErrors = true, true
		cmd.SetArgs([]string{"records.wasm", "--only", "round-trip"})
		return cmd.ExecuteContext(t.Context())
	}
	if err := test(); err != nil || left != 1 {
		t.Fatalf("%d folders while it runs; %v", left, err)
	}
	if there, err := os.ReadDir(temp); err != nil || len(there) > 0 {
		t.Errorf("it left %v, %v", there, err)
	}

	out.Reset()
	out.do = func() { // a file where the folder's folder was: not even root can remove what is in it
		if err := os.Rename(temp, temp+".old"); err != nil {
			t.Error(err)
		}
		rewrite(t, temp, nil)
	}
	if err := test(); err == nil || !strings.Contains(err.Error(), "torpor-module-test-") {
		t.Errorf("error %v", err)
	}
}

// What is left out is said in the check's line.
func TestModuleTestLeavesOut(t *testing.T) {
	verdict, what := checked{"damage", []conformance.Result{{Fixture: "a", Status: conformance.Passed, Trials: 30, Left: 200}, {Fixture: "b", Status: conformance.Passed, Trials: 20}}}.line()
	if verdict != "passed" || what != "2 fixtures, 50 trials, 200 left out (see --thorough)" {
		t.Errorf("%s: %s", verdict, what)
	}
}

// The help names every check.
func TestModuleTestHelp(t *testing.T) {
	out, _, code := moduleTest(t, "--help")
	for _, c := range conformance.Checks() {
		if code != 0 || !strings.Contains(out, c.Name) || !strings.Contains(out, c.About) {
			t.Errorf("exit code %d, no word of %s:\n%s", code, c.Name, out)
		}
	}
}

// TestModuleTestByName: what is built in can be tested with one's own states.
func TestModuleTestByName(t *testing.T) {
	dir := t.TempDir()
	state := record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"), "v")
	if err := os.WriteFile(filepath.Join(dir, "state"), state, 0o600); err != nil {
		t.Fatal(err)
	}
	data := "--data=" + filepath.Join(dir, "none")
	out, errs, code := torpor(t, nil, "module", "test", "records", "--fixtures", dir, data)
	if code != exitOK || !strings.Contains(out, "records") {
		t.Errorf("exit code %d: %s\n%s", code, errs, out)
	}
	if _, errs, code = torpor(t, nil, "module", "test", "records", data); code != exitUsage || !strings.Contains(errs, "--fixtures") {
		t.Errorf("without fixtures: exit code %d: %s", code, errs)
	}
	if _, errs, code = torpor(t, nil, "module", "test", "nobody", "--fixtures", dir, data); code != exitNotFound || !strings.Contains(errs, "nobody") {
		t.Errorf("of no module: exit code %d: %s", code, errs)
	}
}
