package hooks

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
)

// Bounds of a stage's folder. Of one that passes them no script is run.
const (
	MaxScripts = 10_000
	MaxEntries = 100_000 // files and folders of all kinds
	MaxDepth   = 32      // folders in folders
)

// maxHead is how much of a file is looked at to see what it is: what Linux looks at for an interpreter.
const maxHead = 256

// finder looks for the scripts of a stage.
type finder struct {
	base    string // the init folder, absolute
	entries int
	scripts []Script
	ignored []ignored
	errs    []error
}

// ignored is something in a stage's folder that is not run.
type ignored struct{ name, why string }

// errBound ends a search.
var errBound = fmt.Errorf("none of it is run: %w", abi.ErrTooLarge)

// find looks for the scripts of a stage, in the order in which they are run.
func find(base string, stage Stage) *finder {
	f := &finder{base: base}
	if base == "" {
		return f
	}
	// The stage's folder itself may be a link, as it may for LocalStack.
	if err := f.folder(stage.Folder(), 0); err != nil {
		f.scripts, f.ignored, f.errs = nil, nil, []error{fmt.Errorf("init folder %s: %w", quoted(filepath.Join(base, stage.Folder())), err)}
	}
	return f
}

// folder looks at one folder, named from the base on. Its error ends the search.
func (f *finder) folder(name string, depth int) error {
	entries, err := f.read(name, depth)
	if err != nil {
		return err
	}
	slices.SortFunc(entries, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	var folders []string
	for _, e := range entries {
		child := filepath.Join(name, e.Name())
		info, err := os.Stat(filepath.Join(f.base, child))
		switch {
		case errors.Is(err, fs.ErrNotExist):
			f.ignore(child, "it is a link to nothing")
		case err != nil:
			f.fail(child, err)
		case info.IsDir() && e.Type()&fs.ModeSymlink != 0:
			f.ignore(child, "links to folders are not followed")
		case info.IsDir() && strings.HasPrefix(e.Name(), ".."):
			f.ignore(child, "Kubernetes keeps there what the links beside it lead to")
		case info.IsDir():
			folders = append(folders, child)
		case !info.Mode().IsRegular():
			f.ignore(child, "it is neither a file nor a folder")
		default:
			if err := f.file(child, e.Name()); err != nil {
				return err
			}
		}
	}
	for _, child := range folders {
		if err := f.folder(child, depth+1); err != nil {
			return err
		}
	}
	return nil
}

func (f *finder) file(name, last string) error {
	if !f.isScript(name) {
		return nil
	}
	if len(f.scripts) == MaxScripts {
		return fmt.Errorf("more than %d scripts; %w", MaxScripts, errBound)
	}
	f.scripts = append(f.scripts, Script{Name: last, Path: name})
	return nil
}

// isScript tells scripts from other files, of which it keeps account.
func (f *finder) isScript(name string) bool {
	if strings.HasSuffix(name, ".sh") || strings.HasSuffix(name, ".py") {
		return true // whatever is in it: a person expects it to be run
	}
	_, why, err := command(filepath.Join(f.base, name))
	if err != nil { // it may be executed and can not be read
		f.fail(name, err)
	} else if why != "" {
		f.ignore(name, "neither .sh nor .py, and no program that may be executed")
	}
	return err == nil && why == ""
}

// read lists a folder. One that is not there is empty.
func (f *finder) read(name string, depth int) ([]fs.DirEntry, error) {
	if depth > MaxDepth {
		return nil, fmt.Errorf("folders lie more than %d deep; %w", MaxDepth, errBound)
	}
	path := filepath.Join(f.base, name)
	if info, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	} else if err == nil && !info.IsDir() {
		f.ignore(name, "it is no folder") // only a stage's own can be
		return nil, nil
	}
	folder, err := os.Open(path)
	if err != nil {
		f.fail(name, err)
		return nil, nil
	}
	defer folder.Close()
	entries, err := folder.ReadDir(MaxEntries - f.entries + 1)
	f.entries += len(entries)
	switch {
	case f.entries > MaxEntries:
		return nil, fmt.Errorf("more than %d files and folders; %w", MaxEntries, errBound)
	case err != nil && !errors.Is(err, io.EOF):
		f.fail(name, err)
		return nil, nil
	}
	return entries, nil
}

func (f *finder) ignore(name, why string) { f.ignored = append(f.ignored, ignored{quoted(name), why}) }

// fail notes what may hide a script.
func (f *finder) fail(name string, err error) {
	var perr *fs.PathError
	if errors.As(err, &perr) {
		err = perr.Err // the name is said, and better
	}
	f.errs = append(f.errs, fmt.Errorf("%s in the init folder is left out: %w", quoted(name), err))
}

// command says how a script is run; why, if it is not, says why not.
func command(path string) (args []string, why string, err error) {
	switch {
	case strings.HasSuffix(path, ".py"):
		return []string{"python3", path}, "", nil
	case !strings.HasSuffix(path, ".sh") && !mayExecute(path):
		return nil, "it may not be executed", nil
	}
	head, err := readHead(path)
	if err != nil {
		return nil, "", err
	}
	interpreter := interpreterOf(head)
	switch {
	case mayExecute(path) && (interpreter != nil || isProgram(head)):
		return []string{path}, "", nil
	case !strings.HasSuffix(path, ".sh"):
		return nil, "it is no program and names no interpreter", nil
	case interpreter != nil:
		return append(interpreter, path), "", nil
	}
	return []string{"/bin/sh", path}, "", nil
}

func readHead(path string) ([]byte, error) {
	file, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer file.Close()
	head := make([]byte, maxHead)
	n, err := io.ReadFull(file, head)
	if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
		err = nil
	}
	return head[:n], err
}

// interpreterOf gives the interpreter that a script's first line names, with its argument if there is one; more than
// one argument are one, as for the kernel, execve(2). It is nil if there is none.
func interpreterOf(head []byte) []string {
	line, ok := bytes.CutPrefix(head, []byte("#!"))
	if !ok {
		return nil
	}
	line, _, _ = bytes.Cut(line, []byte("\n"))
	name, argument, _ := strings.Cut(strings.Trim(string(line), " \t\r"), " ")
	if name == "" {
		return nil
	}
	if argument = strings.TrimLeft(argument, " \t"); argument != "" {
		return []string{name, argument}
	}
	return []string{name}
}

// isProgram knows ELF and Mach-O, of 64 bits and of several machines.
func isProgram(head []byte) bool {
	for _, magic := range []string{"\x7fELF", "\xcf\xfa\xed\xfe", "\xca\xfe\xba\xbe"} {
		if bytes.HasPrefix(head, []byte(magic)) {
			return true
		}
	}
	return false
}

// hint says what a script that failed may be suffering from, to be put behind a message.
func hint(path string) string {
	head, err := readHead(path)
	if err == nil && bytes.Contains(head, []byte("\r\n")) && !strings.HasSuffix(path, ".py") {
		return "; its lines end with CR LF, as on Windows, and interpreters here take the CR for text: save it with LF"
	}
	return ""
}

// quoted is a name as it can be shown in one line.
func quoted(name string) string {
	if q := strconv.Quote(name); q != `"`+name+`"` {
		return q
	}
	return name
}
