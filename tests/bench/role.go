package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
)

// This program is also the processes that are measured, or that measure: begun again with one of these in
// roleVariable.
const (
	roleVariable = "BENCH_ROLE"
	roleService  = "service" // see serveItems
	roleLoad     = "load"    // see generate
)

// playRole is main where this process has a role; otherwise it does nothing.
func playRole() (played bool, err error) {
	switch role := os.Getenv(roleVariable); role {
	case "":
		return false, nil
	case roleService:
		return true, serveItems(os.Getenv(addressVariable), os.Stdout)
	case roleLoad:
		return true, generate(os.Stdin, os.Stdout)
	default:
		return true, fmt.Errorf("%s=%s is no role", roleVariable, role)
	}
}

// roleCommand prepares this program in a role.
func roleCommand(ctx context.Context, role string) (*exec.Cmd, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.CommandContext(ctx, self)
	cmd.Env = append(os.Environ(), roleVariable+"="+role)
	cmd.Stderr = os.Stderr
	return cmd, nil
}

// listening is a process that has said where it listens.
type listening struct {
	cmd     *exec.Cmd
	address string // host:port
	ended   chan struct{}
}

// listen starts a program, and returns when it has said "… listening on http://HOST:PORT" in its first line.
func listen(cmd *exec.Cmd) (*listening, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	l := &listening{cmd: cmd, ended: make(chan struct{})}
	said := bufio.NewReader(out)
	line, err := said.ReadString('\n')
	go func() {
		defer close(l.ended)
		_, _ = io.Copy(io.Discard, said)
		_ = cmd.Wait() // it is stopped by a signal
	}()
	var ok bool
	if _, l.address, ok = strings.Cut(strings.TrimSpace(line), "listening on http://"); !ok {
		l.kill()
		return nil, errors.Join(fmt.Errorf("%s says %q, and not where it listens", cmd.Path, line), err)
	}
	return l, nil
}

func (l *listening) kill() {
	_ = l.cmd.Process.Kill() // it may have ended
	<-l.ended
}

// generator is a process that sends requests and measures the answers.
type generator struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	say *json.Encoder
	out *json.Decoder
}

func startGenerator(ctx context.Context) (*generator, error) {
	cmd, err := roleCommand(ctx, roleLoad)
	if err != nil {
		return nil, err
	}
	in, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &generator{cmd: cmd, in: in, say: json.NewEncoder(in), out: json.NewDecoder(out)}, nil
}

// send has the generator do one load.
func (g *generator) send(l load) (outcome, error) {
	if err := g.say.Encode(l); err != nil {
		return outcome{}, err
	}
	var answer outcome
	if err := g.out.Decode(&answer); err != nil {
		return outcome{}, fmt.Errorf("the load generator: %w", err)
	}
	if answer.Failed != "" {
		return answer, fmt.Errorf("load on %s: %s", l.Address, answer.Failed)
	}
	return answer, nil
}

func (g *generator) close() error { return errors.Join(g.in.Close(), g.cmd.Wait()) }
