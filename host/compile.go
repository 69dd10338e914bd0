package host

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/imports/wasi_snapshot_preview1"

	"github.com/torpor-run/torpor/host/abi"
)

// Compile checks a module and compiles it, or takes it from the cache. name is for messages. It
// refuses, with a *[ModuleError], what is no WebAssembly module, imports anything but the functions
// of the ABI and the few of WASI that language runtimes need, lacks an export, or describes itself
// badly; nothing of the module runs before these checks but its own _initialize and torpor_describe.
// Bytes compiled before give the same module again under the new name. wasm must not be changed
// afterwards.
func (h *Host) Compile(ctx context.Context, name string, wasm []byte) (*Module, error) {
	start := time.Now()
	m, err := h.compile(ctx, name, wasm)
	if h.observer != nil {
		h.observer.ModuleCompiled(name, time.Since(start), err)
	}
	return m, err
}

func (h *Host) compile(ctx context.Context, name string, wasm []byte) (*Module, error) {
	if err := h.begin(); err != nil {
		return nil, &ModuleError{Module: name, Op: opCompile, Reason: err.Error(), Err: err}
	}
	defer h.done()
	m := &Module{host: h, name: name, wasm: wasm}
	if int64(len(wasm)) > h.limits.ModuleBytes {
		return nil, m.refusal(abi.ErrTooLarge, "%d bytes; the limit is %d", len(wasm), h.limits.ModuleBytes)
	}
	m.digest = sha256.Sum256(wasm)
	h.mu.Lock()
	known := h.modules[m.digest]
	h.mu.Unlock()
	if known != nil {
		return known.named(name), nil
	}
	if err := m.checkSections(); err != nil {
		return nil, err
	}
	err := m.build(ctx)
	if err == nil {
		err = m.checkNames()
	}
	if err == nil {
		err = m.link(ctx)
	}
	if err == nil {
		err = m.describe(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, m.close(ctx))
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if known := h.modules[m.digest]; known != nil { // compiled twice at the same time
		return known.named(name), m.close(ctx)
	}
	h.modules[m.digest] = m
	return m, nil
}

const opCompile = "compile"

// refusal says why the module cannot be used.
func (m *Module) refusal(sentinel error, format string, args ...any) error {
	return &ModuleError{Module: m.name, Op: opCompile, Reason: fmt.Sprintf(format, args...), Err: sentinel}
}

// build compiles the module, or takes it from the cache. A cache that cannot be used costs time and a
// warning, nothing else.
func (m *Module) build(ctx context.Context) error {
	h := m.host
	if h.cacheDir != "" {
		err := m.buildCached(ctx, cacheEntry{h.cacheDir, m.digest})
		if err == nil {
			return nil
		}
		// Whether it is the module or the cache that is at fault, the next try will tell.
		defer func() {
			if m.compiled != nil {
				h.logger.Warn("compiled module not cached", "module", m.name, "cache", h.cacheDir, "error", err)
			}
		}()
	}
	if err := m.buildWith(ctx, nil); err != nil {
		return m.refusal(abi.ErrCorrupt, "%v", err)
	}
	return nil
}

func (m *Module) buildCached(ctx context.Context, entry cacheEntry) error {
	whole, err := entry.check()
	if err != nil {
		return err
	}
	if m.cache, err = wazero.NewCompilationCacheWithDir(entry.path()); err != nil {
		return err
	}
	if err := m.buildWith(ctx, m.cache); err != nil {
		return errors.Join(err, m.close(ctx), entry.remove())
	}
	if !whole {
		if err := entry.seal(); err != nil { // the next process compiles it again
			m.host.logger.Warn("compiled module not sealed in the cache", "module", m.name, "cache", m.host.cacheDir, "error", err)
		}
	}
	return nil
}

// buildWith makes the module's runtime and compiles the module in it. Each module has a runtime of its
// own, so that its cache, its limits and its end are its own.
func (m *Module) buildWith(ctx context.Context, cache wazero.CompilationCache) error {
	// Not WithCloseOnContextDone: it costs 5 to 31 times the speed (RATIONALE.md). The deadline is
	// looked at whenever a guest reads or writes.
	rc := wazero.NewRuntimeConfig().WithMemoryLimitPages(uint32(m.host.limits.MemoryBytes / wasmPage))
	if cache != nil {
		rc = rc.WithCompilationCache(cache)
	}
	m.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	var err error
	m.compiled, err = m.runtime.CompileModule(ctx, m.wasm)
	return err
}

// link makes the functions that the module imports. Those of WASI take milliseconds to make, and only
// few modules need them.
func (m *Module) link(ctx context.Context) error {
	b := m.runtime.NewHostModuleBuilder(abi.Namespace)
	for _, f := range imports() {
		b = b.NewFunctionBuilder().WithGoModuleFunction(f.call, f.params, f.results).Export(f.name)
	}
	if _, err := b.Instantiate(ctx); err != nil {
		return m.refusal(nil, "the functions of %s cannot be made: %v", abi.Namespace, err)
	}
	for _, f := range m.compiled.ImportedFunctions() {
		if from, _, _ := f.Import(); from != wasi_snapshot_preview1.ModuleName {
			continue
		}
		if _, err := wasi_snapshot_preview1.Instantiate(ctx, m.runtime); err != nil {
			return m.refusal(nil, "the functions of %s cannot be made: %v", wasi_snapshot_preview1.ModuleName, err)
		}
		break
	}
	return nil
}

// close frees what build and link made.
func (m *Module) close(ctx context.Context) error {
	var err error
	if m.runtime != nil {
		err = m.runtime.Close(ctx)
	}
	if m.cache != nil {
		err = errors.Join(err, m.cache.Close(ctx))
	}
	m.runtime, m.cache, m.compiled = nil, nil, nil
	return err
}

// wasiAllowed is what the runtimes of Go, Rust, C and AssemblyScript import; none of it reaches a file,
// a socket or the environment.
func wasiAllowed(name string) bool {
	switch name {
	case "args_get", "args_sizes_get", "environ_get", "environ_sizes_get", "clock_time_get", "random_get",
		"fd_read", "fd_write", "fd_close", "fd_seek", "fd_fdstat_get", "fd_fdstat_set_flags", "fd_prestat_get", "fd_prestat_dir_name",
		"poll_oneoff", "sched_yield", "proc_exit":
		return true
	}
	return false
}

// checkNames holds the functions the module imports and what it exports against the ABI.
func (m *Module) checkNames() error {
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
				return m.refusal(nil, "it imports %s.%s, which the ABI does not have", from, name)
			}
			if !sameTypes(f.ParamTypes(), want.params) || !sameTypes(f.ResultTypes(), want.results) {
				return m.refusal(nil, "it imports %s.%s as %s; the ABI has %s", from, name,
					signature(f.ParamTypes(), f.ResultTypes()), signature(want.params, want.results))
			}
		case otherVersion(from):
			return m.refusal(abi.ErrVersion, "it is written for ABI %s; this host speaks %s", from, abi.Namespace)
		case from == wasi_snapshot_preview1.ModuleName && wasiAllowed(name):
		default:
			return m.refusal(nil, "it imports %s.%s; a serializer may import only %s and what language runtimes need of %s",
				from, name, abi.Namespace, wasi_snapshot_preview1.ModuleName)
		}
	}
	if _, ok := m.compiled.ExportedMemories()[abi.ExportMemory]; !ok {
		return m.refusal(nil, "it exports no memory named %q", abi.ExportMemory)
	}
	exports := m.compiled.ExportedFunctions()
	for _, want := range []struct {
		name     string
		results  []api.ValueType
		required bool
	}{
		{abi.ExportInitialize, nil, false},
		{abi.ExportDescribe, []api.ValueType{api.ValueTypeI32}, true},
		{abi.ExportSave, []api.ValueType{api.ValueTypeI32}, true},
		{abi.ExportLoad, []api.ValueType{api.ValueTypeI32}, true},
		{abi.ExportMigrate, []api.ValueType{api.ValueTypeI32}, false},
		{abi.ExportInspect, []api.ValueType{api.ValueTypeI32}, false},
	} {
		f, ok := exports[want.name]
		if !ok {
			if want.required {
				return m.refusal(nil, "it exports no function %s", want.name)
			}
			continue
		}
		if len(f.ParamTypes()) != 0 || !sameTypes(f.ResultTypes(), want.results) {
			return m.refusal(nil, "it exports %s as %s; the ABI has %s", want.name,
				signature(f.ParamTypes(), f.ResultTypes()), signature(nil, want.results))
		}
	}
	return nil
}

// otherVersion reports whether namespace is that of the ABI but for its number.
func otherVersion(namespace string) bool {
	version, ok := strings.CutPrefix(namespace, abi.NamespacePrefix)
	return ok && version != "" && strings.Trim(version, "0123456789") == ""
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
