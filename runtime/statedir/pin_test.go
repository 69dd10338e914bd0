package statedir_test

import (
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"os"
	"path"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

const pinsFile = "modules/pins.json"

func pin(t *testing.T, d *statedir.Dir, name, version, wasm string) {
	t.Helper()
	_, _, err := d.Pin(name, version, []byte(wasm))
	check(t, err)
}

func TestPin(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, options(0))
	if pins, err := d.Pins(); err != nil || len(pins) != 0 {
		t.Fatalf("in a new folder: %v, %v", pins, err)
	}
	if before, replaced, err := d.Pin("todo", "1.0.0", []byte("one")); err != nil || replaced {
		t.Fatalf("Pin = %v, %v, %v", before, replaced, err)
	}
	pin(t, d, "orders", "3", "two")
	check(t, d.Close())

	later := options(0)
	later.Now = at("2027-01-01T00:00:00Z")
	d = open(t, m, later)
	defer d.Close()
	one := statedir.Pin{Name: "todo", Digest: sha256.Sum256([]byte("one")), Version: "1.0.0", Added: created}
	two := statedir.Pin{Name: "orders", Digest: sha256.Sum256([]byte("two")), Version: "3", Added: created}
	wantPinned := func(want ...statedir.Pin) {
		t.Helper()
		got, err := d.Pins()
		if err != nil || !slices.Equal(got, want) {
			t.Fatalf("Pins = %v, %v; want %v", got, err, want)
		}
	}
	wantPinned(two, one)
	file := readFile(t, m, pinsFile)
	if before, replaced, err := d.Pin("todo", "1.0.0", []byte("one")); err != nil || !replaced || before != one {
		t.Errorf("the same again: %v, %v, %v", before, replaced, err)
	}
	if string(readFile(t, m, pinsFile)) != string(file) {
		t.Error("pinning the same again has changed the file")
	}
	if before, replaced, err := d.Pin("todo", "1.0.1", []byte("three")); err != nil || !replaced || before != one {
		t.Errorf("another: %v, %v, %v", before, replaced, err)
	}
	three := statedir.Pin{Name: "todo", Digest: sha256.Sum256([]byte("three")), Version: "1.0.1", Added: later.Now()}
	wantPinned(two, three)
	if _, err := d.Module(one.Digest); err != nil {
		t.Errorf("the module that was replaced: %v", err)
	}
	check(t, d.Unpin("orders"))
	wantPinned(three)
	if err := d.Unpin("orders"); !errors.Is(err, abi.ErrNotFound) || !strings.Contains(err.Error(), "orders") {
		t.Errorf("Unpin of nothing: %v", err)
	}
}

// The file of version 1 stays readable for ever, and is written as it always was.
func TestPinsGolden(t *testing.T) {
	golden, err := os.ReadFile("testdata/pins-v1.json")
	check(t, err)
	want := []statedir.Pin{
		{Name: "settings", Digest: sha256.Sum256([]byte("settings")), Version: "1.0.0", Added: created},
		{Name: "todo", Digest: sha256.Sum256([]byte("todo")), Version: "2.0.0-rc.1+build 5 <x>", Added: created},
	}
	m := vfs.NewMem()
	d := open(t, m, options(0))
	for _, p := range slices.Backward(want) {
		pin(t, d, p.Name, p.Version, p.Name)
	}
	check(t, d.Close())
	if got := readFile(t, m, pinsFile); string(got) != string(golden) {
		t.Errorf("written:\n%s\nwant:\n%s", got, golden)
	}
	for what, content := range map[string]string{
		"as it is":       string(golden),
		"without spaces": strings.NewReplacer("\n", "", "  ", "").Replace(string(golden)),
		"other lines":    strings.ReplaceAll(string(golden), "\n", "\r\n"),
	} {
		writeFile(t, m, pinsFile, []byte(content))
		d = open(t, m, options(0))
		if got, err := d.Pins(); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", what, got, err, want)
		}
		check(t, d.Close())
	}
}

// badPins are contents of pins.json that must be refused.
func badPins() map[string]struct {
	content string
	is      error
} {
	const line = `{"sha256":"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed","version":"1","added":"2026-11-22T17:42:03Z"}`
	file := func(pins string) string { return `{"version":1,"pins":{` + pins + `}}` }
	many := make([]string, statedir.MaxPins+1)
	for i := range many {
		many[i] = fmt.Sprintf(`"p%04d":%s`, i, line)
	}
	type bad = struct {
		content string
		is      error
	}
	return map[string]bad{
		"empty":                  {"", abi.ErrCorrupt},
		"zeros":                  {strings.Repeat("\x00", 300), abi.ErrCorrupt},
		"cut short":              {file(`"a":` + line)[:60], abi.ErrCorrupt},
		"no object":              {`[]`, abi.ErrCorrupt},
		"no version":             {`{"pins":{}}`, abi.ErrCorrupt},
		"version 0":              {`{"version":0,"pins":{}}`, abi.ErrCorrupt},
		"version of text":        {`{"version":"1","pins":{}}`, abi.ErrCorrupt},
		"no pins":                {`{"version":1}`, abi.ErrCorrupt},
		"something behind":       {file("") + "{}", abi.ErrCorrupt},
		"an unknown member":      {`{"version":1,"pins":{},"x":1}`, abi.ErrCorrupt},
		"an unknown member of a": {file(`"a":` + strings.Replace(line, `{`, `{"x":1,`, 1)), abi.ErrCorrupt},
		"other case":             {`{"Version":1,"pins":{}}`, abi.ErrCorrupt},
		"twice the same":         {file(`"a":` + line + `,"a":` + line), abi.ErrCorrupt},
		"unsorted":               {file(`"b":` + line + `,"a":` + line), abi.ErrCorrupt},
		"a bad name":             {file(`"../a":` + line), abi.ErrCorrupt},
		"a short digest":         {file(`"a":` + strings.Replace(line, "7692", "", 1)), abi.ErrCorrupt},
		"a long digest":          {file(`"a":` + strings.Replace(line, "7692", "76927692", 1)), abi.ErrCorrupt},
		"an upper-case digest":   {file(`"a":` + strings.Replace(line, "c3ad", "C3AD", 1)), abi.ErrCorrupt},
		"no time":                {file(`"a":` + strings.Replace(line, "2026-11", "11", 1)), abi.ErrCorrupt},
		"a time elsewhere":       {file(`"a":` + strings.Replace(line, "03Z", "03+01:00", 1)), abi.ErrCorrupt},
		"an empty version":       {file(`"a":` + strings.Replace(line, `"version":"1"`, `"version":""`, 1)), abi.ErrCorrupt},
		"too many":               {file(strings.Join(many, ",")), abi.ErrCorrupt},
		"too large":              {file("") + strings.Repeat(" ", 1<<20), abi.ErrCorrupt},
		"a newer version":        {`{"version":2,"modules":[]}`, abi.ErrVersion},
	}
}

// Pins that can not be read are an error that says what to do, are left alone, and keep every module.
func TestBadPins(t *testing.T) {
	for name, bad := range badPins() {
		t.Run(name, func(t *testing.T) {
			m := vfs.NewMem()
			d := open(t, m, options(1))
			pin(t, d, "a", "1", "one")
			check(t, d.KeepModule(sha256.Sum256([]byte("unneeded")), []byte("unneeded")))
			mustSave(t, d, "one")
			check(t, d.Close())
			writeFile(t, m, pinsFile, []byte(bad.content))

			var log logs
			opt := options(1)
			opt.Logger = log.logger()
			d = open(t, m, opt)
			defer d.Close()
			_, err := d.Pins()
			if !errors.Is(err, bad.is) || !strings.Contains(err.Error(), "pins.json") || !strings.Contains(err.Error(), "torpor") || len(err.Error()) > 500 {
				t.Errorf("Pins: %v, want %v, the file and what to do", err, bad.is)
			}
			if _, _, err := d.Pin("b", "1", []byte("two")); !errors.Is(err, bad.is) {
				t.Errorf("Pin: %v, want %v", err, bad.is)
			}
			if err := d.Unpin("a"); !errors.Is(err, bad.is) {
				t.Errorf("Unpin: %v, want %v", err, bad.is)
			}
			mustSave(t, d, "two")
			want := []string{moduleName("one"), moduleName("unneeded"), "pins.json"}
			slices.Sort(want)
			wantNames(t, m, "modules", want...)
			log.want(t, slog.LevelWarn, "pins.json", "no module is removed")
			if got := string(readFile(t, m, pinsFile)); got != bad.content {
				t.Errorf("the file is now %.200q", got)
			}
		})
	}
}

func TestPinRefuses(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, options(0))
	defer d.Close()
	for _, c := range []struct{ name, version string }{
		{"", "1"}, {"A", "1"}, {"../a", "1"}, {strings.Repeat("a", 65), "1"},
		{"a", ""}, {"a", "1\n"}, {"a", `"`}, {"a", `\`}, {"a", "ä"}, {"a", strings.Repeat("1", statedir.MaxPinVersionBytes+1)},
	} {
		if _, _, err := d.Pin(c.name, c.version, []byte("wasm")); err == nil {
			t.Errorf("%q of version %q was pinned", c.name, c.version)
		}
	}
	if _, _, err := d.Pin("a", "1", make([]byte, statedir.MaxModuleBytes+1)); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("a large module: %v", err)
	}
	wantNames(t, m, "modules")

	// A full table.
	lines := map[string]any{}
	for i := range statedir.MaxPins {
		lines[fmt.Sprint("p", i)] = map[string]string{"sha256": fmt.Sprintf("%x", sha256.Sum256([]byte("one"))), "version": "1", "added": "2026-11-22T17:42:03Z"}
	}
	pin(t, d, "p0", "1", "one")
	// The members of this map happen to be sorted otherwise than those of the file: see to it by hand.
	b, err := json.Marshal(lines)
	check(t, err)
	text := string(b)
	text = strings.ReplaceAll(text, `{"added":"2026-11-22T17:42:03Z","sha256":`, `{"sha256":`)
	text = strings.ReplaceAll(text, `"version":"1"}`, `"version":"1","added":"2026-11-22T17:42:03Z"}`)
	writeFile(t, m, pinsFile, []byte(`{"version":1,"pins":`+text+`}`))
	if _, _, err := d.Pin("another", "1", []byte("one")); !errors.Is(err, abi.ErrTooLarge) {
		t.Errorf("one pin too many: %v", err)
	}
	pin(t, d, "p7", "2", "two")
}

// A pin keeps a module that no state names; without it, the module goes at the next start. A pin of what is
// not there is a sign of damage, and then everything stays.
func TestCollectSparesPinned(t *testing.T) {
	m := vfs.NewMem()
	again := func(content string, do func(d *statedir.Dir)) {
		t.Helper()
		d := open(t, m, options(1))
		do(d)
		mustSave(t, d, content)
		check(t, d.Close())
	}
	again("1", func(d *statedir.Dir) {
		pin(t, d, "a", "1", "one")
		check(t, d.KeepModule(sha256.Sum256([]byte("unneeded")), []byte("unneeded")))
	})
	again("2", func(*statedir.Dir) {})
	wantNames(t, m, "modules", moduleName("one"), "pins.json")
	again("3", func(d *statedir.Dir) { check(t, d.Unpin("a")) })
	again("4", func(*statedir.Dir) {})
	wantNames(t, m, "modules", "pins.json")

	again("5", func(d *statedir.Dir) {
		pin(t, d, "a", "1", "one")
		pin(t, d, "b", "1", "two")
		check(t, d.KeepModule(sha256.Sum256([]byte("unneeded")), []byte("unneeded")))
	})
	check(t, m.Remove("modules/"+moduleName("one")))
	again("6", func(*statedir.Dir) {})
	want := []string{moduleName("two"), moduleName("unneeded"), "pins.json"}
	slices.Sort(want)
	wantNames(t, m, "modules", want...)
	again("7", func(d *statedir.Dir) { pin(t, d, "a", "1", "one") })
	again("8", func(*statedir.Dir) {})
	wantNames(t, m, "modules", slices.Sorted(slices.Values([]string{moduleName("one"), moduleName("two"), "pins.json"}))...)
}

func TestSweepPins(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, options(0))
	pin(t, d, "a", "1", "one")
	check(t, d.Close())
	writeFile(t, m, "modules/pins.json.tmp-3", []byte("x"))
	writeFile(t, m, "modules/pins.json.tmp-x", []byte("x"))
	d = open(t, m, options(0))
	defer d.Close()
	wantNames(t, m, "modules", moduleName("one"), "pins.json", "pins.json.tmp-x")
}

func TestVerifyPins(t *testing.T) {
	start := func(t *testing.T) *vfs.Mem {
		m, _ := kept(t)
		d := open(t, m, options(2))
		pin(t, d, "a", "1", "one")
		pin(t, d, "b", "1", defaultModule)
		check(t, d.Close())
		wrong, all, err := verify(m, false)
		i := slices.IndexFunc(all, func(f statedir.Finding) bool { return f.Kind == statedir.KindPins })
		if err != nil || len(wrong) > 0 || i < 0 || path.Base(all[i].Path) != "pins.json" || all[i].Size == 0 {
			t.Fatalf("before: %v, %v, %v", wrong, all, err)
		}
		return m
	}
	t.Run("damaged", func(t *testing.T) {
		m := start(t)
		writeFile(t, m, pinsFile, []byte("{}"))
		before := tree(t, m)
		wrong, _, err := verify(m, false)
		check(t, err)
		if f := wrong["pins.json"]; len(wrong) != 1 || !errors.Is(f.Err, abi.ErrCorrupt) || f.Missing || f.Left == nil {
			t.Errorf("found %v", wrong)
		}
		if !maps.Equal(before, tree(t, m)) {
			t.Error("without being asked to repair, Verify changed something")
		}
		wrong, _, err = verify(m, true)
		check(t, err)
		if f := wrong["pins.json"]; f.Left != nil || !strings.Contains(f.Repair, "pins.json.corrupt-20261122T174203Z") {
			t.Errorf("repaired: %+v", f)
		}
		if got := string(readFile(t, m, "modules/pins.json.corrupt-20261122T174203Z")); got != "{}" {
			t.Errorf("set aside is %q", got)
		}
		if wrong, _, err := verify(m, false); err != nil || len(wrong) > 0 {
			t.Errorf("after the repair: %v, %v", wrong, err)
		}
		// Nothing is pinned now, but the file set aside may name what is there.
		var log logs
		opt := options(2)
		opt.Logger = log.logger()
		d := open(t, m, opt)
		defer d.Close()
		if pins, err := d.Pins(); err != nil || len(pins) > 0 {
			t.Errorf("Pins = %v, %v", pins, err)
		}
		if _, err := d.Module(sha256.Sum256([]byte("one"))); err != nil {
			t.Errorf("the module that was pinned: %v", err)
		}
		log.want(t, slog.LevelWarn, "no module is removed", "pins.json.corrupt-20261122T174203Z", "when all are pinned again, delete it")
		pin(t, d, "a", "1", "one")
	})
	t.Run("of a newer version", func(t *testing.T) {
		m := start(t)
		writeFile(t, m, pinsFile, []byte(`{"version":2}`))
		wrong, _, err := verify(m, true)
		check(t, err)
		if f := wrong["pins.json"]; !errors.Is(f.Err, abi.ErrVersion) || f.Left == nil || f.Repair != "" {
			t.Errorf("found %+v", f)
		}
		if string(readFile(t, m, pinsFile)) != `{"version":2}` {
			t.Error("the file was touched")
		}
	})
	t.Run("modules missing", func(t *testing.T) {
		m := start(t)
		check(t, m.Remove("modules/"+moduleName("one")))
		check(t, m.Remove("modules/"+moduleName(defaultModule)))
		wrong, _, err := verify(m, true)
		check(t, err)
		f := wrong["pins.json"]
		if !f.Missing || !errors.Is(f.Left, abi.ErrNotFound) || !strings.Contains(f.Left.Error(), "a 1 is pinned") ||
			strings.Contains(f.Left.Error(), "b 1") || !strings.Contains(f.Repair, "put back") {
			t.Errorf("found %+v", f)
		}
	})
	t.Run("module damaged", func(t *testing.T) {
		m := start(t)
		writeFile(t, m, "modules/"+moduleName("one"), []byte("eno"))
		wrong, _, err := verify(m, false)
		check(t, err)
		if f := wrong["pins.json"]; !errors.Is(f.Err, abi.ErrCorrupt) || !f.Missing {
			t.Errorf("found %+v", f)
		}
		if _, ok := wrong[moduleName("one")]; !ok {
			t.Errorf("the module itself is said to be sound: %v", wrong)
		}
	})
}

// A read that fails is not damage: nothing is removed, and it is said as it is.
func TestPinsThatCanNotBeRead(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, options(1))
	pin(t, d, "a", "1", "one")
	check(t, d.KeepModule(sha256.Sum256([]byte("unneeded")), []byte("unneeded")))
	mustSave(t, d, "1")
	check(t, d.Close())
	w := vfs.Faulty(m, vfs.Fault{At: 1, Sticky: true, Err: syscall.EIO, Match: func(_ vfs.Op, name string) bool { return name == pinsFile }})
	d = open(t, w, options(1))
	defer d.Close()
	if _, err := d.Pins(); !errors.Is(err, syscall.EIO) || errors.Is(err, abi.ErrCorrupt) {
		t.Errorf("Pins: %v", err)
	}
	mustSave(t, d, "2")
	w.Inject(vfs.Fault{})
	for _, wasm := range []string{"one", "unneeded"} {
		if _, err := d.Module(sha256.Sum256([]byte(wasm))); err != nil {
			t.Error(err)
		}
	}
}

func FuzzPins(f *testing.F) {
	for _, bad := range badPins() {
		if len(bad.content) < 1000 {
			f.Add([]byte(bad.content))
		}
	}
	golden, err := os.ReadFile("testdata/pins-v1.json")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(golden)
	m := vfs.NewMem()
	d, err := statedir.Open(m, options(0))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, content []byte) {
		writeFile(t, m, pinsFile, content)
		pins, err := d.Pins()
		if err != nil {
			if !errors.Is(err, abi.ErrCorrupt) && !errors.Is(err, abi.ErrVersion) {
				t.Fatalf("%v is neither damage nor a version", err)
			}
			return
		}
		// Whatever is taken for pins is what is written of them.
		if !json.Valid(content) {
			t.Fatalf("%q was taken", content)
		}
		for i, p := range pins {
			if statedir.CheckName(p.Name) != nil || i > 0 && pins[i-1].Name >= p.Name || p.Version == "" {
				t.Fatalf("read %+v", pins)
			}
		}
		if _, _, err := d.Pin("zz", "1", []byte("wasm")); err != nil {
			t.Fatal(err)
		}
		again, err := d.Pins()
		if err != nil || len(again) < len(pins) || len(again) > len(pins)+1 {
			t.Fatalf("%d pins, then %d, %v", len(pins), len(again), err)
		}
	})
}

// What is pinned can be looked at while a runtime has the folder, and without changing anything.
func TestReadPinsOfAFolderInUse(t *testing.T) {
	m := vfs.NewMem()
	d := open(t, m, options(0))
	defer d.Close()
	pin(t, d, "a", "1", "one")
	only := vfs.Faulty(m, vfs.Fault{At: 1, Sticky: true, Err: syscall.EROFS, Match: func(op vfs.Op, _ string) bool {
		return op != vfs.OpOpen && op != vfs.OpRead
	}})
	pins, err := statedir.ReadPins(only)
	if err != nil || len(pins) != 1 || pins[0].Name != "a" {
		t.Fatalf("ReadPins = %v, %v", pins, err)
	}
	if wasm, err := statedir.ReadModule(only, pins[0].Digest); err != nil || string(wasm) != "one" {
		t.Errorf("ReadModule = %q, %v", wasm, err)
	}
	if _, err := statedir.ReadModule(only, sha256.Sum256([]byte("two"))); !errors.Is(err, abi.ErrNotFound) {
		t.Errorf("ReadModule of what is not there: %v", err)
	}
}
