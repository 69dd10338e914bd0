package conformance

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
)

// Limits on fixtures. They are held in memory, and some checks take time that grows with their size.
const (
	MaxFixtureBytes  = 64 << 20  // one fixture
	MaxFixturesBytes = 256 << 20 // all of them
	MaxFixtures      = 1000
)

// Fixture is a native state that a module must be able to save.
type Fixture struct {
	Name   string
	Native []byte
}

// OldRecords is records that an older version of a module wrote, or this one: of whatever schema.
type OldRecords struct {
	Name    string // without its ending: "small.json" for schema-1/small.json.records
	Schema  uint64
	Records []byte // a CBOR sequence of sound records
	Native  []byte // what they become
	Known   bool   // whether Native is known
}

// Fixtures is what a module is held against.
type Fixtures struct {
	States []Fixture
	Old    []OldRecords
	Notes  []string // what was passed over, and why
}

// Endings of files in the folders of older records.
const (
	RecordsEnding = ".records"
	NativeEnding  = ".native"
)

const schemaFolder = "schema-"

// SchemaPath is where older records lie in a folder of fixtures, but for their ending: "schema-1/NAME".
func SchemaPath(schema uint64, name string) string {
	return path.Join(schemaFolder+strconv.FormatUint(schema, 10), name)
}

// ErrNoFixtures says that a folder holds nothing to test with.
var ErrNoFixtures = errors.New("no fixtures")

// ReadFixtures reads a folder as the package's documentation lays it out, in the order of names. Names
// that begin with a dot and README.md are passed over. Errors wrap [ErrNoFixtures] if there is no
// native state, abi.ErrTooLarge for a limit, abi.ErrCorrupt for older records that are none,
// fs.ErrNotExist for a folder that is not there.
func ReadFixtures(fsys fs.FS) (*Fixtures, error) {
	r := fixtureReader{fsys: fsys}
	entries, err := fs.ReadDir(fsys, ".")
	if err != nil {
		return nil, fmt.Errorf("fixtures: %w", err)
	}
	for _, e := range entries {
		name := e.Name()
		if passedOver(name) {
			continue
		}
		info, err := fs.Stat(fsys, name) // of what a link points to
		if err != nil {
			return nil, fmt.Errorf("fixture %s: %w", name, err)
		}
		switch {
		case info.Mode().IsRegular():
			native, err := r.read(name)
			if err != nil {
				return nil, err
			}
			r.found.States = append(r.found.States, Fixture{name, native})
		case info.IsDir():
			number, isSchema := strings.CutPrefix(name, schemaFolder)
			schema, err := strconv.ParseUint(number, 10, 64)
			if !isSchema || err != nil {
				r.note("folder %s was not looked into: older records belong into %sN, N being their schema", name, schemaFolder)
				continue
			}
			if err := r.schema(name, schema); err != nil {
				return nil, err
			}
		default:
			r.note("%s is no regular file and was passed over", name)
		}
	}
	if len(r.found.States) == 0 {
		return nil, fmt.Errorf("%w: put one native state, as the service writes it, into each file of the folder", ErrNoFixtures)
	}
	slices.SortStableFunc(r.found.Old, func(a, b OldRecords) int {
		switch {
		case a.Schema < b.Schema:
			return -1
		case a.Schema > b.Schema:
			return 1
		}
		return 0
	})
	return &r.found, nil
}

func passedOver(name string) bool { return strings.HasPrefix(name, ".") || name == "README.md" }

type fixtureReader struct {
	fsys  fs.FS
	found Fixtures
	files int
	bytes int64
}

func (r *fixtureReader) note(format string, args ...any) {
	if len(r.found.Notes) < MaxExamples {
		r.found.Notes = append(r.found.Notes, fmt.Sprintf(format, args...))
	}
}

// read reads one file, within the limits.
func (r *fixtureReader) read(name string) ([]byte, error) {
	if r.files++; r.files > MaxFixtures {
		return nil, fmt.Errorf("fixtures: more than %d files: %w", MaxFixtures, abi.ErrTooLarge)
	}
	f, err := r.fsys.Open(name)
	if err != nil {
		return nil, fmt.Errorf("fixture %s: %w", name, err)
	}
	defer func() { _ = f.Close() }() // it was only read from
	b, err := io.ReadAll(io.LimitReader(f, MaxFixtureBytes+1))
	if err != nil {
		return nil, fmt.Errorf("fixture %s: %w", name, err)
	}
	if len(b) > MaxFixtureBytes {
		return nil, fmt.Errorf("fixture %s: more than %d bytes; a fixture is to show what a state may hold, not how large it may be: %w", name, MaxFixtureBytes, abi.ErrTooLarge)
	}
	if r.bytes += int64(len(b)); r.bytes > MaxFixturesBytes {
		return nil, fmt.Errorf("fixtures: more than %d bytes together: %w", MaxFixturesBytes, abi.ErrTooLarge)
	}
	return b, nil
}

// schema reads a folder of older records.
func (r *fixtureReader) schema(folder string, schema uint64) error {
	entries, err := fs.ReadDir(r.fsys, folder)
	if err != nil {
		return fmt.Errorf("fixtures: %w", err)
	}
	natives := map[string]bool{}
	for _, e := range entries {
		if name, ok := strings.CutSuffix(e.Name(), NativeEnding); ok && !passedOver(name) {
			natives[name] = true
		}
	}
	for _, e := range entries {
		if passedOver(e.Name()) || strings.HasSuffix(e.Name(), NativeEnding) {
			continue
		}
		file := path.Join(folder, e.Name())
		name, ok := strings.CutSuffix(e.Name(), RecordsEnding)
		if !ok {
			r.note("%s was passed over: its name ends in neither %s nor %s", file, RecordsEnding, NativeEnding)
			continue
		}
		old := OldRecords{Name: name, Schema: schema, Known: natives[name]}
		if old.Records, err = r.read(file); err != nil {
			return err
		}
		var scan record.Scanner
		if _, err := scan.Scan(old.Records, nil); err != nil {
			return fmt.Errorf("fixture %s: what it holds is no sequence of records: %w", file, err)
		}
		if old.Known {
			if old.Native, err = r.read(path.Join(folder, name+NativeEnding)); err != nil {
				return err
			}
			delete(natives, name)
		}
		r.found.Old = append(r.found.Old, old)
	}
	for _, e := range entries { // in the order of names
		if name, ok := strings.CutSuffix(e.Name(), NativeEnding); ok && natives[name] {
			r.note("%s was passed over: there is no %s beside it", path.Join(folder, e.Name()), name+RecordsEnding)
		}
	}
	return nil
}
