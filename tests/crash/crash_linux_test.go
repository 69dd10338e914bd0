package crash

import (
	"bufio"
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/tests/need"
)

// childFolder tells this binary that it is the process to be killed, and where its state lies; childSteps
// how far it is to go.
const (
	childFolder = "TORPOR_TEST_CRASH_FOLDER"
	childSteps  = "TORPOR_TEST_CRASH_STEPS"
)

const (
	service = "svc"
	part    = "store"
	steps   = 14
	stepKey = "step" // its record says which step a state is of
)

func TestMain(m *testing.M) {
	folder := os.Getenv(childFolder)
	if folder == "" {
		os.Exit(m.Run())
	}
	// One thread makes all system calls that matter: strace counts them by thread.
	goruntime.LockOSThread()
	last, err := strconv.Atoi(os.Getenv(childSteps))
	if err == nil {
		err = child(folder, last, os.Stdout)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// state is what the process has to save after a step.
func state(step int) map[string]string {
	s := map[string]string{}
	for i := 1; i <= step; i++ {
		switch {
		case i == 11: // a reset
			clear(s)
		case i%3 == 0:
			delete(s, fmt.Sprintf("key-%d", i-2))
		default:
			s[fmt.Sprintf("key-%d", i)] = strings.Repeat(strconv.Itoa(i), 300*i)
		}
		s[stepKey] = strconv.Itoa(i)
	}
	return s
}

// module is the serializer that writes a step: another one from the ninth on.
func module(step int) []byte {
	if step < 9 {
		return []byte("\x00asm the first")
	}
	return []byte("\x00asm the second")
}

func open(folder string) (*statedir.Dir, func() error, error) {
	fsys, err := vfs.OS(folder)
	if err != nil {
		return nil, nil, err
	}
	d, err := statedir.Open(fsys, statedir.Options{Compaction: statedir.Compaction{Deltas: 3}})
	if err != nil {
		return nil, nil, errors.Join(err, fsys.Close())
	}
	return d, func() error { return errors.Join(d.Close(), fsys.Close()) }, nil
}

// child goes on from what is saved to the last step, saving each, and tells so.
func child(folder string, last int, told io.Writer) error {
	d, end, err := open(folder)
	if err != nil {
		return err
	}
	now, base, err := load(d)
	if err != nil {
		return err
	}
	at, _ := strconv.Atoi(now[stepKey])
	for step := at + 1; step <= last; step++ {
		next := state(step)
		if step == 11 {
			base = 0 // a reset is saved in full
		}
		if base, err = save(d, step, base, now, next); err != nil {
			return fmt.Errorf("step %d: %w", step, err)
		}
		if _, err := fmt.Fprintf(told, "saved %d\n", step); err != nil {
			return err
		}
		now = next
	}
	return end()
}

// load reads the newest sound state, setting aside what is damaged.
func load(d *statedir.Dir) (map[string]string, uint64, error) {
	for {
		o, err := d.OpenNewest(service, part)
		if errors.Is(err, abi.ErrNotFound) || errors.Is(err, abi.ErrCorrupt) {
			return map[string]string{}, 0, nil
		}
		if err != nil {
			return nil, 0, err
		}
		s, err := read(o.File().Records())
		generation := o.Generation
		if err != nil && errors.Is(err, abi.ErrCorrupt) {
			d.Quarantine(o, err)
			if err := o.Close(); err != nil {
				return nil, 0, err
			}
			continue
		}
		return s, generation, errors.Join(err, o.Close())
	}
}

func read(r record.Source) (map[string]string, error) {
	s := map[string]string{}
	for {
		b, err := r.ReadBatch()
		if errors.Is(err, io.EOF) {
			return s, nil
		}
		if err != nil {
			return nil, err
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			s[string(key)] = string(record.NewPull(b.Value(i)).Text())
		}
	}
}

// save commits next, as a delta on the generation base, which holds now, where that can be.
func save(d *statedir.Dir, step int, base uint64, now, next map[string]string) (generation uint64, err error) {
	wasm := module(step)
	by := statefile.Serializer{Name: "fake", Version: "1", Digest: sha256.Sum256(wasm), Schema: 1}
	if err := d.KeepModule(by.Digest, wasm); err != nil {
		return 0, err
	}
	var p *statedir.Pending
	var w *statefile.Writer
	var upserts, tombstones []string
	delta := false
	if base != 0 {
		if p, delta, err = d.BeginDelta(service, part, base, by); err != nil {
			return 0, err
		}
	}
	if delta {
		for _, k := range slices.Sorted(maps.Keys(next)) {
			if v, ok := now[k]; !ok || v != next[k] {
				upserts = append(upserts, k)
			}
		}
		for _, k := range slices.Sorted(maps.Keys(now)) {
			if _, ok := next[k]; !ok {
				tombstones = append(tombstones, k)
			}
		}
		w, err = statefile.NewDeltaWriter(p, p.Tail(), p.Generation(), time.Unix(int64(step), 0))
	} else {
		if p, err = d.Begin(service, part); err != nil {
			return 0, err
		}
		upserts = slices.Sorted(maps.Keys(next))
		w, err = statefile.NewWriter(p, statefile.Header{Service: service, Part: part, Generation: p.Generation(),
			Created: time.Unix(int64(step), 0), Serializer: by})
	}
	defer p.Abort()
	if err != nil {
		return 0, err
	}
	if delta {
		w.Grow(int64(len(next) - len(now)))
	}
	var data []byte
	for _, k := range upserts {
		data = record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(data), ""), k), next[k])
	}
	for _, k := range tombstones {
		data = record.AppendText(record.AppendText(record.AppendTombstone(data), ""), k)
	}
	scan := record.Scanner{Tombstones: true}
	refs, err := scan.Scan(data, nil)
	if err == nil {
		err = w.WriteBatch(&record.Batch{Data: data, Refs: refs})
	}
	if err == nil {
		_, err = w.Close()
	}
	if err != nil {
		return 0, err
	}
	return p.Generation(), p.Commit()
}

// bench is where processes are killed and what they leave is looked at.
type bench struct {
	strace string
	// forking keeps folders from being opened here while a process begins: between fork and exec it has
	// the locks of this one.
	forking sync.RWMutex
}

// run runs the child to a step, killed as inject says ("" for not at all), and returns the last step it
// was told is saved.
func (b *bench) run(t *testing.T, folder, inject string, last int) (saved int, killed bool) {
	t.Helper()
	args := []string{os.Args[0]}
	if inject != "" {
		args = append([]string{b.strace, "-f", "-qq", "-o", filepath.Join(t.TempDir(), "trace"),
			"-e", "trace=" + inject[:strings.Index(inject, ":")], "-e", "inject=" + inject}, args...)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, args[0], args[1:]...)
	cmd.Env = append(os.Environ(), childFolder+"="+folder, childSteps+"="+strconv.Itoa(last))
	var out, complaint bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &complaint
	b.forking.RLock()
	err := cmd.Start()
	b.forking.RUnlock()
	if err == nil {
		err = cmd.Wait()
	}
	for lines := bufio.NewScanner(&out); lines.Scan(); {
		if _, err := fmt.Sscanf(lines.Text(), "saved %d", &saved); err != nil {
			t.Fatalf("the process said %q", lines.Text())
		}
	}
	if err == nil {
		return saved, false
	}
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		t.Fatal(err)
	}
	status, _ := exit.Sys().(syscall.WaitStatus)
	if inject == "" || !status.Signaled() || status.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: %v: %s", inject, err, complaint.Bytes())
	}
	return saved, true
}

// wantSound checks that nothing that is kept is damaged.
func (b *bench) wantSound(t *testing.T, what, folder string) {
	t.Helper()
	b.forking.Lock()
	defer b.forking.Unlock()
	fsys, err := vfs.OS(folder)
	if err != nil {
		t.Fatal(err)
	}
	defer fsys.Close()
	err = statedir.Verify(t.Context(), fsys, statedir.VerifyOptions{}, func(f statedir.Finding) {
		if f.Err != nil {
			t.Errorf("%s: %s: %v", what, f.Path, f.Err)
		}
	})
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
}

// wantState opens the folder as the next process would and checks that it has what was saved, or what
// was being saved.
func (b *bench) wantState(t *testing.T, what, folder string, saved int) (step int) {
	t.Helper()
	b.forking.Lock()
	defer b.forking.Unlock()
	d, end, err := open(folder)
	if err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	got, _, err := load(d)
	if err := errors.Join(err, end()); err != nil {
		t.Fatalf("%s: %v", what, err)
	}
	step, _ = strconv.Atoi(got[stepKey])
	if step != saved && step != saved+1 {
		t.Fatalf("%s: the state is of step %d; %d was acknowledged", what, step, saved)
	}
	if !maps.Equal(got, state(step)) {
		t.Fatalf("%s: the state is not that of step %d, which it says it is", what, step)
	}
	return step
}

// calls are the system calls that change what is on disk, or say that it is.
var calls = []string{"fsync", "renameat", "write", "unlinkat", "ftruncate", "mkdirat"}

// script is a folder to begin with, and how far to go on.
type script struct {
	name    string
	prepare func(t *testing.T, folder string) (saved int) // the last step it holds
	last    int
	kills   map[string]int // how often, at least, the process makes each call
}

func scripts() []script {
	newest := func(folder string) string {
		return filepath.Join(folder, "state", "api_states", service, part+".state")
	}
	return []script{
		{name: "from nothing", last: steps, kills: map[string]int{"fsync": 20, "renameat": 8, "write": 30, "unlinkat": 2},
			prepare: func(*testing.T, string) int { return 0 }},
		{name: "a temporary file and a torn end", last: 8, kills: map[string]int{"fsync": 3, "write": 4, "unlinkat": 1, "ftruncate": 1},
			prepare: func(t *testing.T, folder string) int {
				saved := partly(t, folder, 6)
				appendTo(t, newest(folder), "half a delta")
				if err := os.WriteFile(newest(folder)+".tmp-7", []byte("half a file"), 0o600); err != nil {
					t.Fatal(err)
				}
				return saved
			}},
		{name: "the last delta damaged", last: 8, kills: map[string]int{"fsync": 4, "renameat": 1, "write": 5, "ftruncate": 1},
			prepare: func(t *testing.T, folder string) int {
				saved := partly(t, folder, 6)
				damage(t, newest(folder), -1)
				return saved - 1
			}},
		{name: "the full save damaged", last: 8, kills: map[string]int{"fsync": 4, "renameat": 1, "write": 5},
			prepare: func(t *testing.T, folder string) int {
				partly(t, folder, 6)
				damage(t, newest(folder), 0)
				return 4 // the last one in the file before
			}},
	}
}

// partly saves the first steps.
func partly(t *testing.T, folder string, last int) int {
	t.Helper()
	if err := child(folder, last, io.Discard); err != nil {
		t.Fatal(err)
	}
	return last
}

func appendTo(t *testing.T, name, what string) {
	t.Helper()
	f, err := os.OpenFile(name, os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteString(what); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}

// damage changes a byte in the first chunk of a save: the first one, or the last for -1.
func damage(t *testing.T, name string, which int) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	f, err := statefile.Open(bytes.NewReader(b), int64(len(b)), name)
	if err != nil {
		t.Fatal(err)
	}
	at := bytes.Index(b, []byte("key-")) // in the first chunk: the header has none
	if saves := f.Saves(); which < 0 {
		if len(saves) < 2 {
			t.Fatal("the file has no delta")
		}
		at = int(saves[len(saves)-2].End) + 8
	}
	b[at] ^= 0xff
	if err := os.WriteFile(name, b, 0o600); err != nil {
		t.Fatal(err)
	}
}

// TestKilledAtEverySystemCall: whenever the process dies, what it was told is saved is there, or what it
// was saving; the next one goes on from it; and everything on disk is sound.
func TestKilledAtEverySystemCall(t *testing.T) {
	if testing.Short() {
		t.Skip("kills a process some hundred times")
	}
	b := &bench{strace: need.Program(t, "strace")}
	for _, s := range scripts() {
		base := t.TempDir()
		before := s.prepare(t, base)
		for _, call := range calls {
			t.Run(s.name+"/"+call, func(t *testing.T) {
				t.Parallel()
				kills := 0
				for n := 1; ; n++ {
					folder := filepath.Join(t.TempDir(), "data")
					if err := os.CopyFS(folder, os.DirFS(base)); err != nil {
						t.Fatal(err)
					}
					what := fmt.Sprintf("killed at %s number %d", call, n)
					saved, killed := b.run(t, folder, fmt.Sprintf("%s:signal=KILL:when=%d", call, n), s.last)
					if !killed {
						break
					}
					kills++
					step := b.wantState(t, what, folder, max(saved, before))
					b.wantSound(t, what, folder)
					if last, _ := b.run(t, folder, "", s.last); last != s.last && step != s.last {
						t.Fatalf("%s: the next process came from step %d to step %d", what, step, last)
					}
					b.wantState(t, what+", gone on", folder, s.last)
					b.wantSound(t, what+", gone on", folder)
				}
				if kills < s.kills[call] {
					t.Errorf("%d kills, want at least %d: does the process do what it is to be killed at?", kills, s.kills[call])
				}
				t.Logf("%d kills", kills)
			})
		}
	}
}
