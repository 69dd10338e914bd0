package project

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// A MissingError says that a program that builds a language is not there, and how to get it.
type MissingError struct {
	Language string
	What     string // the program, or what it lacks
	Remedy   string
}

func (e *MissingError) Error() string {
	return fmt.Sprintf("to build %s, %s is needed, which is not here: %s", e.Language, e.What, e.Remedy)
}

// A BuildError says that a program has run and has failed; what it had to say has been written out.
type BuildError struct {
	Command string
	Err     error
}

func (e *BuildError) Error() string { return fmt.Sprintf("%s: %v; see above", e.Command, e.Err) }
func (e *BuildError) Unwrap() error { return e.Err }

// Detect says which of [Languages] the project in a folder is written in. The error is a *[RefusedError] if
// that is none, or more than one.
func Detect(dir string) (string, error) {
	l, err := detect(dir)
	return l.name, err
}

func detect(dir string) (language, error) {
	entries, err := os.ReadDir(dir)
	if err != nil {
		if info, serr := os.Stat(dir); serr != nil || !info.IsDir() {
			return language{}, refuse("%s is no folder: name the folder of a project", dir)
		}
		return language{}, fmt.Errorf("project: %w", err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() {
			files = append(files, e.Name())
		}
	}
	var found []language
	for _, l := range languages() {
		if l.detect(dir, files) {
			found = append(found, l)
		}
	}
	if len(found) == 1 {
		return found[0], nil
	}
	const forms = "Go has *.go and a go.mod, Rust a Cargo.toml, AssemblyScript an asconfig.json, C *.c and " + sdkFolder + "/torpor.h"
	if len(found) == 0 {
		return language{}, refuse("folder %s holds no project that torpor can build: %s; torpor module new makes one", dir, forms)
	}
	var names []string
	for _, l := range found {
		names = append(names, l.name)
	}
	return language{}, refuse("folder %s looks like a project in %s at once: %s", dir, strings.Join(names, " and "), forms)
}

// Build builds the project in a folder and returns where the module is: NAME.wasm in that folder, NAME being
// what [New] was given and has noted there. Of a project that was not made by New it is the name in its own
// language: of the Go module's path the last element, of the crate, of the npm package; in C, of the one
// file, or else of the folder. What the programs it runs say goes to out. A module that is there already is
// replaced, and only by one that was built to its end.
//
// The same sources give the same bytes in every folder, whatever the environment says, as far as the compiler
// and its own configuration files are the same.
//
// The error is a *[RefusedError] if there is no project, a *[MissingError] if a program is missing, a
// *[BuildError] if one failed.
func Build(ctx context.Context, dir string, out io.Writer) (wasm string, err error) {
	l, err := detect(dir)
	if err != nil {
		return "", err
	}
	abs, err := filepath.Abs(dir)
	if err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	if abs, err = filepath.EvalSymlinks(abs); err != nil { // compilers write down the real path
		return "", fmt.Errorf("build: %w", err)
	}
	work, err := os.MkdirTemp("", "torpor-build-")
	if err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	defer func() { err = errors.Join(err, os.RemoveAll(work)) }()
	b := &builder{ctx: ctx, dir: abs, work: work, out: out, language: l.name, result: filepath.Join(work, "module.wasm")}
	if b.name, err = notedName(dir); err != nil {
		return "", err
	}
	if err := l.build(b); err != nil {
		return "", err
	}
	wasm = filepath.Join(dir, b.name+".wasm")
	if err := replaceFile(wasm, b.result); err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	return wasm, nil
}

// notedName is what New has noted that the project in a folder is called; "" where it has noted nothing.
func notedName(dir string) (string, error) {
	file := filepath.Join(dir, nameFile)
	content, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", fmt.Errorf("build: %w", err)
	}
	name := strings.TrimSpace(string(content))
	if err := CheckName(name); err != nil {
		return "", refuse("%s, which names what is built: %v", file, err)
	}
	return name, nil
}

// replaceFile gives a copy of from the name to, at once.
func replaceFile(to, from string) error {
	content, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	f, err := os.CreateTemp(filepath.Dir(to), "."+filepath.Base(to)+"-")
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	err = errors.Join(err, f.Chmod(0o644), f.Close())
	if err == nil {
		err = os.Rename(f.Name(), to)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// builder is one run of Build.
type builder struct {
	ctx      context.Context
	dir      string // absolute
	work     string // for files of this run
	out      io.Writer
	language string
	result   string // where the module is to be put
	name     string // what it is called: noted by New, or else found out by the language's build
}

// need finds a program by the first of its names that is there.
func (b *builder) need(what, remedy string, names ...string) (string, error) {
	for _, name := range names {
		if file, err := exec.LookPath(name); err == nil {
			return file, nil
		}
	}
	return "", &MissingError{Language: b.language, What: what, Remedy: remedy}
}

// command prepares a program to be run in the project.
func (b *builder) command(env []string, program string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(b.ctx, program, args...)
	cmd.Dir = b.dir
	cmd.Env = append(buildEnvironment(os.Environ()), env...)
	return cmd
}

// run runs a program and shows what it says.
func (b *builder) run(env []string, program string, args ...string) error {
	cmd := b.command(env, program, args...)
	cmd.Stdout, cmd.Stderr = b.out, b.out
	return b.failed(cmd, cmd.Run())
}

// ask runs a program and returns what it prints; what else it says is shown only when it fails.
func (b *builder) ask(env []string, program string, args ...string) (string, error) {
	cmd := b.command(env, program, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	answer, err := cmd.Output()
	if err != nil {
		_, _ = complaint.WriteTo(b.out)
	}
	return strings.TrimSpace(string(answer)), b.failed(cmd, err)
}

func (b *builder) failed(cmd *exec.Cmd, err error) error {
	if err == nil {
		return nil
	}
	if b.ctx.Err() != nil {
		return b.ctx.Err()
	}
	args := append([]string{filepath.Base(cmd.Path)}, cmd.Args[1:]...)
	return &BuildError{Command: strings.Join(args[:min(len(args), 3)], " "), Err: err}
}

// hasSuffix reports whether one of the names ends so.
func hasSuffix(names []string, suffix string) bool {
	return slices.ContainsFunc(names, func(n string) bool { return strings.HasSuffix(n, suffix) })
}

func exists(elements ...string) bool {
	_, err := os.Stat(filepath.Join(elements...))
	return err == nil
}
