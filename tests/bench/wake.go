package main

import (
	"bytes"
	"context"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"
)

// sleeper is a service that is put to sleep and woken.
type sleeper struct {
	name    string // for people
	service string
	base    string // before its paths, at torpor
	path    string // of what is asked for, which is part of the state
	change  sent   // something to save
	alive   string // a path that it answers without a state; "": it is not begun without torpor
	plain   func(ctx context.Context) (*exec.Cmd, error)
	missing string // why it is not measured; "": it is

	native []byte // its state
	want   []byte // the answer
	file   float64

	answered, starting, restoring, bare, filled      times
	slept, stopping, capturing, serializing, savings times
}

// partSeries names a series of the part store.
func partSeries(metric, service, phase string) string {
	return fmt.Sprintf("torpor_%s_duration_seconds_sum{part=%q,phase=%q,service=%q}", metric, "store", phase, service)
}

func serviceSeries(metric, service, phase string) string {
	return fmt.Sprintf("torpor_%s_duration_seconds_sum{phase=%q,service=%q}", metric, phase, service)
}

// benchWake measures how long services take to be put to sleep and woken, beside a plain start of the same program.
func benchWake(ctx context.Context, out *strings.Builder, rounds, size int) error {
	return withTorpor(ctx, func(folder, program string) error {
		before := loadOfMachine()
		config, all, err := sleepers(ctx, folder)
		if err != nil {
			return err
		}
		w := &wakeBench{program: program, folder: filepath.Join(folder, "torpor.d"), config: config}
		if err := w.fill(ctx, all, size); err != nil {
			return err
		}
		for range rounds {
			for _, s := range all {
				if s.missing != "" {
					continue
				}
				if err := w.round(ctx, s); err != nil {
					return fmt.Errorf("service %s: %w", s.service, err)
				}
			}
			if err := w.restart(ctx, all[0]); err != nil {
				return err
			}
		}
		if err := w.torpor.stop(); err != nil {
			return err
		}
		w.print(out, all, before)
		return nil
	})
}

// sleepers are the services, of which the first is in torpor's own process, and their configuration.
func sleepers(ctx context.Context, folder string) (tree, []*sleeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, nil, err
	}
	// A name of its own for each object and each item, as it is asked for.
	s3 := &sleeper{name: "the embedded S3", service: "s3", path: "/bench/object-0", change: sent{Method: "PUT", Path: "/bench/changing", Body: "changed"}}
	items := &sleeper{name: "a service in Go, source `http`, serializer `json`", service: "items", base: "/go", path: "/items/asked", alive: "/small",
		change: sent{Method: "PUT", Path: "/items/changing", Body: `"changed"`},
		plain:  func(ctx context.Context) (*exec.Cmd, error) { return roleCommand(ctx, roleService) }}
	emulator := &sleeper{name: "a service in Python by the kit, source `http`, serializer `pickle`", service: "emulator", base: "/python", path: "/first", alive: "/first",
		change: sent{Method: "PUT", Path: "/changing"}}
	services := tree{
		"s3": tree{"save_strategy": "MANUAL"},
		"items": tree{"save_strategy": "MANUAL", "match": tree{"path": []string{items.base}, "strip": true}, "parts": tree{"store": itemsPart(false)},
			"run": tree{"command": []string{self}, "env": tree{roleVariable: roleService, addressVariable: "{address}"}}},
	}
	all := []*sleeper{s3, items, emulator}
	command, compiled, err := pythonService(ctx, folder)
	if err != nil {
		emulator.missing = err.Error()
		return tree{"services": services}, all, nil //nolint:nilerr // the others are measured, and the table says why this one is not
	}
	emulator.plain = func(ctx context.Context) (*exec.Cmd, error) {
		cmd := exec.CommandContext(ctx, command[0], append(command[1:len(command):len(command)], "0")...)
		cmd.Env = append(os.Environ(), compiledVariable+"="+compiled)
		cmd.Stderr = os.Stderr
		return cmd, nil
	}
	services[emulator.service] = tree{"save_strategy": "MANUAL", "match": tree{"path": []string{emulator.base}, "strip": true},
		"run":   tree{"command": append(command[:len(command):len(command)], "{port}"), "env": tree{compiledVariable: compiled}},
		"parts": tree{"store": tree{"serializer": "pickle", "source": tree{"http": tree{"url": "http://{address}" + statePath, "atomic": true}}}}}
	return tree{"services": services}, all, nil
}

//go:embed emulator.py
var emulatorService string

// compiledVariable says where Python keeps what it has compiled: once, and not in the repository.
const compiledVariable = "PYTHONPYCACHEPREFIX"

// pythonService gives the command of the service emulator.py, to which a port is to be added, and the folder of what
// is compiled. Its Python is the program itself, not one that chooses among several.
func pythonService(ctx context.Context, folder string) (command []string, compiled string, err error) {
	python, err := exec.CommandContext(ctx, "python3", "-c", "import sys; print(sys.executable)").Output()
	if err != nil {
		return nil, "", fmt.Errorf("there is no python3 here: %w", err)
	}
	root, err := exec.CommandContext(ctx, "go", "list", "-m", "-f", "{{.Dir}}", "github.com/torpor-run/torpor").Output()
	if err != nil {
		return nil, "", err
	}
	in := filepath.Join(folder, "emulator")
	if err := os.Mkdir(in, 0o700); err != nil {
		return nil, "", err
	}
	if err := os.WriteFile(filepath.Join(in, "emulator.py"), []byte(emulatorService), 0o600); err != nil {
		return nil, "", err
	}
	kit := filepath.Join(string(bytes.TrimSpace(root)), "sdk", "python")
	return []string{string(bytes.TrimSpace(python)), "-c", "import sys; sys.path[:0] = sys.argv[1:3]; import emulator; emulator.main(int(sys.argv[3]))", kit, in},
		filepath.Join(folder, "compiled"), nil
}

// wakeBench is torpor with the sleepers.
type wakeBench struct {
	program, folder string
	config          tree
	torpor          *serving

	// From the start of torpor: to an answer of S3 without persistence; and with it until torpor listens, and to an
	// answer that needs the state.
	empty, up, restarted times
}

func (w *wakeBench) fill(ctx context.Context, all []*sleeper, size int) (err error) {
	if w.torpor, err = serve(ctx, w.program, w.folder, w.config); err != nil {
		return err
	}
	for _, s := range all {
		if s.missing != "" {
			continue
		}
		for _, r := range filling(s.service, size) {
			if _, err := w.torpor.ask(ctx, r.Method, s.base+r.Path, []byte(r.Body)); err != nil {
				return err
			}
		}
		if s.want, err = w.torpor.ask(ctx, http.MethodGet, s.base+s.path, nil); err != nil {
			return err
		}
		if s.alive != "" {
			if s.native, err = w.torpor.ask(ctx, http.MethodGet, s.base+statePath, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// filling are the requests that give a service a state of about size bytes.
func filling(service string, size int) []sent {
	switch service {
	case "s3":
		all := []sent{{Method: "PUT", Path: "/bench"}}
		for i := range size/objectBytes + 1 {
			all = append(all, sent{Method: "PUT", Path: fmt.Sprintf("/bench/object-%d", i), Body: strings.Repeat(fmt.Sprintf("%08x", spread(uint64(i))>>32), objectBytes/8)})
		}
		return all
	case "emulator":
		return []sent{{Method: "PUT", Path: "/fill", Body: string(emulatorState(size * 8 / 5))}} // pickled it is smaller
	}
	return []sent{{Method: "PUT", Path: statePath, Body: string(itemsOf(size).native())}}
}

// objectBytes is the size of an object of S3.
const objectBytes = 1000

// itemsOf is a state of about size bytes of the service of serveItems.
func itemsOf(size int) itemState {
	s := itemState{Items: map[string]json.RawMessage{"asked": json.RawMessage(smallAnswer)}}
	_ = resources(emulatorState(size), func(account, region, name string, attributes []byte) error { // of a document made just now
		s.Items[account+"/"+region+"/"+name] = attributes
		return nil
	})
	return s
}

// round puts a service to sleep and wakes it, and starts its program without torpor.
func (w *wakeBench) round(ctx context.Context, s *sleeper) error {
	if _, err := w.torpor.ask(ctx, s.change.Method, s.base+s.change.Path, []byte(s.change.Body)); err != nil {
		return err
	}
	awake, err := w.torpor.metrics(ctx)
	if err != nil {
		return err
	}
	if _, err := w.torpor.ask(ctx, http.MethodPost, "/_torpor/services/"+s.service+"/sleep", nil); err != nil {
		return err
	}
	asleep, err := w.torpor.metrics(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	got, err := w.torpor.ask(ctx, http.MethodGet, s.base+s.path, nil)
	s.answered = append(s.answered, time.Since(start))
	if err == nil && !bytes.Equal(got, s.want) {
		err = fmt.Errorf("it woke and answers %.100q, not %.100q", got, s.want)
	}
	if err != nil {
		return err
	}
	woken, err := w.torpor.metrics(ctx)
	if err != nil {
		return err
	}
	for _, f := range []struct {
		to          *times
		now, before figures
		series      string
	}{
		{&s.slept, asleep, awake, serviceSeries("sleep", s.service, "total")},
		{&s.stopping, asleep, awake, serviceSeries("sleep", s.service, "stop")},
		{&s.capturing, asleep, awake, partSeries("save", s.service, "capture")},
		{&s.serializing, asleep, awake, partSeries("save", s.service, "serialize")},
		{&s.savings, asleep, awake, partSeries("save", s.service, "total")},
		{&s.starting, woken, asleep, serviceSeries("wake", s.service, "start")},
		{&s.restoring, woken, asleep, serviceSeries("wake", s.service, "restore")},
	} {
		d, err := f.now.since(f.before, f.series)
		if err != nil {
			return err
		}
		*f.to = append(*f.to, d)
	}
	s.file = woken[fmt.Sprintf("torpor_state_file_bytes{part=%q,service=%q}", "store", s.service)]
	if s.plain == nil {
		return nil
	}
	return s.begin(ctx)
}

// begin starts the program without torpor, until it answers, and until it answers with the state that was put
// into it.
func (s *sleeper) begin(ctx context.Context) error {
	cmd, err := s.plain(ctx)
	if err != nil {
		return err
	}
	start := time.Now()
	l, err := listen(cmd)
	if err != nil {
		return err
	}
	defer l.kill()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	if _, err := ask(ctx, client, http.MethodGet, "http://"+l.address+s.alive, nil); err != nil {
		return err
	}
	s.bare = append(s.bare, time.Since(start))
	if _, err := ask(ctx, client, http.MethodPut, "http://"+l.address+statePath, s.native); err != nil {
		return err
	}
	got, err := ask(ctx, client, http.MethodGet, "http://"+l.address+s.path, nil)
	s.filled = append(s.filled, time.Since(start))
	if err == nil && !bytes.Equal(got, s.want) {
		err = fmt.Errorf("it was given its state and answers %.100q, not %.100q", got, s.want)
	}
	return err
}

// restart measures torpor itself, with the service that is in its process.
func (w *wakeBench) restart(ctx context.Context, s3 *sleeper) error {
	if err := w.torpor.stop(); err != nil {
		return err
	}
	start := time.Now()
	empty, err := serve(ctx, w.program, w.folder+"-empty", w.config, "PERSISTENCE=0")
	if err != nil {
		return err
	}
	_, err = empty.ask(ctx, http.MethodGet, "/", nil)
	w.empty = append(w.empty, time.Since(start))
	if err := errors.Join(err, empty.stop()); err != nil {
		return err
	}
	start = time.Now()
	if w.torpor, err = serve(ctx, w.program, w.folder, w.config); err != nil {
		return err
	}
	w.up = append(w.up, time.Since(start))
	got, err := w.torpor.ask(ctx, http.MethodGet, s3.path, nil)
	w.restarted = append(w.restarted, time.Since(start))
	if err == nil && !bytes.Equal(got, s3.want) {
		err = fmt.Errorf("torpor was begun again and answers %.100q, not %.100q", got, s3.want)
	}
	return err
}

func (w *wakeBench) print(out *strings.Builder, all []*sleeper, before string) {
	fmt.Fprintf(out, "## Sleep and wake\n\nFrom the request that wakes a service to its answer, by the client's clock; start and restore are torpor's own figures "+
		"(`torpor_wake_duration_seconds`), the rest is what remains of the client's time. Beside it the same program without torpor: until it answers, with nothing in it, and until it answers "+
		"after its state was put into it by hand, by one PUT; a restore can hardly be faster. The load of the machine was %s before and %s after.\n\n", before, loadOfMachine())
	fmt.Fprintf(out, "| | native state | state file | answered after, median (best) | start | restore | rest | plain start until it answers | ratio | the same with its state | ratio |\n|---|---|---|---|---|---|---|---|---|---|---|\n")
	dashes := " – | – | – | – |\n"
	for _, s := range all {
		if s.missing != "" {
			continue
		}
		native := "–"
		if s.native != nil {
			native = fmt.Sprintf("%.1f MB", float64(len(s.native))/1e6)
		}
		fmt.Fprintf(out, "| %s | %s | %.1f MB | %s (%s) | %s | %s | %s |", s.name, native, s.file/1e6, ms(s.answered.median()), ms(s.answered.best()),
			ms(s.starting.median()), ms(s.restoring.median()), ms(without(s.answered, s.starting, s.restoring).median()))
		if s.plain == nil {
			out.WriteString(dashes)
			continue
		}
		fmt.Fprintf(out, " %s (%s) | %s | %s (%s) | %s |\n", ms(s.bare.median()), ms(s.bare.best()), share(s.answered.median(), s.bare.median()),
			ms(s.filled.median()), ms(s.filled.best()), share(s.answered.median(), s.filled.median()))
	}
	fmt.Fprintf(out, "\n| put to sleep | asleep after, median (best) | of it saving | of that capture | serialize, proof alongside | commit and the like | stop | rest |\n|---|---|---|---|---|---|---|---|\n")
	for _, s := range all {
		if s.missing == "" {
			fmt.Fprintf(out, "| %s | %s (%s) | %s | %s | %s | %s | %s | %s |\n", s.name, ms(s.slept.median()), ms(s.slept.best()), ms(s.savings.median()), ms(s.capturing.median()),
				ms(s.serializing.median()), ms(without(s.savings, s.capturing, s.serializing).median()), ms(s.stopping.median()), ms(without(s.slept, s.savings, s.stopping).median()))
		}
	}
	fmt.Fprintf(out, "\nS3 is saved in full once and then only what has changed, the others always in full.\n\n| torpor itself, from its start | median (best) | ratio | goal |\n|---|---|---|---|\n"+
		"| to the first answer of S3, with nothing kept (`PERSISTENCE=0`) | %s (%s) | | |\n| with persistence, the modules of three services compiled before, until it listens | %s (%s) | %s | |\n| the same to the first answer, with an object of S3 that was restored | %s (%s) | %s | ≤ 60 ms |\n",
		ms(w.empty.median()), ms(w.empty.best()), ms(w.up.median()), ms(w.up.best()), share(w.up.median(), w.empty.median()), ms(w.restarted.median()), ms(w.restarted.best()), share(w.restarted.median(), w.empty.median()))
	for _, s := range all {
		if s.missing != "" {
			fmt.Fprintf(out, "\nWithout %s: %s.\n", s.name, s.missing)
		}
	}
}

// without is what is left of times when others are taken away, round by round.
func without(whole times, parts ...times) times {
	var rest times
	for round, d := range whole {
		for _, p := range parts {
			d -= p[round]
		}
		rest = append(rest, d)
	}
	return rest
}
