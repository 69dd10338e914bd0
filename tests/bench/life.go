package main

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"sync"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/modules"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// observer keeps the last event of each kind, and the most memory that a guest took for each operation.
type observer struct {
	mu      sync.Mutex
	save    runtime.SaveEvent
	restore runtime.RestoreEvent
	held    time.Duration
	guest   map[string]int64 // bytes
}

func (o *observer) SaveFinished(e runtime.SaveEvent)       { o.mu.Lock(); o.save = e; o.mu.Unlock() }
func (o *observer) RestoreFinished(e runtime.RestoreEvent) { o.mu.Lock(); o.restore = e; o.mu.Unlock() }
func (o *observer) RequestsHeld(_ string, d time.Duration, _ error) {
	o.mu.Lock()
	o.held = d
	o.mu.Unlock()
}
func (o *observer) GenerationQuarantined(string, string) {}

func (o *observer) ModuleCompiled(string, time.Duration, error) {}
func (o *observer) ModuleCalled(_, op string, c host.CallCost) {
	o.mu.Lock()
	o.guest[op] = max(o.guest[op], c.Memory)
	o.mu.Unlock()
}

// life is one life of the runtime with one service over a folder: its part is called store, its
// serializer is the module records, saves and loads are by command and proved in full.
type life struct {
	*runtime.Service
	seen  *observer
	close func() error
}

func startLife(ctx context.Context, folder, name string, source runtime.Source, dirty *runtime.Dirty) (*life, error) {
	logger := slog.New(slog.DiscardHandler)
	fsys, err := vfs.OS(folder)
	if err != nil {
		return nil, err
	}
	dir, err := statedir.Open(fsys, statedir.Options{Logger: logger})
	if err != nil {
		return nil, err
	}
	seen := &observer{guest: map[string]int64{}}
	h, err := host.New(ctx, host.Config{CacheDir: filepath.Join(folder, "cache"), Logger: logger, Observer: seen})
	if err != nil {
		return nil, err
	}
	records, err := h.Compile(ctx, "records", modules.Records())
	if err != nil {
		return nil, err
	}
	rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Observer: seen, Services: []runtime.ServiceConfig{{
		Name: name, Save: runtime.SaveManual, Load: runtime.LoadManual,
		Parts: []runtime.PartConfig{{Name: "store", Serializer: records, Source: source, Dirty: dirty, Proof: runtime.ProofFull}}}}})
	if err != nil {
		return nil, err
	}
	return &life{Service: rt.Services()[0], seen: seen, close: func() error {
		return errors.Join(rt.Close(ctx), h.Close(ctx), dir.Close(), fsys.Close())
	}}, nil
}

// service is what the service with a synthetic state is called.
const service = "bench"

// stateFile is where the newest generation of its state is kept.
func stateFile(folder string) string {
	return filepath.Join(folder, "state", "api_states", service, "store.state")
}
