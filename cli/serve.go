package cli

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/cobra"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/metrics"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/hooks"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/supervisor"
	"github.com/torpor-run/torpor/runtime/vfs"
	"github.com/torpor-run/torpor/server"
)

func (p *program) serve() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve the services and keep their state",
		Long: `Serve listens on one port for the services, the control API (/_localstack/, /_torpor/) and /metrics, saves
state as the save strategy says and gives it back after a restart. S3 is built in; torpor.yaml in the current
folder, or the file that --config names, says which other services there are. Their programs are started by
the first request, and stopped when they are idle.

Interrupt or SIGTERM stops it: requests end, what is unsaved is saved, programs are stopped, the exit code is 0.
A second signal ends it at once, and the programs with it; what was saved before stays.

Settings come from flags, then the environment, then the configuration file, the first winning.`,
		Example: `  torpor serve
  torpor serve --config torpor.yaml
  torpor serve --listen 127.0.0.1:0 --data /tmp/demo
  PERSISTENCE=0 torpor serve`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			s, err := readSettings(cmd.Flags(), p.environ, knownServices())
			if err != nil {
				return err
			}
			return p.runServe(cmd.Context(), s)
		},
	}
	addFlags(cmd.Flags())
	return cmd
}

// runServe serves until a signal or the end of ctx, and then stops in order.
func (p *program) runServe(ctx context.Context, s *settings) (err error) {
	logger := newLogger(p.Err, s.LogLevel, s.LogFormat, p.env("NO_COLOR") != "")
	if s.access, s.keyFrom, err = p.access(s); err != nil {
		return err
	}
	ctx, stopSignals := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stopSignals()

	scripts, err := hooks.New(hooks.Config{Folder: s.Init, Env: p.scriptEnv(s), Logger: logger})
	if err != nil {
		return err
	}
	if s.ConfigFile != "" {
		logger.Info("configuration file read", "file", s.ConfigFile)
	}
	_ = scripts.Run(ctx, hooks.Boot) // what goes wrong in a script is logged, shown at /_localstack/init, and stops nothing
	for again := true; again && err == nil; {
		again, err = p.serveOnce(ctx, s, logger, scripts, stopSignals)
	}
	if err != nil && errors.Is(err, ctx.Err()) {
		logger.Info("stopped before it was up")
		return nil
	}
	return err
}

// serveOnce serves until a signal, or until it is told to end by a control call; again says that it is to start anew.
func (p *program) serveOnce(ctx context.Context, s *settings, logger *slog.Logger, scripts *hooks.Hooks, stopSignals func()) (again bool, err error) {
	life, end := context.WithCancelCause(ctx)
	defer end(nil)
	h, err := p.assemble(life, s, logger, scripts, end)
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, h.close(context.WithoutCancel(ctx))) }()
	err = p.runHouse(life, h, s, logger, func() {
		if !errors.Is(context.Cause(life), errRestart) {
			stopSignals()
		}
	})
	return errors.Is(context.Cause(life), errRestart), err
}

// What ends serving besides a signal.
var (
	errRestart = errors.New("told to restart")
	errKill    = errors.New("told to end")
)

// runHouse serves until ctx ends, and then lets requests end and saves. Whatever keeps it from serving,
// what is unsaved is saved. stopSignals gives the signals that end ctx their default effect again.
func (p *program) runHouse(ctx context.Context, h *house, s *settings, logger *slog.Logger, stopSignals func()) error {
	srv := &http.Server{Handler: h.handler, ReadHeaderTimeout: 10 * time.Second, IdleTimeout: 2 * time.Minute,
		ErrorLog: slog.NewLogLogger(logger.Handler(), slog.LevelDebug)}
	srv.Protocols = new(http.Protocols)
	srv.Protocols.SetHTTP1(true)
	srv.Protocols.SetUnencryptedHTTP2(true)
	srv.RegisterOnShutdown(h.events.Close)
	err := p.listenAndServe(ctx, h, srv, s, logger)
	_ = h.scripts.Run(context.WithoutCancel(ctx), hooks.Shutdown)

	// From here on a second signal has its default effect: it ends the process at once.
	stopSignals()
	logger.Info("stopping: requests end, then what is unsaved is saved; a second signal ends at once", "drain_timeout", s.DrainTimeout)
	stopping := context.WithoutCancel(ctx)
	draining, cancel := context.WithTimeout(stopping, s.DrainTimeout)
	defer cancel()
	if drainErr := srv.Shutdown(draining); drainErr != nil {
		logger.Warn("requests were still under way and have been cut off", "error", drainErr)
		srv.Close()
	}
	// No deadline: whoever is out of patience sends the second signal, and loses only what is unsaved.
	if closeErr := h.runtime.Close(stopping); closeErr != nil {
		return errors.Join(err, fmt.Errorf("stopped, but not everything could be saved: %w", closeErr))
	}
	logger.Info("stopped")
	return err
}

// listenAndServe starts the runtime and serves until ctx ends; then srv still has to be shut down.
func (p *program) listenAndServe(ctx context.Context, h *house, srv *http.Server, s *settings, logger *slog.Logger) error {
	// First, so that nothing is started where the port is taken. Who connects from now on waits.
	listener, err := net.Listen("tcp", s.Listen)
	if err != nil {
		return fmt.Errorf("listen on %s: %w; is another service on that port? choose one with --listen", s.Listen, err)
	}
	_ = h.scripts.Run(ctx, hooks.Start)
	if err := h.runtime.Start(ctx); err != nil {
		return errors.Join(err, listener.Close())
	}
	h.seeds.run(ctx)
	s.Listen = listener.Addr().String() // for a restart: the same port again
	warnOpen(logger, listener.Addr(), s.access, s.keyFrom)
	served := make(chan error, 1)
	go func() { served <- srv.Serve(listener) }()
	// On standard output, so that a script can take the address from it when the port was 0.
	fmt.Fprintf(p.Out, "torpor %s is listening on http://%s\n", Version, listener.Addr())
	var ready sync.WaitGroup
	ready.Go(func() { _ = h.scripts.Run(ctx, hooks.Ready) })
	defer ready.Wait()
	select {
	case err := <-served:
		return fmt.Errorf("serve: %w", err)
	case <-ctx.Done():
		return nil
	}
}

// house is what serve puts together.
type house struct {
	runtime *runtime.Runtime
	handler http.Handler
	scripts *hooks.Hooks
	seeds   *autoLoad
	events  *server.Events
	data    *vfs.OSFS                     // with persistence: the data folder
	closers []func(context.Context) error // in the order they were opened
}

func (h *house) close(ctx context.Context) error {
	var errs []error
	for i := len(h.closers) - 1; i >= 0; i-- {
		errs = append(errs, h.closers[i](ctx))
	}
	return errors.Join(errs...)
}

// assemble builds host, state directory, services, runtime, metrics and server. After an error nothing
// is left open.
func (p *program) assemble(ctx context.Context, s *settings, logger *slog.Logger, scripts *hooks.Hooks, end func(cause error)) (_ *house, err error) {
	h := &house{scripts: scripts}
	defer func() {
		if err != nil {
			err = errors.Join(err, h.close(context.WithoutCancel(ctx)))
		}
	}()
	reg := prometheus.NewRegistry()
	v := version()
	m, err := metrics.New(reg, metrics.Build{Version: v.Version, Revision: v.Revision, GoVersion: v.GoVersion})
	if err != nil {
		return nil, err
	}
	if err := errors.Join(reg.Register(collectors.NewGoCollector()), reg.Register(collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))); err != nil {
		return nil, err
	}

	events := server.NewEvents(0)
	h.closers = append(h.closers, func(context.Context) error { events.Close(); return nil })
	h.events = events
	cfg := runtime.Config{Logger: logger, Version: v.Version, Observer: runtime.Observers(m, events)}
	b := &builder{ports: new(supervisor.Ports), environ: p.environ, logger: logger}
	if s.Persistence {
		err = h.openData(ctx, s, m, &cfg, b)
	} else {
		err = h.openScratch(ctx, s, m, &cfg, b)
	}
	if err != nil {
		return nil, err
	}
	var services []*built
	for _, sc := range s.Services {
		svc, err := b.build(ctx, sc)
		if err != nil {
			return nil, err
		}
		h.closers = append(h.closers, func(context.Context) error { return svc.closeAll() })
		services = append(services, svc)
		cfg.Services = append(cfg.Services, svc.runtime)
	}
	if h.runtime, err = runtime.New(cfg); err != nil {
		return nil, err
	}
	for i, s := range services {
		s.exited = h.runtime.Services()[i].ProcessExited
	}
	if err := m.Watch(reg, h.runtime); err != nil {
		return nil, err
	}
	shelf := &shelf{path: snapshotsFolder(s.Data)}
	h.closers = append(h.closers, func(context.Context) error { return shelf.Close() })
	snapshots, err := repository.Open(ctx, repository.Config{Remote: shelf, Torpor: v.Version, Logger: logger})
	if err != nil {
		return nil, err
	}
	h.seeds = &autoLoad{runtime: h.runtime, snapshots: snapshots, folder: s.InitPods, names: s.AutoLoadPod, scratch: cfg.Scratch, dir: cfg.Dir,
		key: seal.Key{Passphrase: p.env(passphraseVariable)}, logger: logger}
	var kept vfs.FS // what is told lasts as long as what is saved
	if s.Persistence {
		kept = h.data
	}
	out := server.Config{Runtime: h.runtime, Restart: func() error { end(errRestart); return nil }, Kill: func() error { end(errKill); return nil },
		Resources: map[string]server.Resource{serviceS3: server.S3Resource}, Kept: kept, Remotes: p.remote, Saved: cfg.Dir, Nesting: nesting(cfg.Services), Events: events, Snapshots: snapshots, Scratch: cfg.Scratch, Metrics: promhttp.HandlerFor(reg, promhttp.HandlerOpts{EnableOpenMetrics: true, Registry: reg}),
		Access: s.access, Init: server.Init(scripts), Observer: m, Logger: logger, Version: Version, Session: session(), Started: time.Now()}
	if err := publish(&out, services, logger); err != nil {
		return nil, err
	}
	h.handler, err = server.New(out)
	return h, err
}

// nesting tells how keys nest in what a configured serializer writes: snapshots are of those, if not of them alone.
func nesting(services []runtime.ServiceConfig) func(statefile.Serializer) string {
	of := map[string]string{}
	for _, s := range services {
		for _, p := range s.Parts {
			if p.Serializer != nil {
				d := p.Serializer.Descriptor()
				of[d.Name] = d.Nesting
			}
		}
	}
	return func(s statefile.Serializer) string { return of[s.Name] }
}

// openScratch gives the services folders, and the runtime a state directory for snapshots, that last as long as the
// process: persistence is disabled.
func (h *house) openScratch(ctx context.Context, s *settings, m *metrics.Metrics, cfg *runtime.Config, b *builder) error {
	folder, err := os.MkdirTemp("", "torpor-")
	if err != nil {
		return fmt.Errorf("folder for services: %w", err)
	}
	h.closers = append(h.closers, func(context.Context) error { return os.RemoveAll(folder) })
	pinned, err := dataFolder(s)
	if err != nil {
		return err
	}
	if pinned != nil {
		h.closers = append(h.closers, func(context.Context) error { return pinned.Close() })
	}
	fsys, err := vfs.OS(folder)
	if err != nil {
		return fmt.Errorf("folder for services: %w", err)
	}
	h.closers = append(h.closers, func(context.Context) error { return fsys.Close() })
	hosting := hostConfig(s, cfg.Logger)
	hosting.CacheDir = s.Cache // only where there is one of its own: the data folder is left alone
	cfg.Ephemeral = true
	if err := h.openState(ctx, s, fsys, pinned, hosting, m, cfg, b); err != nil {
		return err
	}
	find := b.serializers
	b.serializers = func(ctx context.Context, name string) (runtime.Serializer, error) {
		ser, err := find(ctx, name)
		if err != nil {
			cfg.Logger.Warn("a serializer cannot be had; without persistence that matters to snapshots only", "serializer", name, "error", err)
			return nil, nil
		}
		return ser, nil
	}
	b.data = folder
	return nil
}

// openData opens the state directory.
func (h *house) openData(ctx context.Context, s *settings, m *metrics.Metrics, cfg *runtime.Config, b *builder) error {
	fsys, err := vfs.OS(s.Data)
	if err != nil {
		return fmt.Errorf("data folder %s: %w; choose another with --data, or turn persistence off with PERSISTENCE=0", s.Data, err)
	}
	h.closers = append(h.closers, func(context.Context) error { return fsys.Close() })
	if err := h.openState(ctx, s, fsys, fsys, hostConfig(s, cfg.Logger), m, cfg, b); err != nil {
		return err
	}
	h.data = fsys
	data, err := filepath.Abs(s.Data)
	b.data = filepath.Join(data, "state")
	return err
}

// openState opens the state directory that fsys is the root of, and the host. Modules are pinned in the data folder pinned,
// nil for none.
func (h *house) openState(ctx context.Context, s *settings, fsys, pinned *vfs.OSFS, hosting host.Config, m *metrics.Metrics, cfg *runtime.Config, b *builder) error {
	dir, err := statedir.Open(fsys, statedir.Options{Logger: cfg.Logger, Keep: s.Generations})
	if err != nil {
		return fmt.Errorf("data folder %s: %w", s.Data, err)
	}
	h.closers = append(h.closers, func(context.Context) error { return dir.Close() })
	hosting.Observer = m
	wasm, err := host.New(ctx, hosting)
	if err != nil {
		return err
	}
	h.closers = append(h.closers, wasm.Close)
	all, err := keptModules(pinned)
	if err != nil && !cfg.Ephemeral {
		return err
	}
	cfg.Dir, cfg.Scratch = dir, vfs.Path(fsys, ".")
	cfg.Compile = func(ctx context.Context, name string, b []byte) (runtime.Serializer, error) {
		return wasm.Compile(ctx, name, b)
	}
	b.serializers = namedSerializers(cfg.Compile, all, func(k kept) ([]byte, error) { return k.read(pinned) })
	prepareKept(ctx, wasm, dir, cfg.Logger)
	return nil
}

// scriptEnv is the environment of init scripts: that of this process, and where to find it, unless the port is
// not known yet.
func (p *program) scriptEnv(s *settings) []string {
	_, port, _ := net.SplitHostPort(s.Listen)
	if port == "0" {
		return p.environ
	}
	url := "http://127.0.0.1:" + port
	env := append(slices.Clone(p.environ), "TORPOR_URL="+url)
	if p.env("AWS_ENDPOINT_URL") == "" {
		env = append(env, "AWS_ENDPOINT_URL="+url)
	}
	return env
}

// prepareKept has the modules that older states were written by compiled in the background, before a first
// request needs one to restore.
func prepareKept(ctx context.Context, wasm *host.Host, dir *statedir.Dir, logger *slog.Logger) {
	kept, err := dir.Modules()
	if err != nil {
		logger.Debug("kept modules cannot be listed; they are compiled when they are needed", "error", err)
		return
	}
	wasm.Prepare(ctx, func(yield func(string, []byte) bool) {
		for _, digest := range kept {
			b, err := dir.Module(digest)
			if err != nil {
				logger.Debug("a kept module cannot be read", "error", err)
				continue
			}
			if !yield(fmt.Sprintf("%x", digest[:6]), b) {
				return
			}
		}
	})
}

// cacheDir is where compiled modules are kept.
func cacheDir(s *settings) string {
	if s.Cache != "" {
		return s.Cache
	}
	return filepath.Join(s.Data, "cache")
}

func session() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails
	return hex.EncodeToString(b[:])
}

func (p *program) env(name string) string {
	for _, e := range p.environ {
		if v, ok := strings.CutPrefix(e, name+"="); ok {
			return v
		}
	}
	return ""
}
