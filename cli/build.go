package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"time"

	"github.com/torpor-run/torpor/cli/config"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/source/exec"
	"github.com/torpor-run/torpor/runtime/source/file"
	"github.com/torpor-run/torpor/runtime/source/files"
	sourcehttp "github.com/torpor-run/torpor/runtime/source/http"
	"github.com/torpor-run/torpor/runtime/source/push"
	"github.com/torpor-run/torpor/runtime/source/sqlite"
	"github.com/torpor-run/torpor/runtime/supervisor"
)

// serializers finds a serializer by the name that the configuration has for it.
type serializers func(ctx context.Context, name string) (runtime.Serializer, error)

// built is one configured service, put together.
type built struct {
	config  config.Service // with its folders filled in
	runtime runtime.ServiceConfig
	program *supervisor.Supervisor  // nil: it is not run by this process
	handler http.Handler            // nil: it is not in this process
	push    map[string]http.Handler // state URLs by part
	address func() string           // where it listens now; nil: it is in this process
	exited  func(error)             // is told when the program ends by itself; set before anything is started
	ended   atomic.Int64            // how often it did
	close   []func() error
}

// builder makes services of their configuration.
type builder struct {
	data        string      // the folder that has a folder for each service
	serializers serializers // nil: persistence is disabled
	ports       *supervisor.Ports
	environ     []string
	logger      *slog.Logger
}

// build puts a service together. After an error what it has opened is closed.
func (b *builder) build(ctx context.Context, sc config.Service) (_ *built, err error) {
	s := &built{push: map[string]http.Handler{}, runtime: runtime.ServiceConfig{Name: sc.Name, Save: sc.Save, Load: sc.Load,
		FlushInterval: sc.FlushInterval, HoldTimeout: sc.HoldTimeout, Idle: sc.Idle, External: sc.Upstream != ""}}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.closeAll())
		}
	}()
	folder := filepath.Join(b.data, sc.Name)
	if !sc.Embedded {
		if err := os.MkdirAll(folder, 0o700); err != nil {
			return nil, fmt.Errorf("service %s: its folder: %w", sc.Name, err)
		}
	}
	s.config = sc.InData(folder)
	switch {
	case sc.Embedded:
		return s, b.embed(ctx, s)
	case sc.Run != nil:
		if err := b.supervise(s); err != nil {
			return nil, err
		}
	default:
		u, err := url.Parse(sc.Upstream)
		if err != nil {
			return nil, fmt.Errorf("service %s: upstream: %w", sc.Name, err)
		}
		s.address = func() string { return u.Host }
	}
	if len(s.config.Changed) > 0 {
		s.runtime.Changes = b.changes(s)
	}
	for _, part := range s.config.Parts {
		pc, err := b.part(ctx, s, part)
		if err != nil {
			return nil, fmt.Errorf("service %s, part %s: %w", sc.Name, part.Name, err)
		}
		s.runtime.Parts = append(s.runtime.Parts, pc)
	}
	return s, nil
}

func (s *built) closeAll() error {
	var errs []error
	for _, f := range s.close {
		errs = append(errs, f())
	}
	return errors.Join(errs...)
}

// supervise prepares the service's program, and starts nothing yet.
func (b *builder) supervise(s *built) (err error) {
	run := s.config.Run
	if run.Folder != "" {
		if err := os.MkdirAll(run.Folder, 0o700); err != nil {
			return fmt.Errorf("service %s: the folder to run in: %w", s.config.Name, err)
		}
	}
	s.program, err = supervisor.New(supervisor.Config{Service: s.config.Name, Command: run.Command, Env: run.Env, Folder: run.Folder,
		Port: run.Port, Ports: b.ports, Ready: s.config.Ready, ReadyTimeout: run.ReadyTimeout, StopTimeout: run.StopTimeout,
		Restarts: supervisor.Restarts{Most: -1}, // the runtime starts it again, and gives it its state back
		Exited:   func(e supervisor.Exit) { s.ended.Add(1); s.exited(e.Err) },
		Logger:   b.logger})
	if err != nil {
		return err
	}
	s.runtime.Process, s.address = s.program, s.program.Address
	s.runtime.Restarts = runtime.Restarts{Most: run.Restarts.Most, Within: run.Restarts.Within}
	return nil
}

// maxChanges is how long the command may take that tells whether a service has changed.
const maxChanges = time.Minute

// changes runs the command that tells whether the service has changed.
func (b *builder) changes(s *built) func(context.Context) (bool, error) {
	program := supervisor.Program{Kind: "command", Name: s.config.Name + " (changed)", Env: b.path(), Logger: b.logger}
	if run := s.config.Run; run != nil {
		program.Env, program.Folder = run.Env, run.Folder
	}
	return func(ctx context.Context) (bool, error) {
		ctx, cancel := context.WithTimeoutCause(ctx, maxChanges, fmt.Errorf("no end after %v: %w", maxChanges, context.DeadlineExceeded))
		defer cancel()
		program := program
		program.Command = config.ExpandAll(s.config.Changed, s.places(s.address()))
		err := supervisor.RunProgram(ctx, program)
		var exit *supervisor.ProgramError
		if errors.As(err, &exit) && exit.Exit.Code == 1 {
			return false, nil
		}
		return err == nil, err
	}
}

// path is the environment of commands for a service that has none.
func (b *builder) path() []string {
	for _, v := range b.environ {
		if strings.HasPrefix(v, "PATH=") {
			return []string{v}
		}
	}
	return nil
}

// places is what stands for the placeholders of a service that listens at address.
func (s *built) places(address string) map[string]string {
	_, port, _ := net.SplitHostPort(address)
	values := map[string]string{"address": address, "port": port}
	if s.config.Run != nil {
		values["folder"] = s.config.Run.Folder
	}
	return values
}

// part puts one part together.
func (b *builder) part(ctx context.Context, s *built, part config.Part) (pc runtime.PartConfig, err error) {
	dirty := new(runtime.Dirty)
	pc = runtime.PartConfig{Name: part.Name, Dirty: dirty, Settings: part.Settings, Proof: part.Proof, Compression: part.Compression, Lag: part.Lag}
	if b.serializers != nil {
		if pc.Serializer, err = b.serializers(ctx, part.Serializer); err != nil {
			return pc, err
		}
	}
	name := s.config.Name
	switch src := part.Source; {
	case src.File != nil:
		pc.Source, err = file.New(*src.File)
	case src.Files != nil:
		var f *files.Source
		if f, err = files.New(*src.Files); err == nil {
			s.close = append(s.close, f.Close)
			pc.Source = f
		}
	case src.SQLite != nil:
		pc.Source, err = sqlite.New(*src.SQLite)
	case src.Push != nil:
		c := *src.Push
		c.Service, c.Part, c.Dirty = name, part.Name, dirty
		var p *push.Source
		if p, err = push.New(c); err == nil {
			s.push[part.Name] = p
			pc.Source, pc.SelfMarking = p, true
		}
	case src.HTTP != nil, src.Exec != nil:
		pc.Source, err = b.located(s, part)
	default:
		err = errors.New("it has no source")
	}
	return pc, err
}

// located is a source that is spoken to where the service listens, which is known when it runs and may change
// with each start. It is a [runtime.AtomicSource].
type located struct {
	at     func() (runtime.Source, error)
	atomic bool
}

func (b *builder) located(s *built, part config.Part) (runtime.Source, error) {
	at := func(address string) (runtime.Source, error) {
		src := part.Source.Filled(s.places(address))
		if src.HTTP != nil {
			c := *src.HTTP
			c.Service, c.Part = s.config.Name, part.Name
			return sourcehttp.New(c)
		}
		c := *src.Exec
		c.Service, c.Part = s.config.Name, part.Name
		return exec.New(c)
	}
	if _, err := at("127.0.0.1:1"); err != nil { // what is wrong with it is to be told now
		return nil, err
	}
	// One source for as long as the service listens there: it knows what has been saved, by cursors.
	var last string
	var made runtime.Source
	l := &located{at: func() (_ runtime.Source, err error) {
		address := s.address()
		if address == "" {
			return nil, fmt.Errorf("service %s has not been started yet", s.config.Name)
		}
		if address != last {
			last = ""
			if made, err = at(address); err != nil {
				return nil, err
			}
			last = address
		}
		return made, nil
	}}
	if part.Source.HTTP != nil {
		l.atomic = part.Source.HTTP.Atomic
	} else {
		l.atomic = part.Source.Exec.Atomic
	}
	return l, nil
}

// AtomicCapture implements [runtime.AtomicSource].
func (l *located) AtomicCapture() bool { return l.atomic }

// Capture implements [runtime.Source].
func (l *located) Capture(ctx context.Context) (runtime.Capture, error) {
	src, err := l.at()
	if err != nil {
		return nil, err
	}
	return src.Capture(ctx)
}

// Restore implements [runtime.Source].
func (l *located) Restore(ctx context.Context, native io.Reader) error {
	src, err := l.at()
	if err != nil {
		return err
	}
	return src.Restore(ctx, native)
}

// Reset implements [runtime.Source].
func (l *located) Reset(ctx context.Context) error {
	src, err := l.at()
	if err != nil {
		return err
	}
	return src.Reset(ctx)
}

// namedSerializers compiles what is built in or pinned, each once.
func namedSerializers(compile func(context.Context, string, []byte) (runtime.Serializer, error), all []kept, read func(kept) ([]byte, error)) serializers {
	done := map[string]runtime.Serializer{}
	return func(ctx context.Context, name string) (runtime.Serializer, error) {
		if s, ok := done[name]; ok {
			return s, nil
		}
		names := make([]string, len(all))
		for i, k := range all {
			if names[i] = k.name; k.name != name {
				continue
			}
			wasm, err := read(k)
			if err != nil {
				return nil, err
			}
			s, err := compile(ctx, name, wasm)
			if err != nil {
				return nil, err
			}
			done[name] = s
			return s, nil
		}
		return nil, fmt.Errorf("serializer %q: %w; there are %q (others are added with torpor module add)", name, abi.ErrNotFound, names)
	}
}
