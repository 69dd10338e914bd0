package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/archive"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statedir"
)

// Limits of init-pods.d.
const (
	maxInitPods     = 1000    // files in the folder
	maxInitPodsList = 1 << 20 // bytes of a list
)

// autoLoad loads snapshots when the runtime starts, before the first request is answered: first those of the folder
// init-pods.d, lists before files as in LocalStack, then those of AUTO_LOAD_POD.
//
// With persistence a snapshot is a seed: of the services in it only those get something of which nothing is saved, so
// that a restart loses nothing. (LocalStack ignores AUTO_LOAD_POD then.)
type autoLoad struct {
	runtime   *runtime.Runtime
	snapshots *repository.Repository
	folder    string // init-pods.d; need not be there
	names     string // AUTO_LOAD_POD
	scratch   string
	dir       *statedir.Dir
	key       seal.Key
	logger    *slog.Logger

	own []string // with persistence: services that have saved state of their own
}

// seedName is one snapshot to be loaded: a name with a version, or a file.
type seedName struct {
	name    string
	version uint64
	file    string
}

func (s seedName) String() string {
	if s.file != "" {
		return s.file
	}
	if s.version == 0 {
		return s.name
	}
	return s.name + "@" + strconv.FormatUint(s.version, 10)
}

// parseSeedName reads NAME, NAME@VERSION, NAME:VERSION as LocalStack has it, or file://PATH.
func parseSeedName(text string) (seedName, error) {
	if file, ok := strings.CutPrefix(text, "file://"); ok {
		return seedName{file: file}, nil
	}
	ref, err := snapshot.ParseReference("pod:" + text)
	return seedName{name: ref.Name, version: ref.Version}, err
}

// run loads everything. What cannot be loaded is logged, and does not keep the rest from being loaded, nor Torpor from
// starting.
func (a *autoLoad) run(ctx context.Context) {
	seeds, errs := a.seeds()
	for _, err := range errs {
		a.logger.Error("a snapshot to be loaded at the start is not", "error", err)
	}
	a.own = a.withState() // before the first is loaded, and saved: the next ones are merged with it
	for _, seed := range seeds {
		if ctx.Err() != nil {
			return
		}
		if err := a.load(ctx, seed); err != nil {
			a.logger.Error("a snapshot to be loaded at the start could not be; nothing of it was", "snapshot", seed.String(), "error", err)
		}
	}
}

// seeds lists what is to be loaded, in order.
func (a *autoLoad) seeds() (seeds []seedName, errs []error) {
	add := func(where, text string) {
		if text = strings.TrimSpace(text); text == "" || strings.HasPrefix(text, "#") {
			return
		}
		s, err := parseSeedName(text)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", where, err))
			return
		}
		seeds = append(seeds, s)
	}
	lists, files, err := a.found()
	if err != nil {
		errs = append(errs, err)
	}
	for _, path := range lists {
		lines, err := readList(path)
		if err != nil {
			errs = append(errs, err)
		}
		for _, line := range lines {
			// LocalStack allows NAME,REMOTE here.
			if name, remote, ok := strings.Cut(line, ","); ok && strings.TrimSpace(remote) != "" {
				errs = append(errs, fmt.Errorf("%s: %s: snapshots of other places (%s) cannot be loaded at the start", path, name, strings.TrimSpace(remote)))
				continue
			}
			add(path, strings.TrimSuffix(strings.TrimSpace(line), ","))
		}
	}
	for _, path := range files {
		seeds = append(seeds, seedName{file: path})
	}
	for name := range strings.SplitSeq(a.names, ",") {
		add("AUTO_LOAD_POD", name)
	}
	return seeds, errs
}

// found lists the folder init-pods.d: lists of names (.txt), and all other files, by name.
func (a *autoLoad) found() (lists, files []string, err error) {
	entries, err := os.ReadDir(a.folder)
	if a.folder == "" || errors.Is(err, fs.ErrNotExist) {
		return nil, nil, nil
	}
	if err == nil && len(entries) > maxInitPods {
		err = fmt.Errorf("%s has %d entries; there may be %d", a.folder, len(entries), maxInitPods)
	}
	if err != nil {
		return nil, nil, err
	}
	for _, e := range entries {
		path := filepath.Join(a.folder, e.Name())
		info, err := os.Stat(path) // through links, as mounts of configuration have them
		if err != nil || !info.Mode().IsRegular() || strings.HasPrefix(e.Name(), ".") {
			continue
		}
		if filepath.Ext(path) == ".txt" {
			lists = append(lists, path)
		} else {
			files = append(files, path)
		}
	}
	return lists, files, nil
}

func readList(path string) (lines []string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxInitPodsList+1))
	if err == nil && len(b) > maxInitPodsList {
		err = fmt.Errorf("more than %d bytes: %w", maxInitPodsList, abi.ErrTooLarge)
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return strings.Split(string(b), "\n"), nil
}

// load loads one snapshot.
func (a *autoLoad) load(ctx context.Context, seed seedName) (err error) {
	in, err := a.open(ctx, seed)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, in.Close()) }()
	services := slices.DeleteFunc(in.Services(), func(service string) bool { return slices.Contains(a.own, service) })
	if len(services) == 0 {
		a.logger.Info("snapshot not loaded: all its services have saved state of their own", "snapshot", seed.String(), "services", in.Services())
		return nil
	}
	some, err := in.Only(services...)
	if err != nil {
		return err
	}
	if _, err := a.runtime.Apply(ctx, some, runtime.ApplyOptions{}); err != nil {
		return err
	}
	a.logger.Info("snapshot loaded at the start", "snapshot", seed.String(), "services", services)
	return nil
}

// withState lists the services of which something is saved, be it damaged or of a newer format.
func (a *autoLoad) withState() (services []string) {
	if !a.runtime.Persistent() {
		return nil
	}
	for _, s := range a.runtime.Services() {
		for _, p := range s.Status().Parts {
			if all, err := a.dir.Generations(s.Name(), p.Name); len(all) > 0 || err != nil && !errors.Is(err, abi.ErrNotFound) {
				services = append(services, s.Name())
				break
			}
		}
	}
	return services
}

func (a *autoLoad) open(ctx context.Context, seed seedName) (*snapshot.Snapshot, error) {
	if seed.file == "" {
		return a.snapshots.Open(ctx, seed.name, seed.version, a.key)
	}
	f, err := os.Open(seed.file)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	s, err := archive.Open(ctx, f, info.Size(), archive.OpenOptions{Key: a.key, Folder: a.scratch})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", seed.file, err)
	}
	return s, nil
}
