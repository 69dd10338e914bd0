package statedir

import (
	"fmt"
	"path"
	"strconv"
	"strings"
	"time"
)

// MaxNameBytes is the longest name of a service or part.
const MaxNameBytes = 64

// CheckName says why name can not be the name of a service or a part. It may have 1 to [MaxNameBytes]
// characters, lower-case ASCII letters, digits, '-' and '_', and begins with a letter or digit:
// [a-z0-9][a-z0-9_-]{0,63}. No such name leaves a folder, hides in it, or is another one on a file
// system that does not tell cases apart.
func CheckName(name string) error {
	ok := len(name) >= 1 && len(name) <= MaxNameBytes
	for i := 0; ok && i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-', c == '_':
			ok = i > 0
		default:
			ok = false
		}
	}
	if !ok {
		if len(name) > MaxNameBytes {
			name = name[:MaxNameBytes] + "…"
		}
		return fmt.Errorf("name %q is not allowed: it must have 1 to %d lower-case letters, digits, '-' or '_' and begin with a letter or digit", name, MaxNameBytes)
	}
	return nil
}

// PartID names a part of a service.
type PartID struct {
	Service string
	Part    string
}

func (id PartID) String() string { return id.Service + "/" + id.Part }

func (id PartID) check() error {
	if err := CheckName(id.Service); err != nil {
		return fmt.Errorf("service %w", err)
	}
	if err := CheckName(id.Part); err != nil {
		return fmt.Errorf("service %s: part %w", id.Service, err)
	}
	return nil
}

// Where things lie below the data folder.
const (
	lockName     = "LOCK"
	statesFolder = "state/api_states"
	modulesPlace = "modules"
)

// folder is where the files of a part lie.
func (id PartID) folder() string { return path.Join(statesFolder, id.Service) }

// kind says what a file in a service's folder is.
type kind int

const (
	newest  kind = iota // <part>.state
	older               // <part>.state.g<generation>
	damaged             // <part>.state.corrupt-<time>-g<generation>, -tail behind it for the end of a file
	temp                // <part>.state.tmp-<number>
)

// stateFile is what the name of a file in a service's folder says.
type stateFile struct {
	part       string
	kind       kind
	generation uint64    // older and damaged; a newest file's stands in its header
	since      time.Time // damaged: when it was set aside, to the second
	tail       bool      // damaged: it is the end of a file, cut off; generation is the newest in it
	serial     uint64    // temp
}

const (
	stateSuffix   = ".state"
	olderInfix    = ".g"
	damagedInfix  = ".corrupt-"
	tailSuffix    = "-tail"
	tempInfix     = ".tmp-"
	damagedLayout = "20060102T150405Z"
)

// name is the file's name, the inverse of parseName.
func (f stateFile) name() string {
	base := f.part + stateSuffix
	switch f.kind {
	case older:
		return base + olderInfix + formatGeneration(f.generation)
	case damaged:
		name := base + damagedInfix + f.since.UTC().Format(damagedLayout) + "-g" + formatGeneration(f.generation)
		if f.tail {
			name += tailSuffix
		}
		return name
	case temp:
		return tempName(base, f.serial)
	default:
		return base
	}
}

// parseName is what name says, if it is of the kind this package gives. Anything else in the folder is
// left alone.
func parseName(name string) (f stateFile, ok bool) {
	// A part has no dot, so that the first one ends it.
	part, rest, found := strings.Cut(name, stateSuffix)
	if !found || CheckName(part) != nil {
		return stateFile{}, false
	}
	f.part = part
	if rest == "" {
		return f, true
	}
	if digits, found := strings.CutPrefix(rest, olderInfix); found {
		f.kind = older
		f.generation, ok = parseGeneration(digits)
		return f, ok
	}
	if s, found := strings.CutPrefix(rest, damagedInfix); found {
		f.kind = damaged
		stamp, digits, _ := strings.Cut(s, "-g")
		t, err := time.Parse(damagedLayout, stamp)
		if err != nil {
			return stateFile{}, false
		}
		f.since = t
		digits, f.tail = strings.CutSuffix(digits, tailSuffix)
		f.generation, ok = parseGeneration(digits)
		// Parse is more lenient than Format: only what name would give counts.
		return f, ok && f.name() == name
	}
	if digits, found := strings.CutPrefix(rest, tempInfix); found {
		f.kind = temp
		f.serial, ok = parseSerial(digits)
		return f, ok
	}
	return stateFile{}, false
}

func formatGeneration(n uint64) string { return fmt.Sprintf("%012d", n) }

func parseGeneration(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && n > 0 && formatGeneration(n) == s
}

// tempName is the name of the serial-th temporary file on its way to the name given.
func tempName(name string, serial uint64) string {
	return name + tempInfix + strconv.FormatUint(serial, 10)
}

func parseSerial(s string) (uint64, bool) {
	n, err := strconv.ParseUint(s, 10, 64)
	return n, err == nil && strconv.FormatUint(n, 10) == s
}
