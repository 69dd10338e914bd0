package files_test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/source/files"
	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/serializers/files/through"
)

var update = flag.Bool("update", false, "write the fixtures of modules/files anew")

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// source is a source of the folder root.
func source(t testing.TB, root string) *files.Source {
	t.Helper()
	s, err := files.New(files.Config{Root: root})
	must(t, err)
	t.Cleanup(func() { must(t, s.Close()) })
	return s
}

// native is the folder in its native form.
func native(t testing.TB, s *files.Source) []byte {
	t.Helper()
	c, err := s.Capture(t.Context())
	must(t, err)
	var b bytes.Buffer
	must(t, c.WriteNative(t.Context(), &b))
	must(t, c.Close())
	return b.Bytes()
}

// tree is all there is to a folder, by path.
func tree(t testing.TB, root string) map[string]string {
	t.Helper()
	all := map[string]string{}
	must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(root, p)
		if err != nil {
			return err
		}
		what := fmt.Sprint(info.Mode(), info.ModTime().UnixNano())
		if info.Mode().IsRegular() {
			b, err := os.ReadFile(p)
			if err != nil {
				return err
			}
			what += string(b)
		} else if info.Mode()&fs.ModeSymlink != 0 {
			target, err := os.Readlink(p)
			if err != nil {
				return err
			}
			what += target
		}
		all[rel] = what
		return nil
	}))
	return all
}

// there and back: a folder through source and serializer into another folder, which must be the same.
func thereAndBack(t *testing.T, from, to string) [][]byte {
	t.Helper()
	m := through.New(t, "files", modules.Files())
	records := m.RoundTrip(t, native(t, source(t, from)))
	state, err := m.Native(t, records)
	must(t, err)
	must(t, source(t, to).Restore(t.Context(), bytes.NewReader(state)))
	want, got := tree(t, from), tree(t, to)
	for p := range want {
		if got[p] != want[p] {
			t.Errorf("%q is %.200q, want %.200q", p, got[p], want[p])
		}
	}
	if len(got) != len(want) {
		t.Errorf("%d entries, want %d", len(got), len(want))
	}
	return records
}

// TestDynalite: a LevelDB folder. testdata/README.md says how it was made, and how dynalite reads what comes
// back.
func TestDynalite(t *testing.T) {
	from, to := filepath.Join(t.TempDir(), "db"), filepath.Join(t.TempDir(), "db")
	must(t, os.CopyFS(from, os.DirFS("testdata/dynalite")))
	records := thereAndBack(t, from, to)
	var keys []string
	for _, r := range records {
		keys = append(keys, through.Key(t, r))
	}
	if s := strings.Join(keys, " "); !strings.Contains(s, "CURRENT") || !strings.Contains(s, ".ldb") {
		t.Error(s)
	}
	dir := os.Getenv("DYNALITE") // where npm has installed dynalite
	if dir == "" {
		t.Log("DYNALITE names no folder with dynalite in node_modules: its own reading is not tested")
		return
	}
	script, err := filepath.Abs("testdata/dynalite.js")
	must(t, err)
	cmd := exec.CommandContext(t.Context(), need.Program(t, "node"), script, to, "read")
	cmd.Env = append(os.Environ(), "NODE_PATH="+filepath.Join(dir, "node_modules"))
	out, err := cmd.CombinedOutput()
	if err != nil || strings.Count(string(out), "order-") != 50 || !strings.Contains(string(out), "order-17=17") {
		t.Errorf("dynalite reads %s (%v)", out, err)
	}
}

// TestPostgreSQL: a database's folder through everything; the server starts on it and has the rows.
func TestPostgreSQL(t *testing.T) {
	if testing.Short() {
		t.Skip("starts PostgreSQL")
	}
	if runtime.GOOS != "linux" {
		t.Skip("runs as another user, as Linux does")
	}
	// Debian has its programs in a folder for each version, which is not in PATH.
	found, err := filepath.Glob("/usr/lib/postgresql/*/bin/initdb")
	must(t, err)
	if len(found) == 0 {
		found = []string{need.Program(t, "initdb")}
	}
	initdb, err := filepath.EvalSymlinks(found[len(found)-1])
	must(t, err)
	dir, err := os.MkdirTemp("", "pg") // sockets have short names
	must(t, err)
	t.Cleanup(func() { must(t, os.RemoveAll(dir)) })
	var as *syscall.SysProcAttr
	if os.Geteuid() == 0 { // which PostgreSQL refuses
		u, err := user.Lookup("postgres")
		if err != nil {
			need.Missing(t, "the user postgres")
		}
		uid, err := strconv.ParseUint(u.Uid, 10, 32)
		must(t, err)
		gid, err := strconv.ParseUint(u.Gid, 10, 32)
		must(t, err)
		as = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
		must(t, os.Chown(dir, int(uid), int(gid)))
	}
	run := func(name string, args ...string) string {
		t.Helper()
		cmd := exec.CommandContext(t.Context(), filepath.Join(filepath.Dir(initdb), name), args...)
		cmd.Dir, cmd.SysProcAttr = dir, as
		var out bytes.Buffer
		cmd.Stdout, cmd.WaitDelay = &out, time.Second // the server keeps the pipe
		if err := cmd.Run(); err != nil && !errors.Is(err, exec.ErrWaitDelay) {
			t.Fatalf("%s %q: %v\n%s", name, args, err, out.String())
		}
		return out.String()
	}
	server := func(data string, sql string) string {
		t.Helper()
		run("pg_ctl", "-D", data, "-w", "-l", filepath.Join(dir, "log"), "-o", "-c listen_addresses= -c unix_socket_directories="+dir, "start")
		defer run("pg_ctl", "-D", data, "-w", "-m", "fast", "stop")
		return run("psql", "-h", dir, "-d", "postgres", "-At", "-c", sql)
	}
	from, to := filepath.Join(dir, "from"), filepath.Join(dir, "to")
	run("initdb", "-D", from, "--no-sync", "-A", "trust")
	const sum = "select count(*), sum(n), md5(string_agg(t, '' order by n)) from rows"
	want := server(from, "create table rows as select n, repeat(md5(n::text), 20) as t from generate_series(1, 5000) n; "+sum)
	records := thereAndBack(t, from, to)
	t.Logf("%d records", len(records))
	if got := server(to, sum); !strings.HasSuffix(want, got) || !strings.HasPrefix(got, "5000|") {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestChanges: a change in a large file changes a few records, a touched file one.
func TestChanges(t *testing.T) {
	root := filepath.Join(t.TempDir(), "data")
	s := source(t, root)
	large := make([]byte, 20<<20)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(large)
	write := func(name string, b []byte) { must(t, os.WriteFile(filepath.Join(root, name), b, 0o600)) }
	write("large", large)
	write("small", []byte("s"))
	m := through.New(t, "files", modules.Files())
	before := m.RoundTrip(t, native(t, s))
	write("large", bytes.Join([][]byte{large[:9_000_000], []byte("ten bytes!"), large[9_000_000:]}, nil))
	after := m.RoundTrip(t, native(t, s))
	if n := through.Changed(before, after); n > 6 || len(before) < 800 {
		t.Errorf("%d records of %d have changed", n, len(before))
	}
	must(t, os.Chtimes(filepath.Join(root, "large"), time.Now(), time.Unix(1, 0)))
	if n := through.Changed(after, m.RoundTrip(t, native(t, s))); n != 1 {
		t.Errorf("%d records have changed with a time", n)
	}
}

func TestInspect(t *testing.T) {
	root := filepath.Join(t.TempDir(), "db")
	must(t, os.CopyFS(root, os.DirFS("testdata/dynalite")))
	must(t, os.WriteFile(filepath.Join(root, "large.ldb"), make([]byte, 100_000), 0o600))
	m := through.New(t, "files", modules.Files())
	var s struct {
		Files, Folders, Records int
		Bytes                   int `cbor:"file_bytes"`
		Kinds                   map[string]struct{ Count, Bytes int }
	}
	must(t, cbor.Unmarshal(m.Summary(t, m.RoundTrip(t, native(t, source(t, root)))), &s))
	if s.Files < 5 || s.Folders != 1 || s.Kinds["file"].Count != s.Files || s.Kinds["file"].Bytes != s.Bytes || s.Kinds[".ldb"].Count < 2 || s.Kinds["piece"].Count < 2 {
		t.Errorf("%+v", s)
	}
}

// fixtures are native states, small ones.
func fixtures(t testing.TB) map[string][]byte {
	all := map[string][]byte{}
	for name, fill := range map[string]func(root string){
		"empty": func(string) {},
		"dynalite": func(root string) {
			must(t, os.RemoveAll(root))
			must(t, os.CopyFS(root, os.DirFS("testdata/dynalite")))
		},
		"rich": func(root string) {
			large := make([]byte, 90_000)
			_, _ = rand.NewChaCha8([32]byte{2}).Read(large)
			must(t, os.MkdirAll(filepath.Join(root, "a/b"), 0o755))
			for p, b := range map[string][]byte{"a/b/deep": []byte("inside"), "a-b": nil, "not\xffUTF-8": []byte("x"), "large": large, "a/zeros": make([]byte, 70_000)} {
				must(t, os.WriteFile(filepath.Join(root, p), b, 0o640))
			}
			must(t, os.Symlink("a/b", filepath.Join(root, "link")))
			must(t, os.Link(filepath.Join(root, "a-b"), filepath.Join(root, "linked")))
			must(t, os.WriteFile(filepath.Join(root, "sparse"), []byte("begin"), 0o600))
			must(t, os.Truncate(filepath.Join(root, "sparse"), 10<<20))
		},
	} {
		root := filepath.Join(t.TempDir(), "data")
		s := source(t, root)
		fill(root)
		must(t, filepath.WalkDir(root, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.Type()&fs.ModeSymlink != 0 {
				return err
			}
			return os.Chtimes(p, time.Unix(1, 0), time.Unix(1_767_225_600, 123_456_789))
		}))
		all[name+".folder"] = native(t, s)
	}
	return all
}

func TestConformance(t *testing.T) {
	const folder = "../../../modules/files/fixtures"
	if *update {
		for name, state := range fixtures(t) {
			must(t, os.WriteFile(filepath.Join(folder, name), state, 0o644))
		}
	}
	through.Conforms(t, "files", modules.Files(), folder)
}

// TestCut: no beginning of a state is one.
func TestCut(t *testing.T) {
	m := through.New(t, "files", modules.Files())
	for name, state := range fixtures(t) {
		for n := 0; n < len(state); n += 1 + n/500 {
			var refused *host.GuestError
			if _, err := m.Records(t, state[:n]); !errors.As(err, &refused) || !errors.Is(err, abi.ErrCorrupt) {
				t.Fatalf("%s: the first %d bytes of %d: %v", name, n, len(state), err)
			}
		}
	}
}

// TestDamage: states with bytes changed, removed and repeated are refused, or come back as they are.
func TestDamage(t *testing.T) {
	m := through.New(t, "files", modules.Files())
	r := rand.New(rand.NewPCG(1, 2))
	for name, state := range fixtures(t) {
		head := min(len(state), 3000) // where the entries are
		for range 400 {
			now := bytes.Clone(state)
			at, n := r.IntN(head), 1+r.IntN(20)
			switch end := min(at+n, head); r.IntN(4) {
			case 0:
				now[at] ^= 1 << r.IntN(8)
			case 1:
				now[at] = byte(r.Uint32())
			case 2:
				now = append(now[:at], now[end:]...)
			case 3:
				now = append(now[:end], state[at:]...)
			}
			m.Sane(t, now)
		}
		t.Log(name)
	}
}

func TestUnit(t *testing.T) { through.Unit(t, "files") }

func FuzzNative(f *testing.F) {
	m := through.New(f, "files", modules.Files())
	for _, state := range fixtures(f) {
		if len(state) < 100_000 {
			f.Add(state)
		}
	}
	f.Fuzz(func(t *testing.T, state []byte) { m.Sane(t, state) })
}

// Benchmark holds both ways against tar, on the same folder of files of many sizes.
func Benchmark(b *testing.B) {
	root := filepath.Join(b.TempDir(), "data")
	s := source(b, root)
	r, size := rand.NewChaCha8([32]byte{3}), int64(0)
	for i := range 400 {
		content := make([]byte, 1<<(i%20))
		_, _ = r.Read(content)
		must(b, os.WriteFile(filepath.Join(root, fmt.Sprint("f", i)), content, 0o600))
		size += int64(len(content))
	}
	large := make([]byte, 48<<20)
	_, _ = r.Read(large)
	must(b, os.WriteFile(filepath.Join(root, "large"), large, 0o600))
	size += int64(len(large))
	m := through.New(b, "files", modules.Files())
	state := native(b, s)
	records := bytes.Join(m.RoundTrip(b, state), nil)
	archive := filepath.Join(b.TempDir(), "tar")
	run := func(name string, do func() error) {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				must(b, do())
			}
		})
	}
	run("save", func() error {
		return m.Save(b.Context(), m.Call(), bytes.NewReader(state), &through.Discard{})
	})
	run("load", func() error { return m.Load(b.Context(), m.Call(), through.Reader(records), &through.Bytes{}) })
	run("capture, all of it new", func() error {
		fresh, err := files.New(files.Config{Root: root + "-copy"})
		if err != nil {
			return err
		}
		if err := errors.Join(fresh.Close(), os.RemoveAll(root+"-copy"), os.Rename(root, root+"-copy")); err != nil {
			return err
		}
		if fresh, err = files.New(files.Config{Root: root + "-copy"}); err != nil {
			return err
		}
		c, err := fresh.Capture(b.Context())
		if err != nil {
			return err
		}
		return errors.Join(c.Close(), fresh.Close(), os.Rename(root+"-copy", root))
	})
	run("capture, nothing new", func() error {
		c, err := s.Capture(b.Context())
		if err != nil {
			return err
		}
		return c.Close()
	})
	run("write", func() error {
		c, err := s.Capture(b.Context())
		if err != nil {
			return err
		}
		return errors.Join(c.WriteNative(b.Context(), &through.Bytes{}), c.Close())
	})
	run("restore", func() error { return s.Restore(b.Context(), bytes.NewReader(state)) })
	tar := need.Program(b, "tar")
	run("tar create", func() error { return exec.CommandContext(b.Context(), tar, "cf", archive, "-C", root, ".").Run() })
	run("tar extract", func() error {
		to := b.TempDir()
		return exec.CommandContext(b.Context(), tar, "xf", archive, "-C", to).Run()
	})
	run("tar extract and sync", func() error {
		to := b.TempDir()
		return exec.CommandContext(b.Context(), "sh", "-c", `tar xf "$1" -C "$2" && sync -f "$2"`, "sh", archive, to).Run()
	})
}
