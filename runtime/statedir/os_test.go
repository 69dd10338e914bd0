package statedir_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// childEnv makes the test binary run a child instead of tests; see startChild.
const childEnv = "TORPOR_STATEDIR_TEST_CHILD"

func TestMain(m *testing.M) {
	if mode := os.Getenv(childEnv); mode != "" {
		if err := child(mode); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// child is another process on a data folder: it opens it and says "ready"; then it holds it until
// killed, or saves or changes without end and says each generation that was acknowledged.
func child(mode string) error {
	kind, root, _ := strings.Cut(mode, ":")
	fsys, err := vfs.OS(root)
	if err != nil {
		return err
	}
	d, err := statedir.Open(fsys, statedir.Options{Compaction: statedir.Compaction{Deltas: 20}})
	if err != nil {
		return err
	}
	fmt.Println("ready")
	for i := 0; kind == "save"; i++ {
		g, err := save(d, service, store, fmt.Sprint("of generation ", i))
		if err != nil {
			return err
		}
		fmt.Println(g)
	}
	for i := 0; kind == "change"; i++ { // in deltas, with a full save now and then
		content, base, _, err := load(d, service, store)
		if errors.Is(err, abi.ErrNotFound) {
			content, err = "text", nil
		}
		if err != nil {
			return err
		}
		g, err := saveDelta(d, base, content, fmt.Sprint("k", i%3), fmt.Sprint(i))
		if errors.Is(err, errFull) || errors.Is(err, statedir.ErrDeltaTooLarge) {
			g, err = save(d, service, store, changed(content, fmt.Sprint("k", i%3), fmt.Sprint(i)))
		}
		if err != nil {
			return err
		}
		fmt.Println(g)
	}
	_, err = io.Copy(io.Discard, os.Stdin) // for ever
	return err
}

// startChild returns what the child says, after "ready", and a function that kills it and returns the
// last it said since, "" for nothing.
func startChild(t *testing.T, kind, root string) (says *bufio.Scanner, pid int, kill func() string) {
	t.Helper()
	exe, err := os.Executable()
	check(t, err)
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), childEnv+"="+kind+":"+root)
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	check(t, err)
	stdout, err := cmd.StdoutPipe()
	check(t, err)
	check(t, cmd.Start())
	dead := false
	kill = func() (last string) {
		if dead {
			return ""
		}
		dead = true
		check(t, cmd.Process.Kill())
		for says.Scan() {
			last = says.Text()
		}
		var exit *exec.ExitError
		if err := cmd.Wait(); !errors.As(err, &exit) || exit.Exited() {
			t.Errorf("the child was to be killed and ended with %v", err)
		}
		stdin.Close()
		return last
	}
	t.Cleanup(func() { kill() })
	says = bufio.NewScanner(stdout)
	if !says.Scan() || says.Text() != "ready" {
		t.Fatalf("the child said %q, %v", says.Text(), says.Err())
	}
	return says, cmd.Process.Pid, kill
}

func osFS(t testing.TB, root string) *vfs.OSFS {
	t.Helper()
	fsys, err := vfs.OS(root)
	check(t, err)
	t.Cleanup(func() { check(t, fsys.Close()) })
	return fsys
}

// wantLocked fails unless the folder is said to be held by a process since a time; nil: any.
func wantLocked(t *testing.T, fsys vfs.FS, pid int, since func() time.Time) {
	t.Helper()
	_, err := statedir.Open(fsys, statedir.Options{})
	le := (*statedir.LockedError)(nil)
	if !errors.As(err, &le) || !errors.Is(err, abi.ErrLocked) {
		t.Fatalf("opening a folder that is in use: %v, want a LockedError", err)
	}
	host, _ := os.Hostname()
	if le.Holder.PID != pid || le.Holder.Host != host || le.Holder.Since.IsZero() ||
		since != nil && !le.Holder.Since.Equal(since()) {
		t.Errorf("the holder is said to be %+v; it is process %d on %q", le.Holder, pid, host)
	}
	for _, word := range []string{fmt.Sprint("process ", pid), host, vfs.Path(fsys, "LOCK"), "stop it"} {
		if !strings.Contains(err.Error(), word) {
			t.Errorf("the error does not say %q: %v", word, err)
		}
	}
}

func TestLockInOneProcess(t *testing.T) {
	for name, fsys := range map[string]vfs.FS{"OS": osFS(t, t.TempDir()), "Mem": vfs.NewMem()} {
		t.Run(name, func(t *testing.T) {
			began := at("2026-11-22T17:42:03Z")
			d := open(t, fsys, statedir.Options{Now: began})
			wantLocked(t, fsys, os.Getpid(), began)
			mustSave(t, d, "one")
			wantLocked(t, fsys, os.Getpid(), began)
			check(t, d.Close())
			d = open(t, fsys, statedir.Options{})
			wantNewest(t, d, "one", 1)
			check(t, d.Close())
		})
	}
}

func TestLockOfAnotherProcess(t *testing.T) {
	root := t.TempDir()
	_, pid, kill := startChild(t, "hold", root)
	fsys := osFS(t, root)
	wantLocked(t, fsys, pid, nil)
	kill()
	// The lock file is still there and names a process that is dead.
	if content, err := os.ReadFile(filepath.Join(root, "LOCK")); err != nil || !strings.Contains(string(content), fmt.Sprint(pid)) {
		t.Errorf("LOCK holds %q, %v", content, err)
	}
	check(t, open(t, fsys, statedir.Options{}).Close())
}

func TestKilledWhileSaving(t *testing.T)   { killed(t, "save") }
func TestKilledWhileChanging(t *testing.T) { killed(t, "change") }

func killed(t *testing.T, kind string) {
	root := t.TempDir()
	fsys := osFS(t, root)
	var acked uint64
	for round := range 6 {
		says, _, kill := startChild(t, kind, root)
		for range 1 + 7*round {
			if !says.Scan() {
				t.Fatalf("round %d: the child stopped: %v", round, says.Err())
			}
			acked = number(t, says.Text())
		}
		if last := kill(); last != "" {
			acked = number(t, last)
		}
		d := open(t, fsys, statedir.Options{})
		_, g, set, err := load(d, service, store)
		if err != nil || len(set) > 0 {
			t.Fatalf("round %d: %v, %+v", round, err, set)
		}
		if g != acked && g != acked+1 { // it may have been killed between the commit and saying so
			t.Fatalf("round %d: generation %d was acknowledged, %d was found", round, acked, g)
		}
		for _, name := range names(t, fsys, folder) {
			if strings.Contains(name, ".tmp-") {
				t.Errorf("round %d: %s was left behind", round, name)
			}
		}
		gens, err := d.Generations(service, store)
		check(t, err)
		if kind == "change" && round > 0 && len(gens) < 3 {
			t.Errorf("round %d: no deltas were made: %+v", round, gens)
		}
		for _, gen := range gens {
			if gen.Err != nil {
				t.Errorf("round %d: generation %d: %v", round, gen.Number, gen.Err)
			}
		}
		check(t, d.Close())
	}
}

func TestDeltasOnDisk(t *testing.T) {
	root := t.TempDir()
	fsys := osFS(t, root)
	d := open(t, fsys, statedir.Options{})
	mustSave(t, d, "one")
	content, _ := mustSaveDelta(t, d, "a", "1")
	whole := readFile(t, fsys, current)
	mustSaveDelta(t, d, "b", "lost")
	longer := readFile(t, fsys, current)
	check(t, d.Close())

	// Torn.
	check(t, os.Truncate(fsys.Path(current), int64(len(longer)-40)))
	d = open(t, fsys, statedir.Options{})
	if _, _, set, err := load(d, service, store); err != nil || len(set) > 0 {
		t.Errorf("a torn end: %+v, %v", set, err)
	}
	wantNewest(t, d, content, 2)
	if got := readFile(t, fsys, current); string(got) != string(whole) {
		t.Error("the torn end is still there")
	}
	mustSaveDelta(t, d, "c", "3")
	check(t, d.Close())

	// Damaged.
	b := slices.Clone(longer)
	b[strings.Index(string(b), "=lost;")+1] ^= 1
	check(t, os.WriteFile(fsys.Path(current), b, 0o600))
	d = open(t, fsys, statedir.Options{Now: at("2026-11-22T17:42:03Z")})
	content, g, set, err := load(d, service, store)
	if err != nil || content != "one+a=1#a=1" || g != 2 || len(set) != 1 || set[0].MoveErr != nil {
		t.Errorf("a damaged end: %q of generation %d, %+v, %v", content, g, set, err)
	}
	wantNames(t, fsys, folder, "store.state", asideTail(3))
	if got := readFile(t, fsys, folder+"/"+asideTail(3)); string(got) != string(b[len(whole):]) {
		t.Error("the damaged end is not what was cut off")
	}
	check(t, d.Close())
}

// Cutting a damaged end off is refused by the system itself.
func TestDamagedEndInFolderWithoutPermission(t *testing.T) {
	root := t.TempDir()
	fsys := osFS(t, root)
	d := open(t, fsys, statedir.Options{})
	mustSave(t, d, "one")
	content, _ := mustSaveDelta(t, d, "a", "1")
	mustSaveDelta(t, d, "b", "lost")
	check(t, d.Close())
	b := readFile(t, fsys, current)
	b[strings.Index(string(b), "=lost;")+1] ^= 1
	check(t, os.WriteFile(fsys.Path(current), b, 0o600))
	d = open(t, fsys, statedir.Options{})
	defer d.Close()
	parts := fsys.Path(folder)
	check(t, os.Chmod(parts, 0o500))
	t.Cleanup(func() { check(t, os.Chmod(parts, 0o700)) })
	asOrdinaryUser(t, root, func() {
		got, g, set, err := load(d, service, store)
		if err != nil || got != content || g != 2 || len(set) != 1 || !errors.Is(set[0].MoveErr, fs.ErrPermission) {
			t.Errorf("loaded %q of generation %d, %+v, %v", got, g, set, err)
		}
	})
	if string(readFile(t, fsys, current)) != string(b) {
		t.Error("the file was changed")
	}
}

func number(t *testing.T, s string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(s, 10, 64)
	check(t, err)
	return n
}

func TestFilesOnDisk(t *testing.T) {
	root := filepath.Join(t.TempDir(), "data")
	d := open(t, osFS(t, root), statedir.Options{})
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	check(t, d.KeepModule([32]byte{0xe3, 0xb0, 0xc4, 0x42, 0x98, 0xfc, 0x1c, 0x14, 0x9a, 0xfb, 0xf4, 0xc8, 0x99, 0x6f, 0xb9, 0x24,
		0x27, 0xae, 0x41, 0xe4, 0x64, 0x9b, 0x93, 0x4c, 0xa4, 0x95, 0x99, 0x1b, 0x78, 0x52, 0xb8, 0x55}, nil))
	check(t, d.Close())
	want := map[string]fs.FileMode{
		".": 0o700, "LOCK": 0o600, "state": 0o700, "state/api_states": 0o700, "state/api_states/s3": 0o700,
		"state/api_states/s3/store.state": 0o600, "state/api_states/s3/store.state.g000000000001": 0o600, "modules": 0o700,
		"modules/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855.wasm": 0o600,
	}
	check(t, filepath.WalkDir(root, func(name string, e fs.DirEntry, err error) error {
		check(t, err)
		rel, err := filepath.Rel(root, name)
		check(t, err)
		info, err := e.Info()
		check(t, err)
		if perm, ok := want[rel]; !ok || info.Mode().Perm() != perm {
			t.Errorf("%s has permissions %o, want %o", rel, info.Mode().Perm(), perm)
		}
		delete(want, rel)
		return nil
	}))
	for name := range want {
		t.Errorf("%s is missing", name)
	}
}

func wantUnwritable(t *testing.T, fsys vfs.FS, cause error) {
	t.Helper()
	_, err := statedir.Open(fsys, statedir.Options{})
	if !errors.Is(err, cause) || errors.Is(err, abi.ErrLocked) {
		t.Fatalf("opening a folder that can not be written: %v, want %v", err, cause)
	}
	for _, words := range []string{"can not be written", vfs.Path(fsys, "."), "another data folder"} {
		if !strings.Contains(err.Error(), words) {
			t.Errorf("the error does not say %q: %v", words, err)
		}
	}
}

func TestReadOnlyFileSystem(t *testing.T) {
	for _, op := range []vfs.Op{vfs.OpLock, vfs.OpMkdir} {
		w := vfs.Faulty(vfs.NewMem(), vfs.Fault{At: 1, Sticky: true, Err: syscall.EROFS, Match: only(op)})
		wantUnwritable(t, w, syscall.EROFS)
		w.Inject(vfs.Fault{})
		check(t, open(t, w, statedir.Options{}).Close()) // the lock was not kept
	}
}

func TestFolderWithoutPermission(t *testing.T) {
	root := t.TempDir()
	fsys := osFS(t, root)
	check(t, os.Chmod(root, 0o500))
	t.Cleanup(func() { check(t, os.Chmod(root, 0o700)) })
	asOrdinaryUser(t, root, func() { wantUnwritable(t, fsys, fs.ErrPermission) })
	wantNames(t, fsys, ".")
}

// Moving a damaged generation aside is refused by the system itself.
func TestFallbackInFolderWithoutPermission(t *testing.T) {
	root := t.TempDir()
	fsys := osFS(t, root)
	d := open(t, fsys, statedir.Options{})
	defer d.Close()
	mustSave(t, d, "one")
	mustSave(t, d, "two")
	damage(t, fsys, current, true)
	parts := fsys.Path(folder)
	check(t, os.Chmod(parts, 0o500))
	t.Cleanup(func() { check(t, os.Chmod(parts, 0o700)) })
	asOrdinaryUser(t, root, func() {
		content, g, set, err := load(d, service, store)
		if err != nil || content != "one" || g != 1 || len(set) != 1 || !errors.Is(set[0].MoveErr, fs.ErrPermission) {
			t.Errorf("loaded %q of generation %d, %+v, %v", content, g, set, err)
		}
	})
}
