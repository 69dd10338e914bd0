package supervisor

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"time"
)

// Program is a program that is run once, to its end, by [RunProgram].
type Program struct {
	Kind, Name string        // for messages, such as "script" and "seed.sh"; the name stands before each line of the log
	Command    []string      // with its arguments, all as they are; looked for as [Config].Command is
	Env        []string      // NAME=VALUE, all that it gets
	Folder     string        // where it runs; "" is the runtime's own
	Grace      time.Duration // between asking it to end (SIGTERM) and ending it (SIGKILL)
	Output     Output        // what of it goes to the log; zero fields mean the defaults
	Logger     *slog.Logger
}

// ProgramError says that a program ended otherwise than with exit code 0.
type ProgramError struct {
	Exit Exit
	said string
}

// Error implements error.
func (e *ProgramError) Error() string { return fmt.Sprintf("it %v%s", e.Exit, e.said) }

// RunProgram runs a program that is no service under a guard, and returns when it has ended and nothing is left of
// what it began, which is ended with it. When ctx ends so does the program: it is asked, and killed after Grace. The
// error is nil if the exit code is 0; otherwise it is a [*ProgramError], with what the program said last. It wraps
// context.Cause(ctx) if that is over, abi.ErrNotFound if the program or its folder is missing, and
// errors.ErrUnsupported where the system has no process groups. It is safe for concurrent use.
func RunProgram(ctx context.Context, p Program) error {
	if len(p.Command) == 0 || p.Command[0] == "" {
		return errors.New("no program is named")
	}
	folder := p.Folder
	if folder == "" {
		folder = "."
	}
	folder, err := filepath.Abs(folder)
	if err != nil {
		return err
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	limit, err := p.Output.Check()
	if err != nil {
		return err
	}
	out := newOutput(p.Name, limit, nil, p.Logger)
	out.kind = p.Kind
	r, err := spawn(ctx, order{Args: toBytes(p.Command), Env: toBytes(p.Env), Folder: []byte(folder), Grace: p.Grace}, out, func() {})
	if r == nil {
		return err
	}
	over := false
	if err == nil {
		select {
		case <-r.exited:
		case <-ctx.Done():
			over = true
			select {
			case <-r.exited: // before it was asked to
				over = false
			default:
			}
		}
	} else if ctx.Err() != nil {
		over = true
	}
	var kill chan struct{}
	if !r.runs() {
		kill = closed() // there is nothing to ask
	}
	left := r.end(kill)
	exit := r.exit
	tail := said(r.out.tail())
	switch {
	case over:
		err = fmt.Errorf("%w%s", context.Cause(ctx), tail)
	case err != nil:
		err = fmt.Errorf("%w%s", err, tail)
	case exit.Code != 0 || exit.Signal != "":
		err = &ProgramError{Exit: exit, said: tail}
	}
	return errors.Join(err, left)
}
