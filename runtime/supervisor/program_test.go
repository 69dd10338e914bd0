//go:build unix

package supervisor_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/supervisor"
)

func TestRunProgram(t *testing.T) {
	cancelled, cancel := context.WithCancelCause(t.Context())
	enough := errors.New("enough")
	cancel(enough)
	for _, c := range []struct {
		name string
		p    supervisor.Program
		ctx  context.Context
		is   error
		says []string // of the error; none means that there is none
	}{
		{name: "ends", p: supervisor.Program{Env: []string{"DO=exit", "CODE=0"}}},
		{name: "fails", p: supervisor.Program{Env: []string{"DO=exit", "CODE=3"}}, says: []string{"it ended with exit code 3 after", "no luck"}},
		{name: "leaves a family", p: supervisor.Program{Env: []string{"DO=exit", "CODE=0", "CHILDREN=group session daemon stubborn"}, Grace: 50 * time.Millisecond}},
		{name: "not begun", p: supervisor.Program{Env: []string{"DO=exit"}}, ctx: cancelled, is: enough, says: []string{"enough"}},
		{name: "not there", p: supervisor.Program{Command: []string{"/no/such/program"}}, is: abi.ErrNotFound, says: []string{"/no/such/program"}},
		{name: "nameless", p: supervisor.Program{Command: []string{}}, says: []string{"no program is named"}},
		{name: "no folder", p: supervisor.Program{Folder: "/no/such/folder"}, is: abi.ErrNotFound, says: []string{"/no/such/folder"}},
		{name: "no such bound", p: supervisor.Program{Output: supervisor.Output{LineBytes: 1}}, says: []string{"Output.LineBytes"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := fixture{log: &log{}, pids: t.TempDir()}
			c.p.Kind, c.p.Name, c.p.Logger = "script", "{port}", slog.New(slog.NewTextHandler(f.log, nil))
			if c.p.Command == nil {
				c.p.Command = []string{self(t), "{port}"}
			}
			c.p.Env = append(c.p.Env, "PIDS="+f.pids)
			if c.ctx == nil {
				c.ctx = t.Context()
			}
			err := supervisor.RunProgram(c.ctx, c.p)
			f.gone(t)
			if (err == nil) != (len(c.says) == 0) || c.is != nil && !errors.Is(err, c.is) {
				t.Fatalf("%v, want %q", err, c.says)
			}
			for _, part := range c.says {
				if !strings.Contains(err.Error(), part) {
					t.Errorf("%v, without %q", err, part)
				}
			}
			if c.name == "fails" && !strings.Contains(f.log.String(), `msg="{port}: no luck" script={port}`) {
				t.Errorf("the log is %s", f.log)
			}
		})
	}
}

// TestRunProgramCancelled: it is asked, then killed, with all that it has begun.
func TestRunProgramCancelled(t *testing.T) {
	for _, ignore := range []string{"", "1"} {
		f := fixture{log: &log{}, pids: t.TempDir()}
		ctx, cancel := context.WithTimeoutCause(t.Context(), time.Minute, errors.New("a minute"))
		done := make(chan error, 1)
		go func() {
			done <- supervisor.RunProgram(ctx, supervisor.Program{Kind: "script", Name: "a", Command: []string{self(t)}, Grace: 50 * time.Millisecond,
				Env: []string{"DO=sleep", "PIDS=" + f.pids, "CHILDREN=group session stubborn", "IGNORE=" + ignore}, Logger: slog.New(slog.NewTextHandler(f.log, nil))})
		}()
		eventually(t, "all of it runs", func() bool { return len(pidsIn(t, f.pids)) == 4 })
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Error(fmt.Sprintf("ignoring %q: ", ignore), err)
		}
		f.gone(t)
	}
}
