//go:build unix

// Package docs runs the commands of the pages in docs/, as they stand there.
//
// A page is one shell session in an empty folder, with torpor in PATH. Its blocks of kind sh are run, one after the other; a
// block of kind yaml, json or text whose first line is a comment with a file name writes that file; a block of kind
// output is what the block before it prints: each of its lines is found in that order, … standing for anything. Other
// kinds are for the eye. The port 4566 is another one here.
package docs

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/torpor-run/torpor/tests/need"
	"github.com/torpor-run/torpor/tests/program"
)

const root = "../.."

// torporFile is the built program.
var torporFile string

func TestMain(m *testing.M) { os.Exit(program.Run(m, &torporFile)) }

// block is one fenced block of a page.
type block struct {
	kind, text string
	line       int // of its first line in the page
}

// blocks cuts a page.
func blocks(t *testing.T, page string) []block {
	t.Helper()
	b, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	var all []block
	var in *block
	n := 0
	for line := range strings.Lines(string(b)) {
		n++
		fence, isFence := strings.CutPrefix(strings.TrimRight(line, "\n"), "```")
		switch {
		case isFence && in == nil:
			in = &block{kind: fence, line: n + 1}
		case isFence:
			all = append(all, *in)
			in = nil
		case in != nil:
			in.text += line
		}
	}
	if in != nil {
		t.Fatalf("%s:%d: the block has no end", page, in.line)
	}
	return all
}

// named finds the file name in the comment that a block begins with.
var named = regexp.MustCompile(`^(?:#|//) ([A-Za-z0-9_./-]+\.[a-z]+)\n`)

// mark separates the output of blocks.
func mark(i int) string { return fmt.Sprintf("--- block %d ---", i) }

// session is the script that a page is.
func session(all []block) string {
	var s strings.Builder
	s.WriteString("set -euo pipefail\n")
	for i, b := range all {
		fmt.Fprintf(&s, "echo '%s'\n", mark(i))
		if file := named.FindStringSubmatch(b.text); b.kind != "sh" && b.kind != "output" && file != nil {
			fmt.Fprintf(&s, "mkdir -p \"$(dirname %s)\"; cat > %s <<'END OF FILE'\n%sEND OF FILE\n", file[1], file[1], b.text)
		} else if b.kind == "sh" {
			s.WriteString(b.text)
		}
	}
	return s.String()
}

// shows reports the first line of want that out does not have behind those before it.
func shows(out, want string) (missing string, ok bool) {
	for line := range strings.Lines(want) {
		line = strings.TrimSpace(line)
		if line == "" || line == "…" {
			continue
		}
		var pieces []string
		for _, piece := range strings.Split(line, "…") {
			pieces = append(pieces, strings.Join(strings.Fields(piece), `\s+`))
		}
		for i, piece := range pieces {
			words := strings.Split(piece, `\s+`)
			for j, w := range words {
				words[j] = regexp.QuoteMeta(w)
			}
			pieces[i] = strings.Join(words, `\s+`)
		}
		at := regexp.MustCompile(strings.Join(pieces, `[^\n]*`)).FindStringIndex(out)
		if at == nil {
			return line, false
		}
		out = out[at[1]:]
	}
	return "", true
}

func TestPages(t *testing.T) {
	bash := need.Program(t, "bash")
	need.Program(t, "curl")
	pages, err := filepath.Glob(filepath.Join(root, "docs", "*.md"))
	if err != nil || len(pages) < 4 {
		t.Fatalf("pages %q, %v", pages, err)
	}
	for _, page := range pages {
		all := blocks(t, page)
		if !slices.ContainsFunc(all, func(b block) bool { return b.kind == "sh" }) {
			if filepath.Base(page) != "README.md" {
				t.Errorf("%s has no commands", page)
			}
			continue
		}
		t.Run(filepath.Base(page), func(t *testing.T) {
			t.Parallel()
			port := freePort(t)
			dir := t.TempDir()
			cmd := exec.Command(bash, "-c", strings.ReplaceAll(session(all), "4566", port))
			cmd.Dir = dir
			cmd.Env = []string{"PATH=" + filepath.Dir(torporFile) + ":" + os.Getenv("PATH"), "HOME=" + dir, "TMPDIR=" + t.TempDir(),
				"GOCACHE=" + goEnv(t, "GOCACHE"), "GOMODCACHE=" + goEnv(t, "GOMODCACHE"), "GOFLAGS=" + os.Getenv("GOFLAGS"), "GOTOOLCHAIN=local",
				"TORPOR_LISTEN=127.0.0.1:" + port, "TORPOR_URL=http://127.0.0.1:" + port, "NO_COLOR=1",
				"TORPOR_INIT_PODS=" + filepath.Join(dir, "init-pods.d")}
			cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
			var out bytes.Buffer
			cmd.Stdout, cmd.Stderr = &out, &out
			cmd.WaitDelay = time.Second // for what it leaves running with its output open
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }()
			stuck := time.AfterFunc(program.Patience*2, func() { _ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) })
			err := cmd.Wait()
			stuck.Stop()
			said := out.String()
			if err != nil {
				t.Fatalf("the commands fail: %v\n%s", err, said)
			}
			last := -1
			for i, b := range all {
				if b.kind == "sh" {
					last = i
				}
				if b.kind != "output" {
					continue
				}
				if last < 0 {
					t.Fatalf("%s:%d: output of nothing", page, b.line)
				}
				_, behind, _ := strings.Cut(said, mark(last)+"\n")
				of, _, _ := strings.Cut(behind, mark(last+1)+"\n")
				if missing, ok := shows(of, b.text); !ok {
					t.Errorf("%s:%d: the commands do not print %q; they print\n%s", page, b.line, missing, of)
				}
			}
			if left, err := net.Dial("tcp", "127.0.0.1:"+port); err == nil {
				left.Close()
				t.Errorf("%s leaves torpor running", page)
			}
		})
	}
}

// TestShows: the judge of outputs can say no.
func TestShows(t *testing.T) {
	for _, c := range []struct {
		out, want string
		ok        bool
	}{
		{"a b\nc\n", "a   b\nc\n", true},
		{"a b\nc\n", "c\na b\n", false},
		{"saved 12 records in 3 ms\n", "saved … records\n", true},
		{"saved 12\nrecords\n", "saved … records\n", false},
		{"a.b", "a+b", false},
	} {
		if missing, ok := shows(c.out, c.want); ok != c.ok {
			t.Errorf("%q in %q: %v, missing %q", c.want, c.out, ok, missing)
		}
	}
}

func goEnv(t *testing.T, name string) string {
	t.Helper()
	out, err := exec.Command("go", "env", name).Output()
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(out))
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return fmt.Sprint(l.Addr().(*net.TCPAddr).Port)
}
