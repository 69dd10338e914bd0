// Command peers measures Extism's Go SDK for tests/bench, which runs it:
//
//	peers FILE...
//
// For each line that it reads it measures one round and answers with one line of JSON. A round passes
// each file's bytes through a plug-in. So the rounds of two programs can take turns.
package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"time"

	extism "github.com/extism/go-sdk"
)

// round is what one round took, in nanoseconds a call.
type round struct {
	Extism string // version of the SDK
	Wazero string // and of the engine below it

	Copied  []time.Duration // each file through the guest, word by word
	Bounded []time.Duration // the same in a plug-in that a time limit can end
	Handed  []time.Duration // each file, which the guest hands on without a look
	Empty   time.Duration   // a call with no input, of a function that returns
	Fresh   time.Duration   // the same in an instance made for it
}

func main() {
	if err := run(context.Background(), os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "peers:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, files []string) (err error) {
	if len(files) == 0 {
		return errors.New("name the files to pass through")
	}
	inputs := make([][]byte, len(files))
	for i, name := range files {
		if inputs[i], err = os.ReadFile(name); err != nil {
			return err
		}
	}
	p := &peer{}
	for i, timeout := range []uint64{0, 600_000} {
		manifest := extism.Manifest{Wasm: []extism.Wasm{extism.WasmData{Data: guest()}}, Timeout: timeout}
		if p.compiled[i], err = extism.NewCompiledPlugin(ctx, manifest, extism.PluginConfig{}, nil); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, p.compiled[i].Close(ctx)) }()
		if p.plugins[i], err = p.compiled[i].Instance(ctx, extism.PluginInstanceConfig{}); err != nil {
			return err
		}
	}
	for _, plugin := range p.plugins {
		for _, export := range []string{copies, hands} {
			for _, input := range inputs {
				if output, err := pass(ctx, plugin, export, input); err != nil || !bytes.Equal(output, input) {
					return errors.Join(fmt.Errorf("%s: what came back of %d bytes is not what it was given", export, len(input)), err)
				}
			}
		}
	}
	asked, answer := bufio.NewScanner(os.Stdin), json.NewEncoder(os.Stdout)
	for asked.Scan() {
		r, err := p.round(ctx, inputs)
		if err != nil {
			return err
		}
		if err := answer.Encode(r); err != nil {
			return err
		}
	}
	return asked.Err()
}

// peer is the plug-in without a time limit, and with.
type peer struct {
	compiled [2]*extism.CompiledPlugin
	plugins  [2]*extism.Plugin
}

func (p *peer) round(ctx context.Context, inputs [][]byte) (r round, err error) {
	r.Extism, r.Wazero = versions()
	plain, bounded := p.plugins[0], p.plugins[1]
	passing := func(plugin *extism.Plugin, export string, input []byte) func() error {
		return func() error {
			_, err := pass(ctx, plugin, export, input)
			return err
		}
	}
	for _, input := range inputs {
		for _, m := range []struct {
			plugin *extism.Plugin
			export string
			took   *[]time.Duration
		}{{plain, copies, &r.Copied}, {bounded, copies, &r.Bounded}, {plain, hands, &r.Handed}} {
			d, err := perCall(passing(m.plugin, m.export, input))
			if err != nil {
				return r, err
			}
			*m.took = append(*m.took, d)
		}
	}
	if r.Empty, err = perCall(passing(plain, returns, nil)); err != nil {
		return r, err
	}
	r.Fresh, err = perCall(func() error {
		instance, err := p.compiled[0].Instance(ctx, extism.PluginInstanceConfig{})
		if err != nil {
			return err
		}
		return errors.Join(passing(instance, returns, nil)(), instance.CloseWithContext(ctx))
	})
	return r, err
}

// pass calls the guest.
func pass(ctx context.Context, plugin *extism.Plugin, export string, input []byte) ([]byte, error) {
	code, output, err := plugin.CallWithContext(ctx, export, input)
	if err == nil && (code != 0 || len(output) != len(input)) {
		err = fmt.Errorf("%s returned %d, and %d bytes for %d", export, code, len(output), len(input))
	}
	return output, err
}

// enough is for how long a thing is measured in a round.
const enough = 100 * time.Millisecond

// perCall is what one call of f takes, called so often that it is long enough; the clock is looked at
// seldom. The same function measures Torpor.
func perCall(f func() error) (time.Duration, error) {
	if err := f(); err != nil { // warm
		return 0, err
	}
	runtime.GC()
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

func versions() (sdk, engine string) {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return "", ""
	}
	for _, m := range info.Deps {
		switch m.Path {
		case "github.com/extism/go-sdk":
			sdk = m.Version
		case "github.com/tetratelabs/wazero":
			engine = m.Version
		}
	}
	return sdk, engine
}
