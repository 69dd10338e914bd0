package cli

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/runtime/statefile"
)

// folderWithState is a data folder in which three generations of S3 were saved: one in full and two
// deltas.
func folderWithState(t *testing.T) (folder, state string) {
	t.Helper()
	folder = filepath.Join(t.TempDir(), "data")
	url, stop := serving(t, nil, "--data", folder)
	for _, c := range []struct{ method, path, body string }{
		{"PUT", "/bucket", ""}, {"PUT", "/bucket/zero", "0"}, {"PUT", "/bucket/one", "1"}, {"POST", "/_localstack/state/save", ""},
		{"PUT", "/bucket/two", "2"}, {"POST", "/_localstack/state/save", ""},
		{"PUT", "/bucket/three", "3"}, {"POST", "/_localstack/state/save", ""},
	} {
		if code, body := call(t, c.method, url+c.path, c.body); code != 200 {
			t.Fatalf("%s %s: %d %s", c.method, c.path, code, body)
		}
	}
	if errs, code := stop(); code != 0 {
		t.Fatalf("exit code %d: %s", code, errs)
	}
	state = filepath.Join(folder, "state", "api_states", "s3", "store.state")
	if saves := openState(t, state).Saves(); len(saves) != 3 || !saves[2].Delta {
		t.Fatalf("saved as %+v", saves)
	}
	return folder, state
}

func openState(t *testing.T, path string) *statefile.File {
	t.Helper()
	b := content(t, path)
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), path)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func content(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func rewrite(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// flip changes the byte at an offset.
func flip(t *testing.T, path string, at int64) {
	t.Helper()
	b := content(t, path)
	b[at] ^= 0x40
	rewrite(t, path, b)
}

// verifyJSON runs verify and returns what it found, by file name.
func verifyJSON(t *testing.T, wantCode int, args ...string) (verified, map[string]verifiedFile) {
	t.Helper()
	out, errs, code := torpor(t, nil, append([]string{"verify", "--json"}, args...)...)
	if code != wantCode {
		t.Errorf("verify %q: exit code %d, want %d: %s", args, code, wantCode, errs)
	}
	var v verified
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	files := map[string]verifiedFile{}
	for _, f := range v.Files {
		files[filepath.Base(f.Path)] = f
	}
	return v, files
}

func onlyModule(t *testing.T, folder string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(folder, "modules", "*.wasm"))
	if err != nil || len(found) != 1 {
		t.Fatalf("modules %q, %v", found, err)
	}
	return found[0]
}

func TestVerifySoundFolder(t *testing.T) {
	folder, state := folderWithState(t)
	out, errs, code := torpor(t, []string{"TORPOR_DATA=" + folder}, "verify")
	if code != 0 || errs != "" || !strings.Contains(out, "s3/store generation 3, 5 records, 2 deltas") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	v, files := verifyJSON(t, 0, folder)
	if f := files["store.state"]; !v.Sound || len(files) != 2 || f.Status != "ok" || f.Generation != 3 || *f.Records != 5 || f.Deltas != 2 || f.Service != "s3" {
		t.Errorf("found %+v", v)
	}
	if m := files[filepath.Base(onlyModule(t, folder))]; m.Status != "ok" || m.Kind != "module" {
		t.Errorf("module %+v", m)
	}
	if v, files := verifyJSON(t, 0, state, folder); !v.Sound || len(v.Files) != 3 || files["store.state"].Status != "ok" {
		t.Errorf("found %+v", v)
	}
}

func TestVerifyRefuses(t *testing.T) {
	folder, state := folderWithState(t)
	for _, c := range []struct {
		name string
		args []string
		code int
		says string
	}{
		{"nothing there", []string{"nowhere"}, 5, "nowhere"},
		{"no data folder", []string{t.TempDir()}, 5, "no data folder"},
		{"a file to repair", []string{"--repair", state}, 2, "needs the data folder"},
		{"an unknown flag", []string{"--fix"}, 2, "--repair"},
		{"no state file", []string{os.Args[0]}, 3, "not sound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			out, errs, code := torpor(t, nil, append([]string{"verify"}, c.args...)...)
			if code != c.code || !strings.Contains(errs, c.says) {
				t.Errorf("exit code %d, want %d: %s%s", code, c.code, out, errs)
			}
		})
	}
	t.Run("in use", func(t *testing.T) {
		_, stop := serving(t, nil, "--data", folder)
		out, errs, code := torpor(t, nil, "verify", folder)
		if code != 6 || !strings.Contains(errs, "process") || out != "" {
			t.Errorf("exit code %d: %s%s", code, out, errs)
		}
		stop()
	})
}

func TestVerifyTornEnd(t *testing.T) {
	folder, state := folderWithState(t)
	whole := content(t, state)
	rewrite(t, state, append(bytes.Clone(whole), whole[len(whole)-60:len(whole)-10]...))
	v, files := verifyJSON(t, 0, folder)
	if f := files["store.state"]; !v.Sound || f.Status != "torn" || f.Generation != 3 || f.Good != int64(len(whole)) {
		t.Errorf("found %+v", f)
	}
	if out, _, _ := torpor(t, nil, "verify", folder); !strings.Contains(out, "its last 50 bytes are a save that did not come to its end; generation 3 ") {
		t.Errorf("it says %s", out)
	}
	if _, files := verifyJSON(t, 3, state); files["store.state"].Status != "damaged" {
		t.Errorf("the file by itself: %+v", files)
	}
	out, errs, code := torpor(t, nil, "inspect", state)
	if code != 0 || !strings.Contains(errs, "50 bytes are a save that did not come to its end") || !strings.Contains(out, "generation   3") {
		t.Errorf("inspect: exit code %d: %s%s", code, out, errs)
	}
	if _, stop := serving(t, nil, "--data", folder, "--load-strategy", "ON_STARTUP"); true {
		stop()
	}
	if got := content(t, state); !bytes.Equal(got, whole) {
		t.Errorf("a start left %d bytes, want the %d before", len(got), len(whole))
	}
}

func TestVerifyRepairsADamagedDelta(t *testing.T) {
	folder, state := folderWithState(t)
	whole, saves := content(t, state), openState(t, state).Saves()
	flip(t, state, saves[1].End+10)
	damaged := content(t, state)
	out, errs, code := torpor(t, nil, "verify", folder)
	if code != 3 || !strings.Contains(out, "are good: generation 2") || !strings.Contains(errs, "1 of 2 files") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	if got := content(t, state); !bytes.Equal(got, damaged) {
		t.Fatal("without --repair the file was changed")
	}
	_, files := verifyJSON(t, 0, "--repair", folder)
	if f := files["store.state"]; f.Status != "damaged" || f.Repair == "" || f.Good != saves[1].End {
		t.Errorf("found %+v", f)
	}
	if got := content(t, state); !bytes.Equal(got, whole[:saves[1].End]) {
		t.Errorf("in its place are %d bytes, want the first %d", len(got), saves[1].End)
	}
	aside, err := filepath.Glob(state + ".corrupt-*")
	if err != nil || len(aside) != 1 || !bytes.Equal(content(t, aside[0]), damaged[saves[1].End:]) {
		t.Errorf("set aside: %q, %v", aside, err)
	}
	v, files := verifyJSON(t, 0, folder)
	if f := files["store.state"]; !v.Sound || f.Status != "ok" || f.Generation != 2 || files[filepath.Base(aside[0])].Status != "set-aside" {
		t.Errorf("after the repair %+v", v)
	}
	url, stop := serving(t, nil, "--data", folder)
	if code, body := call(t, "GET", url+"/bucket/two", ""); code != 200 || body != "2" {
		t.Errorf("object two: %d %s", code, body)
	}
	if code, _ := call(t, "GET", url+"/bucket/three", ""); code != 404 {
		t.Errorf("object three, which was in the damaged delta: %d", code)
	}
	stop()
}

func TestVerifyRepairsADamagedFullSave(t *testing.T) {
	folder, state := folderWithState(t)
	flip(t, state, int64(bytes.Index(content(t, state), []byte("bucket/"))))
	damaged := content(t, state)
	if _, files := verifyJSON(t, 3, folder); files["store.state"].Good != 0 {
		t.Errorf("found %+v", files)
	}
	verifyJSON(t, 0, "--repair", folder)
	if _, err := os.Stat(state); !os.IsNotExist(err) {
		t.Errorf("the damaged file is still there: %v", err)
	}
	if aside, _ := filepath.Glob(state + ".corrupt-*"); len(aside) != 1 || !bytes.Equal(content(t, aside[0]), damaged) {
		t.Errorf("set aside: %q", aside)
	}
}

func TestVerifyModules(t *testing.T) {
	folder, _ := folderWithState(t)
	module := onlyModule(t, folder)
	whole := content(t, module)
	name := filepath.Base(module)

	flip(t, module, 100)
	damaged := content(t, module)
	_, files := verifyJSON(t, 3, folder)
	if files[name].Status != "damaged" || files["store.state"].Status != "no-serializer" {
		t.Errorf("found %+v", files)
	}
	_, files = verifyJSON(t, 0, "--repair", folder)
	if files[name].Repair == "" || files["store.state"].Status != "ok" {
		t.Errorf("found %+v", files)
	}
	aside, err := filepath.Glob(module + ".corrupt-*")
	if err != nil || len(aside) != 1 || !bytes.Equal(content(t, aside[0]), damaged) || !bytes.Equal(content(t, module), whole) {
		t.Errorf("set aside: %q, %v", aside, err)
	}

	if err := os.Remove(module); err != nil {
		t.Fatal(err)
	}
	out, errs, code := torpor(t, nil, "verify", folder)
	if code != 5 || !strings.Contains(out, "no-serializer") {
		t.Errorf("exit code %d: %s%s", code, out, errs)
	}
	verifyJSON(t, 0, "--repair", folder)
	if !bytes.Equal(content(t, module), whole) {
		t.Error("the module was not put back")
	}
	if v, _ := verifyJSON(t, 0, folder); !v.Sound {
		t.Errorf("after the repair %+v", v)
	}
}

func TestVerifyNewerFormatIsLeftAlone(t *testing.T) {
	folder, state := folderWithState(t)
	b := content(t, state)
	b[11], b[len(b)-1] = 2, 2 // the version in the header and in the last trailer
	rewrite(t, state, b)
	_, files := verifyJSON(t, 4, "--repair", folder)
	if f := files["store.state"]; f.Status != "version" || f.Repair != "" {
		t.Errorf("found %+v", f)
	}
	if !bytes.Equal(content(t, state), b) {
		t.Error("the file was changed")
	}
}

func TestVerifyEmptyFolder(t *testing.T) {
	folder := t.TempDir()
	if err := os.Mkdir(filepath.Join(folder, "state"), 0o700); err != nil {
		t.Fatal(err)
	}
	out, _, code := torpor(t, nil, "verify", folder)
	if code != 0 || !strings.Contains(out, "no state") {
		t.Errorf("exit code %d: %s", code, out)
	}
	entries, err := os.ReadDir(folder)
	if err != nil {
		t.Fatal(err)
	}
	if !slices.ContainsFunc(entries, func(e os.DirEntry) bool { return e.Name() == "state" }) || len(entries) > 2 {
		t.Errorf("verify made %v", entries)
	}
}

func TestInspectDeltas(t *testing.T) {
	_, state := folderWithState(t)
	out, _, code := torpor(t, nil, "inspect", "--records", state)
	for _, want := range []string{"generation   3", "deltas       2 (2 changes in", "since generation 1", "CHANGES", "object/bucket/three", "records      5 ("} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("exit code %d, %q is not in\n%s", code, want, out)
		}
	}
	out, _, _ = torpor(t, nil, "inspect", "--json", state)
	var head struct {
		Changes uint64
		Saves   []struct {
			Generation uint64
			End        int64
			Delta      bool
		}
	}
	if err := json.Unmarshal([]byte(out), &head); err != nil {
		t.Fatal(err)
	}
	if head.Changes != 2 || len(head.Saves) != 3 || head.Saves[2].Generation != 3 || head.Saves[0].Delta || head.Saves[2].End != int64(len(content(t, state))) {
		t.Errorf("JSON says %+v", head)
	}
}
