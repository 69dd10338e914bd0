// Package exec is the source of services whose state is dumped and restored by commands: one writes the
// native state to its standard output, one reads it from its standard input.
//
//	dump:    [pg_dump, --format=custom, orders]
//	restore: [pg_restore, --clean, --dbname=orders]
//
// A command that ends with exit code 0 has done it; 65 (EX_DATAERR of sysexits.h) from restore means that
// the state is not one of the service's, which is then taken to be damaged; any other code is a failure,
// and the end of what the command said on its standard error is told. The restore command must replace the
// service's state wholly or not at all; it is begun only when all of the state is there.
package exec

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	osexec "os/exec"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/spool"
)

// Defaults and bounds of [Config].
const (
	MinTimeout     = 100 * time.Millisecond
	DefaultTimeout = 5 * time.Minute
	MaxTimeout     = 24 * time.Hour

	MinGrace     = 10 * time.Millisecond
	DefaultGrace = 5 * time.Second
	MaxGrace     = time.Hour
)

// exitData is the exit code for input that is not what it should be, EX_DATAERR of sysexits.h.
const exitData = 65

// maxSaid is how much of the end of a command's standard error is told, in bytes.
const maxSaid = 1 << 10

// Config is what a [Source] is made of. Zero fields mean the defaults.
type Config struct {
	Service, Part string // for messages
	// Dump and Restore are programs with their arguments; no shell reads them. Required.
	Dump, Restore []string
	// Reset empties the service. Without it Reset is errors.ErrUnsupported.
	Reset   []string
	Env     []string      // NAME=VALUE, all that the commands get; nothing is inherited
	Folder  string        // where they run; "" is the runtime's own
	Timeout time.Duration // for one command
	Grace   time.Duration // between asking a command to end (SIGTERM) and ending it (SIGKILL)
	Atomic  bool          // a dump is consistent by itself: requests need not be held for it
	Spool   spool.Config  // where states are kept on their way
}

// Source runs commands that dump and restore a service's state. It is a [runtime.AtomicSource], safe for
// concurrent use as far as the commands are. Commands are run in a process group of their own, where the
// system has such, and none of it is left when a call returns.
type Source struct{ config Config }

// New makes a source; it runs nothing yet. The error names what is wrong with the configuration.
func New(config Config) (*Source, error) {
	for name, command := range map[string][]string{"Dump": config.Dump, "Restore": config.Restore} {
		if len(command) == 0 || command[0] == "" {
			return nil, fmt.Errorf("exec source: %s names no program", name)
		}
	}
	if len(config.Reset) > 0 && config.Reset[0] == "" {
		return nil, errors.New("exec source: Reset names no program")
	}
	for _, v := range config.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return nil, fmt.Errorf("exec source: %q in Env is not NAME=VALUE", v)
		}
	}
	for _, d := range []struct {
		name               string
		value              *time.Duration
		least, usual, most time.Duration
	}{
		{"Timeout", &config.Timeout, MinTimeout, DefaultTimeout, MaxTimeout},
		{"Grace", &config.Grace, MinGrace, DefaultGrace, MaxGrace},
	} {
		if *d.value == 0 {
			*d.value = d.usual
		}
		if *d.value < d.least || *d.value > d.most {
			return nil, fmt.Errorf("exec source: %s is %v; it may be %v to %v", d.name, *d.value, d.least, d.most)
		}
	}
	var err error
	config.Spool, err = config.Spool.Check()
	return &Source{config}, err
}

// AtomicCapture implements [runtime.AtomicSource].
func (s *Source) AtomicCapture() bool { return s.config.Atomic }

// Capture implements [runtime.Source]: it runs Config.Dump to its end.
func (s *Source) Capture(ctx context.Context) (runtime.Capture, error) {
	state, err := s.config.Spool.Fill(ctx, func(w io.Writer) error { return s.run(ctx, s.config.Dump, nil, w) })
	if err != nil {
		return nil, s.about(err)
	}
	return state, nil
}

// Restore implements [runtime.Source].
func (s *Source) Restore(ctx context.Context, native io.Reader) (err error) {
	state, err := s.config.Spool.Fill(ctx, func(w io.Writer) error {
		_, err := io.Copy(w, native)
		return err
	})
	if err != nil {
		return s.about(err)
	}
	defer func() { err = errors.Join(err, state.Close()) }()
	if err := s.run(ctx, s.config.Restore, state.Reader(), io.Discard); err != nil {
		return s.about(err)
	}
	return nil
}

// Reset implements [runtime.Source].
func (s *Source) Reset(ctx context.Context) error {
	if len(s.config.Reset) == 0 {
		return s.about(fmt.Errorf("no command to empty it is configured: %w", errors.ErrUnsupported))
	}
	if err := s.run(ctx, s.config.Reset, nil, io.Discard); err != nil {
		return s.about(err)
	}
	return nil
}

func (s *Source) about(err error) error {
	return fmt.Errorf("service %s, part %s: %w", s.config.Service, s.config.Part, err)
}

// run runs one command to its end.
func (s *Source) run(ctx context.Context, command []string, in io.Reader, out io.Writer) error {
	ctx, cancel := context.WithTimeoutCause(ctx, s.config.Timeout, fmt.Errorf("no end after %v: %w", s.config.Timeout, context.DeadlineExceeded))
	defer cancel()
	said := &tail{}
	kept := &failure{w: out, cancel: cancel}
	cmd := osexec.CommandContext(ctx, command[0], command[1:]...)
	cmd.Dir, cmd.Stdin, cmd.Stdout, cmd.Stderr = s.config.Folder, in, kept, said
	cmd.Env = append([]string{}, s.config.Env...) // not nil: that would be the runtime's own
	cmd.WaitDelay = s.config.Grace
	ownGroup(cmd)
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("%s: %w", command[0], err)
	}
	err := cmd.Wait()
	endGroup(cmd) // what the command has begun and left
	var exit *osexec.ExitError
	switch {
	case kept.err != nil:
		return kept.err
	case ctx.Err() != nil:
		return fmt.Errorf("%s: %w%s", command[0], context.Cause(ctx), said)
	case errors.Is(err, osexec.ErrWaitDelay):
		return fmt.Errorf("%s has ended, but something it began kept its output open for %v", command[0], s.config.Grace)
	case errors.As(err, &exit) && exit.ExitCode() == exitData:
		return fmt.Errorf("%s refuses the state (exit code %d): %w%s", command[0], exitData, abi.ErrCorrupt, said)
	case err != nil:
		return fmt.Errorf("%s: %w%s", command[0], err, said)
	}
	return nil
}

// failure keeps the error of a writer and ends the command then.
type failure struct {
	w      io.Writer
	cancel context.CancelFunc
	err    error
}

func (f *failure) Write(p []byte) (int, error) {
	n, err := f.w.Write(p)
	if err != nil {
		f.err = err
		f.cancel()
	}
	return n, err
}

// tail keeps the end of what was written.
type tail struct {
	b   []byte
	cut bool
}

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > 2*maxSaid {
		t.b, t.cut = append(t.b[:0], t.b[len(t.b)-maxSaid:]...), true
	}
	return len(p), nil
}

// String is what was said, to be put behind a message; empty if that is nothing.
func (t *tail) String() string {
	b, cut := t.b, t.cut
	if len(b) > maxSaid {
		b, cut = b[len(b)-maxSaid:], true
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		return ""
	}
	from := ""
	if cut {
		from = "… "
	}
	return fmt.Sprintf("; it said %s%q", from, strings.ToValidUTF8(string(b), "\uFFFD"))
}
