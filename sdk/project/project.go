// Package project makes and builds the projects that serializers are written in. [New] writes one from the
// template that each SDK has in its examples/settings, with a copy of the SDK in it, so that it stands for
// itself; [Build] turns one into a .wasm with the flags that a host wants and that give the same bytes
// wherever it lies; [Detect] says which language one is in.
//
// The package knows no Wasm host: what it builds is checked by who calls it.
package project

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
)

// sdkFolder is where a project keeps its copy of the SDK.
const sdkFolder = "torpor-sdk"

// nameFile is where New notes the project's name, which its language may have no place for, for Build.
const nameFile = sdkFolder + "/project-name"

// templateName is the serializer's name in the templates: as a word of its own it becomes the project's.
const templateName = "settings"

// MaxNameBytes is the longest name of a project.
const MaxNameBytes = 63

// RefusedError says why what was asked for cannot be done, before anything has been: a bad name, a language
// there is none of, a folder that is taken, a folder that is no project.
type RefusedError struct{ Reason string }

func (e *RefusedError) Error() string { return e.Reason }

func refuse(format string, args ...any) error { return &RefusedError{fmt.Sprintf(format, args...)} }

// CheckName says why name cannot be a project's. It must match [a-z][a-z0-9]*(-[a-z0-9]+)* and have at most
// [MaxNameBytes] characters: so it can be a package, a crate, a folder and a file in every language.
func CheckName(name string) error {
	ok := name != "" && len(name) <= MaxNameBytes && 'a' <= name[0] && name[0] <= 'z'
	for i := 0; ok && i < len(name); i++ {
		switch c := name[i]; {
		case 'a' <= c && c <= 'z', '0' <= c && c <= '9':
		case c == '-':
			ok = name[i-1] != '-' && i < len(name)-1
		default:
			ok = false
		}
	}
	if ok {
		return nil
	}
	if len(name) > MaxNameBytes {
		name = name[:MaxNameBytes] + "…"
	}
	return refuse("name %q is not allowed: it must begin with a letter and have at most %d lower-case letters, digits and single '-' between them, such as orders or shop-orders",
		name, MaxNameBytes)
}

// Options of [New].
type Options struct {
	// Name of the serializer, and of what is built; see [CheckName]. Some names that it allows are taken: by
	// the SDK, or in the language.
	Name string
	// Language is one of [Languages].
	Language string
	// Dir is the folder to make, in one that is there; it may be there and empty. "": Name, in this one.
	Dir string
	// Module is the path of the Go module; "": example.org/Name. Only for go.
	Module string
}

// Languages lists the languages there are SDKs for.
func Languages() []string {
	var names []string
	for _, l := range languages() {
		names = append(names, l.name)
	}
	return names
}

// language is what is known of an SDK.
type language struct {
	name     string
	reserved []string // names that no project in it can have
	template string   // in the repository
	sdk      []string // files and folders of the repository that a project needs a copy of
	strip    string   // what their paths begin with, which the copy leaves out
	// ours are files of a project that need "../.." to become the SDK's copy.
	ours []string
	// also gives files that no template has.
	also func(o Options) map[string]string
	// detect reports whether the files in a folder are a project's.
	detect func(dir string, files []string) bool
	build  func(b *builder) error
}

func languages() []language {
	return []language{goLanguage(), rustLanguage(), cLanguage(), assemblyScriptLanguage()}
}

// New writes the project that o describes, from sdk, which is the root of Torpor's repository or the part
// of it that [Sources] names. The error is a *[RefusedError] if it cannot be what o says. After an error
// there is nothing new on disk.
func New(sdk fs.FS, o Options) (dir string, err error) {
	lang, err := check(&o)
	if err != nil {
		return "", err
	}
	files, err := lang.files(sdk, o)
	if err != nil {
		return "", err
	}
	return o.Dir, place(o.Dir, files)
}

// check completes options.
func check(o *Options) (language, error) {
	if err := CheckName(o.Name); err != nil {
		return language{}, err
	}
	if o.Dir == "" {
		o.Dir = o.Name
	}
	all := languages()
	i := slices.IndexFunc(all, func(l language) bool { return l.name == o.Language })
	switch {
	case o.Language == "":
		return language{}, refuse("which language? There are SDKs for %s", strings.Join(Languages(), ", "))
	case i < 0:
		return language{}, refuse("language %.40q: there are SDKs for %s", o.Language, strings.Join(Languages(), ", "))
	case o.Module != "" && o.Language != langGo:
		return language{}, refuse("a module path is for %s only", langGo)
	}
	if o.Module == "" {
		o.Module = "example.org/" + o.Name
	}
	switch {
	case slices.Contains([]string{"torpor", sdkFolder, "torpor-test"}, o.Name):
		return language{}, refuse("name %q is not allowed: the SDK has it; choose another, such as orders", o.Name)
	case slices.Contains(all[i].reserved, o.Name):
		return language{}, refuse("name %q is not allowed: in %s it is reserved; choose another, such as orders", o.Name, all[i].name)
	}
	return all[i], checkModulePath(o.Module)
}

// Sources lists the files of the repository root sdk that New reads, for whoever carries a copy of them.
func Sources(sdk fs.FS) ([]string, error) {
	var all []string
	for _, l := range languages() {
		for _, root := range append([]string{l.template}, l.sdk...) {
			list, err := sourcesBelow(sdk, root, root == l.template)
			if err != nil {
				return nil, err
			}
			all = append(all, list...)
		}
	}
	slices.Sort(all)
	return slices.Compact(all), nil
}

// sourcesBelow lists the files of a folder, or the file, that belong to a source: nothing that a build or
// the tests of the SDK have left.
func sourcesBelow(sdk fs.FS, root string, isTemplate bool) ([]string, error) {
	var list []string
	err := fs.WalkDir(sdk, root, func(name string, e fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		base := path.Base(name)
		if e.IsDir() {
			built := base == "node_modules" || base == "target" || base == "build" || base == sdkFolder
			apart := !isTemplate && (base == "examples" || base == "testdata" || base == "tests")
			if name != root && (built || apart || strings.HasPrefix(base, "_")) {
				return fs.SkipDir
			}
			return nil
		}
		switch {
		case !e.Type().IsRegular(), path.Ext(base) == ".wasm", path.Ext(base) == ".wat", path.Ext(base) == ".map":
		case !isTemplate && (strings.HasSuffix(base, "_test.go") || base == "Cargo.lock" || strings.HasPrefix(base, ".")):
		case !isTemplate && base == "package-lock.json":
		default:
			list = append(list, name)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("sources of the SDK: %w", err)
	}
	return list, nil
}

// files are the files of a new project, by their path in it.
func (l language) files(sdk fs.FS, o Options) (map[string][]byte, error) {
	files := map[string][]byte{}
	add := func(to, from string) ([]byte, error) {
		b, err := fs.ReadFile(sdk, from)
		if err != nil {
			return nil, fmt.Errorf("template for %s: %w", l.name, err)
		}
		files[to] = b
		return b, nil
	}
	template, err := sourcesBelow(sdk, l.template, true)
	if err != nil {
		return nil, err
	}
	for _, name := range template {
		to := renameFile(strings.TrimPrefix(name, l.template+"/"), o.Name)
		b, err := add(to, name)
		if err != nil {
			return nil, err
		}
		if slices.Contains(l.ours, path.Base(to)) {
			b = bytes.ReplaceAll(b, []byte("../.."), []byte(sdkFolder))
		}
		if isText(to) {
			b = []byte(rename(string(b), o.Name))
		}
		files[to] = b
	}
	for _, root := range append([]string{"LICENSE"}, l.sdk...) {
		list, err := sourcesBelow(sdk, root, false)
		if err != nil {
			return nil, err
		}
		for _, name := range list {
			if _, err := add(path.Join(sdkFolder, strings.TrimPrefix(name, l.strip)), name); err != nil {
				return nil, err
			}
		}
	}
	files[nameFile] = []byte(o.Name + "\n")
	for name, content := range l.also(o) {
		if _, there := files[name]; !there {
			files[name] = []byte(content)
		}
	}
	return files, nil
}

// isText reports whether a template's file may speak of the serializer by name. Fixtures do not: they are
// states.
func isText(name string) bool {
	return !strings.HasPrefix(name, "fixtures/") && !strings.Contains(name, "/fixtures/")
}

// renameFile is the name in a project of a template's file.
func renameFile(file, name string) string {
	elements := strings.Split(file, "/")
	for i, e := range elements {
		if rest, ok := strings.CutPrefix(e, templateName); ok && (rest == "" || rest[0] == '.' || rest[0] == '_') {
			elements[i] = name + rest // settings.c, settings_test.c
		}
	}
	return strings.Join(elements, "/")
}

// rename puts name where a template's text means its serializer: where the word stands alone between
// quotes, as "settings", where it is a file's or a folder's name, as settings.wasm, settings_test or
// examples/settings, in a heading, and behind the word package or command. The plain word is left alone,
// for a call has settings, too.
func rename(text, name string) string {
	var b strings.Builder
	at := 0
	for at < len(text) {
		i := strings.Index(text[at:], templateName)
		if i < 0 {
			break
		}
		from, to := at+i, at+i+len(templateName)
		b.WriteString(text[at:from])
		switch {
		case isCrate(text[:from], text[to:]):
			b.WriteString(strings.ReplaceAll(name, "-", "_"))
		case isName(text[:from], text[to:]):
			b.WriteString(name)
		default:
			b.WriteString(templateName)
		}
		at = to
	}
	b.WriteString(text[at:])
	return b.String()
}

// isName reports whether the word between before and after is the serializer's name.
func isName(before, after string) bool {
	var prev, next byte = '\n', '\n'
	if before != "" {
		prev = before[len(before)-1]
	}
	if after != "" {
		next = after[0]
	}
	if isWord(prev) || prev == '.' {
		return false
	}
	if rest, ok := strings.CutPrefix(after, "_test"); ok { // a file or a program
		return rest == "" || !isWord(rest[0])
	}
	if isWord(next) {
		return false
	}
	switch prev {
	case '"', '\'', '`', '*':
		if next == prev {
			return true
		}
	case '/': // the name of a folder, or the end of a path
		return next != '.' || isFile(after)
	}
	if next == '.' && isFile(after) {
		return true
	}
	line := before[strings.LastIndexByte(before, '\n')+1:]
	return slices.ContainsFunc([]string{"# ", "Command ", "Package ", "package "}, func(lead string) bool { return strings.HasSuffix(line, lead) })
}

// isFile reports whether what follows a name makes it a file's.
func isFile(after string) bool {
	extension := after[1:]
	end := 0
	for end < len(extension) && isWord(extension[end]) {
		end++
	}
	return slices.Contains([]string{"go", "rs", "c", "h", "ts", "js", "mjs", "wasm", "json", "toml", "md"}, extension[:end])
}

// isCrate reports whether the word is the name of a Rust crate as its compiler has it: the first of a path,
// as settings::Lines, or what cargo builds.
func isCrate(before, after string) bool {
	return strings.HasSuffix(before, "/release/") && strings.HasPrefix(after, ".wasm") || strings.HasPrefix(after, "::") && (before == "" || !isWord(before[len(before)-1]) && before[len(before)-1] != ':')
}

func isWord(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '_' || c == '-' || c >= 0x80
}

// place writes files to the folder dir, all of them or none.
func place(dir string, files map[string][]byte) (err error) {
	dir = filepath.Clean(dir)
	entries, err := os.ReadDir(dir)
	exists := err == nil
	switch {
	case exists && len(entries) > 0:
		return refuse("folder %s is there already and not empty: choose another with --dir", dir)
	case exists, errors.Is(err, fs.ErrNotExist):
	default:
		if info, serr := os.Stat(dir); serr == nil && !info.IsDir() {
			return refuse("%s is there already and no folder: choose another with --dir", dir)
		}
		return fmt.Errorf("new project: %w", err)
	}
	if !exists {
		if target, err := os.Readlink(dir); err == nil {
			return refuse("%s is a symbolic link to %s, which is not there: make that folder, remove the link, or choose another with --dir", dir, target)
		}
	}
	parent := filepath.Dir(dir)
	if exists {
		parent = dir // so that it stays the folder that it is, perhaps somebody's working directory
	} else if _, err := os.Stat(parent); errors.Is(err, fs.ErrNotExist) {
		return refuse("folder %s, in which the project would be made, is not there: make it first, or choose another with --dir", parent)
	}
	draft, err := os.MkdirTemp(parent, ".torpor-new-")
	if err != nil {
		return fmt.Errorf("new project: %w", err)
	}
	defer func() {
		if rerr := os.RemoveAll(draft); rerr != nil {
			err = errors.Join(err, fmt.Errorf("new project: %w", rerr))
		}
	}()
	whole := filepath.Join(draft, "project")
	if err := write(whole, files); err != nil {
		return fmt.Errorf("new project: %w", err)
	}
	if !exists {
		if err := os.Rename(whole, dir); err != nil {
			return fmt.Errorf("new project: %w", err)
		}
		return nil
	}
	return moveInto(dir, whole)
}

func write(root string, files map[string][]byte) error {
	if err := os.Mkdir(root, 0o777); err != nil {
		return err
	}
	for name, content := range files {
		file := filepath.Join(root, filepath.FromSlash(name))
		if err := os.MkdirAll(filepath.Dir(file), 0o777); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o666); err != nil {
			return err
		}
	}
	return nil
}

// moveInto moves what is in the folder from into dir; after an error nothing of it is there.
func moveInto(dir, from string) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return fmt.Errorf("new project: %w", err)
	}
	for i, e := range entries {
		if err := os.Rename(filepath.Join(from, e.Name()), filepath.Join(dir, e.Name())); err != nil {
			err = fmt.Errorf("new project: %w", err)
			for _, e := range entries[:i] {
				err = errors.Join(err, os.RemoveAll(filepath.Join(dir, e.Name())))
			}
			return err
		}
	}
	return nil
}
