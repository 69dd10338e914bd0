// Command bench measures Torpor beside its peers in one run and prints tables with ratios: absolute
// times depend on the machine and its other work, ratios much less. Run it from the repository's root:
//
//	go run ./tests/bench                 # print
//	go run ./tests/bench --write         # and put the tables into tests/bench/RESULTS.md
//	go run ./tests/bench --only state    # s3; host: the Wasm host; serializers; state: files, memory, deltas;
//	                                     # gateway; wake: sleep and wake; saves: requests while saves run
//
// Each round measures every contender once, one after the other; the table shows each one's median.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	goruntime "runtime"
	"runtime/pprof"
	"slices"
	"strings"
	"time"
)

func main() {
	if played, err := playRole(); played {
		if err != nil {
			fmt.Fprintln(os.Stderr, "bench:", err)
			os.Exit(1)
		}
		return
	}
	rounds := flag.Int("rounds", 7, "how often everything is measured")
	objects := flag.Int("objects", 80_000, "how many S3 objects")
	size := flag.Int("size", 100, "bytes of each object")
	large := flag.Int("large", 1000, "megabytes of the large state")
	largeRounds := flag.Int("large-rounds", 3, "how often it is measured")
	only := flag.String("only", "", "measure this only: s3, host, serializers, state, gateway, wake or saves")
	write := flag.Bool("write", false, "write tests/bench/RESULTS.md")
	profile := flag.String("cpuprofile", "", "write a CPU profile of the rounds to this file")
	flag.Parse()
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if *rounds < 1 || *largeRounds < 1 || *objects < 1 || *size < 0 || *large < 1 {
		fmt.Fprintln(os.Stderr, "bench: -rounds, -large-rounds, -objects and -large must be at least 1, -size at least 0")
		os.Exit(2)
	}
	benches := []bench{
		{"s3", func(out *strings.Builder) error { return benchS3(ctx, out, *rounds, *objects, *size) }},
		{"host", func(out *strings.Builder) error { return benchHost(ctx, out, *rounds) }},
		{"serializers", func(out *strings.Builder) error { return benchSerializers(ctx, out, *rounds) }},
		{"state", func(out *strings.Builder) error {
			return benchState(ctx, out, *rounds, *largeRounds, int64(*large)*1e6)
		}},
		{"gateway", func(out *strings.Builder) error { return benchGateway(ctx, out, wholeGateway(*rounds)) }},
		{"wake", func(out *strings.Builder) error { return benchWake(ctx, out, *rounds, smallState) }},
		{"saves", func(out *strings.Builder) error { return benchSaves(ctx, out, wholeSaves(*rounds)) }},
	}
	head := fmt.Sprintf("Medians of %d rounds, of the large state of %d, every contender measured in each.", *rounds, *largeRounds)
	if err := profiled(*profile, func() error { return run(benches, *only, head, *write) }); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// profiled runs f, under the CPU profiler if file is not "".
func profiled(file string, f func() error) error {
	if file == "" {
		return f()
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := pprof.StartCPUProfile(out); err != nil {
		return err
	}
	err = f()
	pprof.StopCPUProfile()
	return errors.Join(err, out.Close())
}

// bench is one of the things measured: it adds its tables to out.
type bench struct {
	name string
	run  func(out *strings.Builder) error
}

// run prints what the benches measure, or the one called only, and writes it down.
func run(benches []bench, only, head string, write bool) error {
	if only != "" {
		if write {
			return errors.New("-write writes all tables: it does not go with -only")
		}
		benches = slices.DeleteFunc(benches, func(b bench) bool { return b.name != only })
		if len(benches) == 0 {
			return fmt.Errorf("-only %s: there is s3, host, serializers, state, gateway, wake and saves", only)
		}
	}
	var out strings.Builder
	fmt.Fprintf(&out, "# What was measured\n\nMade by `go run ./tests/bench --write`. %s\n\nMachine: %s.\n", head, machine())
	for _, b := range benches {
		out.WriteByte('\n')
		if err := b.run(&out); err != nil {
			return fmt.Errorf("%s: %w", b.name, err)
		}
	}
	fmt.Print(out.String())
	if write {
		return os.WriteFile(filepath.Join("tests", "bench", "RESULTS.md"), []byte(out.String()), 0o644)
	}
	return nil
}

// machine says on what the figures were taken, without a name.
func machine() string {
	model := "unknown CPU"
	if b, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		for line := range strings.Lines(string(b)) {
			if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
				model = strings.TrimSpace(value)
				break
			}
		}
	}
	python := "no Python"
	if b, err := exec.Command("python3", "--version").Output(); err == nil {
		python = strings.TrimSpace(string(b))
	}
	return fmt.Sprintf("%s, %d cores, %s/%s, %s, %s, %s", model, goruntime.NumCPU(), goruntime.GOOS, goruntime.GOARCH,
		goruntime.Version(), python, time.Now().UTC().Format(time.DateOnly))
}

// times collects one contender's measurements.
type times []time.Duration

func (t times) median() time.Duration {
	s := slices.Clone(t)
	slices.Sort(s)
	return s[len(s)/2]
}

// best is shown beside the median: on a noisy machine it is the steadier figure.
func (t times) best() time.Duration { return slices.Min(t) }

func ms(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d.Microseconds())/1000) }

func ratio(peer, own time.Duration) string { return fmt.Sprintf("%.1f ×", float64(peer)/float64(own)) }
