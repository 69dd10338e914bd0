package hooks

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/torpor-run/torpor/runtime/supervisor"
)

// Defaults and bounds of [Config].
const (
	MinTimeout     = 100 * time.Millisecond
	DefaultTimeout = time.Hour
	MaxTimeout     = 24 * time.Hour

	MinGrace     = 10 * time.Millisecond
	DefaultGrace = 5 * time.Second
	MaxGrace     = time.Minute
)

// maxTold is how many of many things are told one by one, in the log and in an error.
const maxTold = 20

// Stage is a moment in the life of the runtime.
type Stage int

// The stages, in their order.
const (
	Boot     Stage = iota // before anything is there
	Start                 // the runtime is there and nothing is served yet
	Ready                 // requests are answered
	Shutdown              // the runtime is about to end
	numStages
)

// String is the stage's name as LocalStack has it, "BOOT".
func (s Stage) String() string {
	if s < 0 || s >= numStages {
		return fmt.Sprintf("Stage(%d)", int(s))
	}
	return [...]string{"BOOT", "START", "READY", "SHUTDOWN"}[s]
}

// Folder is the name of the folder with the stage's scripts, "boot.d".
func (s Stage) Folder() string { return strings.ToLower(s.String()) + ".d" }

// State is what has become of a script.
type State string

// The states, as LocalStack has them.
const (
	Unknown    State = "UNKNOWN" // found, and not run so far
	Running    State = "RUNNING"
	Successful State = "SUCCESSFUL"
	Failed     State = "ERROR"
)

// Script is a file that is run in a stage.
type Script struct {
	Name  string // the last part of its path
	Path  string // from Config.Folder on
	State State
}

// StageState is what is known of a stage at one moment.
type StageState struct {
	Stage     Stage
	Completed bool // all its scripts have been run, or will not be any more; without any it completes too
	Scripts   []Script
}

// Config is what [Hooks] are made of. Zero fields mean the defaults, where they are not required.
type Config struct {
	Folder  string            // with boot.d, start.d, ready.d and shutdown.d, each of which may be missing; so may it. "": there are no scripts
	Env     []string          // NAME=VALUE, all that scripts get; python3 is looked for in the PATH of it
	WorkDir string            // where scripts run; "" is the runtime's own
	Timeout time.Duration     // for one script
	Grace   time.Duration     // between asking a script to end (SIGTERM) and ending it (SIGKILL)
	Output  supervisor.Output // how much of what scripts say goes to the log
	Logger  *slog.Logger      // required
}

// Hooks are the scripts of all stages. They are safe for concurrent use.
type Hooks struct {
	config  Config
	program func(context.Context, supervisor.Program) error // runs one
	turn    chan struct{}                                   // who has put something in runs a stage
	next    Stage                                           // the first that may still be run; of who has the turn

	mu     sync.Mutex
	stages [numStages]StageState
}

// New looks for scripts; it runs none yet. The error names what is wrong with the configuration: a folder that is
// not there is fine, something else in its place is not.
func New(config Config) (*Hooks, error) {
	fail := func(format string, args ...any) (*Hooks, error) {
		return nil, fmt.Errorf("init hooks: %w", fmt.Errorf(format, args...))
	}
	if config.Logger == nil {
		return fail("Logger is required")
	}
	for _, v := range config.Env {
		if name, _, ok := strings.Cut(v, "="); !ok || name == "" {
			return fail("%q in Env is not NAME=VALUE", v)
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
			return fail("%s is %v; it may be %v to %v", d.name, *d.value, d.least, d.most)
		}
	}
	var err error
	if config.Output, err = config.Output.Check(); err != nil {
		return fail("%w", err)
	}
	if config.Folder != "" {
		if config.Folder, err = filepath.Abs(config.Folder); err != nil {
			return fail("Folder: %w", err)
		}
		info, err := os.Stat(config.Folder)
		switch {
		case err != nil && !errors.Is(err, fs.ErrNotExist):
			return fail("Folder: %w", err)
		case err == nil && !info.IsDir():
			return fail("%s is no folder", config.Folder)
		}
	}
	config.Env = slices.Clone(config.Env)
	h := &Hooks{config: config, program: supervisor.RunProgram, turn: make(chan struct{}, 1)}
	for stage := range numStages {
		h.stages[stage] = StageState{stage, false, h.look(stage).scripts}
	}
	return h, nil
}

// look finds a stage's scripts.
func (h *Hooks) look(stage Stage) *finder {
	f := find(h.config.Folder, stage)
	for i := range f.scripts {
		f.scripts[i].State = Unknown
	}
	return f
}

// State tells of all stages, in their order.
func (h *Hooks) State() []StageState {
	h.mu.Lock()
	defer h.mu.Unlock()
	states := slices.Clone(h.stages[:])
	for i := range states {
		states[i].Scripts = slices.Clone(states[i].Scripts)
	}
	return states
}

// Run runs the scripts of a stage one after the other and returns when the last one has ended. What has gone wrong
// has been logged, and is in the error for who wants to do more about it, as far as it is not too much. Stages wait
// for each other. One that has been run is not run again, which is no error; one that comes before another that has
// been run is not run any more, which is. When ctx ends so does the script that runs, with all that it has begun, and
// those after it stay Unknown; the stage is completed all the same, as LocalStack has it.
func (h *Hooks) Run(ctx context.Context, stage Stage) error {
	if stage < 0 || stage >= numStages {
		return fmt.Errorf("init hooks: there is no stage %v", stage)
	}
	select {
	case h.turn <- struct{}{}:
		defer func() { <-h.turn }()
	case <-ctx.Done():
		return fmt.Errorf("init stage %v: the one before has not ended: %w", stage, context.Cause(ctx))
	}
	logger := h.config.Logger.With("stage", stage.String())
	if h.completed(stage) {
		logger.Debug("init stage has been run already")
		return nil
	}
	if stage < h.next {
		return fmt.Errorf("init stage %v comes before %v, which has been run: it is not run any more", stage, h.next-1)
	}
	h.next = stage + 1
	found := h.look(stage)
	h.update(stage, func(s *StageState) { s.Scripts = found.scripts })
	defer h.update(stage, func(s *StageState) { s.Completed = true })
	h.tell(logger, found)
	errs := found.errs
	// What is found is now the state's; only names are read of it.
	for i, script := range slices.Clone(found.scripts) {
		if ctx.Err() != nil {
			err := fmt.Errorf("init stage %v: %d of its scripts have not been run: %w", stage, len(found.scripts)-i, context.Cause(ctx))
			logger.Warn("init scripts are not run any more", "scripts", len(found.scripts)-i, "error", context.Cause(ctx))
			errs = append(errs, err)
			break
		}
		h.update(stage, func(s *StageState) { s.Scripts[i].State = Running })
		err := h.run(ctx, logger, script)
		h.update(stage, func(s *StageState) {
			s.Scripts[i].State = Successful
			if err != nil {
				s.Scripts[i].State = Failed
			}
		})
		if err != nil {
			errs = append(errs, err)
		}
		if errors.Is(err, errors.ErrUnsupported) { // it is the same for all
			h.update(stage, func(s *StageState) {
				for j := range s.Scripts {
					s.Scripts[j].State = Failed
				}
			})
			break
		}
	}
	if more := len(errs) - maxTold; more > 0 {
		errs = append(errs[:maxTold:maxTold], fmt.Errorf("and %d more", more))
	}
	return errors.Join(errs...)
}

// tell logs what of a stage's folder is not run.
func (h *Hooks) tell(logger *slog.Logger, found *finder) {
	for _, err := range found.errs[:min(maxTold, len(found.errs))] {
		logger.Error("init scripts may be missing", "error", err)
	}
	for _, i := range found.ignored[:min(maxTold, len(found.ignored))] {
		logger.Info("not an init script", "name", i.name, "why", i.why)
	}
	if more := max(len(found.errs)-maxTold, 0) + max(len(found.ignored)-maxTold, 0); more > 0 {
		logger.Warn("more in the init folder is not run", "files", more)
	}
}

// run runs one script and logs how it ended.
func (h *Hooks) run(ctx context.Context, logger *slog.Logger, script Script) error {
	name, path := quoted(script.Path), filepath.Join(h.config.Folder, script.Path)
	begun := time.Now()
	logger.Info("init script begins", "script", name)
	args, why, err := command(path)
	if err == nil && why != "" {
		err = errors.New(why) // it was another file when it was found
	}
	if err == nil {
		limited, cancel := context.WithTimeoutCause(ctx, h.config.Timeout, fmt.Errorf("no end after %v: %w", h.config.Timeout, context.DeadlineExceeded))
		defer cancel()
		err = h.program(limited, supervisor.Program{Kind: "script", Name: name, Command: args, Env: h.config.Env,
			Folder: h.config.WorkDir, Grace: h.config.Grace, Output: h.config.Output, Logger: logger})
	}
	switch {
	case errors.Is(err, errors.ErrUnsupported):
		err = fmt.Errorf("init scripts cannot be run on this system: %w", errors.ErrUnsupported)
	case err != nil:
		err = fmt.Errorf("init script %s: %w%s", name, err, hint(path))
	}
	seconds := time.Since(begun).Seconds()
	if err != nil {
		logger.Error("init script failed", "script", name, "seconds", seconds, "error", err)
	} else {
		logger.Info("init script succeeded", "script", name, "seconds", seconds)
	}
	return err
}

func (h *Hooks) completed(stage Stage) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.stages[stage].Completed
}

func (h *Hooks) update(stage Stage, change func(*StageState)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	change(&h.stages[stage])
}
