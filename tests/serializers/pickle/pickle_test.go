package pickle_test

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/sdktest"
)

// module is the serializer in a host of its own.
type module struct {
	*host.Module
	costs *sdktest.Costs
	call  abi.Call
}

// compile compiles it with the limits given, for calls with the settings given.
func compile(t testing.TB, limits host.Limits, settings map[string]any) *module {
	t.Helper()
	m := &module{call: abi.Call{Service: "ec2", Part: "backend", Schema: 1, Time: 1_800_000_000_000_000_000, Settings: settings}}
	m.Module, m.costs = sdktest.Compile(t, "pickle", modules.Pickle(), host.Config{Limits: limits, Logger: slog.New(slog.DiscardHandler)})
	return m
}

// with is the same module, called with other settings.
func (m *module) with(settings map[string]any) *module {
	other := *m
	other.call.Settings = settings
	return &other
}

func (m *module) save(native []byte) ([]byte, error) {
	var out sdktest.Records
	err := m.Save(context.Background(), m.call, bytes.NewReader(native), &out)
	return out.Bytes(), err
}

func (m *module) load(records []byte) ([]byte, error) {
	var out bytes.Buffer
	err := m.Load(context.Background(), m.call, record.NewReader(bytes.NewReader(records), 0), &out)
	return out.Bytes(), err
}

func (m *module) inspect(records []byte) ([]byte, error) {
	var out bytes.Buffer
	err := m.Inspect(context.Background(), m.call, record.NewReader(bytes.NewReader(records), 0), &out)
	return out.Bytes(), err
}

// roundTrip saves a pickle, loads its records, and saves what that gave, which must be the same records.
// It gives the records and the pickle that was loaded. An error of the first save is as it came; any
// other says what it is of.
func (m *module) roundTrip(native []byte) (records, again []byte, err error) {
	if records, err = m.save(native); err != nil {
		return nil, nil, err
	}
	if again, err = m.load(records); err != nil {
		return records, nil, fmt.Errorf("load of what save gave: %w", noRefusal{err})
	}
	twice, err := m.save(again)
	if err != nil {
		return records, again, fmt.Errorf("save of what load gave: %w", noRefusal{err})
	}
	if !bytes.Equal(twice, records) {
		return records, again, fmt.Errorf("what was loaded is saved as other records: %d bytes were %d, the first that differs is %d", len(twice), len(records), differ(twice, records))
	}
	return records, again, nil
}

// noRefusal hides that an error is a serializer's refusal, where it may not refuse.
type noRefusal struct{ err error }

func (e noRefusal) Error() string { return e.err.Error() }

// differ is where two byte strings begin to differ.
func differ(a, b []byte) int {
	n := 0
	for n < len(a) && n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}

// unclear says what is wrong with an error of a save of size bytes, if it is not a refusal that helps.
func unclear(err error, size int) string {
	var refused *host.GuestError
	switch {
	case !errors.As(err, &refused):
		return "no refusal"
	case refused.Code < abi.CodeCorrupt || refused.Code > abi.CodeTooLarge:
		return fmt.Sprintf("code %d", refused.Code)
	case refused.Failure.Msg == "":
		return "without words"
	case refused.Failure.Offset > uint64(size):
		return fmt.Sprintf("offset %d of %d bytes", refused.Failure.Offset, size)
	}
	return ""
}

// python runs a program of this folder, or code if name is "-c", and gives what it says. The program's own
// failure is an error.
func python(t testing.TB, name string, args ...string) (string, error) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), need.Program(t, "python3"), append([]string{name}, args...)...)
	cmd.Env = append(os.Environ(), "PYTHONDONTWRITEBYTECODE=1", "PYTHONHASHSEED=0", "PYTHONWARNINGS=ignore")
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// mustPython is python where the program must not fail.
func mustPython(t testing.TB, name string, args ...string) string {
	t.Helper()
	out, err := python(t, name, args...)
	if err != nil {
		t.Fatalf("%s %q: %v\n%s", name, args, err, out)
	}
	return out
}

// entry is one of an archive, as archive.py writes them.
type entry struct {
	name string
	meta meta
	data []byte
}

// meta is what is to be known of an entry; archive.py's callers say what of it they give.
type meta struct {
	Want    string `json:"want,omitempty"`
	Shows   string `json:"shows,omitempty"`
	Compare bool   `json:"compare,omitempty"`
	Error   string `json:"error,omitempty"`
}

// entries reads an archive, one entry at a time.
func entries(t testing.TB, path string, each func(entry)) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r := bufio.NewReaderSize(f, 1<<20)
	part := func() ([]byte, error) {
		var head [8]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return nil, err
		}
		p := make([]byte, binary.BigEndian.Uint64(head[:]))
		_, err := io.ReadFull(r, p)
		return p, err
	}
	for {
		name, err := part()
		if errors.Is(err, io.EOF) {
			return
		}
		known, err2 := part()
		data, err3 := part()
		e := entry{name: string(name), data: data}
		if err := errors.Join(err, err2, err3, json.Unmarshal(known, &e.meta)); err != nil {
			t.Fatalf("%s: %v", path, err)
		}
		each(e)
	}
}

// archive is one that is being written, for Python to read.
type archive struct {
	path string
	f    *os.File
	w    *bufio.Writer
}

func newArchive(t testing.TB, path string) *archive {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	return &archive{path, f, bufio.NewWriterSize(f, 1<<20)}
}

// add writes an entry; close tells its errors.
func (a *archive) add(t testing.TB, e entry) {
	t.Helper()
	known, err := json.Marshal(e.meta)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range [][]byte{[]byte(e.name), known, e.data} {
		_, _ = a.w.Write(binary.BigEndian.AppendUint64(nil, uint64(len(p))))
		_, _ = a.w.Write(p)
	}
}

func (a *archive) close(t testing.TB) {
	t.Helper()
	if err := errors.Join(a.w.Flush(), a.f.Close()); err != nil {
		t.Fatal(err)
	}
}

// complaints reports the first few of many failures in words and counts the rest.
type complaints struct {
	t testing.TB
	n int
}

func (c *complaints) add(format string, args ...any) {
	c.t.Helper()
	if c.n++; c.n <= 10 {
		c.t.Errorf(format, args...)
	}
}

func (c *complaints) done() {
	c.t.Helper()
	if c.n > 10 {
		c.t.Errorf("%d failures in all", c.n)
	}
}

// shown is bytes as a person can read them, or read them in again.
func shown(b []byte) string {
	if len(b) <= 200 {
		return fmt.Sprintf("%x", b)
	}
	return fmt.Sprintf("%x... (%d bytes)", b[:200], len(b))
}

// fixtureFiles are the real pickles: those beside the module, and those of Moto where the folder of fixtures
// is there.
func fixtureFiles(t testing.TB) []string {
	t.Helper()
	files := files(t, "../../../modules/pickle/fixtures")
	if len(files) == 0 {
		t.Fatal("no fixtures beside the module")
	}
	moto := motoFiles(t)
	if len(moto) == 0 {
		t.Log("the fixtures of Moto are not here (TORPOR_FIXTURES, or shared/fixtures beside the checkout): only those beside the module are tested")
	}
	return append(files, moto...)
}

// motoFiles are pickles of Moto, none where they are not here.
func motoFiles(t testing.TB) []string {
	t.Helper()
	dir := os.Getenv("TORPOR_FIXTURES")
	if dir == "" {
		dir = "../../../../shared/fixtures"
	}
	return files(t, filepath.Join(dir, "moto"))
}

// files are the pickles in a folder, none if it is not there.
func files(t testing.TB, dir string) []string {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	var found []string
	for _, e := range list {
		if e.Type().IsRegular() && (strings.HasSuffix(e.Name(), ".pickle") || strings.HasSuffix(e.Name(), ".dill")) {
			found = append(found, filepath.Join(dir, e.Name()))
		}
	}
	return found
}

func read(t testing.TB, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}
