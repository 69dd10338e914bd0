package runtime

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// restoreParts loads the newest good generation of each of parts. After an error the service's status is
// error, unless it was running and nothing of it had been replaced, or did not run and ctx ended: then it is
// available, and its next request tries again.
func (s *Service) restoreParts(ctx context.Context, parts []*part) (found bool, err error) {
	running := s.state() == StatusRunning
	for _, p := range parts {
		got, err := s.restorePart(ctx, p)
		if err != nil && s.given != nil {
			err = fmt.Errorf("service %s, part %s: it does not take the state: %w", s.name, p.Name, err)
			if !running || found { // who gives it tells what becomes of it
				s.set(StatusError, err)
			}
			return false, err
		}
		if err != nil {
			err = fmt.Errorf("service %s, part %s: its saved state cannot be loaded: %w", s.name, p.Name, err)
			s.mu.Lock()
			p.lastErr = err
			s.mu.Unlock()
			if running && !found {
				s.rt.logger.Error("load failed; the live state stays as it is", "service", s.name, "part", p.Name, "error", err)
				return false, err
			}
			if !running && ctx.Err() != nil {
				s.set(StatusAvailable, err)
				return false, err
			}
			s.rt.logger.Error("restore failed; the service is neither served nor saved until it is loaded or reset", "service", s.name, "part", p.Name, "error", err)
			s.set(StatusError, err)
			return false, err
		}
		if got {
			found = true
			p.Dirty.take()
			p.stopped = p.Dirty.count()
		}
	}
	return found, nil
}

// restorePart loads p's newest good generation. Damage found on the way moves a generation aside and
// the one before is tried; when none is left the part starts empty, and its last error says so.
func (s *Service) restorePart(ctx context.Context, p *part) (found bool, err error) {
	rt := s.rt
	if s.given != nil {
		return s.restoreGiven(ctx, p)
	}
	var damage []error
	for {
		opened, err := rt.dir.OpenNewest(s.name, p.Name)
		var none *statedir.DamagedError
		if opened != nil {
			damage = append(damage, s.quarantined(p, opened.Quarantined)...)
		} else if errors.As(err, &none) {
			damage = append(damage, s.quarantined(p, none.Quarantined)...)
		}
		if none != nil || errors.Is(err, abi.ErrNotFound) {
			s.noteDamage(p, damage, "no sound generation is left, the service starts empty")
			return false, nil
		}
		if err != nil {
			rt.observer.RestoreFinished(RestoreEvent{Service: s.name, Part: p.Name, Err: err})
			return false, err
		}
		event, err := s.restoreOpened(ctx, p, opened, p.Source.Restore)
		rt.observer.RestoreFinished(event)
		if err == nil {
			p.base = opened.Generation
			s.mu.Lock()
			info := opened.File().Info()
			p.generation, p.savedAt, p.records, p.bytes = opened.Generation, opened.File().Header().Created, info.Records, info.Raw
			p.fileBytes, p.deltas = info.Size, info.Deltas
			p.lastErr = nil
			s.mu.Unlock()
			s.noteDamage(p, damage, fmt.Sprintf("generation %d was loaded instead", opened.Generation))
			rt.logger.Info("state restored", "service", s.name, "part", p.Name, "generation", opened.Generation,
				"records", event.Records, "bytes", event.Bytes, "took", event.Total)
			return true, opened.Close()
		}
		// Only damage that the file's own checksums show speaks against the file; when a serializer
		// or a source refuses sound bytes, moving them aside would help nobody.
		var fe *statefile.FileError
		if !errors.As(err, &fe) || !errors.Is(fe.Err, abi.ErrCorrupt) {
			return false, errors.Join(err, opened.Close())
		}
		q := rt.dir.Quarantine(opened, err)
		damage = append(damage, s.quarantined(p, []statedir.Quarantine{q})...)
		if err := opened.Close(); err != nil {
			return false, err
		}
	}
}

// quarantined tells the observer of each and returns what was wrong with them.
func (s *Service) quarantined(p *part, qs []statedir.Quarantine) []error {
	var errs []error
	for _, q := range qs {
		errs = append(errs, fmt.Errorf("generation %d, now at %s: %w", q.Generation, q.Path, q.Err))
		s.rt.observer.GenerationQuarantined(s.name, p.Name)
	}
	return errs
}

// noteDamage keeps it in the part's last error that generations were moved aside.
func (s *Service) noteDamage(p *part, damage []error, then string) {
	if len(damage) == 0 {
		return
	}
	err := fmt.Errorf("%w; %s", errors.Join(damage...), then)
	s.rt.logger.Error("saved state was damaged and has been moved aside", "service", s.name, "part", p.Name, "error", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	p.lastErr = err
}

// loadable says why what is saved of parts could not be loaded, as far as that can be told without replacing
// anything. What is damaged is left to restorePart, which moves it aside.
func (s *Service) loadable(ctx context.Context, parts []*part) error {
	for _, p := range parts {
		opened, err := s.rt.dir.OpenNewest(s.name, p.Name)
		var none *statedir.DamagedError
		if opened != nil {
			s.noteDamage(p, s.quarantined(p, opened.Quarantined), "the generation before takes its place")
		} else if errors.As(err, &none) {
			s.noteDamage(p, s.quarantined(p, none.Quarantined), "no sound generation is left")
		}
		if none != nil || errors.Is(err, abi.ErrNotFound) {
			continue
		}
		event := RestoreEvent{Service: s.name, Part: p.Name, Err: err}
		if err == nil {
			event, err = s.restoreOpened(ctx, p, opened, discard)
			err = errors.Join(err, opened.Close())
		}
		var fe *statefile.FileError
		if err == nil || errors.As(err, &fe) && errors.Is(fe.Err, abi.ErrCorrupt) {
			continue
		}
		s.rt.observer.RestoreFinished(event)
		err = fmt.Errorf("service %s, part %s: its saved state cannot be loaded: %w", s.name, p.Name, err)
		s.mu.Lock()
		p.lastErr = err
		s.mu.Unlock()
		s.rt.logger.Error("load failed; the live state stays as it is", "service", s.name, "part", p.Name, "error", err)
		return err
	}
	return nil
}

// restoreGiven gives p the state that a snapshot has for it.
func (s *Service) restoreGiven(ctx context.Context, p *part) (found bool, err error) {
	f := s.given[p]
	if f == nil {
		return false, nil
	}
	dec, err := s.decoder(ctx, p, f.Header().Serializer, s.rt.module) // what it had may be of an older schema
	if err != nil {
		return false, err
	}
	event, err := s.restore(ctx, p, f, dec, p.Source.Restore)
	s.rt.observer.RestoreFinished(event)
	if err != nil {
		return false, err
	}
	p.base = 0 // no generation is what the service has now
	s.mu.Lock()
	p.lastErr = nil
	s.mu.Unlock()
	s.rt.logger.Info("state restored", "service", s.name, "part", p.Name, "records", event.Records, "bytes", event.Bytes, "took", event.Total)
	return true, nil
}

// restoreOpened runs one generation through its serializer into what takes the native state: the source's Restore.
func (s *Service) restoreOpened(ctx context.Context, p *part, opened *statedir.Opened, deliver func(context.Context, io.Reader) error) (RestoreEvent, error) {
	header := opened.File().Header()
	if header.Service != s.name || header.Part != p.Name {
		err := fmt.Errorf("%s holds the state of %s/%s, not of %s/%s: put it back in its place", opened.Path, header.Service, header.Part, s.name, p.Name)
		return RestoreEvent{Service: s.name, Part: p.Name, Generation: opened.Generation, Err: err}, err
	}
	start := time.Now()
	dec, err := s.decoder(ctx, p, header.Serializer, s.rt.kept)
	if err != nil {
		return RestoreEvent{Service: s.name, Part: p.Name, Generation: opened.Generation, Total: time.Since(start), Err: err}, err
	}
	event, err := s.restore(ctx, p, opened.File(), dec, deliver)
	event.Total = time.Since(start)
	return event, err
}

// kept reads a serializer that the state directory keeps.
func (rt *Runtime) kept(_ context.Context, digest [sha256.Size]byte) ([]byte, error) {
	return rt.dir.Module(digest)
}

// restore runs a state through dec into what takes the native state.
func (s *Service) restore(ctx context.Context, p *part, f *statefile.File, dec decoder, deliver func(context.Context, io.Reader) error) (RestoreEvent, error) {
	start := time.Now()
	event := RestoreEvent{Service: s.name, Part: p.Name, Generation: f.Header().Generation, Records: f.Info().Records}
	line := newPipeline(ctx)
	native := newBytePipe(line.ctx)
	var deliverTook time.Duration
	account := s.native(line, p, f, dec, native, &event)
	line.stage(&deliverTook, func(ctx context.Context) error { return deliver(ctx, native) })
	err := line.wait()
	account()
	event.Deliver = deliverTook - native.consumeWait
	event.Total, event.Err = time.Since(start), err
	return event, err
}

// native adds the stages to line that turn the records of f into native state. What it returns is to be called when
// line has ended, and puts into event what they took.
func (s *Service) native(line *pipeline, p *part, f *statefile.File, dec decoder, native *bytePipe, event *RestoreEvent) (account func()) {
	header := f.Header()
	read, migrated := newBatchPipe(line.ctx), newBatchPipe(line.ctx)
	var readTook, migrateTook, decodeTook time.Duration
	line.stage(&readTook, func(context.Context) error {
		return readInto(f.Records(), read, &event.Bytes)
	})
	call := abi.Call{Service: s.name, Part: p.Name, Schema: header.Serializer.Schema, Time: header.Created.UnixNano(), Settings: p.Settings}
	records := read
	if dec.migrate {
		step := call
		step.From, step.To = header.Serializer.Schema, p.Schema
		records, call.Schema = migrated, p.Schema
		line.stage(&migrateTook, func(ctx context.Context) error {
			if err := dec.serializer.Migrate(ctx, step, read, migrated); err != nil {
				return err
			}
			migrated.end()
			return nil
		})
	}
	line.stage(&decodeTook, func(ctx context.Context) error {
		if err := dec.serializer.Load(ctx, call, records, native); err != nil {
			return err
		}
		native.CloseWrite() // only now: who reads takes the end of the stream for success
		return nil
	})
	return func() {
		event.Read = readTook - read.produceWait
		event.Decode = decodeTook - records.consumeWait - native.produceWait
		if dec.migrate {
			event.Decode += migrateTook - read.consumeWait - migrated.produceWait
		}
	}
}

// readInto moves a file's records onto the belt without copying them. The belt is ended after the last
// record only: an end is what the stages behind it take for success. size is added what was read.
func readInto(from *statefile.RecordReader, to *batchPipe, size *uint64) error {
	for {
		b, err := to.empty()
		if err != nil {
			return err
		}
		if err := from.ReadInto(b); errors.Is(err, io.EOF) {
			to.end()
			return nil
		} else if err != nil {
			return err
		}
		*size += uint64(len(b.Data))
		if err := to.pass(b); err != nil {
			return err
		}
	}
}

type decoder struct {
	serializer Serializer
	migrate    bool // records pass through Migrate first
}

// decoder chooses what reads a state that w wrote: the configured serializer, if it reads that schema
// or can migrate it, otherwise the very module that wrote it, which find reads.
func (s *Service) decoder(ctx context.Context, p *part, w statefile.Serializer, find moduleFinder) (decoder, error) {
	d := p.Serializer.Descriptor()
	if d.Name == w.Name {
		switch {
		case w.Schema == p.Schema, p.Schema == d.Schema && slices.Contains(d.Reads, w.Schema):
			return decoder{serializer: p.Serializer}, nil
		case slices.Contains(d.Operations, abi.OpMigrate):
			return decoder{serializer: p.Serializer, migrate: true}, nil
		}
	}
	written := fmt.Sprintf("the state was written by serializer %s %s with schema %d (module %x)", w.Name, w.Version, w.Schema, w.Digest)
	if s.rt.compile == nil {
		return decoder{}, fmt.Errorf("%w: %s, which %s %s does not read", abi.ErrVersion, written, d.Name, d.Version)
	}
	wasm, err := find(ctx, w.Digest)
	if err != nil {
		return decoder{}, fmt.Errorf("%s, which %s %s does not read, and the module cannot be had: %w", written, d.Name, d.Version, err)
	}
	old, err := s.rt.compile(ctx, w.Name, wasm)
	if err != nil {
		return decoder{}, fmt.Errorf("%s: %w", written, err)
	}
	if m := old.Descriptor().Media; m != d.Media {
		return decoder{}, fmt.Errorf("%w: %s, which gives %s; the service takes %s", abi.ErrVersion, written, m, d.Media)
	}
	s.rt.logger.Warn("state is read by the module that wrote it", "service", s.name, "part", p.Name,
		"serializer", w.Name, "version", w.Version, "schema", w.Schema)
	return decoder{serializer: old}, nil
}
