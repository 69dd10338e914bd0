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

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/fuel"
)

// Compile checks a module and compiles it, or takes it from the cache. name is for messages and for
// [Config].Modules. It refuses, with a *[ModuleError], what is no WebAssembly module, imports anything but
// the functions of the ABI and the few of WASI that language runtimes need, lacks an export, declares
// more than the limits, or describes itself badly; nothing of the module runs before these checks but its
// own _initialize and torpor_describe. Bytes compiled before, under the same limits, give the same module
// again under the new name, and what is compiled already is waited for. wasm must not be changed afterwards.
func (h *Host) Compile(ctx context.Context, name string, wasm []byte) (*Module, error) {
	start := time.Now()
	m, err := h.compile(ctx, name, wasm)
	if h.observer != nil {
		h.observer.ModuleCompiled(name, time.Since(start), err)
	}
	return m, err
}

// compilation is a module being compiled.
type compilation struct{ done chan struct{} }

func (h *Host) compile(ctx context.Context, name string, wasm []byte) (*Module, error) {
	if err := h.begin(); err != nil {
		return nil, &ModuleError{Module: name, Op: opCompile, Reason: err.Error(), Err: err}
	}
	defer h.done()
	limits, ok := h.named[name]
	if !ok {
		limits = h.limits
	}
	c := &code{host: h, name: name, wasm: wasm, limits: limits}
	if int64(len(wasm)) > limits.ModuleBytes {
		return nil, c.refusal(abi.ErrTooLarge, "%d bytes; the limit is %d", len(wasm), limits.ModuleBytes)
	}
	c.digest = sha256.Sum256(wasm)
	id := identity{c.digest, limits}
	for {
		h.mu.Lock()
		known, under := h.modules[id], h.compiling[id]
		if known == nil && under == nil {
			under = &compilation{done: make(chan struct{})}
			h.compiling[id] = under
			h.mu.Unlock()
			if err := h.finish(ctx, id, under, c); err != nil {
				return nil, err
			}
			return &Module{c, name}, nil
		}
		h.mu.Unlock()
		if known != nil {
			return &Module{known, name}, nil
		}
		select {
		case <-under.done:
			// An error may be that of the other's context; and it names the other. So this one tries too.
		case <-ctx.Done():
			return nil, fmt.Errorf("module %s: %s: %w", name, opCompile, context.Cause(ctx))
		case <-h.closing.Done():
			return nil, &ModuleError{Module: name, Op: opCompile, Reason: errClosed.Error(), Err: errClosed}
		}
	}
}

// finish makes c and ends what others wait for, also when making it panics.
func (h *Host) finish(ctx context.Context, id identity, under *compilation, c *code) (err error) {
	defer func() {
		if v := recover(); v != nil {
			err = c.refusal(nil, "compiling it panics: %v", v)
		}
		h.mu.Lock()
		if delete(h.compiling, id); err == nil {
			h.modules[id] = c
		}
		h.mu.Unlock()
		close(under.done)
	}()
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	defer context.AfterFunc(h.closing, func() { cancel(errClosed) })()
	return c.make(ctx)
}

const opCompile = "compile"

// refusal says why the module cannot be used.
func (c *code) refusal(sentinel error, format string, args ...any) error {
	return &ModuleError{Module: c.name, Op: opCompile, Reason: fmt.Sprintf(format, args...), Err: sentinel}
}

// make checks and compiles the module. After an error nothing is left of it.
func (c *code) make(ctx context.Context) error {
	err := c.checkSections()
	if err == nil {
		late := c.refusal(abi.ErrTooLarge, "compiling it takes longer than %v (CompileTime)", c.limits.CompileTime)
		compiling, stop := context.WithTimeoutCause(ctx, c.limits.CompileTime, late)
		if err = c.build(compiling); err != nil && compiling.Err() != nil {
			if cause := context.Cause(compiling); cause == late { // this very one
				err = late
			} else {
				err = fmt.Errorf("module %s: %s: %w", c.name, opCompile, cause)
			}
		}
		stop()
	}
	for _, step := range []func(context.Context) error{c.checkCode, c.checkNames, c.link, c.initialize, c.describe} {
		if err == nil {
			err = step(ctx)
		}
	}
	if err != nil {
		return errors.Join(err, c.close(context.WithoutCancel(ctx)))
	}
	c.shape = c.describeShape()
	return nil
}

// build compiles the module, or takes it from the cache. A cache that cannot be used costs time and a
// warning, nothing else.
func (c *code) build(ctx context.Context) error {
	h := c.host
	if h.cacheDir != "" {
		err := c.buildCached(ctx, cacheEntry{dir: h.cacheDir, module: c.digest})
		if err == nil {
			return nil
		}
		// Whether it is the module or the cache that is at fault, the next try will tell.
		defer func() {
			if c.compiled != nil {
				h.logger.Warn("compiled module not cached", "module", c.name, "cache", h.cacheDir, "error", err)
			}
		}()
	}
	metered, err := c.instrument()
	if err != nil {
		return err
	}
	if err := c.buildWith(ctx, metered, nil); err != nil {
		return c.refusal(abi.ErrCorrupt, "%v", err)
	}
	return nil
}

func (c *code) buildCached(ctx context.Context, entry cacheEntry) error {
	metered, info, whole, err := entry.read()
	if err != nil {
		return err
	}
	if whole {
		c.info = info
	} else {
		if metered, err = c.instrument(); err != nil {
			return err
		}
		// Made beside its place: others may make it too, in this process or in another.
		if entry, err = entry.begin(); err != nil {
			return err
		}
	}
	if c.cache, err = wazero.NewCompilationCacheWithDir(entry.path()); err != nil {
		return errors.Join(err, entry.remove())
	}
	if err := c.buildWith(ctx, metered, c.cache); err != nil {
		return errors.Join(err, c.close(context.WithoutCancel(ctx)), entry.remove())
	}
	// Another wazero, or another processor, has added its own to an entry that was whole.
	if err := entry.seal(metered, c.info, whole); err != nil { // the next process compiles it again
		c.host.logger.Warn("compiled module not sealed in the cache", "module", c.name, "cache", c.host.cacheDir, "error", err)
	}
	return nil
}

// instrument gives the module with its fuel counter.
func (c *code) instrument() ([]byte, error) {
	metered, info, err := fuel.Instrument(c.wasm, fuel.Options{})
	if err != nil {
		sentinel := abi.ErrCorrupt
		for _, s := range []error{abi.ErrTooLarge, abi.ErrVersion} {
			if errors.Is(err, s) {
				sentinel = s
			}
		}
		return nil, c.refusal(sentinel, "%v", err)
	}
	c.info = info
	return metered, nil
}

// buildWith makes the module's runtime and compiles the module in it. Each module has a runtime of its
// own, so that its cache, its limits and its end are its own.
func (c *code) buildWith(ctx context.Context, metered []byte, cache wazero.CompilationCache) (err error) {
	defer func() { // a module that wazero was not prepared for must not end the process
		if v := recover(); v != nil {
			err = fmt.Errorf("compiling it panics: %v", v)
		}
	}()
	// Not WithCloseOnContextDone: it costs 5 to 31 times the speed (RATIONALE.md). A guest is ended by
	// its fuel.
	rc := c.host.engine().WithMemoryLimitPages(uint32(c.limits.MemoryBytes / wasmPage))
	if cache != nil {
		rc = rc.WithCompilationCache(cache)
	}
	c.runtime = wazero.NewRuntimeWithConfig(ctx, rc)
	c.compiled, err = c.runtime.CompileModule(ctx, c.takeData(metered))
	return err
}

// link makes the functions that the module imports. Those of WASI are needed by few modules.
func (c *code) link(ctx context.Context) error {
	wanted := map[string]bool{abi.Namespace: true}
	for _, f := range c.compiled.ImportedFunctions() {
		from, _, _ := f.Import()
		wanted[from] = true
	}
	for _, from := range []string{abi.Namespace, wasiNamespace} {
		if !wanted[from] {
			continue
		}
		b := c.runtime.NewHostModuleBuilder(from)
		for _, f := range imports(from) {
			b = b.NewFunctionBuilder().WithGoModuleFunction(f.call, f.params, f.results).Export(f.name)
		}
		if _, err := b.Instantiate(ctx); err != nil {
			return c.refusal(nil, "the functions of %s cannot be made: %v", from, err)
		}
	}
	return nil
}

// close frees what make made. Nothing may run.
func (c *code) close(ctx context.Context) error {
	c.mu.Lock()
	idle := c.free
	c.free = nil
	c.mu.Unlock()
	var err error
	for _, i := range idle {
		err = errors.Join(err, i.close(ctx))
	}
	if c.first != nil {
		err = errors.Join(err, c.first.close())
	}
	if c.runtime != nil {
		err = errors.Join(err, c.runtime.Close(ctx))
	}
	if c.cache != nil {
		err = errors.Join(err, c.cache.Close(ctx))
	}
	c.first, c.runtime, c.cache, c.compiled = nil, nil, nil, nil
	return err
}

// checkCode refuses code that could take memory past every limit: by tables that grow, for what they begin
// with has been checked but not what they come to, and by references to functions.
func (c *code) checkCode(context.Context) error {
	if c.info.RefersToFunctions {
		return c.refusal(nil, "its code makes references to functions (ref.func), each of which takes memory until the end; a table of functions can do the same")
	}
	if !c.info.GrowsTables {
		return nil
	}
	if c.tables.unbounded {
		return c.refusal(abi.ErrTooLarge, "it can make a table grow that declares no maximum; the limit is %d elements", c.limits.TableElements)
	}
	if limit := uint64(c.limits.TableElements); c.tables.most > limit {
		return c.refusal(abi.ErrTooLarge, "its tables may grow to %d elements; the limit is %d", c.tables.most, limit)
	}
	return nil
}

// checkNames holds the functions the module imports and what it exports against the ABI.
func (c *code) checkNames(context.Context) error {
	known := map[string]hostFunc{}
	for _, from := range []string{abi.Namespace, wasiNamespace} {
		for _, f := range imports(from) {
			known[from+"."+f.name] = f
		}
	}
	for _, f := range c.compiled.ImportedFunctions() {
		from, name, _ := f.Import()
		want, ok := known[from+"."+name]
		switch {
		case ok && (!sameTypes(f.ParamTypes(), want.params) || !sameTypes(f.ResultTypes(), want.results)):
			return c.refusal(nil, "it imports %s.%s as %s; the ABI has %s", from, name,
				signature(f.ParamTypes(), f.ResultTypes()), signature(want.params, want.results))
		case ok:
		case from == abi.Namespace:
			return c.refusal(nil, "it imports %s.%s, which the ABI does not have", from, name)
		case otherVersion(from):
			return c.refusal(abi.ErrVersion, "it is written for ABI %s; this host speaks %s", from, abi.Namespace)
		default:
			return c.refusal(nil, "it imports %s.%s; a serializer may import only %s and what language runtimes need of %s",
				from, name, abi.Namespace, wasiNamespace)
		}
	}
	if _, ok := c.compiled.ExportedMemories()[abi.ExportMemory]; !ok {
		return c.refusal(nil, "it exports no memory named %q", abi.ExportMemory)
	}
	exports := c.compiled.ExportedFunctions()
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
				return c.refusal(nil, "it exports no function %s", want.name)
			}
			continue
		}
		if len(f.ParamTypes()) != 0 || !sameTypes(f.ResultTypes(), want.results) {
			return c.refusal(nil, "it exports %s as %s; the ABI has %s", want.name,
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
