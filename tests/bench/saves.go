package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

// savesPlan says how requests go on while saves run.
type savesPlan struct {
	rounds int
	size   int           // bytes of each service's state
	every  time.Duration // from one request to the next
	each   time.Duration // how long, of each service in a round, without saves and with
}

func wholeSaves(rounds int) savesPlan {
	return savesPlan{rounds: rounds, size: smallState, every: 5 * time.Millisecond, each: 4 * time.Second}
}

// The two lives that are compared.
const (
	withoutSaves = iota // strategy MANUAL
	withSaves           // saved all the while
	lives
)

// saver is a service that is asked while it is saved.
type saver struct {
	name, service, base string
	requests            []sent

	median, p99, worst [lives]times // of each round
	pauses             times
	saves              float64
}

// flushInterval is the time between saves.
const flushInterval = 500 * time.Millisecond

// savers are the services, and their configuration with a strategy.
func savers(upstreams [2]string) (func(life int) tree, []*saver) {
	asked := func(base, path, changed, body string) []sent {
		read := sent{Method: "GET", Path: base + path, Read: -1}
		return []sent{read, read, read, read, {Method: "PUT", Path: base + changed, Body: body, Read: -1}}
	}
	json := `"` + strings.Repeat("x", 98) + `"`
	all := []*saver{
		{name: "the embedded S3", service: "s3", requests: asked("", "/bench/object-0", "/bench/changing", json)},
		{name: "source `http`, requests held while the state is read", service: "held", base: "/held", requests: asked("/held", "/items/asked", "/items/changing", json)},
		{name: "source `http`, `atomic: true`", service: "atomic", base: "/atomic", requests: asked("/atomic", "/items/asked", "/items/changing", json)},
	}
	config := func(life int) tree {
		services := tree{"s3": tree{}}
		for i, s := range all[1:] {
			services[s.service] = tree{"upstream": "http://" + upstreams[i], "match": tree{"path": []string{s.base}, "strip": true},
				"parts": tree{"store": itemsPart(s.service == "atomic")}}
		}
		strategy := "MANUAL"
		if life == withSaves {
			strategy = "SCHEDULED"
		}
		return tree{"services": services, "save_strategy": strategy, "flush_interval": flushInterval.String()}
	}
	return config, all
}

// benchSaves measures how long requests take while saves run, beside the same without saves.
func benchSaves(ctx context.Context, out *strings.Builder, plan savesPlan) error {
	return withTorpor(ctx, func(folder, program string) (err error) {
		before := loadOfMachine()
		var closers []func() error
		defer func() {
			for i := len(closers) - 1; i >= 0; i-- {
				err = errors.Join(err, closers[i]())
			}
		}()
		g, err := startGenerator(ctx)
		if err != nil {
			return err
		}
		closers = append(closers, g.close)
		var torpors [lives]*serving
		var all []*saver
		for life := range torpors {
			var upstreams [2]string
			for i := range upstreams {
				cmd, err := roleCommand(ctx, roleService)
				if err != nil {
					return err
				}
				l, err := listen(cmd)
				if err != nil {
					return err
				}
				closers = append(closers, func() error { l.kill(); return nil })
				upstreams[i] = l.address
			}
			config, some := savers(upstreams)
			if all == nil {
				all = some
			}
			t, err := serve(ctx, program, filepath.Join(folder, fmt.Sprintf("torpor-%d", life)), config(life))
			if err != nil {
				return err
			}
			closers = append(closers, t.stop)
			torpors[life] = t
			for _, s := range all {
				for _, r := range filling(s.service, plan.size) {
					if _, err := t.ask(ctx, r.Method, s.base+r.Path, []byte(r.Body)); err != nil {
						return err
					}
				}
			}
		}
		for range plan.rounds {
			for _, s := range all {
				for life, t := range torpors {
					if err := s.round(ctx, g, t, life, plan); err != nil {
						return fmt.Errorf("service %s: %w", s.service, err)
					}
				}
			}
		}
		printSaves(out, all, plan, before)
		return nil
	})
}

// round measures requests for a while, and how long they were held.
func (s *saver) round(ctx context.Context, g *generator, t *serving, life int, plan savesPlan) error {
	before, err := t.metrics(ctx)
	if err != nil {
		return err
	}
	done, watched := make(chan struct{}), make(chan error, 1)
	go func() { watched <- s.watch(ctx, t, before, done) }()
	answer, err := g.send(load{Address: t.address, Requests: s.requests, Connections: 8, Warm: 2, For: plan.each, Every: plan.every})
	close(done)
	if err := errors.Join(err, <-watched); err != nil {
		return err
	}
	took := times(answer.Took)
	s.median[life] = append(s.median[life], took.median())
	s.p99[life] = append(s.p99[life], took.p99())
	s.worst[life] = append(s.worst[life], took.worst())
	return nil
}

// watch looks at the metrics until done is closed: so often that it sees each save by itself, as a rule.
func (s *saver) watch(ctx context.Context, t *serving, before figures, done <-chan struct{}) error {
	series := func(name string) string {
		return fmt.Sprintf("torpor_pause_duration_seconds_%s{service=%q}", name, s.service)
	}
	for last := false; !last; {
		select {
		case <-time.After(flushInterval / 3):
		case <-done:
			last = true
		}
		now, err := t.metrics(ctx)
		if err != nil {
			return err
		}
		n := now[series("count")] - before[series("count")]
		all, err := now.since(before, series("sum"))
		if err != nil {
			return err
		}
		for range int(n) {
			s.pauses = append(s.pauses, all/time.Duration(n))
		}
		for _, kind := range []string{"full", "delta"} {
			of := fmt.Sprintf("torpor_saves_total{kind=%q,part=%q,service=%q}", kind, "store", s.service)
			s.saves += now[of] - before[of]
		}
		before = now
	}
	return nil
}

func printSaves(out *strings.Builder, all []*saver, plan savesPlan, before string) {
	fmt.Fprintf(out, "## Requests while saves run\n\nServices with a state of %.0f MB; a request every %v over 8 connections, one in five changes something, so that there is something to save every %v; "+
		"beside it the same without saves (`MANUAL`). A request that could not begin in time counts from when it should have begun. The load of the machine was %s before and %s after.\n\n",
		float64(plan.size)/1e6, plan.every, flushInterval, before, loadOfMachine())
	fmt.Fprintf(out, "| | without saves: median, p99 (worst) | with saves: median, p99 (worst) | ratio of p99 | saves | requests held (`torpor_pause_duration_seconds`): median, p99 | goal |\n|---|---|---|---|---|---|---|\n")
	for _, s := range all {
		fmt.Fprintf(out, "| %s |", s.name)
		for life := range lives {
			fmt.Fprintf(out, " %s, %s (%s) |", short(s.median[life].median()), short(s.p99[life].median()), short(s.worst[life].worst()))
		}
		held := "–"
		if len(s.pauses) > 0 {
			held = short(s.pauses.median()) + ", " + short(s.pauses.p99())
		}
		fmt.Fprintf(out, " %s | %.0f | %s | ≤ 5 ms |\n", share(s.p99[withSaves].median(), s.p99[withoutSaves].median()), s.saves, held)
	}
	fmt.Fprintf(out, "\nThe embedded S3 saves only what has changed; the source `http` reads the whole state each time. With `atomic: true` no request is held: what the metric says is how long the state took to be read.\n")
}
