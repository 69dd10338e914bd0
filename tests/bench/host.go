package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	goruntime "runtime"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// What benchHost measures with each of its states.
const (
	saved = iota
	loaded
	savedAlone
	savedFuel
	loadedAlone
	loadedFuel
	scanned
	copied
	extCopied
	extBounded
	extHanded
	withState
)

// withStateNames are the lines of the second table.
func withStateNames() [withState]string {
	return [withState]string{
		saved:       "save by `records` through the host",
		loaded:      "load by `records` through the host",
		savedAlone:  "save by `records` in wazero alone: nothing checked, nothing bounded",
		savedFuel:   "the same with the fuel counter",
		loadedAlone: "load by `records` in wazero alone",
		loadedFuel:  "the same with the fuel counter",
		scanned:     "the host's check of records, alone",
		copied:      "wazero alone: the bytes into a guest, there from one place to another, and out",
	}
}

// What it measures without.
const (
	compiled = iota
	cached
	called
	calledFresh
	returned
	loadedPair
	savedPair
	pairAlone
	echoLoaded
	echoSaved
	extCalled
	extCalledFresh
	withoutState
)

// withoutStateNames are the lines of the third.
func withoutStateNames() [withoutState]string {
	return [withoutState]string{
		compiled:    "a host, the module `records` compiled, and the end",
		cached:      "the same from the cache",
		called:      "a call with nothing to do, in an instance that was used",
		calledFresh: "the same in a new instance",
		returned:    "a call of a function that returns, in wazero alone",
		loadedPair:  "`next` and `emit` of one small record, when `records` loads",
		savedPair:   "the same when it saves, the host's check of the record included",
		pairAlone:   "the same pair when it loads, in wazero alone, with the fuel counter",
		echoLoaded:  "`next` and `emit` of one small record, by a guest that does no more, when it loads",
		echoSaved:   "the same when it saves, the host's check of the record included",
	}
}

// pairs is how many small records savedPair and loadedPair take.
const pairs = 20_000

// freshCalls is how many calls calledFresh makes.
const freshCalls = 20

// benchHost measures package host, wazero alone and Extism's Go SDK with the same bytes.
func benchHost(ctx context.Context, out *strings.Builder, rounds int) error {
	return inFolder(func(folder string) (err error) {
		var states []nativeState
		for _, size := range []int64{smallState / 10, smallState} {
			state, err := newNativeState(folder, newSynthetic(size))
			if err != nil {
				return err
			}
			states = append(states, state)
		}
		own, err := newHosts(ctx, filepath.Join(folder, "cache"), states)
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, own.close(ctx)) }()
		peer, missing := startPeer(ctx, folder, states)
		if missing == nil {
			defer func() { err = errors.Join(err, peer.close()) }()
		}
		all := hostTimes{byState: make([][withState]times, len(states))}
		var with peerRound
		for range rounds {
			if missing == nil {
				if with, err = peer.round(); err != nil {
					return err
				}
				all.addPeer(with)
			}
			if err := own.round(ctx, &all); err != nil {
				return err
			}
		}
		if missing != nil {
			fmt.Fprintf(out, "Extism's Go SDK was not measured: %v.\n\n", missing)
		}
		all.print(out, states, with)
		return nil
	})
}

// hostTimes is what was measured.
type hostTimes struct {
	byState [][withState]times
	once    [withoutState]times
}

func (t *hostTimes) addPeer(r peerRound) {
	for i := range t.byState {
		s := &t.byState[i]
		s[extCopied] = append(s[extCopied], r.Copied[i])
		s[extBounded] = append(s[extBounded], r.Bounded[i])
		s[extHanded] = append(s[extHanded], r.Handed[i])
	}
	t.once[extCalled] = append(t.once[extCalled], r.Empty)
	t.once[extCalledFresh] = append(t.once[extCalledFresh], r.Fresh)
}

// nativeState is native state of the serializer `records`, and its records.
type nativeState struct {
	data    []byte
	file    string // that holds data
	batches []*record.Batch
}

func newNativeState(folder string, s synthetic) (nativeState, error) {
	var state nativeState
	err := s.pieces(func(piece []byte) error {
		refs, err := new(record.Scanner).Scan(piece, nil)
		state.data = append(state.data, piece...)
		state.batches = append(state.batches, &record.Batch{Data: bytes.Clone(piece), Refs: refs})
		return err
	})
	if err != nil {
		return state, err
	}
	state.file = filepath.Join(folder, fmt.Sprint("native-", len(state.data)))
	return state, os.WriteFile(state.file, state.data, 0o600)
}

// smallBytes is the length of each of the records of smallRecords.
const smallBytes = 13

func smallRecords(n int) nativeState {
	var s nativeState
	var batch record.Batch
	for i := range n {
		start := len(s.data)
		s.data = record.AppendText(record.AppendRecord(s.data), "p")
		s.data = record.AppendNull(record.AppendText(s.data, fmt.Sprintf("%08d", i)))
		batch.Refs = append(batch.Refs, record.Ref{Start: start, Partition: start + 1, Key: start + 3, Value: start + 12, End: len(s.data)})
	}
	batch.Data = s.data
	s.batches = []*record.Batch{&batch}
	return s
}

// kept takes output, as the caller of a module would have it: all of it, in order.
type kept struct {
	data   []byte
	pieces int
}

func (k *kept) WriteBatch(b *record.Batch) error {
	_, err := k.Write(b.Data)
	return err
}

func (k *kept) Write(p []byte) (int, error) {
	k.data = append(k.data, p...)
	k.pieces++
	return len(p), nil
}

func (k *kept) reset() { k.data, k.pieces = k.data[:0], 0 }

// batches is a source of records that are there already.
type batches struct {
	all []*record.Batch
	i   int
}

func (s *batches) ReadBatch() (*record.Batch, error) {
	if s.i == len(s.all) {
		return nil, io.EOF
	}
	s.i++
	return s.all[s.i-1], nil
}

// hosts is the module `records` in all the ways it is measured.
type hosts struct {
	cache   string // folder
	states  []nativeState
	small   nativeState // for pairs
	close   func(ctx context.Context) error
	module  *host.Module
	pairing *host.Module // is given one small record by each next
	echo    *host.Module // asks for one
	alone   *alone
	out     kept
	scan    record.Scanner
	refs    []record.Ref
}

func newHosts(ctx context.Context, cache string, states []nativeState) (*hosts, error) {
	h := &hosts{cache: cache, states: states, small: smallRecords(pairs)}
	var closers []func(context.Context) error
	h.close = func(ctx context.Context) (err error) {
		for _, c := range closers {
			err = errors.Join(err, c(ctx))
		}
		return err
	}
	echo, err := echoWasm()
	for _, m := range []struct {
		module **host.Module
		wasm   []byte
		cfg    host.Config
	}{
		{&h.module, modules.Records(), host.Config{CacheDir: cache, Calls: freshCalls + 2, Idle: 1}},
		{&h.pairing, modules.Records(), host.Config{InputPiece: smallBytes}},
		{&h.echo, echo, host.Config{}},
	} {
		if err == nil {
			m.cfg.Logger = slog.New(slog.DiscardHandler)
			var its *host.Host
			if its, err = host.New(ctx, m.cfg); err == nil {
				closers = append(closers, its.Close)
				*m.module, err = its.Compile(ctx, "records", m.wasm)
			}
		}
	}
	if err == nil {
		h.alone, err = newAlone(ctx)
		closers = append(closers, h.alone.close)
	}
	if err == nil {
		err = h.check(ctx)
	}
	if err != nil {
		return nil, errors.Join(err, h.close(ctx))
	}
	return h, nil
}

// check looks whether all contenders give back the bytes they are given, and whether what is counted as
// pairs is as many.
func (h *hosts) check(ctx context.Context) error {
	same := func(what string, s nativeState) error {
		if !bytes.Equal(h.out.data, s.data) {
			return fmt.Errorf("%s: %d bytes came back of %d, or others", what, len(h.out.data), len(s.data))
		}
		return nil
	}
	for _, s := range h.states {
		for c, f := range h.passes(ctx, s) {
			if c == scanned {
				continue
			}
			if err := errors.Join(f(), same(withStateNames()[c], s)); err != nil {
				return err
			}
		}
	}
	for _, f := range []func() error{h.save(ctx, h.pairing, h.small), h.load(ctx, h.pairing, h.small), h.pairsAlone(ctx),
		h.save(ctx, h.echo, h.small), h.load(ctx, h.echo, h.small)} {
		if err := errors.Join(f(), same("pairs", h.small)); err != nil {
			return err
		}
		if h.out.pieces != pairs {
			return fmt.Errorf("%d calls of emit for %d records", h.out.pieces, pairs)
		}
	}
	return nil
}

func (h *hosts) save(ctx context.Context, m *host.Module, s nativeState) func() error {
	return func() error {
		h.out.reset()
		return m.Save(ctx, abi.Call{Schema: 1}, bytes.NewReader(s.data), &h.out)
	}
}

func (h *hosts) load(ctx context.Context, m *host.Module, s nativeState) func() error {
	return func() error {
		h.out.reset()
		return m.Load(ctx, abi.Call{Schema: 1}, &batches{all: s.batches}, &h.out)
	}
}

func (h *hosts) pairsAlone(ctx context.Context) func() error {
	return func() error { return h.alone.metered.run(ctx, abi.ExportLoad, h.small.data, smallBytes, &h.out) }
}

// passes are the ways to bring a state through, by their numbers.
func (h *hosts) passes(ctx context.Context, s nativeState) map[int]func() error {
	return map[int]func() error{
		saved:       h.save(ctx, h.module, s),
		loaded:      h.load(ctx, h.module, s),
		savedAlone:  func() error { return h.alone.plain.run(ctx, abi.ExportSave, s.data, len(s.data), &h.out) },
		savedFuel:   func() error { return h.alone.metered.run(ctx, abi.ExportSave, s.data, len(s.data), &h.out) },
		loadedAlone: func() error { return h.alone.plain.run(ctx, abi.ExportLoad, s.data, len(s.data), &h.out) },
		loadedFuel:  func() error { return h.alone.metered.run(ctx, abi.ExportLoad, s.data, len(s.data), &h.out) },
		copied:      func() error { return h.alone.copy(ctx, s.data, &h.out) },
		scanned: func() error {
			for _, b := range s.batches {
				var err error
				if h.refs, err = h.scan.Scan(b.Data, h.refs[:0]); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// round measures every contender but the peer once.
func (h *hosts) round(ctx context.Context, all *hostTimes) error {
	measure := func(t *times, divisor int, f func() error) error {
		d, err := perCall(f)
		*t = append(*t, d/time.Duration(divisor))
		return err
	}
	for i, s := range h.states {
		passes := h.passes(ctx, s)
		for c := range withState {
			if f := passes[c]; f != nil {
				if err := measure(&all.byState[i][c], 1, f); err != nil {
					return err
				}
			}
		}
	}
	for _, m := range []struct {
		which, divisor int
		f              func() error
	}{
		{compiled, 1, func() error { return start(ctx, "") }},
		{cached, 1, func() error { return start(ctx, h.cache) }},
		{called, 1, h.save(ctx, h.module, nativeState{})},
		{savedPair, pairs, h.save(ctx, h.pairing, h.small)},
		{loadedPair, pairs, h.load(ctx, h.pairing, h.small)},
		{pairAlone, pairs, h.pairsAlone(ctx)},
		{echoLoaded, pairs, h.load(ctx, h.echo, h.small)},
		{echoSaved, pairs, h.save(ctx, h.echo, h.small)},
		{returned, 1, func() error { return h.alone.nothing(ctx) }},
	} {
		if err := measure(&all.once[m.which], m.divisor, m.f); err != nil {
			return err
		}
	}
	d, err := h.fresh(ctx)
	all.once[calledFresh] = append(all.once[calledFresh], d)
	return err
}

// enough is for how long a thing is measured in a round.
const enough = 100 * time.Millisecond

// perCall is what one call of f takes, called so often that it is long enough; the clock is looked at
// seldom. The same function measures the peer.
func perCall(f func() error) (time.Duration, error) {
	if err := f(); err != nil { // warm
		return 0, err
	}
	goruntime.GC()
	start := time.Now()
	for calls := 1; ; calls++ {
		if err := f(); err != nil {
			return 0, err
		}
		if calls&(calls-1) == 0 {
			if took := time.Since(start); took >= enough {
				return took / time.Duration(calls), nil
			}
		}
	}
}

// start is what a process does before its first call, and after its last.
func start(ctx context.Context, cache string) error {
	h, err := host.New(ctx, host.Config{CacheDir: cache, Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		return err
	}
	_, err = h.Compile(ctx, "records", modules.Records())
	return errors.Join(err, h.Close(ctx))
}

// fresh is what a call takes for which no instance is ready. After each, another call takes the instance
// that it leaves, and keeps it until the end.
func (h *hosts) fresh(ctx context.Context) (time.Duration, error) {
	release := make(chan struct{})
	ended := make(chan error, freshCalls+1)
	holding := 0
	hold := func() error {
		reading := make(chan struct{}, 1)
		go func() {
			ended <- h.module.Save(ctx, abi.Call{Schema: 1}, holdingReader{reading, release}, &kept{})
		}()
		holding++
		select {
		case <-reading:
			return nil
		case err := <-ended:
			holding--
			return errors.Join(err, errors.New("a call ended that should wait"))
		}
	}
	call := h.save(ctx, h.module, nativeState{})
	var watch stopwatch
	err := hold()
	goruntime.GC()
	for range freshCalls {
		if err == nil {
			watch.start()
			err = call()
			watch.stop()
		}
		if err == nil {
			err = hold()
		}
	}
	close(release)
	for range holding {
		err = errors.Join(err, <-ended)
	}
	return watch.took / freshCalls, err
}

// holdingReader is empty, but says so only when it is released.
type holdingReader struct {
	reading chan<- struct{}
	release <-chan struct{}
}

func (r holdingReader) Read([]byte) (int, error) {
	r.reading <- struct{}{}
	<-r.release
	return 0, io.EOF
}

// peerProcess is the program in the folder peers, which is a Go module of its own.
type peerProcess struct {
	cmd   *exec.Cmd
	ask   io.WriteCloser
	lines *bufio.Scanner
}

// peerRound is what it answers: nanoseconds a call.
type peerRound struct {
	Extism, Wazero          string // versions
	Copied, Bounded, Handed []time.Duration
	Empty, Fresh            time.Duration
}

func startPeer(ctx context.Context, folder string, states []nativeState) (*peerProcess, error) {
	program := filepath.Join(folder, "peers")
	build := exec.CommandContext(ctx, "go", "build", "-o", program, ".")
	build.Dir = filepath.Join("tests", "bench", "peers")
	if said, err := build.CombinedOutput(); err != nil {
		lines := strings.Split(strings.TrimSpace(string(said)), "\n")
		return nil, fmt.Errorf("go build in %s: %w: %s", build.Dir, err, lines[len(lines)-1])
	}
	p := &peerProcess{cmd: exec.CommandContext(ctx, program)}
	for _, s := range states {
		p.cmd.Args = append(p.cmd.Args, s.file)
	}
	p.cmd.Stderr = os.Stderr
	var err error
	if p.ask, err = p.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	answers, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.lines = bufio.NewScanner(answers)
	return p, p.cmd.Start()
}

func (p *peerProcess) round() (r peerRound, err error) {
	if _, err := io.WriteString(p.ask, "\n"); err != nil {
		return r, err
	}
	if !p.lines.Scan() {
		return r, errors.Join(errors.New("peers gave no answer"), p.lines.Err())
	}
	return r, json.Unmarshal(p.lines.Bytes(), &r)
}

func (p *peerProcess) close() error { return errors.Join(p.ask.Close(), p.cmd.Wait()) }

func (t *hostTimes) print(out *strings.Builder, states []nativeState, peer peerRound) {
	name := "Extism's Go SDK"
	if peer.Extism != "" {
		name = fmt.Sprintf("Extism's Go SDK %s (wazero %s)", peer.Extism, peer.Wazero)
	}
	fmt.Fprintf(out, "## The Wasm host, beside %s\n\n", name)
	fmt.Fprintf(out, "The same bytes through a guest and back, as one piece in the end. Torpor's guest is the serializer `records`, which looks at every byte "+
		"of structure, and its host checks every record that is saved, counts fuel and can end any call. Extism's is written by hand and copies word by word, "+
		"the most its ABI moves in a call; it cannot be ended unless it has a time limit.\n\n")
	fmt.Fprintf(out, "| | Torpor, median (best) | MB/s | Extism, median (best) | MB/s | ratio of medians | goal |\n|---|---|---|---|---|---|---|\n")
	for i, s := range states {
		megabytes := float64(len(s.data)) / 1e6
		for _, row := range []struct {
			name string
			own  int
			peer int
			goal string
		}{
			{"save, records checked", saved, extCopied, "≥ 20 ×"},
			{"load", loaded, extCopied, "≥ 20 ×"},
			{"save, beside Extism with a time limit", saved, extBounded, ""},
			{"save, beside an Extism guest that hands its input on unread", saved, extHanded, ""},
		} {
			own, theirs := t.byState[i][row.own], t.byState[i][row.peer]
			fmt.Fprintf(out, "| %.0f MB: %s | %s | %s | %s | %s | %s | %s |\n", megabytes, row.name, medianBest(own), rate(own, megabytes),
				medianBest(theirs), rate(theirs, megabytes), between(theirs, own), row.goal)
		}
	}
	for _, row := range []struct {
		name      string
		own, peer int
	}{
		{"a call with nothing to do", called, extCalled},
		{"the same, in a new instance", calledFresh, extCalledFresh},
	} {
		own, theirs := t.once[row.own], t.once[row.peer]
		fmt.Fprintf(out, "| %s | %s | | %s | | %s | |\n", row.name, medianBest(own), medianBest(theirs), between(theirs, own))
	}

	last := len(states) - 1
	large, megabytes := t.byState[last], float64(len(states[last].data))/1e6
	fmt.Fprintf(out, "\n## What the Wasm host is made of\n\nThe %.0f MB above; the ratios are to the first line.\n\n", megabytes)
	fmt.Fprintf(out, "| | median (best) | MB/s | ratio |\n|---|---|---|---|\n")
	for _, c := range []int{savedAlone, savedFuel, saved, loadedAlone, loadedFuel, loaded, scanned, copied} {
		fmt.Fprintf(out, "| %s | %s | %s | %s |\n", withStateNames()[c], medianBest(large[c]), rate(large[c], megabytes),
			share(large[c].median(), large[savedAlone].median()))
	}
	fmt.Fprintf(out, "\n| | median (best) | goal |\n|---|---|---|\n")
	goals := [withoutState]string{loadedPair: "≤ 150 ns", savedPair: "≤ 150 ns", echoLoaded: "≤ 150 ns"}
	for c := range extCalled {
		fmt.Fprintf(out, "| %s | %s | %s |\n", withoutStateNames()[c], medianBest(t.once[c]), goals[c])
	}
	fmt.Fprintf(out, "\nThe small records have %d bytes. Pairs are counted by them: each `next` is given one, and the host sees as many calls of `emit` "+
		"as there are records.\n", smallBytes)
}

// medianBest is a median and the best, or nothing where nothing was measured.
func medianBest(t times) string {
	if len(t) == 0 {
		return "–"
	}
	return fmt.Sprintf("%s (%s)", short(t.median()), short(t.best()))
}

// short gives a duration three digits or so.
func short(d time.Duration) string {
	switch {
	case d < time.Microsecond:
		return fmt.Sprintf("%d ns", d.Nanoseconds())
	case d < time.Millisecond:
		return fmt.Sprintf("%.1f µs", float64(d.Nanoseconds())/1e3)
	default:
		return fmt.Sprintf("%.2f ms", float64(d.Nanoseconds())/1e6)
	}
}

func rate(t times, megabytes float64) string {
	if len(t) == 0 {
		return "–"
	}
	return fmt.Sprintf("%.0f", megabytes/t.median().Seconds())
}

func between(peer, own times) string {
	if len(peer) == 0 {
		return "–"
	}
	return ratio(peer.median(), own.median())
}
