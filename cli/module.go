package cli

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

func (p *program) module() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "module",
		Short: "Make, build, check and keep serializer modules",
		Long: `A serializer is a WebAssembly module that turns a service's native state into records and back. These
commands go from nothing to one that is tested and kept:

  torpor module new orders --lang go       writes a project, SDK included
  cd orders && torpor module build         builds orders.wasm
  torpor module test orders.wasm
  torpor module add orders.wasm            checks it, keeps it in the data folder, pins its name

What is pinned is kept, whether a state needs it or not, and compiled by warm. A service uses it by its name:
serializer: orders, in torpor.yaml. A state that a kept module wrote is read by it where the running Torpor has
no serializer for it.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(p.moduleNew(), p.moduleBuild(), p.moduleTest(), p.moduleInspect(), p.moduleList(), p.moduleAdd(), p.moduleRemove(), p.moduleWarm())
	return cmd
}

// moduleHost is a host for commands about modules, and what it tells.
type moduleHost struct {
	*host.Host
	named  map[string]host.Limits // of modules by name
	mu     sync.Mutex
	memory int64 // of the last describe
}

// logger is the one of commands about modules.
func (p *program) logger(s *settings) *slog.Logger {
	return newLogger(p.Err, s.LogLevel, s.LogFormat, p.env("NO_COLOR") != "")
}

// newModuleHost makes a host with the limits of the settings. Compiled modules go to the cache if there is
// one: a command that only looks makes no data folder.
func (p *program) newModuleHost(ctx context.Context, s *settings) (*moduleHost, error) {
	h := &moduleHost{named: s.modules}
	cfg := hostConfig(s, p.logger(s))
	cfg.Observer = h
	if _, err := os.Stat(s.Data); s.Cache == "" && err != nil {
		cfg.CacheDir = ""
	}
	var err error
	h.Host, err = host.New(ctx, cfg)
	return h, err
}

// ModuleCompiled implements [host.Observer].
func (h *moduleHost) ModuleCompiled(string, time.Duration, error) {}

// ModuleCalled implements [host.Observer].
func (h *moduleHost) ModuleCalled(_, op string, c host.CallCost) {
	if op == abi.OpDescribe {
		h.mu.Lock()
		h.memory = c.Memory
		h.mu.Unlock()
	}
}

// look compiles a module and tells what it is. name is the module's, or that of its file, until it says
// itself what it is called: the limits set for that name hold for it.
func (h *moduleHost) look(ctx context.Context, name string, wasm []byte) (moduleInfo, error) {
	name = strings.TrimSuffix(name, ".wasm")
	m, err := h.Compile(ctx, name, wasm)
	if err != nil {
		return moduleInfo{}, err
	}
	if own := m.Descriptor().Name; own != name {
		if _, limited := h.named[own]; limited {
			if m, err = h.Compile(ctx, own, wasm); err != nil {
				return moduleInfo{}, err
			}
		}
	}
	h.mu.Lock()
	memory := h.memory
	h.mu.Unlock()
	return newModuleInfo(m, memory), nil
}

// withModules runs do with settings and a host.
func (p *program) withModules(cmd *cobra.Command, do func(ctx context.Context, s *settings, h *moduleHost) error) (err error) {
	s, err := readSettings(cmd.Flags(), p.environ, knownServices())
	if err != nil {
		return err
	}
	ctx := cmd.Context()
	h, err := p.newModuleHost(ctx, s)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close(context.WithoutCancel(ctx))) }()
	return do(ctx, s, h)
}

// readModuleFile reads a module that is not too large for any limit.
func readModuleFile(path string) ([]byte, error) {
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, fmt.Errorf("module %s: %w", path, abi.ErrNotFound)
	case err != nil:
		return nil, fmt.Errorf("module: %w", err)
	case !info.Mode().IsRegular():
		return nil, usageError{fmt.Errorf("%s is no file: name a module, such as orders.wasm", path)}
	case info.Size() > host.MaxModuleBytes:
		return nil, fmt.Errorf("module %s: %w: %d bytes; no limit can be set above %d", path, abi.ErrTooLarge, info.Size(), host.MaxModuleBytes)
	}
	wasm, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("module: %w", err)
	}
	return wasm, nil
}

// dataFolder opens a data folder to read what is in it, in use or not. Without one it gives nil.
func dataFolder(s *settings) (*vfs.OSFS, error) {
	if info, err := os.Stat(s.Data); errors.Is(err, fs.ErrNotExist) || err == nil && !info.IsDir() {
		return nil, nil
	}
	fsys, err := vfs.OS(s.Data)
	if err != nil {
		return nil, fmt.Errorf("data folder %s: %w", s.Data, err)
	}
	return fsys, nil
}

// kept is a module that this program knows where to find.
type kept struct {
	name    string
	version string // of a pinned one
	digest  [sha256.Size]byte
	added   time.Time // zero: it is built in
	wasm    []byte    // of a built-in one
}

func (k kept) builtIn() bool { return k.added.IsZero() }

// keptModules lists what is built in and what is pinned. Where the pins cannot be read, that is the error,
// and the list has what is built in.
func keptModules(fsys *vfs.OSFS) ([]kept, error) {
	var all []kept
	for _, m := range modules.All() {
		all = append(all, kept{name: m.Name, digest: sha256.Sum256(m.Wasm), wasm: m.Wasm})
	}
	if fsys == nil {
		return all, nil
	}
	pins, err := statedir.ReadPins(fsys)
	for _, p := range pins {
		all = append(all, kept{name: p.Name, version: p.Version, digest: p.Digest, added: p.Added})
	}
	return all, err
}

// read gives a module's bytes.
func (k kept) read(fsys *vfs.OSFS) ([]byte, error) {
	if k.builtIn() {
		return k.wasm, nil
	}
	wasm, err := statedir.ReadModule(fsys, k.digest)
	if err != nil {
		return nil, fmt.Errorf("%s %s is pinned, but cannot be had: %w; add it again with torpor module add", k.name, k.version, err)
	}
	return wasm, nil
}

func (p *program) moduleWarm() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "warm",
		Short: "Compile the built-in and the pinned modules into the cache",
		Long: `Warm compiles the built-in serializers, and those pinned in the data folder, into the cache folder
(--cache, or cache in the data folder), so that the next start only loads them. A container image does it
when it is built.`,
		Example: `  torpor module warm
  torpor module warm --cache /var/cache/torpor`,
		Args: args(cobra.NoArgs),
	}
	addFlagsFor(cmd.Flags(), "cache", "data")
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		s, err := readSettings(cmd.Flags(), p.environ, knownServices())
		if err != nil {
			return err
		}
		return p.warm(cmd.Context(), s)
	}
	return cmd
}

func (p *program) warm(ctx context.Context, s *settings) (err error) {
	fsys, err := dataFolder(s)
	if err != nil {
		return err
	}
	if fsys != nil {
		defer func() { err = errors.Join(err, fsys.Close()) }()
	}
	h, err := host.New(ctx, hostConfig(s, p.logger(s)))
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.Close(context.WithoutCancel(ctx))) }()
	// One module that cannot be compiled is no reason to leave others cold.
	all, err := keptModules(fsys)
	errs := []error{err}
	for _, k := range all {
		wasm, err := k.read(fsys)
		start := time.Now()
		var m *host.Module
		if err == nil {
			m, err = h.Compile(ctx, k.name, wasm)
		}
		if err != nil {
			errs = append(errs, err)
			continue
		}
		fmt.Fprintf(p.Out, "%s %s  %x  %v\n", k.name, m.Descriptor().Version, m.Digest(), time.Since(start).Round(time.Microsecond))
	}
	return errors.Join(errs...)
}

// digestOf reads a SHA-256 as it is written out.
func digestOf(s string) (digest [sha256.Size]byte, ok bool) {
	b, err := hex.DecodeString(s)
	if err != nil || len(b) != len(digest) || s != strings.ToLower(s) {
		return digest, false
	}
	return [sha256.Size]byte(b), true
}

// isPath reports whether an argument names a file rather than a module.
func isPath(arg string) bool {
	return strings.ContainsRune(arg, filepath.Separator) || strings.ContainsAny(arg, "/.")
}
