package config

import (
	"embed"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
)

//go:embed presets/*.yaml
var presetFiles embed.FS

const (
	presetFolder = "presets"
	presetEnding = ".yaml"
)

// Presets are the names of the presets, in order.
func Presets() []string {
	entries, err := fs.ReadDir(presetFiles, presetFolder)
	if err != nil {
		return nil // there are at least those that the line above names, or this would not compile
	}
	var names []string
	for _, e := range entries {
		names = append(names, strings.TrimSuffix(e.Name(), presetEnding))
	}
	slices.Sort(names)
	return names
}

// Preset gives a preset: YAML of the same form as a service, with a comment at the top that says what it was
// made for. The error wraps abi.ErrNotFound and lists those there are.
func Preset(name string) ([]byte, error) {
	b, err := presetFiles.ReadFile(path.Join(presetFolder, name+presetEnding))
	if err != nil || strings.ContainsAny(name, `/\`) {
		return nil, fmt.Errorf("preset %q: %w; there are %s", name, abi.ErrNotFound, strings.Join(Presets(), ", "))
	}
	return b, nil
}

// PresetAbout is the first line of a preset's comment; "" if there is no such preset.
func PresetAbout(name string) string {
	b, _ := Preset(name)
	first, _, _ := strings.Cut(string(b), "\n")
	return strings.TrimSpace(strings.TrimLeft(first, "# "))
}
