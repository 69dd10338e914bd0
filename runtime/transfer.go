package runtime

import (
	"bufio"
	"cmp"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// ApplyOptions say how a snapshot is loaded. The zero value merges as LocalStack does.
type ApplyOptions struct {
	Strategy snapshot.Strategy // "": the first of [snapshot.Strategies]
	// DryRun says what would change, and changes nothing.
	DryRun bool
}

// Applied is what loading a snapshot has done, or would do, to a service.
type Applied struct {
	Service string
	Parts   []AppliedPart
}

// AppliedPart is what it has done to one part, in records.
type AppliedPart struct {
	Part string
	snapshot.Merged
	Replaced []string // the partitions that were replaced wholly
}

// UnknownPartsError says that a snapshot has state of services, or parts of services, that there are not here. It wraps
// abi.ErrNotFound.
type UnknownPartsError struct {
	Unknown []string // services, and parts as service/part
	Known   []string // the services there are
}

func (e *UnknownPartsError) Error() string {
	return fmt.Sprintf("the snapshot has state of %s, which is not configured here: nothing was loaded; the services are %s (load only those that are, or configure the others)",
		strings.Join(e.Unknown, ", "), strings.Join(e.Known, ", "))
}

func (e *UnknownPartsError) Unwrap() error { return abi.ErrNotFound }

// Capture takes the state of services, of all without names, into temporary files: of those that run as it is now, all
// parts of a service at one moment, while its requests are held; of others as it is saved. It saves nothing, and leaves
// marks of what is unsaved as they are. What has never had any state is left out. The error wraps abi.ErrNotFound for a
// service there is not, [ErrBusy] where requests could not be held, and names the service. Close the snapshot.
func (rt *Runtime) Capture(ctx context.Context, services ...string) (_ *snapshot.Snapshot, err error) {
	if rt.dir == nil {
		return nil, errDisabled
	}
	chosen, err := rt.chosen(services)
	if err != nil {
		return nil, err
	}
	end, err := rt.transfer()
	if err != nil {
		return nil, err
	}
	defer end()
	var held closers
	defer func() {
		if err != nil {
			err = errors.Join(err, held.Close())
		}
	}()
	var parts []snapshot.Part
	for _, s := range chosen {
		err := s.work(ctx, func(ctx context.Context) error {
			states, err := s.states(ctx, &held)
			for p, f := range states {
				parts = append(parts, snapshot.Part{Service: s.name, Name: p.Name, File: f})
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	return snapshot.New(snapshot.Info{Created: time.Now().UTC(), Torpor: rt.version}, parts, rt.module, held.Close)
}

// Generations is what is saved of services, of all without names: the newest generation of every part, or the one so many
// before it. The error wraps abi.ErrNotFound. Close the snapshot.
func (rt *Runtime) Generations(back int, services ...string) (*snapshot.Snapshot, error) {
	if !rt.Persistent() {
		return nil, errDisabled
	}
	if _, err := rt.chosen(services); err != nil {
		return nil, err
	}
	return snapshot.Generations(rt.dir, back, services...)
}

// chosen are the services named, or all.
func (rt *Runtime) chosen(names []string) ([]*Service, error) {
	if len(names) == 0 {
		return rt.services, nil
	}
	for _, name := range names {
		if _, err := rt.Service(name); err != nil {
			return nil, err
		}
	}
	return slices.DeleteFunc(slices.Clone(rt.services), func(s *Service) bool { return !slices.Contains(names, s.name) }), nil
}

// module reads the serializer of a state that this runtime has saved or captured.
func (rt *Runtime) module(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
	for _, s := range rt.services {
		for _, p := range s.parts {
			if m, ok := p.Serializer.(portable); ok && p.Serializer.Digest() == digest {
				return m.Wasm(), nil
			}
		}
	}
	return rt.dir.Module(digest)
}

// closers are closed together.
type closers []io.Closer

func (c *closers) add(x io.Closer) { *c = append(*c, x) }

func (c *closers) Close() error {
	var errs []error
	for _, x := range *c {
		errs = append(errs, x.Close())
	}
	*c = nil
	return errors.Join(errs...)
}

// states is the state of every part that has one. What it opens is added to held, whatever comes. The caller is in work.
func (s *Service) states(ctx context.Context, held *closers) (map[*part]*statefile.File, error) {
	if st := s.state(); s.process == nil && (st == StatusAvailable || st == StatusStarting) && !slices.ContainsFunc(s.parts, s.saved) {
		// Nothing is saved, and nothing is there that is to be started for it: what it has is to be asked.
		if err := s.wakeHere(ctx); err != nil {
			return nil, err
		}
	}
	states := map[*part]*statefile.File{}
	if s.state() == StatusRunning {
		if err := s.settle(ctx); err != nil {
			return nil, err
		}
		return states, s.live(ctx, s.parts, states, held)
	}
	s.mu.Lock()
	failed, unread, ran, undo := s.status == StatusError, s.unread, s.ran, s.undo
	s.mu.Unlock()
	keepsNewer := !ran && !slices.ContainsFunc(s.parts, func(p *part) bool { _, dated := p.Source.(DatedSource); return !dated || !p.offline() })
	var unsaved []*part // of a program that does not run: its files are there
	for _, p := range s.parts {
		_, dirty := p.Dirty.Since()
		if p.offline() && !failed && !undo && (dirty || unread || !s.saved(p) || keepsNewer && s.newer(ctx, p)) {
			unsaved = append(unsaved, p)
			continue
		}
		if unread { // its next wake does not give it what is saved
			continue
		}
		opened, err := s.rt.dir.OpenNewest(s.name, p.Name)
		var none *statedir.DamagedError
		if opened != nil {
			held.add(opened)
			s.noteDamage(p, s.quarantined(p, opened.Quarantined), "the generation before takes its place")
		} else if errors.As(err, &none) {
			s.noteDamage(p, s.quarantined(p, none.Quarantined), "no sound generation is left")
		}
		if none != nil || errors.Is(err, abi.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, fmt.Errorf("service %s, part %s: its saved state cannot be read: %w", s.name, p.Name, err)
		}
		states[p] = opened.File()
	}
	return states, s.live(ctx, unsaved, states, held)
}

// wakeHere wakes a service that is available or about to be woken; the caller is in work.
func (s *Service) wakeHere(ctx context.Context) (err error) {
	defer s.starting()(&err)
	return s.wake(ctx)
}

// starting has requests wait until what it returns is called, where the service is available: its program is being
// started. The caller is in work.
func (s *Service) starting() (done func(*error)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.status != StatusAvailable {
		return func(*error) {}
	}
	w := &waking{done: make(chan struct{})}
	s.status, s.waking = StatusStarting, w
	return func(err *error) {
		s.mu.Lock()
		if s.status == StatusStarting {
			s.status = StatusAvailable
		}
		s.mu.Unlock()
		w.err = *err
		close(w.done)
	}
}

// newer reports whether what a part's source finds was changed after it was saved.
func (s *Service) newer(ctx context.Context, p *part) bool {
	d, ok := p.Source.(DatedSource)
	if !ok {
		return false
	}
	s.mu.Lock()
	savedAt := p.savedAt
	s.mu.Unlock()
	at, err := d.Modified(ctx)
	return err == nil && !at.IsZero() && !savedAt.IsZero() && at.After(savedAt)
}

// live captures parts at one moment, and adds their states, proved as when they are saved.
func (s *Service) live(ctx context.Context, parts []*part, states map[*part]*statefile.File, held *closers) (err error) {
	// Only without persistence can one be missing, and the log has said so.
	parts = slices.DeleteFunc(slices.Clone(parts), func(p *part) bool { return p.Serializer == nil })
	if len(parts) == 0 {
		return nil
	}
	var caught []captured
	defer func() {
		for _, c := range caught {
			err = errors.Join(err, c.capture.Close())
		}
	}()
	take := func(ctx context.Context) error {
		for _, p := range parts {
			start := time.Now()
			c, err := p.Source.Capture(ctx)
			if err != nil {
				return fmt.Errorf("service %s, part %s: capture: %w", s.name, p.Name, err)
			}
			caught = append(caught, captured{part: p, capture: c, at: start})
		}
		return nil
	}
	if err := s.still(ctx, parts, take); err != nil {
		return err
	}
	for _, c := range caught {
		event := SaveEvent{Created: c.at.UTC(), Generation: max(1, s.generationOf(c.part))}
		var given counter
		f, err := s.scratch(c.part, event.Generation, event.Created, held, func(w *statefile.Writer) error {
			_, err := s.serialize(ctx, c, w, func(ctx context.Context, native io.Writer) error {
				return c.capture.WriteNative(ctx, io.MultiWriter(&given, native))
			}, &event)
			return err
		})
		if err != nil && given == 0 && errors.Is(err, abi.ErrCorrupt) {
			continue // no bytes, which is no state of this serializer's: nothing was ever there
		}
		if err != nil {
			return fmt.Errorf("service %s, part %s: %w", s.name, c.part.Name, err)
		}
		states[c.part] = f
	}
	return nil
}

// counter counts bytes.
type counter int64

func (c *counter) Write(p []byte) (int, error) {
	*c += counter(len(p))
	return len(p), nil
}

// scratch makes a state file of a part that lasts until held is closed. write writes and closes it.
func (s *Service) scratch(p *part, generation uint64, created time.Time, held *closers, write func(*statefile.Writer) error) (*statefile.File, error) {
	file, err := vfs.Scratch(s.rt.scratch)
	if err != nil {
		return nil, err
	}
	held.add(file)
	buffer := bufio.NewWriterSize(file, 256<<10)
	w, err := statefile.NewWriter(buffer, statefile.Header{Service: s.name, Part: p.Name, Generation: generation, Created: created, Serializer: p.writtenBy()})
	if err == nil {
		err = write(w)
	}
	if err == nil {
		err = buffer.Flush()
	}
	if err != nil {
		return nil, err
	}
	info, err := file.Stat()
	if err != nil {
		return nil, err
	}
	return statefile.Open(file, info.Size(), "temporary file of "+s.name+"/"+p.Name)
}

// Apply loads a snapshot into the services it has state of. It is all or nothing: what is to be given to each service is
// made, and loaded once for trial, before the first one is touched; requests to all of them are held meanwhile; and where
// a service then refuses it, or it cannot be saved, all get back what they had. Parts of these services that the snapshot
// has nothing of stay as they are. Services that sleep are woken; one whose saved state could not be loaded runs again.
// With persistence, what was loaded is saved before requests go on, unless the save strategy is MANUAL; each service by
// itself, so that a crash in between leaves some of them with what they had.
//
// Errors: an *[UnknownPartsError]; [ErrBusy]; [ErrExternal] where files of a service that somebody else runs would be
// replaced; [ErrUnloadable] for states that cannot be read, merged or loaded here. They name the service and part. An error
// that wraps [ErrHalf] is the only one after which services may not be as they were.
func (rt *Runtime) Apply(ctx context.Context, in *snapshot.Snapshot, o ApplyOptions) (_ []Applied, err error) {
	if rt.dir == nil {
		return nil, errDisabled
	}
	if o.Strategy, err = Parse("merge strategy", string(o.Strategy), snapshot.Strategies()); err != nil {
		return nil, err
	}
	services, err := rt.targets(in)
	if err != nil {
		return nil, err
	}
	end, err := rt.transfer()
	if err != nil {
		return nil, err
	}
	defer end()
	a := &application{ApplyOptions: o, in: in}
	defer func() {
		if closeErr := a.held.Close(); closeErr != nil {
			rt.logger.Warn("temporary files of a snapshot that was loaded could not be closed", "error", closeErr)
		}
	}()
	if err := a.alone(ctx, services); err != nil {
		return nil, err
	}
	out := make([]Applied, len(a.services))
	for i, t := range a.services {
		out[i] = t.applied
	}
	return out, nil
}

// transfer keeps Close waiting until end is called: what is half given is to be given wholly, or taken back.
func (rt *Runtime) transfer() (end func(), err error) {
	rt.mu.Lock()
	defer rt.mu.Unlock()
	if rt.closed {
		return nil, fmt.Errorf("the runtime is stopping: %w", context.Canceled)
	}
	rt.transfers.Add(1)
	return rt.transfers.Done, nil
}

// Errors of Apply.
var (
	// ErrUnloadable: what a snapshot has of a part cannot be loaded here.
	ErrUnloadable = errors.New("the snapshot cannot be loaded")
	// ErrHalf: a service could not be given back what it had when a snapshot could not be loaded.
	ErrHalf = errors.New("and the state before could not be given back")
)

// targets are the services that a snapshot has state of.
func (rt *Runtime) targets(in *snapshot.Snapshot) ([]*Service, error) {
	var services []*Service
	unknown := &UnknownPartsError{}
	for _, s := range rt.services {
		unknown.Known = append(unknown.Known, s.name)
	}
	for _, name := range in.Services() {
		s, err := rt.Service(name)
		if err != nil {
			unknown.Unknown = append(unknown.Unknown, name)
			continue
		}
		for _, p := range in.Of(name) {
			i := slices.IndexFunc(s.parts, func(q *part) bool { return q.Name == p.Name })
			if i < 0 {
				unknown.Unknown = append(unknown.Unknown, p.String())
				continue
			}
			if s.external && s.parts[i].offline() && !s.parts[i].SelfMarking {
				return nil, fmt.Errorf("service %s, part %s: %w, and its source would replace files under it: nothing was loaded", s.name, p.Name, ErrExternal)
			}
		}
		services = append(services, s)
	}
	if len(unknown.Unknown) > 0 {
		return nil, unknown
	}
	return services, nil
}

// application is one snapshot being loaded.
type application struct {
	ApplyOptions
	in       *snapshot.Snapshot
	services []*target
	held     closers
}

// target is one service of an application.
type target struct {
	*Service
	incoming      map[*part]*statefile.File // what the snapshot has, as the service's own serializers write it
	before, after map[*part]*statefile.File // after: of all parts that get one
	refusal       error                     // why its saved state could not be loaded; nil: that is not so
	lost          error                     // why what it has is no state, and cannot be given back; nil: it is one
	unread        bool                      // its saved state has not been loaded
	touched       bool                      // it is not what it was any more
	kept          bool                      // what it was given has been saved
	deaths        uint64                    // of its program, when it had been given all
	applied       Applied
}

// alone goes on when no other work is under way on any of services, and, what can be made without them having been made,
// with their requests held.
func (a *application) alone(ctx context.Context, services []*Service) error {
	if len(services) > 0 {
		s := services[0]
		return s.work(ctx, func(ctx context.Context) error {
			a.services = append(a.services, &target{Service: s, applied: Applied{Service: s.name}})
			return a.alone(ctx, services[1:])
		})
	}
	for _, t := range a.services {
		if err := a.receive(ctx, t); err != nil {
			return err
		}
	}
	if a.DryRun {
		return a.prepareAll(ctx)
	}
	return a.holding(ctx, a.services)
}

// holding goes on when requests to all services are held.
func (a *application) holding(ctx context.Context, services []*target) error {
	if len(services) > 0 {
		return services[0].holding(ctx, func(ctx context.Context) error { return a.holding(ctx, services[1:]) })
	}
	err := a.run(ctx)
	if err != nil {
		err = errors.Join(err, a.undo(context.WithoutCancel(ctx)))
	}
	return err
}

// unloadable is the error of a part that cannot be given what the snapshot has of it.
func (t *target) unloadable(p *part, err error) error {
	return fmt.Errorf("service %s, part %s: %w: %w", t.name, p.Name, ErrUnloadable, err)
}

// receive takes what the snapshot has for a service.
func (a *application) receive(ctx context.Context, t *target) (err error) {
	t.incoming = map[*part]*statefile.File{}
	for _, p := range t.parts {
		got, ok := a.in.Part(t.name, p.Name)
		if !ok {
			continue
		}
		if p.Serializer == nil {
			return t.unloadable(p, errors.New("the part has no serializer"))
		}
		if t.incoming[p], err = t.own(ctx, p, got.File, a.in.Module, &a.held); err != nil {
			return t.unloadable(p, err)
		}
	}
	return nil
}

func (a *application) prepareAll(ctx context.Context) error {
	for _, t := range a.services {
		if err := a.prepare(ctx, t); err != nil {
			return err
		}
	}
	return nil
}

func (a *application) run(ctx context.Context) error {
	if err := a.prepareAll(ctx); err != nil {
		return err
	}
	failed := func(t *target, err error) error {
		return fmt.Errorf("service %s: the snapshot was not loaded: %w", t.name, err)
	}
	for _, t := range a.services {
		replaced, err := t.give(ctx, t.after)
		t.touched = t.touched || replaced
		if err != nil {
			return failed(t, err)
		}
		t.mu.Lock()
		t.deaths = t.Service.deaths
		t.mu.Unlock()
	}
	for _, t := range a.services {
		if err := t.keep(ctx); err != nil {
			return failed(t, err)
		}
	}
	for _, t := range a.services {
		if err := t.lives(); err != nil {
			return failed(t, err)
		}
	}
	for _, t := range a.services {
		t.acceptParts(func(p *part) bool { return t.after[p] != nil })
		t.rt.logger.Info("snapshot loaded", "service", t.name, "snapshot", cmp.Or(a.in.Name, "unnamed"), "merge", a.Strategy)
	}
	return nil
}

// lives says so where the program has died since it was given its state: what it kept in memory of that is gone.
func (t *target) lives() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.Service.deaths != t.deaths {
		return cmp.Or(t.err, ErrProcess)
	}
	return nil
}

// prepare makes the states that a service is to get, and tries them.
func (a *application) prepare(ctx context.Context, t *target) (err error) {
	t.mu.Lock()
	if t.status == StatusError {
		t.refusal = cmp.Or(t.err, errUnknown)
	}
	t.unread = t.Service.unread
	t.mu.Unlock()
	if !a.DryRun && t.rt.Persistent() && t.save != SaveManual {
		if err := t.writable(); err != nil {
			return err
		}
	}
	// What cannot be loaded is no reason not to load something else over it.
	if t.before, err = a.now(ctx, t); err != nil {
		if a.Strategy != snapshot.Overwrite || t.refusal == nil && !errors.Is(err, abi.ErrCorrupt) {
			return err
		}
		t.lost = err
	}
	t.after = map[*part]*statefile.File{}
	if t.process != nil || t.state() != StatusRunning { // it is started anew, and so has to be given all
		maps.Copy(t.after, t.before)
	}
	for _, p := range t.parts {
		incoming := t.incoming[p]
		if incoming == nil {
			continue
		}
		live := t.before[p]
		if live != nil && a.Strategy != snapshot.Overwrite {
			if live, err = t.own(ctx, p, live, t.rt.module, &a.held); err != nil {
				return fmt.Errorf("service %s, part %s: its state cannot be merged with: %w", t.name, p.Name, err)
			}
		}
		d := p.Serializer.Descriptor()
		var merged snapshot.Merged
		state, err := t.scratch(p, max(1, t.generationOf(p)), time.Now().UTC(), &a.held, func(w *statefile.Writer) error {
			merged, err = snapshot.Merge(ctx, live, incoming, snapshot.MergeOptions{Strategy: a.Strategy, Nesting: d.Nesting, Ordered: d.Ordered, Folder: t.rt.scratch}, w)
			if err == nil {
				_, err = w.Close()
			}
			return err
		})
		if err != nil {
			return fmt.Errorf("service %s, part %s: the snapshot cannot be merged: %w", t.name, p.Name, err)
		}
		if err := t.tried(ctx, p, state); err != nil {
			if merged.Kept > 0 {
				err = &snapshot.RefusedError{Serializer: d.Name, Strategy: a.Strategy, Err: err}
			}
			return t.unloadable(p, err)
		}
		t.after[p] = state
		t.applied.Parts = append(t.applied.Parts, AppliedPart{Part: p.Name, Merged: merged, Replaced: snapshot.Replaced(live, incoming, a.Strategy)})
	}
	return nil
}

// now is the state that a service has. A program that is stopped for what it is given is stopped first, since programs
// write when they end.
func (a *application) now(ctx context.Context, t *target) (map[*part]*statefile.File, error) {
	offline := t.some((*part).offline)
	if a.DryRun || t.process == nil || len(offline) == 0 || t.state() != StatusRunning {
		return t.states(ctx, &a.held)
	}
	if err := t.settle(ctx); err != nil {
		return nil, err
	}
	before := map[*part]*statefile.File{}
	if err := t.live(ctx, t.some(online), before, &a.held); err != nil {
		return nil, err
	}
	t.touched = true
	t.before = before // should it not come to more
	if err := t.stopProcess(context.WithoutCancel(ctx)); err != nil {
		return before, err
	}
	return before, t.live(ctx, offline, before, &a.held)
}

// own gives a state as the part's own serializer writes it, as which it can be merged.
func (s *Service) own(ctx context.Context, p *part, f *statefile.File, module moduleFinder, held *closers) (*statefile.File, error) {
	header := f.Header()
	dec, err := s.decoder(ctx, p, header.Serializer, module)
	if err != nil {
		return nil, err
	}
	if dec.serializer == p.Serializer && !dec.migrate && header.Serializer.Schema == p.Schema {
		return f, nil
	}
	return s.scratch(p, header.Generation, header.Created, held, func(w *statefile.Writer) error {
		line := newPipeline(ctx)
		native, converted := newBytePipe(line.ctx), newBatchPipe(line.ctx)
		s.native(line, p, f, dec, native, new(RestoreEvent))
		line.stage(nil, func(ctx context.Context) error {
			call := abi.Call{Service: s.name, Part: p.Name, Schema: p.Schema, Time: header.Created.UnixNano(), Settings: p.Settings}
			if err := p.Serializer.Save(ctx, call, native, converted); err != nil {
				return err
			}
			converted.end()
			return nil
		})
		line.stage(nil, func(context.Context) error {
			if err := drain(converted, w); err != nil {
				return err
			}
			_, err := w.Close()
			return err
		})
		return line.wait()
	})
}

// tried loads a state into nothing.
func (s *Service) tried(ctx context.Context, p *part, f *statefile.File) error {
	_, err := s.restore(ctx, p, f, decoder{serializer: p.Serializer}, discard)
	return err
}

func discard(_ context.Context, native io.Reader) error {
	_, err := io.Copy(io.Discard, native)
	return err
}

// give replaces the live state of a service by states. After an error, replaced false says that it is what it was. The
// caller is in work and holds requests.
func (t *target) give(ctx context.Context, states map[*part]*statefile.File) (replaced bool, err error) {
	t.given = states
	defer func() { t.given = nil }()
	if t.process == nil {
		if replaced, err = t.restoreParts(ctx, t.some(t.replaced)); err == nil {
			t.set(StatusRunning, nil)
		}
		replaced = replaced || t.state() != StatusRunning
	} else {
		replaced = true
		_, _, err = t.reload(ctx)
	}
	if err != nil {
		return replaced, err
	}
	for _, p := range t.some(t.replaced) {
		p.base = 0
		p.Dirty.Mark()
	}
	return true, nil
}

// replaced reports whether a part is given a state.
func (s *Service) replaced(p *part) bool { return s.given[p] != nil }

// keep saves what was given, as after a change by a request that is waited for.
func (t *target) keep(ctx context.Context) error {
	if !t.rt.Persistent() || t.save == SaveManual {
		return nil
	}
	t.kept = true
	return t.saveParts(ctx, func(p *part) bool { return t.after[p] != nil })
}

// undo gives the services that are not what they were any more what they had.
func (a *application) undo(ctx context.Context) error {
	var errs []error
	for _, t := range a.services {
		if !t.touched {
			continue
		}
		if err := t.restoreBefore(ctx); err != nil {
			err = fmt.Errorf("service %s: %w: %w", t.name, ErrHalf, err)
			t.rt.logger.Error("a snapshot could not be loaded, and the state before could not be given back", "service", t.name, "error", err)
			if t.process != nil {
				err = t.unreset(ctx, err) // its next wake gives it what is saved
			} else {
				t.set(StatusError, err)
			}
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// restoreBefore gives a service back what it had; where that is nothing, it is emptied. What was saved of the snapshot is
// saved over.
func (t *target) restoreBefore(ctx context.Context) error {
	if t.refusal != nil { // nothing of it was live, and what is saved must not be replaced by nothing
		err := t.stopProcess(ctx)
		t.set(StatusError, t.refusal)
		return err
	}
	if t.lost != nil {
		return t.lost
	}
	for p := range t.after {
		if t.before[p] == nil {
			if err := t.empty(ctx); err != nil {
				return err
			}
			break
		}
	}
	if len(t.before) > 0 {
		if _, err := t.give(ctx, t.before); err != nil {
			return err
		}
	} else if t.process != nil {
		if err := t.startProcess(ctx); err != nil {
			return err
		}
	}
	t.mu.Lock()
	t.Service.unread = t.unread
	t.mu.Unlock()
	if !t.kept {
		return nil
	}
	return t.saveParts(ctx, func(p *part) bool { return t.after[p] != nil })
}

// moduleFinder reads the serializer of a digest.
type moduleFinder func(context.Context, [sha256.Size]byte) ([]byte, error)
