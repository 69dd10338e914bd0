package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func (p *program) moduleInspect() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "inspect FILE|NAME|SHA256",
		Short: "Show what a module is, what it needs, and whether it is accepted",
		Long: `Inspect compiles a module as serve would and prints what it says of itself (its descriptor), its size and
digest, the functions it imports and exports, the memory and tables it asks for. It is a file, the name of
a module that is built in or pinned, or the SHA-256 of one that is built in or kept in the data folder.

A module that is refused is said to be, with the reason; the exit code is then 4 for one of another
version of the ABI, 7 for one that passes a limit, 3 for what is no WebAssembly, 1 otherwise.`,
		Example: `  torpor module inspect orders.wasm
  torpor module inspect records --json | jq .shape.imports`,
		Args: args(cobra.ExactArgs(1)),
	}
	addFlagsFor(cmd.Flags(), "cache", "data")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		return p.withModules(cmd, func(ctx context.Context, s *settings, h *moduleHost) error {
			wasm, path, err := findModule(s, a[0])
			if err != nil {
				return err
			}
			info, err := h.look(ctx, filepath.Base(a[0]), wasm)
			if err != nil {
				if asJSON {
					sum := sha256.Sum256(wasm)
					return errors.Join(writeJSON(p.Out, map[string]any{"path": path, "sha256": hex.EncodeToString(sum[:]), "size": len(wasm), "refused": err.Error()}), err)
				}
				return fmt.Errorf("refused: %w", err)
			}
			info.Path = path
			if asJSON {
				return writeJSON(p.Out, info)
			}
			return info.print(p.Out, true)
		})
	}
	return cmd
}

// findModule reads the module that an argument means; path is empty unless it is a file.
func findModule(s *settings, arg string) (wasm []byte, path string, err error) {
	if isPath(arg) {
		wasm, err = readModuleFile(arg)
		return wasm, arg, err
	}
	fsys, err := dataFolder(s)
	if err != nil {
		return nil, "", err
	}
	if fsys != nil {
		defer func() { err = errors.Join(err, fsys.Close()) }()
	}
	if digest, ok := digestOf(arg); ok {
		if wasm, ok := builtIn(digest); ok {
			return wasm, "", nil
		}
		if fsys != nil {
			wasm, err = statedir.ReadModule(fsys, digest)
			return wasm, "", err
		}
		return nil, "", fmt.Errorf("module %s: %w: there is no data folder %s", arg, abi.ErrNotFound, s.Data)
	}
	all, err := keptModules(fsys)
	names := []string{}
	for _, k := range all {
		if k.name == arg {
			wasm, err := k.read(fsys)
			return wasm, "", err
		}
		names = append(names, k.name)
	}
	if err != nil {
		return nil, "", err
	}
	return nil, "", fmt.Errorf("module %s: %w: neither built in nor pinned in %s, where there are %s; a file is named with its folder or extension, as ./%s or %s.wasm",
		arg, abi.ErrNotFound, s.Data, strings.Join(names, ", "), arg, arg)
}

func (p *program) moduleList() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List the modules that are built in and those pinned in the data folder",
		Long: `List shows the serializers that are built in and those that are pinned in the data folder (torpor module
add), which may be in use. A pinned one whose file is missing or damaged is shown, and is an error.`,
		Example: `  torpor module list
  torpor module list --json | jq '.modules[] | select(.built_in | not)'`,
		Args: args(cobra.NoArgs),
	}
	addFlagsFor(cmd.Flags(), "cache", "data")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		return p.withModules(cmd, func(ctx context.Context, s *settings, h *moduleHost) error {
			list, err := listModules(ctx, s, h)
			if asJSON {
				return errors.Join(writeJSON(p.Out, map[string]any{"modules": list}), err)
			}
			tw := tabwriter.NewWriter(p.Out, 0, 0, 2, ' ', 0)
			fmt.Fprintln(tw, "NAME\tVERSION\tSIZE\tFROM\tSHA256")
			for _, m := range list {
				from := "built in"
				if m.Added != nil {
					from = "pinned " + m.Added.Format(time.DateOnly)
				}
				bytes := "-"
				if m.Error == "" {
					bytes = fmt.Sprint(m.Size)
				}
				fmt.Fprintf(tw, "%s\t%s\t%s\t%s\t%s\n", m.Name, m.Version, bytes, from, m.SHA256)
			}
			return errors.Join(tw.Flush(), err)
		})
	}
	return cmd
}

// listedModule is what list prints as JSON.
type listedModule struct {
	Name    string     `json:"name"`
	Version string     `json:"version"`
	SHA256  string     `json:"sha256"`
	Size    int        `json:"size"`
	BuiltIn bool       `json:"built_in"`
	Added   *time.Time `json:"added,omitempty"` // of a pinned one
	Error   string     `json:"error,omitempty"` // why it cannot be used
}

func listModules(ctx context.Context, s *settings, h *moduleHost) (list []listedModule, err error) {
	fsys, err := dataFolder(s)
	if err != nil {
		return nil, err
	}
	if fsys != nil {
		defer func() { err = errors.Join(err, fsys.Close()) }()
	}
	all, err := keptModules(fsys)
	errs := []error{err}
	list = []listedModule{}
	for _, k := range all {
		m := listedModule{Name: k.name, Version: k.version, SHA256: hex.EncodeToString(k.digest[:]), BuiltIn: k.builtIn()}
		wasm, err := k.read(fsys)
		if err == nil && k.builtIn() {
			var info moduleInfo
			info, err = h.look(ctx, k.name, wasm)
			m.Version = info.Version
		}
		if !k.builtIn() {
			m.Added = &k.added
		}
		if m.Size = len(wasm); err != nil {
			m.Error = err.Error()
			errs = append(errs, err)
		}
		list = append(list, m)
	}
	return list, errors.Join(errs...)
}

func (p *program) moduleAdd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "add FILE|DIR",
		Short: "Check modules, keep them in the data folder and pin their names",
		Long: `Add compiles a module, or every *.wasm in a folder, as serve would; a refused one stops it before anything
is kept. Then each is copied into the data folder, as modules/<sha256>.wasm, and its name, which its
descriptor has, is pinned to it: what the name stood for before is said. The copy is durable when add
ends; the file can go.

The data folder must not be in use: stop its runtime first.

A pinned module stays until it is replaced or removed, and no state or setting needs it for that. Which
serializer a service saves through is not decided by pins yet.`,
		Example: `  torpor module add orders.wasm
  torpor module add ./serializers --data /var/lib/torpor`,
		Args: args(cobra.ExactArgs(1)),
	}
	addFlagsFor(cmd.Flags(), "cache", "data")
	cmd.Flags().BoolVar(&asJSON, "json", false, "print JSON")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		return p.withModules(cmd, func(ctx context.Context, s *settings, h *moduleHost) error {
			files, err := moduleFiles(a[0])
			if err != nil {
				return err
			}
			list, err := h.check(ctx, files)
			if err != nil {
				return err
			}
			done, err := p.pinAll(s, list)
			if asJSON {
				return errors.Join(writeJSON(p.Out, map[string]any{"modules": done}), err)
			}
			for _, m := range done {
				fmt.Fprintln(p.Out, m.text())
			}
			return err
		})
	}
	return cmd
}

// moduleFiles are the modules that an argument of add means.
func moduleFiles(arg string) ([]string, error) {
	info, err := os.Stat(arg)
	if err == nil && !info.IsDir() || errors.Is(err, fs.ErrNotExist) {
		return []string{arg}, nil // readModuleFile says what is wrong with it
	}
	entries, err := os.ReadDir(arg)
	if err != nil {
		return nil, fmt.Errorf("modules: %w", err)
	}
	var files []string
	for _, e := range entries {
		if filepath.Ext(e.Name()) == ".wasm" && !strings.HasPrefix(e.Name(), ".") && !e.IsDir() {
			files = append(files, filepath.Join(arg, e.Name()))
		}
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("folder %s: a file *.wasm: %w", arg, abi.ErrNotFound)
	}
	return files, nil
}

// addedModule is what add prints as JSON.
type addedModule struct {
	Path     string          `json:"path"`
	Name     string          `json:"name"`
	Version  string          `json:"version"`
	SHA256   string          `json:"sha256"`
	Size     int             `json:"size"`
	Replaced *replacedModule `json:"replaced,omitempty"`
	Same     bool            `json:"same"` // it was pinned already
	wasm     []byte
}

type replacedModule struct {
	Version string `json:"version"`
	SHA256  string `json:"sha256"`
}

func (m addedModule) text() string {
	s := fmt.Sprintf("%s %s  %s", m.Name, m.Version, m.SHA256)
	switch {
	case m.Same:
		return s + "  was pinned already"
	case m.Replaced != nil:
		return fmt.Sprintf("%s  pinned; it was %s  %s", s, m.Replaced.Version, m.Replaced.SHA256)
	}
	return s + "  pinned"
}

// check compiles files and sees to it that they can be pinned together.
func (h *moduleHost) check(ctx context.Context, files []string) ([]addedModule, error) {
	var list []addedModule
	for _, path := range files {
		wasm, err := readModuleFile(path)
		if err != nil {
			return nil, err
		}
		info, err := h.look(ctx, filepath.Base(path), wasm)
		if err != nil {
			return nil, fmt.Errorf("%s is refused: %w", path, err)
		}
		if isBuiltIn(info.Name) {
			return nil, usageError{fmt.Errorf("%s calls itself %s, as a serializer that is built in does; give it another name", path, info.Name)}
		}
		if i := slices.IndexFunc(list, func(m addedModule) bool { return m.Name == info.Name }); i >= 0 {
			return nil, usageError{fmt.Errorf("%s and %s both call themselves %s; add one of them", list[i].Path, path, info.Name)}
		}
		if err := statedir.CheckPin(info.Name, info.Version); err != nil {
			return nil, usageError{fmt.Errorf("%s: %w", path, err)}
		}
		list = append(list, addedModule{Path: path, Name: info.Name, Version: info.Version, SHA256: info.SHA256, Size: len(wasm), wasm: wasm})
	}
	return list, nil
}

// isBuiltIn reports whether a serializer that is built in has a name.
func isBuiltIn(name string) bool {
	return slices.ContainsFunc(modules.All(), func(m modules.Module) bool { return m.Name == name })
}

// withDir runs do with the data folder, locked.
func (p *program) withDir(s *settings, do func(d *statedir.Dir) error) (err error) {
	fsys, err := vfs.OS(s.Data)
	if err != nil {
		return fmt.Errorf("data folder %s: %w; choose another with --data", s.Data, err)
	}
	defer func() { err = errors.Join(err, fsys.Close()) }()
	d, err := statedir.Open(fsys, statedir.Options{Keep: s.Generations, Logger: p.logger(s)})
	if err != nil {
		return fmt.Errorf("data folder %s: %w", s.Data, err)
	}
	defer func() { err = errors.Join(err, d.Close()) }()
	return do(d)
}

// pinAll returns what was pinned, also with an error.
func (p *program) pinAll(s *settings, list []addedModule) (done []addedModule, err error) {
	done = []addedModule{}
	err = p.withDir(s, func(d *statedir.Dir) error {
		for _, m := range list {
			before, replaced, err := d.Pin(m.Name, m.Version, m.wasm)
			if err != nil {
				return err
			}
			if digest := hex.EncodeToString(before.Digest[:]); replaced {
				if m.Same = digest == m.SHA256; !m.Same {
					m.Replaced = &replacedModule{before.Version, digest}
				}
			}
			done = append(done, m)
		}
		return nil
	})
	return done, err
}

func (p *program) moduleRemove() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "remove NAME",
		Short: "Take a pinned name away",
		Long: `Remove takes the name of a pinned module away. The module itself stays as long as a state needs it; the next
start removes it then.

The data folder must not be in use: stop its runtime first.`,
		Example: `  torpor module remove orders`,
		Args:    args(cobra.ExactArgs(1)),
	}
	addFlagsFor(cmd.Flags(), "data")
	cmd.RunE = func(cmd *cobra.Command, a []string) error {
		s, err := readSettings(cmd.Flags(), p.environ, knownServices())
		if err != nil {
			return err
		}
		if _, err := os.Stat(s.Data); err != nil {
			return fmt.Errorf("pinned module %s: %w: there is no data folder %s", a[0], abi.ErrNotFound, s.Data)
		}
		if err := p.withDir(s, func(d *statedir.Dir) error { return d.Unpin(a[0]) }); err != nil {
			return err
		}
		fmt.Fprintf(p.Out, "%s  no longer pinned\n", a[0])
		return nil
	}
	return cmd
}
