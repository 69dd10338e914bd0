package cli

import (
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/knadh/koanf/v2"

	"github.com/torpor-run/torpor/cli/config"
	"github.com/torpor-run/torpor/host"
)

// limit is a setting that bounds what a serializer module may use.
type limit struct {
	key   string
	field string // of host.Limits
	unit  unit
	usage string
}

// unit is what a limit counts.
type unit int

const (
	things unit = iota
	byteCount
	duration
)

func limitTable() []limit {
	return []limit{
		{"limit_size", "ModuleBytes", byteCount, "size of a serializer module"},
		{"limit_memory", "MemoryBytes", byteCount, "memory of one call of a module"},
		{"limit_table", "TableElements", things, "elements of a module's tables"},
		{"limit_compile_time", "CompileTime", duration, "how long compiling a module may take"},
		{"limit_time", "CallTime", duration, "how long a call may take"},
		{"limit_fuel", "CallFuel", things, "what a call may compute, in instructions"},
		{"limit_slice", "SliceFuel", things, "what it may compute without coming back to the host"},
		{"limit_output", "OutputBytes", byteCount, "what a call may give out"},
		{"limit_records", "Records", things, "records a call may give out"},
		{"limit_record", "RecordBytes", byteCount, "size of one record"},
		{"limit_log_lines", "LogLines", things, "lines a call may log"},
	}
}

// bound gives the limit's field in l.
func (m limit) bound(l *host.Limits) host.Bound {
	for _, b := range l.Bounds() {
		if b.Name == m.field {
			return b
		}
	}
	panic("cli: host.Limits has no " + m.field)
}

func limitSettings() []setting {
	var all []setting
	for _, m := range limitTable() {
		b := m.bound(&host.Limits{})
		all = append(all, setting{key: m.key, def: m.unit.format(b.Default), perModule: true,
			usage: m.usage + ": " + m.unit.format(b.Min) + " to " + m.unit.format(b.Max)})
	}
	return all
}

func (u unit) format(n int64) string {
	switch u {
	case duration:
		return config.FormatDuration(time.Duration(n))
	case byteCount:
		return config.FormatSize(n)
	}
	return strconv.FormatInt(n, 10)
}

// parse reads a number, with a unit where the limit has one, and holds it against the bound.
func (u unit) parse(name, v string, b host.Bound) (int64, error) {
	if u == duration {
		d, err := parseDuration(name, v, time.Duration(b.Min), time.Duration(b.Max))
		return int64(d), err
	}
	parse, what := config.ParseNumber, "numbers"
	if u == byteCount {
		parse, what = config.ParseSize, "bytes, or a number of KiB, MiB, GiB or TiB,"
	}
	n, err := parse(v, b.Min, b.Max)
	if err != nil {
		return 0, fmt.Errorf("%s is %q; allowed are %s from %s to %s", name, v, what, u.format(b.Min), u.format(b.Max))
	}
	return n, nil
}

// parseLimits reads the limits for all modules, and of those that have some of their own.
func (s *settings) parseLimits(k *koanf.Koanf, from origins) error {
	for _, m := range limitTable() {
		b := m.bound(&s.limits)
		var err error
		if *b.Value, err = m.unit.parse(from.name(m.key), k.String(m.key), b); err != nil {
			return err
		}
	}
	s.modules = map[string]host.Limits{}
	for _, name := range k.MapKeys("modules") {
		own := s.limits
		for _, m := range limitTable() {
			key := "modules." + name + "." + m.key
			if !k.Exists(key) {
				continue
			}
			b := m.bound(&own)
			var err error
			if *b.Value, err = m.unit.parse(from.name(key), k.String(key), b); err != nil {
				return err
			}
		}
		s.modules[name] = own
	}
	return nil
}

// hostConfig is the configuration of the host of serializer modules.
func hostConfig(s *settings, logger *slog.Logger) host.Config {
	return host.Config{CacheDir: cacheDir(s), Limits: s.limits, Modules: s.modules, Logger: logger}
}
