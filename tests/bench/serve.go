package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// buildTorpor builds the program into a folder.
func buildTorpor(ctx context.Context, folder string) (file string, err error) {
	file = filepath.Join(folder, "torpor")
	build := exec.CommandContext(ctx, "go", "build", "-o", file, "github.com/torpor-run/torpor")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, said)
	}
	return file, nil
}

// withTorpor calls f with a folder and the program in it.
func withTorpor(ctx context.Context, f func(folder, program string) error) error {
	return inFolder(func(folder string) error {
		program, err := buildTorpor(ctx, folder)
		if err != nil {
			return err
		}
		return f(folder, program)
	})
}

// tree is what stands in torpor.yaml below a key.
type tree map[string]any

// serving is torpor serve.
type serving struct {
	*listening
	log    *bytes.Buffer // read when the process has ended
	client *http.Client
}

// serve starts torpor with services, whose data are kept in the folder.
func serve(ctx context.Context, program, folder string, config tree, env ...string) (*serving, error) {
	if err := os.MkdirAll(folder, 0o700); err != nil {
		return nil, err
	}
	text, err := json.Marshal(config) // JSON is YAML
	if err != nil {
		return nil, err
	}
	file := filepath.Join(folder, "torpor.yaml")
	if err := os.WriteFile(file, text, 0o600); err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, program, "serve", "--listen", "127.0.0.1:0", "--data", filepath.Join(folder, "data"), "--config", file,
		"--init", filepath.Join(folder, "init"), "--log-format", "text")
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + folder, "TMPDIR=" + folder}, env...)
	s := &serving{log: new(bytes.Buffer), client: &http.Client{Transport: &http.Transport{}, Timeout: 10 * time.Minute}}
	cmd.Stderr = s.log
	if s.listening, err = listen(cmd); err != nil {
		return nil, fmt.Errorf("%w; its log:\n%s", err, s.log)
	}
	return s, nil
}

// stop ends it in order.
func (s *serving) stop() error {
	s.client.CloseIdleConnections()
	err := s.cmd.Process.Signal(os.Interrupt)
	<-s.ended
	if code := s.cmd.ProcessState.ExitCode(); code != 0 {
		err = errors.Join(err, fmt.Errorf("torpor ended with %d; its log:\n%s", code, s.log))
	}
	return err
}

// ask sends a request and gives the answer to one that succeeds.
func (s *serving) ask(ctx context.Context, method, path string, body []byte) ([]byte, error) {
	return ask(ctx, s.client, method, "http://"+s.address+path, body)
}

func ask(ctx context.Context, client *http.Client, method, url string, body []byte) ([]byte, error) {
	r, err := http.NewRequestWithContext(ctx, method, url, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	answer, err := client.Do(r)
	if err != nil {
		return nil, err
	}
	defer answer.Body.Close()
	said, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode/100 != 2 {
		err = fmt.Errorf("%s %s: %s: %.300s", method, url, answer.Status, said)
	}
	return said, err
}

// figures are the values of /metrics, by series.
type figures map[string]float64

func (s *serving) metrics(ctx context.Context) (figures, error) {
	text, err := s.ask(ctx, http.MethodGet, "/metrics", nil)
	if err != nil {
		return nil, err
	}
	all := figures{}
	for lines := bufio.NewScanner(bytes.NewReader(text)); lines.Scan(); {
		line := lines.Text()
		at := strings.LastIndexByte(line, ' ')
		if at < 0 || strings.HasPrefix(line, "#") {
			continue
		}
		if all[line[:at]], err = strconv.ParseFloat(line[at+1:], 64); err != nil {
			return nil, err
		}
	}
	return all, nil
}

// since gives what a series of seconds has grown by. The series must be there.
func (f figures) since(before figures, series string) (time.Duration, error) {
	now, ok := f[series]
	if !ok {
		return 0, fmt.Errorf("/metrics has no %s", series)
	}
	return time.Duration((now - before[series]) * float64(time.Second)), nil
}

// processorTime is what a process and its children have used of the processors; 0 where the system does not
// tell.
func processorTime(pid int) time.Duration {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat") // of a pattern that is right
	used, children := map[int]time.Duration{}, map[int][]int{}
	for _, name := range stats {
		b, err := os.ReadFile(name)
		if err != nil {
			continue // it has ended
		}
		// PID (NAME) STATE PPID …; the name may hold anything.
		fields := strings.Fields(string(b[bytes.LastIndexByte(b, ')')+1:]))
		if len(fields) < 13 {
			continue
		}
		number := func(s string) int { n, _ := strconv.Atoi(s); return n } // the kernel's own
		this := number(filepath.Base(filepath.Dir(name)))
		used[this] = time.Duration(number(fields[11])+number(fields[12])) * (time.Second / clockTicks)
		children[number(fields[1])] = append(children[number(fields[1])], this)
	}
	total := time.Duration(0)
	for todo := []int{pid}; len(todo) > 0; todo = todo[1:] {
		total += used[todo[0]]
		todo = append(todo, children[todo[0]]...)
	}
	return total
}

// clockTicks is USER_HZ, which is 100 on all of Linux.
const clockTicks = 100

// loadOfMachine is how many processes ran or waited in the last minute, as a text.
func loadOfMachine() string {
	b, err := os.ReadFile("/proc/loadavg")
	if err != nil {
		return "unknown"
	}
	one, _, _ := strings.Cut(string(b), " ")
	return one
}

// at is the value below which the share q of the times lies.
func (t times) at(q float64) time.Duration {
	s := slices.Clone(t)
	slices.Sort(s)
	return s[min(len(s)-1, int(q*float64(len(s))))]
}

// p99 of the times.
func (t times) p99() time.Duration { return t.at(0.99) }
