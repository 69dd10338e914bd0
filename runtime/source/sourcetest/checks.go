package sourcetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	goruntime "runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
)

// write gives what a capture writes.
func write(ctx context.Context, c runtime.Capture) ([]byte, error) {
	var b bytes.Buffer
	if err := c.WriteNative(ctx, &b); err != nil {
		return nil, breach("WriteNative: %w", err)
	}
	return b.Bytes(), nil
}

// native is the state as it is now.
func native(ctx context.Context, f Fixture) ([]byte, error) {
	c, err := f.Source.Capture(ctx)
	if err != nil {
		return nil, breach("Capture: %w", err)
	}
	b, err := write(ctx, c)
	if cerr := c.Close(); cerr != nil && err == nil {
		err = breach("Close: %w", cerr)
	}
	return b, err
}

// put is Put, and the state it led to.
func put(f Fixture, n int) string {
	f.Put(n)
	return f.State()
}

// restore must succeed and give the state want.
func restore(ctx context.Context, f Fixture, native []byte, want, after string) error {
	if err := f.Source.Restore(ctx, bytes.NewReader(native)); err != nil {
		return breach("Restore %s: %w", after, err)
	}
	return shows(f, want, "Restore "+after)
}

func shows(f Fixture, want, after string) error {
	if got := f.State(); got != want {
		return breach("after %s the state is\n%.2000s\nwant\n%.2000s", after, got, want)
	}
	return nil
}

func restores(ctx context.Context, f Fixture) error {
	one := put(f, 1)
	state, err := native(ctx, f)
	if err != nil {
		return err
	}
	if err := shows(f, one, "a capture"); err != nil {
		return err
	}
	if err := restore(ctx, f, state, one, "of the state that is there"); err != nil {
		return err
	}
	if two := put(f, 2); two == one {
		return breach("the fixture's states 1 and 2 look the same: %.500s", one)
	}
	if err := restore(ctx, f, state, one, "over another state"); err != nil {
		return err
	}
	put(f, 3) // a service that was restored can be changed
	if err := f.Source.Reset(ctx); err != nil {
		return breach("Reset: %w", err)
	}
	if err := restore(ctx, f, state, one, "after Reset"); err != nil {
		return err
	}
	// What was restored is captured like what was there before.
	again, err := native(ctx, f)
	if err != nil {
		return err
	}
	put(f, 4)
	return restore(ctx, f, again, one, "of a state that was restored before")
}

func fixed(ctx context.Context, f Fixture) (err error) {
	one := put(f, 1)
	c, err := f.Source.Capture(ctx)
	if err != nil {
		return breach("Capture: %w", err)
	}
	defer func() {
		if cerr := c.Close(); cerr != nil && err == nil {
			err = breach("Close: %w", cerr)
		}
	}()
	put(f, 2)
	first, err := write(ctx, c)
	if err != nil {
		return err
	}
	for _, then := range []struct {
		name string
		do   func() error
	}{
		{"a second time", func() error { return nil }},
		{"after a change", func() error { put(f, 3); return nil }},
		{"after Reset", func() error { return f.Source.Reset(ctx) }},
		{"after Restore", func() error { return f.Source.Restore(ctx, bytes.NewReader(first)) }},
		{"after another capture", func() error { put(f, 4); _, err := native(ctx, f); return err }},
	} {
		if err := then.do(); err != nil {
			return breach("%s: %w", then.name, err)
		}
		b, err := write(ctx, c)
		if err != nil {
			return breach("%s: %w", then.name, err)
		}
		if !bytes.Equal(b, first) {
			return breach("WriteNative %s gives %d other bytes than the %d of the first time", then.name, len(b), len(first))
		}
	}
	return restore(ctx, f, first, one, "of a capture that was written after changes")
}

func independent(ctx context.Context, f Fixture) error {
	one := put(f, 1)
	a, err := f.Source.Capture(ctx)
	if err != nil {
		return breach("Capture: %w", err)
	}
	two := put(f, 2)
	b, err := f.Source.Capture(ctx)
	if err != nil {
		return breach("a second capture beside the first: %w", errors.Join(err, a.Close()))
	}
	nb, err := write(ctx, b)
	if err != nil {
		return errors.Join(err, a.Close(), b.Close())
	}
	na, err := write(ctx, a)
	if err != nil {
		return errors.Join(err, a.Close(), b.Close())
	}
	if bytes.Equal(na, nb) {
		return errors.Join(breach("captures of two states are the same bytes"), a.Close(), b.Close())
	}
	if err := a.Close(); err != nil {
		return breach("Close: %w", errors.Join(err, b.Close()))
	}
	again, err := write(ctx, b)
	if cerr := b.Close(); cerr != nil && err == nil {
		err = breach("Close: %w", cerr)
	}
	if err != nil {
		return breach("after another capture was closed: %w", err)
	}
	if !bytes.Equal(again, nb) {
		return breach("WriteNative gives other bytes once another capture is closed")
	}
	put(f, 3)
	if err := restore(ctx, f, na, one, "of the first of two captures"); err != nil {
		return err
	}
	return restore(ctx, f, nb, two, "of the second of two captures")
}

func empties(ctx context.Context, f Fixture) error {
	reset := func() (string, error) {
		if err := f.Source.Reset(ctx); err != nil {
			return "", breach("Reset: %w", err)
		}
		return f.State(), nil
	}
	if _, err := reset(); err != nil { // of an empty service
		return err
	}
	one := put(f, 1)
	empty, err := reset()
	if err != nil {
		return err
	}
	if empty == one {
		return breach("Reset changes nothing: %.500s", one)
	}
	state, err := native(ctx, f)
	if err != nil {
		return breach("of the empty state: %w", err)
	}
	if again, err := reset(); err != nil || again != empty {
		return breach("a second Reset gives (%v)\n%.500s\nwant\n%.500s", err, again, empty)
	}
	put(f, 2)
	if err := restore(ctx, f, state, empty, "of an empty state"); err != nil {
		return err
	}
	if again := put(f, 1); again != one { // an emptied service works
		return breach("after Reset, Restore and Put(1) the state is\n%.500s\nwant\n%.500s", again, one)
	}
	return nil
}

// samples is lengths of a state of n bytes, 0 and n-1 among them: all of a small one.
func samples(n, most int) []int {
	if n <= most {
		most = n
	}
	r := rand.New(rand.NewPCG(1, uint64(n)))
	all := make([]int, 0, most)
	for i := range n {
		if n == most || i < most/4 || i >= n-most/4 {
			all = append(all, i)
		}
	}
	for len(all) < most {
		all = append(all, r.IntN(n))
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// maxTrials is how many lengths, places and offsets are tried of one state.
func maxTrials() int {
	if testing.Short() {
		return 40
	}
	return 400
}

// prepared is a state in native form, and the service then in another, which must survive.
func prepared(ctx context.Context, f Fixture) (state []byte, one, two string, err error) {
	one = put(f, 1)
	if state, err = native(ctx, f); err != nil {
		return nil, "", "", err
	}
	return state, one, put(f, 2), nil
}

// back gives a function that brings the service back to the state it is in now, from whatever state.
func back(ctx context.Context, f Fixture) (func() error, error) {
	now := f.State()
	state, err := native(ctx, f)
	return func() error { return restore(ctx, f, state, now, "of the state before") }, err
}

func refusesCut(ctx context.Context, f Fixture) error {
	if f.Opaque {
		return skipped("any bytes are a state to this source")
	}
	state, one, two, err := prepared(ctx, f)
	if err != nil {
		return err
	}
	again, err := back(ctx, f)
	if err != nil {
		return err
	}
	for _, n := range samples(len(state), maxTrials()) {
		err := f.Source.Restore(ctx, bytes.NewReader(state[:n]))
		if f.Sound != nil && f.Sound(state[:n]) {
			if err != nil {
				return breach("Restore of the first %d bytes of %d, which are a state: %w", n, len(state), err)
			}
			if err := again(); err != nil {
				return err
			}
			continue
		}
		if err == nil {
			return breach("Restore takes the first %d bytes of %d", n, len(state))
		}
		if !errors.Is(err, abi.ErrCorrupt) {
			return breach("Restore of the first %d bytes of %d does not wrap ErrCorrupt: %w", n, len(state), err)
		}
		if err := shows(f, two, fmt.Sprintf("a Restore of the first %d bytes of %d, which was refused (%v),", n, len(state), err)); err != nil {
			return err
		}
	}
	return restore(ctx, f, state, one, "after many that were refused")
}

func refusesDamage(ctx context.Context, f Fixture) error {
	if f.Opaque {
		return skipped("any bytes are a state to this source")
	}
	state, one, two, err := prepared(ctx, f)
	if err != nil {
		return err
	}
	again, err := back(ctx, f)
	if err != nil {
		return err
	}
	tail := append(bytes.Clone(state), bytes.Repeat([]byte{0xff}, 16)...)
	if err := f.Source.Restore(ctx, bytes.NewReader(tail)); !errors.Is(err, abi.ErrCorrupt) {
		return breach("Restore of a state with bytes behind it does not wrap ErrCorrupt: %v", err)
	}
	if err := shows(f, two, "a Restore that was refused"); err != nil {
		return err
	}
	noise := make([]byte, 4096)
	r := rand.New(rand.NewPCG(3, 4))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	noise[0] = 0xff // which begins nothing: neither CBOR nor text
	if err := f.Source.Restore(ctx, bytes.NewReader(noise)); !errors.Is(err, abi.ErrCorrupt) {
		return breach("Restore of noise does not wrap ErrCorrupt: %v", err)
	}
	if err := shows(f, two, "a Restore of noise"); err != nil {
		return err
	}
	for _, at := range samples(len(state), maxTrials()) {
		for _, flip := range []byte{1 << r.IntN(8), 0xff} {
			damaged := bytes.Clone(state)
			damaged[at] ^= flip
			err := f.Source.Restore(ctx, bytes.NewReader(damaged))
			if err == nil { // a value that may as well be so
				if err := again(); err != nil {
					return err
				}
				continue
			}
			if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrTooLarge) && !errors.Is(err, abi.ErrVersion) {
				return breach("Restore with byte %d damaged wraps neither ErrCorrupt nor ErrTooLarge nor ErrVersion: %w", at, err)
			}
			if err := shows(f, two, fmt.Sprintf("a Restore with byte %d damaged, which was refused (%v),", at, err)); err != nil {
				return err
			}
		}
	}
	return restore(ctx, f, state, one, "after many that were refused")
}

var errBroken = errors.New("broken (injected)")

// cutReader gives the first bytes of a state, in pieces, and then an error.
type cutReader struct {
	rest []byte
	err  error
	do   func() // before the error
}

func (r *cutReader) Read(p []byte) (int, error) {
	if len(r.rest) == 0 {
		if r.do != nil {
			r.do()
		}
		return 0, r.err
	}
	n := copy(p, r.rest[:min(len(r.rest), 1000)])
	r.rest = r.rest[n:]
	return n, nil
}

func survivesReader(ctx context.Context, f Fixture) error {
	state, one, two, err := prepared(ctx, f)
	if err != nil {
		return err
	}
	for _, n := range append(samples(len(state), maxTrials()/4), len(state)) {
		err := f.Source.Restore(ctx, &cutReader{rest: state[:n], err: errBroken})
		if !errors.Is(err, errBroken) {
			return breach("Restore from a reader that fails after %d bytes of %d does not wrap its error: %v", n, len(state), err)
		}
		if errors.Is(err, abi.ErrCorrupt) {
			return breach("Restore takes a reader that fails after %d bytes for a damaged state: %w", n, err)
		}
		if err := shows(f, two, fmt.Sprintf("a Restore from a reader that failed after %d bytes of %d", n, len(state))); err != nil {
			return err
		}
	}
	return restore(ctx, f, state, one, "after readers that failed")
}

// cutWriter takes the first bytes and then fails.
type cutWriter struct {
	left int
	err  error
	do   func()
}

func (w *cutWriter) Write(p []byte) (int, error) {
	if len(p) <= w.left {
		w.left -= len(p)
		return len(p), nil
	}
	if w.do != nil {
		w.do()
	}
	n := w.left
	w.left = 0
	if w.err == nil {
		return len(p), nil
	}
	return n, w.err
}

func tellsWriter(ctx context.Context, f Fixture) (err error) {
	put(f, 1)
	c, err := f.Source.Capture(ctx)
	if err != nil {
		return breach("Capture: %w", err)
	}
	defer func() {
		if cerr := c.Close(); cerr != nil && err == nil {
			err = breach("Close: %w", cerr)
		}
	}()
	first, err := write(ctx, c)
	if err != nil {
		return err
	}
	for _, n := range samples(len(first), maxTrials()/4) {
		if err := c.WriteNative(ctx, &cutWriter{left: n, err: errBroken}); !errors.Is(err, errBroken) {
			return breach("WriteNative to a writer that fails after %d bytes of %d does not wrap its error: %v", n, len(first), err)
		}
	}
	again, err := write(ctx, c)
	if err != nil {
		return err
	}
	if !bytes.Equal(again, first) {
		return breach("WriteNative gives other bytes once a writer has failed")
	}
	return nil
}

func obeysContext(ctx context.Context, f Fixture) error {
	state, one, two, err := prepared(ctx, f)
	if err != nil {
		return err
	}
	again, err := back(ctx, f)
	if err != nil {
		return err
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	if c, err := f.Source.Capture(ended); !errors.Is(err, context.Canceled) {
		if err == nil {
			err = c.Close()
		}
		return breach("Capture with a context that has ended does not wrap its error: %v", err)
	}
	if err := f.Source.Restore(ended, bytes.NewReader(state)); !errors.Is(err, context.Canceled) {
		return breach("Restore with a context that has ended does not wrap its error: %v", err)
	}
	if err := f.Source.Reset(ended); !errors.Is(err, context.Canceled) {
		return breach("Reset with a context that has ended does not wrap its error: %v", err)
	}
	if err := shows(f, two, "calls with a context that has ended"); err != nil {
		return err
	}
	c, err := f.Source.Capture(ctx)
	if err != nil {
		return breach("Capture: %w", err)
	}
	if err := c.WriteNative(ended, io.Discard); !errors.Is(err, context.Canceled) {
		return breach("WriteNative with a context that has ended does not wrap its error: %v", errors.Join(err, c.Close()))
	}
	first, err := write(ctx, c)
	if err != nil {
		return errors.Join(err, c.Close())
	}
	// One that ends midway: done all the same, or stopped. Nothing between.
	for _, n := range samples(len(first), 20) {
		ending, cancel := context.WithCancel(ctx)
		if err := c.WriteNative(ending, &cutWriter{left: n, do: cancel}); err != nil && !errors.Is(err, context.Canceled) {
			cancel()
			return breach("WriteNative with a context that ends after %d bytes: %w", n, errors.Join(err, c.Close()))
		}
		cancel()
	}
	last, err := write(ctx, c)
	if cerr := c.Close(); cerr != nil && err == nil {
		err = breach("Close: %w", cerr)
	}
	if err != nil {
		return err
	}
	if !bytes.Equal(last, first) {
		return breach("WriteNative gives other bytes once a context has ended")
	}
	for _, n := range append(samples(len(state), 20), len(state)) {
		ending, cancel := context.WithCancel(ctx)
		err := f.Source.Restore(ending, io.MultiReader(&cutReader{rest: state[:n], err: io.EOF, do: cancel}, bytes.NewReader(state[n:])))
		cancel()
		want, what := two, "was stopped"
		if err == nil {
			want, what = one, "succeeded"
		} else if !errors.Is(err, context.Canceled) {
			return breach("Restore with a context that ends after %d bytes: %w", n, err)
		}
		if err := shows(f, want, fmt.Sprintf("a Restore whose context ended after %d bytes and which %s", n, what)); err != nil {
			return err
		}
		if err := again(); err != nil {
			return err
		}
	}
	return nil
}

func survivesRequests(ctx context.Context, f Fixture) error {
	if f.Request == nil {
		return skipped("the service is stopped while its state is replaced")
	}
	state, one, _, err := prepared(ctx, f)
	if err != nil {
		return err
	}
	done := make(chan struct{})
	var senders sync.WaitGroup
	for n := range 4 {
		senders.Go(func() {
			for i := n; ; i += 4 {
				select {
				case <-done:
					return
				default:
					f.Request(i)
				}
			}
		})
	}
	for i := 0; i < 20 && err == nil; i++ {
		if err = f.Source.Restore(ctx, bytes.NewReader(state)); err == nil && i%5 == 4 {
			err = f.Source.Reset(ctx)
		}
	}
	close(done)
	senders.Wait()
	if err != nil {
		return breach("with requests under way: %w", err)
	}
	return restore(ctx, f, state, one, "once requests have ended")
}

// holdings is what a process holds beside memory.
type holdings struct {
	goroutines, files int
	temporary, left   []string
}

func held(f Fixture) (holdings, error) {
	h := holdings{goroutines: goruntime.NumGoroutine()}
	if fds, err := os.ReadDir("/proc/self/fd"); err == nil {
		h.files = len(fds)
	}
	tmp, err := os.ReadDir(os.TempDir())
	if err != nil {
		return h, err
	}
	for _, e := range tmp {
		h.temporary = append(h.temporary, e.Name())
	}
	if f.Left != nil {
		h.left = f.Left()
	}
	return h, nil
}

func leavesNothing(ctx context.Context, f Fixture) error {
	const noise, behind = "noise", "a state with bytes behind"
	round := func() error {
		state, one, _, err := prepared(ctx, f)
		if err != nil {
			return err
		}
		ended, cancel := context.WithCancel(ctx)
		cancel()
		for name, r := range map[string]struct {
			ctx context.Context
			r   io.Reader
		}{
			"a reader that fails":        {ctx, &cutReader{rest: state[:len(state)/2], err: errBroken}},
			noise:                        {ctx, bytes.NewReader([]byte{0xff, 0xff, 0xff})},
			"a context that has ended":   {ended, bytes.NewReader(state)},
			behind:                       {ctx, bytes.NewReader(append(bytes.Clone(state), 0xff))},
			"a reader that never begins": {ctx, &cutReader{err: errBroken}},
		} {
			if f.Opaque && (name == noise || name == behind) {
				continue
			}
			if err := f.Source.Restore(r.ctx, r.r); err == nil {
				return breach("Restore of %s succeeds", name)
			}
		}
		c, err := f.Source.Capture(ctx)
		if err != nil {
			return breach("Capture: %w", err)
		}
		if err := c.WriteNative(ctx, &cutWriter{left: len(state) / 2, err: errBroken}); err == nil {
			return breach("WriteNative to a writer that fails succeeds: %v", c.Close())
		}
		if err := c.Close(); err != nil {
			return breach("Close: %w", err)
		}
		return restore(ctx, f, state, one, "of a state")
	}
	if err := round(); err != nil {
		return err
	}
	before, err := held(f)
	if err != nil {
		return err
	}
	for range 5 {
		if err := round(); err != nil {
			return err
		}
	}
	for wait := time.Millisecond; ; wait *= 2 { // what has been told to end may need a moment
		after, err := held(f)
		if err != nil {
			return err
		}
		switch {
		case len(after.temporary) > 0:
			err = breach("temporary files are left: %q", after.temporary)
		case len(after.left) > len(before.left):
			err = breach("files are left: %q, after the first round %q", after.left, before.left)
		case after.files > before.files:
			err = breach("%d files are open, after the first round %d", after.files, before.files)
		case after.goroutines > before.goroutines:
			err = breach("%d goroutines run, after the first round %d", after.goroutines, before.goroutines)
		}
		if err == nil || wait > time.Second {
			return err
		}
		time.Sleep(wait)
	}
}

func atomic(ctx context.Context, f Fixture) error {
	if a, ok := f.Source.(runtime.AtomicSource); !ok || !a.AtomicCapture() {
		return skipped("requests are held while this source captures")
	}
	const states = 200
	seen := map[string]int{}
	for n := 1; n <= states; n++ {
		seen[put(f, n)] = n
	}
	f.Put(1)
	var natives [][]byte
	var at []int // the states put before each capture began
	var mu sync.Mutex
	put := 1
	var changes sync.WaitGroup
	changes.Go(func() {
		for n := 2; n <= states; n++ {
			f.Put(n)
			mu.Lock()
			put = n
			mu.Unlock()
		}
	})
	for more := true; more; {
		mu.Lock()
		was := put
		mu.Unlock()
		more = was < states
		b, err := native(ctx, f)
		if err != nil {
			changes.Wait()
			return err
		}
		natives, at = append(natives, b), append(at, was)
	}
	changes.Wait()
	shown := map[string]int{} // by native state: many captures are of the same
	for i, b := range natives {
		n, known := shown[string(b)]
		if !known {
			if err := f.Source.Restore(ctx, bytes.NewReader(b)); err != nil {
				return breach("Restore of a capture made between requests: %w", err)
			}
			var ok bool
			if n, ok = seen[f.State()]; !ok {
				return breach("a capture is of a state that never was:\n%.2000s", f.State())
			}
			shown[string(b)] = n
		}
		if n < at[i] {
			return breach("a capture that began after request %d was answered shows the state after request %d", at[i], n)
		}
	}
	return nil
}
