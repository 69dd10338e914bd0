package pickle_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host"
)

// TestComparers: the programs that compare find every kind of damage they are there for.
func TestComparers(t *testing.T) {
	t.Parallel()
	for _, program := range []string{"compare.py", "stubs.py"} {
		t.Log(program, strings.TrimSpace(mustPython(t, program, "--self-test")))
	}
}

// number is an environment variable that is a number.
func number(t *testing.T, name string, otherwise int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.Atoi(text)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}

// TestGraphs: graphs of all there is, from a seed, pickled by every protocol, come back equal and with the
// same identities.
func TestGraphs(t *testing.T) {
	t.Parallel()
	count := 800 // TORPOR_PICKLE_GRAPHS=100000 for a night
	if testing.Short() {
		count = 200
	}
	count = number(t, "TORPOR_PICKLE_GRAPHS", count)
	seed := number(t, "TORPOR_PICKLE_SEED", 1)
	const shard = 200 // so that each of the settings has one
	ways := settings()
	for first, i := 0, 0; first < count; first, i = first+shard, i+1 {
		way := ways[i%len(ways)]
		t.Run(fmt.Sprintf("from %d with %v", first, way), func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			original, result := filepath.Join(dir, "original"), filepath.Join(dir, "result")
			mustPython(t, "graphs.py", strconv.Itoa(seed), strconv.Itoa(first), strconv.Itoa(min(shard, count-first)), original)
			m := compile(t, host.Limits{}, way)
			takeThrough(t, m, original, result)
			t.Log(mustPython(t, "compare.py", original, result))
			if first == 0 { // and what cannot be seen of a graph: the calls
				few := filepath.Join(dir, "few")
				sample(t, original, few+".original", 23)
				sample(t, result, few+".result", 23)
				t.Log(mustPython(t, "stubs.py", few+".original", few+".result"))
			}
		})
	}
}

// settings are the ways in which records can be cut, which nothing that is loaded may depend on.
func settings() []map[string]any {
	return []map[string]any{nil, {"depth": 0}, {"depth": 5, "split": 1024}, {"depth": 1, "split": 2000}}
}

// takeThrough takes every entry of an archive through the module. None may be refused.
func takeThrough(t *testing.T, m *module, original, result string) {
	t.Helper()
	failed := &complaints{t: t}
	out := newArchive(t, result)
	entries(t, original, func(e entry) {
		_, again, err := m.roundTrip(e.data)
		r := entry{name: e.name, data: again}
		if err != nil {
			r.meta.Error = err.Error()
			failed.add("%s: %v\n%s", e.name, err, shown(e.data))
		}
		out.add(t, r)
	})
	out.close(t)
	failed.done()
}

// sample copies every nth entry of an archive.
func sample(t *testing.T, from, to string, nth int) {
	t.Helper()
	out := newArchive(t, to)
	n := 0
	entries(t, from, func(e entry) {
		if n++; n%nth == 0 && !strings.Contains(e.name, " deep ") {
			out.add(t, e)
		}
	})
	out.close(t)
}

// TestFixtures: real pickles say the same, opcode by opcode, without the classes they name.
func TestFixtures(t *testing.T) {
	t.Parallel()
	const large = 300_000
	groups := map[string][]string{} // the small ones together: to start Python takes longer than they do
	for _, file := range fixtureFiles(t) {
		group := "small"
		if info, err := os.Stat(file); err != nil {
			t.Fatal(err)
		} else if info.Size() > large {
			group = filepath.Base(file)
		}
		groups[group] = append(groups[group], file)
	}
	for group, files := range groups {
		t.Run(group, func(t *testing.T) {
			t.Parallel()
			if group != "small" && testing.Short() {
				t.Skip("it is large")
			}
			dir := t.TempDir()
			original, result := filepath.Join(dir, "original"), filepath.Join(dir, "result")
			out := newArchive(t, original)
			for _, file := range files {
				out.add(t, entry{name: filepath.Base(file), data: read(t, file)})
			}
			out.close(t)
			m := compile(t, host.Limits{}, nil)
			takeThrough(t, m, original, result)
			t.Log(mustPython(t, "stubs.py", original, result))
			for _, file := range files {
				for i, way := range settings() {
					if i > 1 && group != "small" {
						break
					}
					m.mustHaveOneOfEachKey(t, file, way)
				}
			}
		})
	}
}

// mustHaveOneOfEachKey saves a file with some settings, and sees that no key occurs twice in the records.
func (m *module) mustHaveOneOfEachKey(t *testing.T, file string, way map[string]any) {
	t.Helper()
	records, _, err := m.with(way).roundTrip(read(t, file))
	if err != nil {
		t.Errorf("%s with %v: %v", filepath.Base(file), way, err)
		return
	}
	had := map[string]bool{}
	for _, r := range split(t, records) {
		if had[r.key] {
			t.Errorf("%s with %v: two records of the key %q", filepath.Base(file), way, r.key)
		}
		had[r.key] = true
	}
	t.Logf("%s with %v: %d records, %d bytes", filepath.Base(file), way, len(had), len(records))
}
