package host

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"

	"github.com/tetratelabs/wazero"
	"github.com/tetratelabs/wazero/api"
	"github.com/tetratelabs/wazero/experimental"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/fuel"
)

// maxIdleBytes is how much memory an instance may have whose beginning is noted, or that is kept for the
// next call.
const maxIdleBytes = 64 << 20

// randomSeed is what every instance's random numbers begin with.
var randomSeed = [32]byte([]byte("torpor: the same for every guest"))

// instance is a module in memory. It serves one call at a time.
type instance struct {
	module    api.Module
	memory    api.Memory
	seen      []byte              // what memory was when it was looked at, where it only grows and never moves
	counter   api.MutableGlobal   // of fuel
	variables []api.MutableGlobal // the module's own; none if it can't be put back
	linear    *linearMemory       // nil where wazero's own is used
	random    *rand.ChaCha8
	monotonic int64 // nanoseconds
}

// beginning is an instance as _initialize left it. Every call begins there: a new instance is made like
// it without running _initialize again, one that was used is put back.
type beginning struct {
	memory    image
	variables []uint64
	random    rand.ChaCha8
	monotonic int64
}

// instantiate makes an instance, in which nothing has run. What the host keeps of data segments is not in
// its memory yet.
func (c *code) instantiate(ctx context.Context) (i *instance, err error) {
	i = &instance{random: rand.NewChaCha8(c.host.seed)}
	var linear *linearMemory
	defer func() { // wazero panics when an allocator gives it no memory, and leaves behind what it has been given
		if v := recover(); v != nil {
			err = fmt.Errorf("%w: there is no memory for it: %v", abi.ErrTooLarge, v)
		}
		if err != nil {
			linear.Free()
			i = nil
		}
	}()
	ctx = experimental.WithMemoryAllocator(ctx, allocator(func(m *linearMemory) { linear = m }))
	i.module, err = c.runtime.InstantiateModule(ctx, c.compiled, wazero.NewModuleConfig().WithName("").WithStartFunctions())
	if err != nil {
		return nil, err
	}
	i.memory, i.linear = i.module.ExportedMemory(abi.ExportMemory), linear
	i.counter = i.module.ExportedGlobal(fuel.DefaultExport).(api.MutableGlobal)
	for n := range c.info.Variables {
		i.variables = append(i.variables, i.module.ExportedGlobal(fuel.Variable(fuel.DefaultExport, n)).(api.MutableGlobal))
	}
	return i, nil
}

// look gives length bytes of memory from ptr on.
func (i *instance) look(ptr, length uint32) ([]byte, bool) {
	if i.linear != nil {
		i.seen, _ = i.memory.Read(0, i.memory.Size())
	}
	return i.memory.Read(ptr, length)
}

func (i *instance) close(ctx context.Context) error { return i.module.Close(ctx) }

// initialize makes the first instance and notes what all begin with.
func (c *code) initialize(ctx context.Context) error {
	late := c.refusal(abi.ErrTooLarge, "%s ran for longer than %v (CallTime)", abi.ExportInitialize, c.limits.CallTime)
	ctx, stop := context.WithTimeoutCause(ctx, c.limits.CallTime, late)
	defer stop()
	r := &running{module: &Module{c, c.name}, op: opCompile, late: late}
	defer r.watch(ctx)()
	ctx = &callContext{ctx, r}
	if r.inst = r.module.fresh(ctx, r); r.inst == nil {
		return r.err
	}
	// An image of a large memory would stay for as long as the module does.
	if c.info.Keeps || r.inst.memory.Size() > maxIdleBytes {
		return r.inst.close(ctx)
	}
	b := &beginning{random: *r.inst.random, monotonic: r.inst.monotonic}
	for _, v := range r.inst.variables {
		b.variables = append(b.variables, v.Get())
	}
	content, _ := r.inst.memory.Read(0, r.inst.memory.Size())
	var err error
	if b.memory, err = newImage(content); err != nil {
		return errors.Join(fmt.Errorf("module %s: %s: %w", c.name, opCompile, err), r.inst.close(ctx))
	}
	c.first = b
	if !b.bring(r.inst) {
		return r.inst.close(ctx)
	}
	c.free = append(c.free, r.inst)
	return nil
}

// fresh makes an instance and runs _initialize in it. After an error, which is r's, it is nil.
func (m *Module) fresh(ctx context.Context, r *running) *instance {
	i, err := m.instantiate(ctx)
	if err != nil {
		r.fail(r.notInstantiated(err))
		return nil
	}
	for _, s := range m.data {
		i.memory.Write(s.at, s.bytes)
	}
	if i.module.ExportedFunction(abi.ExportInitialize) == nil {
		return i
	}
	r.inst = i
	// The clock stands at 0: what an instance knows must not depend on when the first one was made.
	wall := r.time
	r.time = 0
	_, err = r.enter(ctx, abi.ExportInitialize)
	r.time = wall
	if err != nil {
		if r.err == nil {
			r.trapped(abi.ExportInitialize, err)
		}
	} else if r.failure != nil {
		r.fail(r.failure)
	}
	if r.err != nil {
		_ = i.close(ctx)
		return nil
	}
	return i
}

func (r *running) notInstantiated(err error) error {
	var sentinel error
	if errors.Is(err, abi.ErrTooLarge) {
		sentinel = abi.ErrTooLarge
	}
	return r.breach(fmt.Sprintf("it cannot be instantiated: %v", err), sentinel)
}

// acquire gives the call an instance that is as _initialize left it. After an error, which is r's, it is
// nil.
func (m *Module) acquire(ctx context.Context, r *running) *instance {
	if m.first == nil {
		return m.fresh(ctx, r)
	}
	m.mu.Lock()
	if n := len(m.free); n > 0 {
		i := m.free[n-1]
		m.free = m.free[:n-1]
		m.mu.Unlock()
		return i
	}
	m.mu.Unlock()
	i, err := m.instantiate(ctx)
	if err != nil {
		r.fail(r.notInstantiated(err))
		return nil
	}
	if !m.first.bring(i) {
		r.fail(r.breach("it cannot be instantiated: there is no memory for it", abi.ErrTooLarge))
		_ = i.close(ctx)
		return nil
	}
	return i
}

// release ends the use of an instance. It is kept for another call if it came to its end by itself and
// can be put back; memory that a call made larger stays larger, so then it cannot.
func (m *Module) release(ctx context.Context, i *instance, sound bool) {
	fit := sound && m.first != nil && m.roomFor()
	if fit && !m.host.asLeft {
		fit = i.memory.Size() == m.first.memory.size() && m.first.bring(i)
	}
	if fit {
		m.mu.Lock()
		if len(m.free) < m.host.idle {
			m.free = append(m.free, i)
			i = nil
		}
		m.mu.Unlock()
	}
	if i != nil {
		_ = i.close(ctx)
	}
}

// roomFor reports whether it is worth the trouble to put an instance back.
func (m *Module) roomFor() bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.free) < m.host.idle
}

// bring makes an instance one that is as b. Where it reports false, the instance is good for nothing.
func (b *beginning) bring(i *instance) bool {
	if size := b.memory.size(); i.memory.Size() < size {
		if _, ok := i.memory.Grow((size - i.memory.Size()) / wasmPage); !ok {
			return false
		}
	} else if i.memory.Size() > size {
		return false
	}
	if !b.memory.bring(i.memory, i.linear) {
		return false
	}
	for n, v := range i.variables {
		v.Set(b.variables[n])
	}
	*i.random, i.monotonic = b.random, b.monotonic
	return true
}

func (b *beginning) close() error { return b.memory.close() }
