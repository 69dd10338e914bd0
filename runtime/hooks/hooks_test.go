//go:build unix

package hooks_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	osexec "os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/hooks"
	"github.com/torpor-run/torpor/runtime/supervisor"
	"github.com/torpor-run/torpor/tests/need"
)

// The test binary, begun again, is the guard, or a runtime to be killed. They end by syscall.Exit, as the race
// detector has os.Exit wait for a second.
func TestMain(m *testing.M) {
	if code, ok := supervisor.Guard(os.Args[1:]); ok {
		syscall.Exit(code)
	}
	if folder := os.Getenv("INIT_FOLDER"); folder != "" {
		h, err := hooks.New(hooks.Config{Folder: folder, Logger: slog.New(slog.DiscardHandler)})
		if err == nil {
			err = h.Run(context.Background(), hooks.Ready)
		}
		fmt.Println(err)
		syscall.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// log keeps what is logged.
type log struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *log) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// fixture is an init folder and the hooks of it; what scripts write to the file out is looked at.
type fixture struct {
	*hooks.Hooks
	folder, out string
	log         *log
}

// file is one of an init folder: "ready.d/a.sh".
type file struct {
	name, text string
	mode       fs.FileMode
}

func newFixture(t testing.TB, c hooks.Config, files ...file) fixture {
	t.Helper()
	f := fixture{folder: t.TempDir(), out: filepath.Join(t.TempDir(), "out"), log: &log{}}
	if c.Folder != "" {
		f.folder = c.Folder
	}
	for _, file := range files {
		f.write(t, file)
	}
	c.Folder, c.Logger = f.folder, slog.New(slog.NewTextHandler(f.log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	c.Env = append(c.Env, "OUT="+f.out, "PATH="+os.Getenv("PATH"))
	h, err := hooks.New(c)
	if err != nil {
		t.Fatal(err)
	}
	f.Hooks = h
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log:\n%s", f.log)
		}
	})
	return f
}

func (f fixture) write(t testing.TB, file file) {
	t.Helper()
	name := filepath.Join(f.folder, file.name)
	if err := os.MkdirAll(filepath.Dir(name), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, []byte(file.text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(name, file.mode); err != nil {
		t.Fatal(err)
	}
}

// said is what scripts wrote to the file out.
func (f fixture) said(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile(f.out)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.Fatal(err)
	}
	return string(b)
}

// scripts tells of a stage's, "ready.d/a.sh SUCCESSFUL".
func (f fixture) scripts(stage hooks.Stage) []string {
	list := []string{}
	for _, s := range f.State()[stage].Scripts {
		list = append(list, s.Path+" "+string(s.State))
		if s.Name != filepath.Base(s.Path) {
			list = append(list, "called "+s.Name)
		}
	}
	return list
}

func (f fixture) completed() string {
	var list []string
	for _, s := range f.State() {
		if s.Completed {
			list = append(list, s.Stage.String())
		}
	}
	return strings.Join(list, " ")
}

func equal(t testing.TB, what string, got, want []string) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Errorf("%s: %q, want %q", what, got, want)
	}
}

// eventually waits for something that takes milliseconds.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not after a minute", what)
		}
	}
}

// sh is a script that says its name to the file out.
func sh(name string) file { return file{name, "#!/bin/sh\necho " + name + ` >> "$OUT"`, 0o755} }

// TestOrder holds what is found against LocalStack's: the first files and their order are those of its test
// test_scripts_returns_scripts_in_alphanumerical_order, in tests/unit/runtime/test_init.py.
func TestOrder(t *testing.T) {
	var files []file
	for _, name := range strings.Fields(`boot.d/01_boot.sh boot.d/02_boot.py boot.d/03_boot.txt boot.d/04_boot.sh boot.d/notafile/03.txt not-a-stage.d/a.sh
		start.d/01_start.sh start.d/03_start.sh start.d/03_start.txt start.d/02_start.py
		shutdown.d/shutdown.sh shutdown.d/shutdown.py
		ready.d/b/a/1.sh ready.d/b/2.sh ready.d/a/9.py ready.d/z.sh ready.d/B.sh ready.d/é.sh ready.d/10.sh ready.d/9.sh ready.d/.hidden.sh ready.d/..2024/x.sh`) {
		files = append(files, file{name, "", 0o600})
	}
	f := newFixture(t, hooks.Config{}, files...)
	for stage, want := range map[hooks.Stage]string{
		hooks.Boot:     "01_boot.sh 02_boot.py 04_boot.sh",
		hooks.Start:    "01_start.sh 02_start.py 03_start.sh",
		hooks.Ready:    ".hidden.sh 10.sh 9.sh B.sh z.sh é.sh a/9.py b/2.sh b/a/1.sh",
		hooks.Shutdown: "shutdown.py shutdown.sh",
	} {
		var list []string
		for name := range strings.FieldsSeq(want) {
			list = append(list, stage.Folder()+"/"+name+" UNKNOWN")
		}
		equal(t, stage.String(), f.scripts(stage), list)
	}
	if f.completed() != "" {
		t.Errorf("completed: %s", f.completed())
	}
}

// TestRun is LocalStack's test_run_stage_executes_scripts_correctly, and what it leaves open.
func TestRun(t *testing.T) {
	need.Program(t, "python3")
	f := newFixture(t, hooks.Config{},
		sh("ready.d/script_01.sh"),
		file{"ready.d/script_02_fails.sh", "#!/bin/sh\necho much >&2; echo no such bucket >&2; exit 3", 0o755},
		file{"ready.d/script_03.py", "import os\nopen(os.environ['OUT'], 'a').write('hello 3\\n'); print('from python')", 0o600},
		file{"ready.d/script_04.py", "raise ValueError('not today')", 0o600},
		file{"ready.d/script_05.sh", "#!/bin/sh\nkill -9 $$", 0o755},
		sh("ready.d/script_06.sh"))
	err := f.Run(t.Context(), hooks.Ready)
	equal(t, "scripts", f.scripts(hooks.Ready), []string{"ready.d/script_01.sh SUCCESSFUL", "ready.d/script_02_fails.sh ERROR", "ready.d/script_03.py SUCCESSFUL",
		"ready.d/script_04.py ERROR", "ready.d/script_05.sh ERROR", "ready.d/script_06.sh SUCCESSFUL"})
	if said := f.said(t); said != "ready.d/script_01.sh\nhello 3\nready.d/script_06.sh\n" {
		t.Errorf("they said %q", said)
	}
	if f.completed() != "READY" {
		t.Errorf("completed: %s", f.completed())
	}
	for _, part := range []string{"init script ready.d/script_02_fails.sh: it ended with exit code 3", "no such bucket", "script_04.py", "ValueError: not today",
		"script_05.sh: it was ended by SIGKILL"} {
		if !strings.Contains(fmt.Sprint(err), part) {
			t.Errorf("the error is %v, without %q", err, part)
		}
		if !strings.Contains(f.log.String(), part) {
			t.Errorf("the log is without %q", part)
		}
	}
	for _, line := range []string{`level=INFO msg="ready.d/script_03.py: from python" stage=READY script=ready.d/script_03.py`,
		`level=INFO msg="ready.d/script_02_fails.sh: no such bucket" stage=READY script=ready.d/script_02_fails.sh`,
		`level=ERROR msg="init script failed" stage=READY script=ready.d/script_02_fails.sh`,
		`level=INFO msg="init script succeeded" stage=READY script=ready.d/script_01.sh`} {
		if !strings.Contains(f.log.String(), line) {
			t.Errorf("the log is without %s", line)
		}
	}
	if f.Run(t.Context(), hooks.Ready) != nil || strings.Count(f.said(t), "01.sh") != 1 {
		t.Error("it was run again")
	}
}

// TestHow: what runs a file, by its name, its mode and its beginning.
func TestHow(t *testing.T) {
	bash := need.Program(t, "bash")
	const isBash = `[ -n "$BASH_VERSION" ] && echo bash >> "$OUT" || echo sh >> "$OUT"`
	posix := `case "$(readlink /proc/$$/exe)" in *bash) echo bash;; *) echo sh;; esac >> "$OUT"`
	for _, c := range []struct {
		name, text string
		mode       fs.FileMode
		want       string // what it says; "" if it is no script
		fails      string // what the error says
	}{
		{"first line.sh", "#!" + bash + "\n" + isBash, 0o755, "bash\n", ""},
		{"not executable.sh", "#!" + bash + "\n" + isBash, 0o600, "bash\n", ""},
		{"env.sh", "#!/usr/bin/env bash\n" + isBash, 0o600, "bash\n", ""},
		{"argument.sh", "#! \t" + bash + " \t-e \nfalse; " + isBash, 0o600, "", "exit code 1"},
		{"none.sh", `echo sh >> "$OUT"`, 0o755, "sh\n", ""},
		{"none, not executable.sh", `echo sh >> "$OUT"`, 0o600, "sh\n", ""},
		{"empty.sh", "", 0o755, "", " "},
		{"crlf.sh", "#!/bin/sh\r\necho sh >> \"$OUT\"\r\n", 0o755, "", "CR LF"},
		{"no interpreter.sh", "#!/no/such/thing\n", 0o755, "", "interpreter"},
		{"only this line.sh", "#!", 0o755, "", " "},
		{"seed", "#!/bin/sh\necho seed >> $OUT", 0o755, "seed\n", ""},
		{"seed.rb", "#!/bin/sh\necho seed >> $OUT", 0o755, "seed\n", ""},
		{"seed not executable", "#!/bin/sh\necho seed >> $OUT", 0o600, "", ""},
		{"data.json", `{"a": 1}`, 0o777, "", ""},
		{"README.md", "# Seeds", 0o600, "", ""},
		{"nothing", "", 0o777, "", ""},
		{"a b\t\"c'\n$(echo d).sh", `echo here >> "$OUT"`, 0o600, "here\n", ""},
		{"\xff.sh", "#!/bin/sh\necho here >> $OUT", 0o755, "here\n", ""},
		{"{port}{folder}.sh", "#!/bin/sh\necho here >> $OUT", 0o755, "here\n", ""},
		{"-c.sh", `echo here >> "$OUT"`, 0o600, "here\n", ""},
		{".sh", posix, 0o600, "sh\n", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, hooks.Config{}, file{"boot.d/" + c.name, c.text, c.mode})
			err := f.Run(t.Context(), hooks.Boot)
			if c.name == ".sh" && f.said(t) == "bash\n" {
				c.want = "bash\n" // which is sh on some systems
			}
			if f.said(t) != c.want {
				t.Errorf("it said %q, want %q", f.said(t), c.want)
			}
			fails := strings.TrimSpace(c.fails) != ""
			if fails != (err != nil) || fails && !strings.Contains(err.Error(), c.fails) {
				t.Errorf("%v, want %q", err, c.fails)
			}
			state := f.State()[hooks.Boot].Scripts
			if isScript := c.want != "" || c.fails != ""; isScript != (len(state) == 1) {
				t.Errorf("%+v", state)
			}
			if len(state) == 0 && !strings.Contains(f.log.String(), "not an init script") {
				t.Error("it is left out, which the log does not say")
			}
			if len(state) == 1 && state[0].Name != c.name {
				t.Errorf("it is called %q", state[0].Name)
			}
			for line := range strings.Lines(f.log.String()) {
				if !strings.HasPrefix(line, "time=") {
					t.Errorf("a name or a text has broken the line %q", line)
				}
			}
		})
	}
	t.Run("program", func(t *testing.T) {
		f := newFixture(t, hooks.Config{})
		if err := os.MkdirAll(filepath.Join(f.folder, "boot.d"), 0o700); err != nil {
			t.Fatal(err)
		}
		f.copy(t, need.Program(t, "true"), "boot.d/true")
		f.copy(t, need.Program(t, "false"), "boot.d/false")
		if err := f.Run(t.Context(), hooks.Boot); err == nil {
			t.Error("false has succeeded")
		}
		equal(t, "scripts", f.scripts(hooks.Boot), []string{"boot.d/false ERROR", "boot.d/true SUCCESSFUL"})
	})
	t.Run("no python", func(t *testing.T) {
		f := newFixture(t, hooks.Config{}, file{"boot.d/a.py", "", 0o600})
		h, err := hooks.New(hooks.Config{Folder: f.folder, Env: []string{"PATH=/nowhere"}, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		if err := h.Run(t.Context(), hooks.Boot); !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), "python3 is not in the PATH") {
			t.Errorf("%v", err)
		}
	})
}

func (f fixture) copy(t *testing.T, from, to string) {
	t.Helper()
	b, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	f.write(t, file{to, string(b), 0o755})
}

// TestSurroundings: scripts get what they are given and nothing of the runtime's, which may hold keys.
func TestSurroundings(t *testing.T) {
	t.Setenv("TORPOR_API_KEY", "secret")
	dir := t.TempDir()
	f := newFixture(t, hooks.Config{WorkDir: dir, Env: []string{"A=b {port}"}}, file{"boot.d/a.sh", "#!/bin/sh\n/usr/bin/env >> \"$OUT\"; pwd >> \"$OUT\"; cat", 0o755})
	if err := f.Run(t.Context(), hooks.Boot); err != nil {
		t.Fatal(err)
	}
	said := f.said(t)
	if strings.Contains(said, "secret") || !strings.Contains(said, "A=b {port}\n") || !strings.Contains(said, "\n"+dir+"\n") {
		t.Errorf("it said %q", said)
	}
}

// TestStages: each once, in order, one at a time.
func TestStages(t *testing.T) {
	f := newFixture(t, hooks.Config{}, sh("boot.d/a.sh"), sh("start.d/a.sh"), sh("shutdown.d/a.sh"),
		file{"ready.d/a.sh", "#!/bin/sh\necho begun >> \"$OUT\"; until [ -e \"$OUT.go\" ]; do sleep 0.01; done\n" +
			"mkdir -p \"${0%/*}/../shutdown.d\"; echo 'echo put there >> \"$OUT\"' > \"${0%/*}/../shutdown.d/b.sh\"", 0o755})
	run := func(stage hooks.Stage) {
		t.Helper()
		if err := f.Run(t.Context(), stage); err != nil {
			t.Error(err)
		}
	}
	run(hooks.Boot)
	run(hooks.Boot)
	if f.completed() != "BOOT" {
		t.Errorf("completed: %s", f.completed())
	}
	done := make(chan error, 2)
	go func() { done <- f.Run(context.Background(), hooks.Ready) }()
	eventually(t, "ready.d runs", func() bool { return strings.Contains(f.said(t), "begun") })
	equal(t, "ready.d while it runs", f.scripts(hooks.Ready), []string{"ready.d/a.sh RUNNING"})
	gone, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if err := f.Run(gone, hooks.Shutdown); !errors.Is(err, context.DeadlineExceeded) || f.completed() != "BOOT" {
		t.Errorf("shutdown did not wait: %v, completed %s", err, f.completed())
	}
	go func() { done <- f.Run(context.Background(), hooks.Shutdown) }()
	if err := os.WriteFile(f.out+".go", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	if err := f.Run(t.Context(), hooks.Start); err == nil || !strings.Contains(err.Error(), "START comes before SHUTDOWN") {
		t.Errorf("%v", err)
	}
	for _, stage := range []hooks.Stage{-1, 4} {
		if err := f.Run(t.Context(), stage); err == nil {
			t.Errorf("%v was run", stage)
		}
	}
	if f.completed() != "BOOT READY SHUTDOWN" || f.said(t) != "boot.d/a.sh\nbegun\nshutdown.d/a.sh\nput there\n" {
		t.Errorf("completed: %s; said %q", f.completed(), f.said(t))
	}
}

// family begins a child, one in a session of its own and one that would not go, and leaves their numbers.
const family = `#!/bin/sh
trap "" TERM
sleep 1000 & echo $! > "$OUT.group"
setsid sh -c 'echo $$ > "$OUT.session"; exec sleep 1000' &
setsid sh -c 'trap "" TERM; echo $$ > "$OUT.stubborn"; while :; do sleep 1000; done' &
while ! [ -s "$OUT.session" ] || ! [ -s "$OUT.stubborn" ]; do sleep 0.01; done
echo $$ > "$OUT.self"
`

// orphans fails if one of a family is there.
func orphans(t *testing.T, out string) {
	t.Helper()
	for _, who := range []string{"group", "session", "stubborn", "self"} {
		b, err := os.ReadFile(out + "." + who)
		if err != nil {
			t.Error(err)
			continue
		}
		pid, err := strconv.Atoi(strings.TrimSpace(string(b)))
		if err != nil {
			t.Fatal(err)
		}
		gone := false
		for range 500 { // on systems other than Linux, and of a killed runtime, somebody else reaps it
			if gone = !runs(pid); gone {
				break
			}
			time.Sleep(10 * time.Millisecond)
		}
		if !gone {
			t.Errorf("%s, process %d, is left", who, pid)
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
	}
}

// runs reports whether a process is there and no zombie, whose parent may be slow to look.
func runs(pid int) bool {
	if syscall.Kill(pid, 0) != nil {
		return false
	}
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err != nil || !bytes.Contains(b, []byte(") Z "))
}

// TestNothingIsLeft: a script takes along what it began, however it ends.
func TestNothingIsLeft(t *testing.T) {
	need.Program(t, "setsid")
	for _, c := range []struct {
		name, last string
		timeout    time.Duration
		is         error
		states     []string
	}{
		{"by itself", "exit 0", 0, nil, []string{"boot.d/a.sh SUCCESSFUL", "boot.d/b.sh SUCCESSFUL"}},
		{"timeout", "echo stuck; wait", time.Second, context.DeadlineExceeded, []string{"boot.d/a.sh ERROR", "boot.d/b.sh SUCCESSFUL"}},
		{"cancelled", "echo stuck; wait", 0, context.Canceled, []string{"boot.d/a.sh ERROR", "boot.d/b.sh UNKNOWN"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			f := newFixture(t, hooks.Config{Timeout: c.timeout, Grace: 50 * time.Millisecond}, file{"boot.d/a.sh", family + c.last, 0o755}, sh("boot.d/b.sh"))
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			done := make(chan error, 1)
			go func() { done <- f.Run(ctx, hooks.Boot) }()
			if c.is == context.Canceled {
				eventually(t, "it is stuck", func() bool { return strings.Contains(f.log.String(), "a.sh: stuck") })
				cancel()
			}
			err := <-done
			if !errors.Is(err, c.is) || c.is != nil && !strings.Contains(err.Error(), "stuck") {
				t.Errorf("%v, want %v", err, c.is)
			}
			equal(t, "scripts", f.scripts(hooks.Boot), c.states)
			if f.completed() != "BOOT" {
				t.Errorf("completed: %s", f.completed())
			}
			orphans(t, f.out)
		})
	}
	t.Run("runtime killed", func(t *testing.T) {
		t.Parallel()
		out := filepath.Join(t.TempDir(), "out")
		f := newFixture(t, hooks.Config{}, file{"ready.d/a.sh", strings.Replace(family, "trap", "PATH="+os.Getenv("PATH")+" OUT="+out+"; export PATH OUT; trap", 1) + "wait", 0o755})
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := osexec.Command(self)
		cmd.Env = []string{"INIT_FOLDER=" + f.folder}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		eventually(t, "the script runs", func() bool {
			b, _ := os.ReadFile(out + ".self")
			return len(b) > 0
		})
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		orphans(t, out)
	})
}

// TestOddThings: what lies in a folder and is no file is left alone, and told of.
func TestOddThings(t *testing.T) {
	f := newFixture(t, hooks.Config{}, sh("elsewhere/outside.sh"), sh("ready.d/..2024/inside.sh"), sh("ready.d/z/deep.sh"))
	ready := filepath.Join(f.folder, "ready.d")
	outside := filepath.Join(t.TempDir(), "outside.sh")
	if err := os.Rename(filepath.Join(f.folder, "elsewhere", "outside.sh"), outside); err != nil {
		t.Fatal(err)
	}
	for name, target := range map[string]string{
		"broken.sh": "nothing", "loop.sh": "loop.sh", "folder": "/", "up": "..", "..data": "..2024",
		"inside.sh": "..data/inside.sh", // as Kubernetes does
		"linked.sh": outside,
	} {
		if err := os.Symlink(target, filepath.Join(ready, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := syscall.Mkfifo(filepath.Join(ready, "pipe.sh"), 0o777); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", filepath.Join(ready, "s.sh"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := os.WriteFile(filepath.Join(f.folder, "boot.d"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.Run(t.Context(), hooks.Boot); err != nil || f.completed() != "BOOT" {
		t.Errorf("boot.d is a file: %v", err)
	}
	err = f.Run(t.Context(), hooks.Ready)
	if !errors.Is(err, syscall.ELOOP) || !strings.Contains(err.Error(), "ready.d/loop.sh") || strings.Contains(err.Error(), "\n") {
		t.Errorf("%v", err)
	}
	equal(t, "scripts", f.scripts(hooks.Ready), []string{"ready.d/inside.sh SUCCESSFUL", "ready.d/linked.sh SUCCESSFUL", "ready.d/z/deep.sh SUCCESSFUL"})
	for _, name := range []string{"boot.d", "ready.d/broken.sh", "ready.d/folder", "ready.d/up", "ready.d/..data", "ready.d/..2024", "ready.d/pipe.sh", "ready.d/s.sh"} {
		if !strings.Contains(f.log.String(), "name="+name+" why=") {
			t.Errorf("the log does not speak of %s", name)
		}
	}
}

// TestMissing: no folder, no scripts, and all stages complete.
func TestMissing(t *testing.T) {
	for _, folder := range []string{"", filepath.Join(t.TempDir(), "none"), t.TempDir()} {
		h, err := hooks.New(hooks.Config{Folder: folder, Logger: slog.New(slog.DiscardHandler)})
		if err != nil {
			t.Fatal(err)
		}
		for stage := hooks.Boot; stage <= hooks.Shutdown; stage++ {
			if err := h.Run(t.Context(), stage); err != nil || !h.State()[stage].Completed || len(h.State()[stage].Scripts) > 0 {
				t.Errorf("%q, %v: %v, %+v", folder, stage, err, h.State())
			}
		}
	}
}

// TestBounds: a folder that passes them is refused as a whole, and the next stage runs.
func TestBounds(t *testing.T) {
	f := newFixture(t, hooks.Config{}, sh("shutdown.d/a.sh"), file{"start.d/" + strings.Repeat("d/", hooks.MaxDepth+1) + "a.sh", "", 0o600})
	for i := range hooks.MaxScripts + 1 {
		f.write(t, file{fmt.Sprintf("boot.d/%d.sh", i), "", 0o600})
	}
	for _, c := range []struct {
		stage hooks.Stage
		says  string
	}{{hooks.Boot, "more than 10000 scripts"}, {hooks.Start, "more than 32 deep"}} {
		err := f.Run(t.Context(), c.stage)
		if !errors.Is(err, abi.ErrTooLarge) || !strings.Contains(err.Error(), c.says) || len(f.scripts(c.stage)) > 0 {
			t.Errorf("%v: %v, %d scripts", c.stage, err, len(f.scripts(c.stage)))
		}
	}
	if err := f.Run(t.Context(), hooks.Shutdown); err != nil || f.said(t) == "" {
		t.Errorf("shutdown: %v", err)
	}
}

// TestManyFailures: an error tells of the first ones.
func TestManyFailures(t *testing.T) {
	f := newFixture(t, hooks.Config{})
	for i := range 25 {
		f.write(t, file{fmt.Sprintf("boot.d/%02d.sh", i), "#!/no/such/thing", 0o755})
		f.write(t, file{fmt.Sprintf("boot.d/%02d.txt", i), "", 0o600})
	}
	err := f.Run(t.Context(), hooks.Boot)
	if lines := strings.Split(fmt.Sprint(err), "\n"); len(lines) != 21 || lines[20] != "and 5 more" {
		t.Errorf("%v", err)
	}
	if got := f.scripts(hooks.Boot); len(got) != 25 || got[24] != "boot.d/24.sh ERROR" {
		t.Errorf("%q", got)
	}
	if n := strings.Count(f.log.String(), "not an init script"); n != 20 || !strings.Contains(f.log.String(), "files=5") {
		t.Errorf("the log tells of %d", n)
	}
}

func TestConfiguration(t *testing.T) {
	logger := slog.New(slog.DiscardHandler)
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []hooks.Config{{}, {Logger: logger, Env: []string{"A"}}, {Logger: logger, Env: []string{"=b"}}, {Logger: logger, Timeout: 1},
		{Logger: logger, Timeout: hooks.MaxTimeout + 1}, {Logger: logger, Timeout: -1}, {Logger: logger, Grace: 1}, {Logger: logger, Grace: hooks.MaxGrace + 1},
		{Logger: logger, Output: supervisor.Output{LineBytes: 1}}, {Logger: logger, Folder: name}, {Logger: logger, Folder: name + "/below"}} {
		if _, err := hooks.New(c); err == nil || !strings.HasPrefix(err.Error(), "init hooks: ") {
			t.Errorf("%+v: %v", c, err)
		}
	}
}

func Example() {
	folder, err := os.MkdirTemp("", "init")
	if err != nil {
		fmt.Println(err)
		return
	}
	defer os.RemoveAll(folder)
	_ = os.Mkdir(filepath.Join(folder, "ready.d"), 0o700)
	_ = os.WriteFile(filepath.Join(folder, "ready.d", "seed.sh"), []byte("exit 0"), 0o600)
	h, err := hooks.New(hooks.Config{Folder: folder, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(h.State()[hooks.Ready])
	fmt.Println(h.Run(context.Background(), hooks.Ready))
	fmt.Println(h.State()[hooks.Ready])
	// Output:
	// {READY false [{seed.sh ready.d/seed.sh UNKNOWN}]}
	// <nil>
	// {READY true [{seed.sh ready.d/seed.sh SUCCESSFUL}]}
}
