package statedir

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Limits of the pins of a data folder.
const (
	MaxPins            = 1000
	MaxPinVersionBytes = 64
)

// Pin says which module a name stands for. FORMAT.md has the file that keeps them.
type Pin struct {
	Name    string // as CheckName allows
	Digest  [sha256.Size]byte
	Version string    // what the module calls its own version
	Added   time.Time // to the second, UTC
}

const (
	pinsName    = "pins.json"
	pinsVersion = 1
	// maxPinsBytes is more than MaxPins pins take, whatever spaces are put between them.
	maxPinsBytes = 1 << 20
)

func pinsPath() string { return path.Join(modulesPlace, pinsName) }

// pinsFile is pins.json.
type pinsFile struct {
	Version int                `json:"version"`
	Pins    map[string]pinLine `json:"pins"`
}

type pinLine struct {
	SHA256  string `json:"sha256"`
	Version string `json:"version"`
	Added   string `json:"added"`
}

// Pin keeps a module under a name, durably, and until it is unpinned or the name is given to another:
// whether a state names it or not. It returns what the name stood for, or false; a module that had it
// stays where it is until nothing needs it. To pin what is pinned already changes nothing, its time
// included.
//
// version is printable ASCII without quotes and backslashes, of at most [MaxPinVersionBytes]. After an
// error the name stands for what it stood for or, if only the last step failed, for the new module; never
// for one that is not there. The error wraps abi.ErrTooLarge beyond [MaxPins] and [MaxModuleBytes],
// abi.ErrCorrupt and abi.ErrVersion if the pins there are can not be read, which are then left alone.
func (d *Dir) Pin(name, version string, wasm []byte) (before Pin, replaced bool, err error) {
	if err := CheckPin(name, version); err != nil {
		return Pin{}, false, err
	}
	if err := d.enter(); err != nil {
		return Pin{}, false, err
	}
	defer d.life.RUnlock()
	d.modulesMu.Lock()
	defer d.modulesMu.Unlock()
	pins, err := d.durablePins()
	if err != nil {
		return Pin{}, false, err
	}
	pin := Pin{Name: name, Digest: sha256.Sum256(wasm), Version: version, Added: d.now().UTC().Truncate(time.Second)}
	at, replaced := findPin(pins, name)
	if replaced {
		before = pins[at]
	} else if len(pins) >= MaxPins {
		return Pin{}, false, fmt.Errorf("pin module %s: %w: %d modules are pinned, which is the limit; unpin one", name, abi.ErrTooLarge, len(pins))
	}
	// First the module: a pin without one would be a lie, a module without a pin is only not needed.
	if err := d.keepModule(pin.Digest, wasm); err != nil {
		return before, replaced, fmt.Errorf("pin module %s: %w", name, err)
	}
	d.modules[pin.Digest] = true
	if replaced && before.Digest == pin.Digest && before.Version == pin.Version {
		return before, replaced, nil
	}
	if replaced {
		pins[at] = pin
	} else {
		pins = slices.Insert(pins, at, pin)
	}
	if err := d.writePins(pins); err != nil {
		return before, replaced, fmt.Errorf("pin module %s: %w", name, err)
	}
	return before, replaced, nil
}

// Unpin takes a name away; its module stays until a later Open finds that nothing needs it. The error
// wraps abi.ErrNotFound if there is no such pin, else what [Dir.Pin]'s does.
func (d *Dir) Unpin(name string) error {
	if err := d.enter(); err != nil {
		return err
	}
	defer d.life.RUnlock()
	d.modulesMu.Lock()
	defer d.modulesMu.Unlock()
	pins, err := d.durablePins()
	if err != nil {
		return err
	}
	at, found := findPin(pins, name)
	if !found {
		return fmt.Errorf("pinned module %q: %w", name, abi.ErrNotFound)
	}
	if err := d.writePins(slices.Delete(pins, at, at+1)); err != nil {
		return fmt.Errorf("unpin module %s: %w", name, err)
	}
	return nil
}

// Pins lists what is pinned, by name. The error wraps abi.ErrCorrupt or abi.ErrVersion if that can not be
// read, and says what to do.
func (d *Dir) Pins() ([]Pin, error) {
	if err := d.enter(); err != nil {
		return nil, err
	}
	defer d.life.RUnlock()
	d.modulesMu.Lock()
	defer d.modulesMu.Unlock()
	return d.durablePins()
}

func findPin(pins []Pin, name string) (at int, found bool) {
	return slices.BinarySearchFunc(pins, name, func(p Pin, name string) int { return strings.Compare(p.Name, name) })
}

// CheckPin says why a module of that name and version can not be pinned: what [CheckName] says, or that the
// version is not 1 to [MaxPinVersionBytes] characters of printable ASCII without quotes and backslashes.
func CheckPin(name, version string) error {
	if err := CheckName(name); err != nil {
		return fmt.Errorf("pin module: %w", err)
	}
	if version == "" || len(version) > MaxPinVersionBytes || strings.ContainsFunc(version, func(r rune) bool {
		return r < ' ' || r > '~' || r == '"' || r == '\\'
	}) {
		return fmt.Errorf("pin module %s: version %.*q is not allowed: it must have 1 to %d printable ASCII characters, quotes and backslashes excepted",
			name, MaxPinVersionBytes, version, MaxPinVersionBytes)
	}
	return nil
}

// durablePins is readPins, and sees to it that a power cut does not bring back the pins before: a process
// may have died between renaming the file and syncing its folder.
func (d *Dir) durablePins() ([]Pin, error) {
	pins, err := d.readPins()
	if err != nil || d.pinsSynced {
		return pins, err
	}
	if err := vfs.SyncFolder(d.fs, modulesPlace); err != nil {
		return nil, fmt.Errorf("pinned modules: %w", err)
	}
	d.pinsSynced = true
	return pins, nil
}

// readPins reads what is pinned, sorted by name; without a file, nothing is.
func (d *Dir) readPins() ([]Pin, error) {
	full := vfs.Path(d.fs, pinsPath())
	f, err := d.fs.OpenFile(pinsPath(), vfs.Read)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("pinned modules: %w", err)
	}
	defer f.Close()
	size, err := f.Size()
	if err != nil {
		return nil, fmt.Errorf("pinned modules: %w", err)
	}
	if size > maxPinsBytes {
		return nil, damagedPins(full, fmt.Errorf("it has %d bytes; the limit is %d", size, maxPinsBytes))
	}
	b := make([]byte, size)
	if _, err := io.ReadFull(io.NewSectionReader(f, 0, size), b); err != nil {
		return nil, fmt.Errorf("pinned modules: %s: read %d bytes: %w", full, size, err)
	}
	return parsePins(full, b)
}

func damagedPins(full string, why error) error {
	return fmt.Errorf("pinned modules: %s: %w: %w; move it aside with torpor verify --repair, then pin the modules again with torpor module add", full, abi.ErrCorrupt, why)
}

// parsePins reads the content of the file called full.
func parsePins(full string, b []byte) ([]Pin, error) {
	var version struct {
		Version *int `json:"version"`
	}
	if err := json.Unmarshal(b, &version); err != nil {
		return nil, damagedPins(full, err)
	}
	if version.Version == nil || *version.Version < 1 {
		return nil, damagedPins(full, errors.New("it has no version"))
	}
	if *version.Version > pinsVersion {
		return nil, fmt.Errorf("pinned modules: %s: %w: it is of version %d, this program knows %d; use the newer torpor that wrote it",
			full, abi.ErrVersion, *version.Version, pinsVersion)
	}
	var file pinsFile
	if err := json.Unmarshal(b, &file); err != nil {
		return nil, damagedPins(full, err)
	}
	if len(file.Pins) > MaxPins {
		return nil, damagedPins(full, fmt.Errorf("it has %d pins; the limit is %d", len(file.Pins), MaxPins))
	}
	pins := make([]Pin, 0, len(file.Pins))
	for name, line := range file.Pins {
		p := Pin{Name: name, Version: line.Version}
		sum, err := hex.DecodeString(line.SHA256)
		if err != nil || copy(p.Digest[:], sum) != len(p.Digest) {
			return nil, damagedPins(full, fmt.Errorf("pin %.80q has no SHA-256", name))
		}
		if p.Added, err = time.Parse(time.RFC3339, line.Added); err != nil {
			return nil, damagedPins(full, fmt.Errorf("pin %.80q: it was added at %.40q, which is no time", name, line.Added))
		}
		p.Added = p.Added.UTC()
		if err := CheckPin(name, line.Version); err != nil {
			return nil, damagedPins(full, err)
		}
		pins = append(pins, p)
	}
	slices.SortFunc(pins, func(a, b Pin) int { return strings.Compare(a.Name, b.Name) })
	// encoding/json passes over what it does not know and takes the last of two: what is not exactly
	// what would be written of these pins, spaces excepted, is not what was written.
	canonical, err := formatPins(pins)
	if err != nil {
		return nil, err
	}
	var want, got bytes.Buffer
	if err := errors.Join(json.Compact(&want, canonical), json.Compact(&got, b)); err != nil {
		return nil, damagedPins(full, err)
	}
	if !bytes.Equal(want.Bytes(), got.Bytes()) {
		return nil, damagedPins(full, errors.New("it is not in the form this program writes"))
	}
	return pins, nil
}

// formatPins is the content of pins.json: the same pins give the same bytes.
func formatPins(pins []Pin) ([]byte, error) {
	file := pinsFile{Version: pinsVersion, Pins: map[string]pinLine{}}
	for _, p := range pins {
		file.Pins[p.Name] = pinLine{SHA256: hex.EncodeToString(p.Digest[:]), Version: p.Version, Added: p.Added.Format(time.RFC3339)}
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	if err := enc.Encode(file); err != nil {
		return nil, fmt.Errorf("pinned modules: %w", err)
	}
	return b.Bytes(), nil
}

func (d *Dir) writePins(pins []Pin) error {
	b, err := formatPins(pins)
	if err != nil {
		return err
	}
	t, err := d.newDraft(modulesPlace, pinsName)
	if err != nil {
		return err
	}
	_, _ = t.Write(b) // publish returns the error
	d.pinsSynced = false
	if err := t.publish(""); err != nil {
		return err
	}
	d.pinsSynced = true
	return nil
}

// isPinsTemp tells the temporary files of pins.json, isPinsAside damaged ones that were moved aside.
func isPinsTemp(name string) bool {
	serial, found := strings.CutPrefix(name, pinsName+tempInfix)
	_, ok := parseSerial(serial)
	return found && ok
}

func isPinsAside(name string) bool { return strings.HasPrefix(name, pinsName+damagedInfix) }

// sparePinned takes out of garbage what is pinned. It fails where that is not certain: the pins can not be
// read, were moved aside, or name a module that is not there, which none of them would but for damage.
// A module that a pin before named goes only when that one can not come back.
func (d *Dir) sparePinned(garbage map[moduleDigest]bool) error {
	pins, err := d.durablePins()
	if err != nil {
		return err
	}
	entries, err := d.fs.ReadDir(modulesPlace)
	if err != nil {
		return err
	}
	there := map[string]bool{}
	for _, e := range entries {
		if isPinsAside(e.Name) {
			return fmt.Errorf("%s may have named any: pin with torpor module add what is to be kept; when all are pinned again, delete it",
				vfs.Path(d.fs, path.Join(modulesPlace, e.Name)))
		}
		there[e.Name] = true
	}
	for _, p := range pins {
		if !there[path.Base(modulePath(p.Digest))] {
			return fmt.Errorf("module %s is pinned as %s: %w", vfs.Path(d.fs, modulePath(p.Digest)), p.Name, abi.ErrNotFound)
		}
		delete(garbage, p.Digest)
	}
	return nil
}

// ReadPins is [Dir.Pins] of a data folder that may be in use: it takes no lock and changes nothing. What it
// gives is what was pinned at one moment, or would have been but for a power cut.
func ReadPins(fsys vfs.FS) ([]Pin, error) { return newDir(fsys, Options{}).readPins() }

// ReadModule is [Dir.Module] of a data folder that may be in use.
func ReadModule(fsys vfs.FS, digest [sha256.Size]byte) ([]byte, error) {
	return newDir(fsys, Options{}).readModule(digest)
}
