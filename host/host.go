package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/fxamacker/cbor/v2"
	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host/abi"
)

// Config is what a [Host] is made of.
type Config struct {
	// CacheDir keeps compiled modules from one process to the next. It is made with mode 0700 if
	// need be: whoever can write to it can run code here. "" keeps them in memory only.
	CacheDir string
	Limits   Limits
	Logger   *slog.Logger // required
	Observer Observer     // may be nil
}

// Observer is told what modules cost. Its methods are called from the goroutine of the compile or
// call, at its end; they must be safe for concurrent use and return soon.
type Observer interface {
	ModuleCompiled(module string, d time.Duration, err error)
	ModuleCalled(module, op string, c CallCost)
}

// CallCost is what one call of a module took.
type CallCost struct {
	Duration time.Duration // from instantiation to the end, waiting for input and output included
	Memory   int64         // bytes of guest memory at the end, which is its high-water mark
	Input    int64         // bytes the guest took in
	Output   int64         // bytes the guest emitted
	Err      error
}

// Host compiles and runs modules. It is safe for concurrent use.
type Host struct {
	runtime  wazero.Runtime
	cache    wazero.CompilationCache
	limits   Limits
	logger   *slog.Logger
	observer Observer
	decode   cbor.DecMode
	encode   cbor.EncMode
}

// New makes a host. Close must be called when its modules are no longer used.
func New(ctx context.Context, cfg Config) (*Host, error) {
	limits, err := cfg.Limits.withDefaults()
	if err != nil {
		return nil, err
	}
	h := &Host{limits: limits, logger: cfg.Logger, observer: cfg.Observer}
	if h.decode, err = (cbor.DecOptions{DupMapKey: cbor.DupMapKeyEnforcedAPF, MaxNestedLevels: 8, MaxArrayElements: 1024, MaxMapPairs: 1024}).DecMode(); err != nil {
		return nil, fmt.Errorf("host: cbor decoder: %w", err)
	}
	// Canonical, so that the same call gives the guest the same bytes.
	if h.encode, err = cbor.CanonicalEncOptions().EncMode(); err != nil {
		return nil, fmt.Errorf("host: cbor encoder: %w", err)
	}
	// Not WithCloseOnContextDone: it costs 5 to 31 times the speed (RATIONALE.md). The deadline is
	// looked at whenever a guest calls the host.
	rc := wazero.NewRuntimeConfig().WithMemoryLimitPages(uint32(limits.MemoryBytes / wasmPage))
	if cfg.CacheDir != "" {
		if h.cache, err = openCache(cfg.CacheDir); err != nil {
			return nil, err
		}
		rc = rc.WithCompilationCache(h.cache)
	}
	h.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	if _, err := wasi_snapshot_preview1.Instantiate(ctx, h.runtime); err != nil {
		return nil, errors.Join(fmt.Errorf("host: WASI: %w", err), h.Close(ctx))
	}
	b := h.runtime.NewHostModuleBuilder(abi.Namespace)
	for _, f := range imports() {
		b = b.NewFunctionBuilder().WithGoModuleFunction(f.call, f.params, f.results).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return nil, errors.Join(fmt.Errorf("host: imports: %w", err), h.Close(ctx))
	}
	return h, nil
}

func openCache(dir string) (wazero.CompilationCache, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("module cache: %w", err)
	}
	info, err := os.Stat(dir)
	if err != nil {
		return nil, fmt.Errorf("module cache: %w", err)
	}
	if info.Mode().Perm()&0o022 != 0 {
		return nil, fmt.Errorf("module cache %s: others may write to it (mode %04o), and what lies in it is run: chmod 0700 it, or choose another folder", dir, info.Mode().Perm())
	}
	c, err := wazero.NewCompilationCacheWithDir(dir)
	if err != nil {
		return nil, fmt.Errorf("module cache %s: %w", dir, err)
	}
	return c, nil
}

// Close frees the host and all its modules. Calls under way fail.
func (h *Host) Close(ctx context.Context) error {
	err := h.runtime.Close(ctx)
	if h.cache != nil {
		err = errors.Join(err, h.cache.Close(ctx))
	}
	return err
}

// A ModuleError says what is wrong with a module or with what it did: a refusal at Compile, a trap, a
// breach of the ABI. Err, where there is one, is a sentinel of package abi: ErrVersion for a module of
// another ABI, ErrTooLarge for a limit.
type ModuleError struct {
	Module string // name for people
	Op     string // compile, or an operation of package abi
	Reason string
	Err    error // may be nil
}

func (e *ModuleError) Error() string {
	return fmt.Sprintf("module %s: %s: %s", e.Module, e.Op, e.Reason)
}

func (e *ModuleError) Unwrap() error { return e.Err }

// Compile checks a module and compiles it, or takes it from the cache. name is for messages. It
// refuses, with a *[ModuleError], what is no WebAssembly module, imports anything but the functions
// of the ABI and the few of WASI that language runtimes need, lacks an export, or describes itself
// badly; nothing of the module runs before these checks but its own torpor_describe.
func (h *Host) Compile(ctx context.Context, name string, wasm []byte) (*Module, error) {
	start := time.Now()
	m, err := h.compile(ctx, name, wasm)
	if h.observer != nil {
		h.observer.ModuleCompiled(name, time.Since(start), err)
	}
	return m, err
}

func (h *Host) compile(ctx context.Context, name string, wasm []byte) (*Module, error) {
	refuse := func(sentinel error, format string, args ...any) (*Module, error) {
		return nil, &ModuleError{Module: name, Op: "compile", Reason: fmt.Sprintf(format, args...), Err: sentinel}
	}
	if int64(len(wasm)) > h.limits.ModuleBytes {
		return refuse(abi.ErrTooLarge, "%d bytes; the limit is %d", len(wasm), h.limits.ModuleBytes)
	}
	if len(wasm) < 8 || string(wasm[:4]) != "\x00asm" {
		return refuse(abi.ErrCorrupt, "this is no WebAssembly module: it does not begin with \\0asm")
	}
	if string(wasm[4:8]) != "\x01\x00\x00\x00" {
		return refuse(abi.ErrVersion, "a WebAssembly component or another binary version (% x); a core module of version 1 is needed", wasm[4:8])
	}
	compiled, err := h.runtime.CompileModule(ctx, wasm)
	if err != nil {
		return refuse(abi.ErrCorrupt, "%v", err)
	}
	m := &Module{host: h, name: name, digest: sha256.Sum256(wasm), wasm: wasm, compiled: compiled}
	err = m.check()
	if err == nil {
		err = m.describe(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, compiled.Close(ctx))
	}
	return m, nil
}

// wasiAllowed is what the runtimes of Go, Rust, C and AssemblyScript import; none of it reaches a file,
// a socket or the environment.
func wasiAllowed(name string) bool {
	switch name {
	case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_time_get", "random_get",
		"fd_write", "fd_close", "fd_seek", "fd_fdstat_get", "fd_prestat_get", "fd_prestat_dir_name",
		"poll_oneoff", "sched_yield", "proc_exit":
		return true
	}
	return false
}

// check holds the module's imports and exports against the ABI.
func (m *Module) check() error {
	refuse := func(sentinel error, format string, args ...any) error {
		return &ModuleError{Module: m.name, Op: "compile", Reason: fmt.Sprintf(format, args...), Err: sentinel}
	}
	known := map[string]hostFunc{}
	for _, f := range imports() {
		known[f.name] = f
	}
	for _, f := range m.compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		switch {
		case from == abi.Namespace:
			want, ok := known[name]
			if !ok {
				return refuse(nil, "it imports %s.%s, which the ABI does not have", from, name)
			}
			if !sameTypes(f.ParamTypes(), want.params) || !sameTypes(f.ResultTypes(), want.results) {
				return refuse(nil, "it imports %s.%s as %s; the ABI has %s", from, name,
					signature(f.ParamTypes(), f.ResultTypes()), signature(want.params, want.results))
			}
		case len(from) > len(abi.NamespacePrefix) && from[:len(abi.NamespacePrefix)] == abi.NamespacePrefix:
			return refuse(abi.ErrVersion, "it is written for ABI %s; this host speaks %s", from, abi.Namespace)
		case from == wasi_snapshot_preview1.ModuleName && wasiAllowed(name):
		default:
			return refuse(nil, "it imports %s.%s; a serializer may import only %s and what language runtimes need of %s",
				from, name, abi.Namespace, wasi_snapshot_preview1.ModuleName)
		}
	}
	if mems := m.compiled.ImportedMemories(); len(mems) > 0 {
		return refuse(nil, "it imports a memory; a serializer owns its memory and exports it as %q", abi.ExportMemory)
	}
	if _, ok := m.compiled.ExportedMemories()[abi.ExportMemory]; !ok {
		return refuse(nil, "it exports no memory named %q", abi.ExportMemory)
	}
	exports := m.compiled.ExportedFunctions()
	for name, required := range map[string]bool{
		abi.ExportDescribe: true, abi.ExportSave: true, abi.ExportLoad: true, abi.ExportMigrate: false, abi.ExportInspect: false,
	} {
		f, ok := exports[name]
		if !ok && required {
			return refuse(nil, "it exports no function %s", name)
		}
		if ok && (len(f.ParamTypes()) != 0 || !sameTypes(f.ResultTypes(), []api.ValueType{api.ValueTypeI32})) {
			return refuse(nil, "it exports %s as %s; the ABI has () -> (i32)", name, signature(f.ParamTypes(), f.ResultTypes()))
		}
	}
	return nil
}

func sameTypes(a, b []api.ValueType) bool { return string(a) == string(b) }

func signature(params, results []api.ValueType) string {
	names := func(ts []api.ValueType) string {
		s := "("
		for i, t := range ts {
			if i > 0 {
				s += ", "
			}
			s += api.ValueTypeName(t)
		}
		return s + ")"
	}
	return names(params) + " -> " + names(results)
}
