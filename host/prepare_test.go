package host_test

import (
	"bytes"
	"context"
	"errors"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
)

// named is a sequence of modules.
func named(modules ...any) iter.Seq2[string, []byte] {
	return func(yield func(string, []byte) bool) {
		for i := 0; i < len(modules); i += 2 {
			if !yield(modules[i].(string), modules[i+1].([]byte)) {
				return
			}
		}
	}
}

// compiledAs is what was told of modules of that name; those that were there already count too.
func (w *watcher) compiledAs(name string) (all []compiled) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, c := range w.compiled {
		if c.module == name {
			all = append(all, c)
		}
	}
	return all
}

// numbered are different modules that log "up" when they are made.
func numbered(n int) []byte {
	return newGuest().has(textAt, append([]byte("up"), byte(n))).initializes(logFrom(abi.LogInfo, textAt, 2)).bytes()
}

// Compile finds what is being prepared, or waits for it: nothing is compiled twice.
func TestPrepare(t *testing.T) {
	j, w := &journal{}, &watcher{}
	h := newHost(t, host.Config{Logger: j.logger(), Observer: w, CacheDir: t.TempDir()})
	const modules = 6
	var list []any
	for n := range modules {
		list = append(list, "ahead", numbered(n))
	}
	h.Prepare(t.Context(), named(list...))
	var wg sync.WaitGroup
	for range 2 {
		for n := range modules {
			wg.Go(func() {
				m, err := h.Compile(t.Context(), guestName, numbered(n))
				if err != nil {
					t.Error(err)
				} else if out, err := perform(t.Context(), m, abi.OpSave, nil); err != nil || len(out) > 0 {
					t.Error(err)
				}
			})
		}
	}
	wg.Wait()
	for len(w.compiledAs("ahead")) < modules {
		time.Sleep(time.Millisecond)
	}
	if up := j.containing("serializer: up"); len(up) != modules {
		t.Errorf("%d modules were made %d times", modules, len(up))
	}
	if lines := j.containing("WARN"); len(lines) > 0 {
		t.Errorf("%q", lines)
	}
}

// A bad module is logged, does not keep the others from being prepared, and Compile says what is wrong.
func TestPrepareBadModules(t *testing.T) {
	j, w := &journal{}, &watcher{}
	h := newHost(t, host.Config{Logger: j.logger(), Observer: w})
	bad := newGuest().does(abi.ExportDescribe, unreachable).bytes()
	h.Prepare(t.Context(), named("worthless", []byte("#!"), "trapping", bad, "good", numbered(1)))
	_, err := h.Compile(t.Context(), guestName, bad)
	wantModuleError(t, err, abi.OpDescribe, nil, "torpor_describe trapped")
	for len(w.compiledAs("good")) == 0 || len(j.containing("could not be compiled ahead of its use")) < 2 {
		time.Sleep(time.Millisecond)
	}
	if c := w.compiledAs("good"); c[0].err != nil {
		t.Error(c[0].err)
	}
	for _, name := range []string{"worthless", "trapping"} {
		if lines := j.containing("module=" + name + " error="); len(lines) != 1 || !strings.Contains(lines[0], "level=WARN") {
			t.Errorf("%s: %q", name, lines)
		}
	}
}

// It ends when its context does, and when the host is closed, which waits for it; then it does nothing.
func TestPrepareEnds(t *testing.T) {
	endless := newGuest().initializes(forever(logFrom(abi.LogInfo, 0, 1))).bytes()
	for _, closing := range []bool{false, true} {
		j, w := &journal{}, &watcher{}
		h := newHost(t, host.Config{Logger: j.logger(), Observer: w, Limits: host.Limits{LogLines: 1}})
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		taken := 0
		h.Prepare(ctx, func(yield func(string, []byte) bool) {
			for { // without end
				taken++
				if !yield("endless", endless) {
					return
				}
			}
		})
		for len(j.containing("serializer:")) == 0 {
			time.Sleep(time.Millisecond)
		}
		if !closing {
			cancel()
			for len(w.compiledAs("endless")) == 0 {
				time.Sleep(time.Millisecond)
			}
			compile(t, h, numbered(1))
		}
		if err := within(t, "Close", func() error { return h.Close(context.Background()) }); err != nil {
			t.Error(err)
		}
		if taken > 2*3+1 { // two are being compiled and one waits for a worker, and once more when they end
			t.Errorf("%d modules taken", taken)
		}
		if lines := j.containing("could not be compiled ahead"); len(lines) > 0 {
			t.Errorf("%q", lines)
		}
		for _, c := range w.compiledAs("endless") {
			if !errors.Is(c.err, context.Canceled) && !strings.Contains(c.err.Error(), "is closed") {
				t.Error(c.err)
			}
		}
		n := len(w.compiled)
		h.Prepare(context.Background(), named("late", newGuest().bytes()))
		if len(w.compiled) != n {
			t.Error("prepared after Close")
		}
	}
}

// One that takes its time to give the modules does not keep Compile waiting.
func TestPrepareFromASlowSource(t *testing.T) {
	h := newHost(t, host.Config{})
	release := make(chan struct{})
	h.Prepare(t.Context(), func(yield func(string, []byte) bool) {
		<-release
		yield("late", numbered(1))
	})
	m := compile(t, h, numbered(1))
	if err := m.Save(t.Context(), abi.Call{}, bytes.NewReader(nil), &collector{}); err != nil {
		t.Error(err)
	}
	close(release)
}
