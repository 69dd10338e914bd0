package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// DefaultFile is the configuration file that is read if none is named and it is there.
const DefaultFile = "torpor.yaml"

// Form says what a file may have beside services that are not embedded.
type Form struct {
	Settings []Setting // for the whole runtime
	Embedded []string  // names of the services that run in this process
}

// Setting is a key of the file that is one value. The file's text is checked here; what it means is the
// caller's.
type Setting struct {
	Key     string
	About   string
	Default string
	Kind    Kind
	Values  []string // of a Choice, in any case
	// Least and Most bound numbers, sizes in bytes and durations in nanoseconds.
	Least, Most int64
	Module      bool // it may stand under modules.NAME too
}

// Kind is what a [Setting] holds.
type Kind int

// The kinds of settings.
const (
	Text     Kind = iota
	Choice        // one of Values
	Duration      // seconds, or such as 500ms
	Size          // bytes, or such as 64MiB
	Number        // a whole number
	Switch        // 1, true, 0, false
)

// setting is a Setting as a value. What it gives is the text that a flag would have.
type setting struct {
	Setting
	to *string
}

func (v setting) read(r *reader, at string, n *node) {
	number, before := n.number(), len(r.all)
	switch v.Kind {
	case Text:
		text{to: new(string), what: "a text"}.read(r, at, n)
		number = n.text
	case Choice:
		oneOf[string]{new(string), v.Values}.read(r, at, n)
	case Duration:
		span{to: new(time.Duration), least: time.Duration(v.Least), most: time.Duration(v.Most)}.read(r, at, n)
	case Size:
		whole[int64]{to: new(int64), least: v.Least, most: v.Most, bytes: true}.read(r, at, n)
	case Number:
		if n.kind != scalar || n.tag == tagBool {
			r.want(at, n, wholeWhat(v.Least, v.Most, false))
		} else if _, err := parseWhole(number, v.Least, v.Most, false); err != nil {
			r.want(at, n, wholeWhat(v.Least, v.Most, false))
		}
	case Switch:
		if n.kind != scalar || !slices.ContainsFunc(switches(), func(s string) bool { return strings.EqualFold(s, number) }) {
			r.choose(at, n, switches())
		}
	}
	if len(r.all) == before {
		*v.to = number
	}
}

// switches are the words of a Switch.
func switches() []string { return []string{"1", "true", "0", "false"} }

func (v setting) schema(bool) map[string]any {
	switch v.Kind {
	case Choice:
		return wordsSchema(v.Values)
	case Duration:
		return spanSchema(time.Duration(v.Least), time.Duration(v.Most), false)
	case Size:
		return wholeSchema(v.Least, v.Most, true)
	case Number:
		return map[string]any{"anyOf": []any{wholeSchema(v.Least, v.Most, false), map[string]any{"type": "string", "pattern": countText}}}
	case Switch:
		s := wordsSchema(switches())
		s["anyOf"] = append(s["anyOf"].([]any), map[string]any{"enum": []any{0, 1, true, false}})
		return s
	}
	return text{}.schema(true)
}

func (v setting) show(bool) any { return orNil(*v.to) }

// settings makes a group of the settings there are, whose values land in values under prefix and their key.
func (f Form) settings(module bool, prefix string, values map[string]*string) []key {
	var keys []key
	for _, s := range f.Settings {
		if module && !s.Module {
			continue
		}
		to := new(string)
		values[join(prefix, s.Key)] = to
		keys = append(keys, key{name: s.Key, about: s.About, def: s.Default, value: setting{s, to}})
	}
	return keys
}

// Document is a file that has been read. Values and lines are known at once, services when [Document.Services]
// is asked for them.
type Document struct {
	form     Form
	path     string
	folder   string // of the file, absolute
	root     *node
	values   map[string]*string
	services []shown
}

// shown is a service as Effective shows it.
type shown struct {
	name  string
	group group
}

// Read reads a file's text. path is for messages, and relative paths in the file begin at its folder. The
// error has every mistake of the file but those that [Document.Services] finds; the document can be asked for
// these nevertheless.
func Read(form Form, path string, b []byte) (*Document, error) {
	d := &Document{form: form, path: path, values: map[string]*string{}}
	r := &reader{}
	if folder, err := filepath.Abs(filepath.Dir(path)); err != nil {
		r.add(&node{file: path}, "", "its folder is not known: %v", err)
	} else {
		d.folder = folder
	}
	d.root = parse(path, b, &r.faults)
	keys := form.settings(false, "", d.values)
	keys = append(keys, key{name: keyServices, value: skipped{}}, key{name: keyModules, value: modules{d}})
	group{keys: keys}.read(r, "", d.root)
	return d, r.err()
}

// Empty is the document of no file: the embedded services with their defaults.
func Empty(form Form) *Document { return &Document{form: form, root: &node{kind: mapping}} }

// skipped is read at another time.
type skipped struct{}

func (skipped) read(*reader, string, *node) {}
func (skipped) schema(bool) map[string]any  { return map[string]any{} }
func (skipped) show(bool) any               { return nil }

// modules are settings by module.
type modules struct{ d *Document }

func (v modules) read(r *reader, at string, n *node) {
	for _, p := range r.pairs(at, n, "names of modules", modulePattern) {
		here := join(at, p.key)
		group{keys: v.d.form.settings(true, here, v.d.values)}.read(r, here, p.value)
	}
}

func (v modules) schema(bool) map[string]any {
	return mapSchema(modulePattern, group{keys: v.d.form.settings(true, "", map[string]*string{})}.schema(true))
}

func (modules) show(bool) any { return nil }

// Values gives the settings that the file has, as flags have them, by key: "listen", "modules.orders.limit_time".
func (d *Document) Values() map[string]string {
	out := map[string]string{}
	for key, v := range d.values {
		if *v != "" {
			out[key] = *v
		}
	}
	return out
}

// Folder is the file's folder, where relative paths in it begin; "" without a file.
func (d *Document) Folder() string { return d.folder }

// Where says where a key stands, such as "torpor.yaml:3: listen".
func (d *Document) Where(key string) string {
	at := d.path
	n := d.root
	for _, name := range strings.Split(key, ".") {
		if n = n.get(name); n == nil {
			return at + ": " + key
		}
	}
	return fmt.Sprintf("%s:%d: %s", at, n.line, key)
}

// Modules are the names under modules, in order.
func (d *Document) Modules() []string {
	var names []string
	if m := d.root.get(keyModules); m != nil {
		names = m.keys()
	}
	slices.Sort(names)
	return names
}

// Services gives the services ordered by name, those that are switched off left out. base is what is said for
// all, environ the runtime's environment ("NAME=value"). The error has every mistake.
func (d *Document) Services(base Strategies, environ []string) ([]Service, error) {
	r := &reader{folder: d.folder, lookup: lookup(environ)}
	d.services = nil
	given := map[string]*node{}
	for _, name := range d.form.Embedded {
		given[name] = &node{kind: mapping, file: d.path}
	}
	for _, p := range r.pairs(keyServices, d.section(), "names of services: a letter a to z, then letters, digits, _ and -", namePattern) {
		given[p.key] = p.value
	}
	var all []Service
	for _, name := range slices.Sorted(maps.Keys(given)) {
		if s, on := d.service(r, name, given[name], base); on {
			all = append(all, s)
		}
	}
	d.clashes(r, all)
	return all, r.err()
}

// section is what stands under services.
func (d *Document) section() *node {
	if n := d.root.get(keyServices); n != nil {
		return n
	}
	return &node{}
}

// service reads one service; on is false if it is switched off.
func (d *Document) service(r *reader, name string, n *node, base Strategies) (_ Service, on bool) {
	s := &Service{Name: name, Embedded: slices.Contains(d.form.Embedded, name), WakeTimeout: DefaultWakeTimeout, Upgraded: UpgradedRelease, Strategies: base}
	s.Reads.Methods = defaultMethods()
	at, on := join(keyServices, name), true
	var g group
	if s.Embedded {
		g = embeddedForm(s, &on)
	} else {
		g = serviceForm(s, &on)
		n = d.withPreset(r, at, n)
	}
	g.read(r, at, n)
	d.services = append(d.services, shown{name, g})
	return *s, on
}

func lookup(environ []string) func(string) (string, bool) {
	values := map[string]string{}
	for _, e := range environ {
		if name, v, ok := strings.Cut(e, "="); ok {
			values[name] = v
		}
	}
	return func(name string) (string, bool) {
		v, ok := values[name]
		return v, ok
	}
}

// withPreset puts n above the preset that it names. Where the file chooses otherwise than the preset, run or
// upstream, a way to be ready, a source, what belongs to the preset's choice is left out.
func (d *Document) withPreset(r *reader, at string, n *node) *node {
	named := n.get(keyPreset)
	if named == nil || named.kind != scalar {
		return n
	}
	b, err := Preset(named.text)
	if err != nil {
		r.add(named, join(at, keyPreset), "is %s; there are %s", said(named), strings.Join(Presets(), ", "))
		// Without it everything that it would have given is missing: that would be told of in vain.
		return &node{kind: mapping, file: n.file, line: n.line, pairs: []pair{{key: keyUpstream, value: &node{kind: scalar, tag: tagText, text: "http://preset"}}}}
	}
	base := parse("preset "+named.text, b, &r.faults)
	if n.get(keyUpstream) != nil {
		base.drop(keyRun, keyReady, keyIdle)
	}
	if n.get(keyRun) != nil {
		base.drop(keyUpstream)
	}
	if n.get(keyReady) != nil {
		base.drop(keyReady)
	}
	for _, p := range n.get(keyParts).all() {
		theirs, own := base.get(keyParts).get(p.key).get(keySource), p.value.get(keySource)
		if theirs != nil && own != nil && !slices.Equal(theirs.keys(), own.keys()) {
			base.get(keyParts).get(p.key).drop(keySource)
		}
	}
	return n.over(base)
}

// all gives the pairs of a map, none of what is not there.
func (n *node) all() []pair {
	if n == nil {
		return nil
	}
	return n.pairs
}

// clashes tells of services that the same requests would go to.
func (d *Document) clashes(r *reader, all []Service) {
	for i, a := range all {
		for _, b := range all[:i] {
			what, clash := a.Match.clash(b.Match)
			if !clash {
				continue
			}
			at := join(keyServices, a.Name)
			n := d.section().get(a.Name)
			if n == nil {
				n = &node{file: d.path}
			}
			if m := n.get("match"); m != nil {
				n = m
			}
			r.add(n, join(at, "match"), "takes the same requests as services.%s (%s); each must have a condition of its own", b.Name, what)
		}
	}
}

// clash reports whether there are requests that both match, with nothing to tell which is meant: they have the
// same kinds of conditions, and for each kind a value in common.
func (m Match) clash(other Match) (what string, clash bool) {
	if m.none() || other.none() || !maps.Equal(m.Headers, other.Headers) {
		return "", false
	}
	var common []string
	for _, c := range []struct {
		name       string
		ours, them []string
	}{{"host", m.Hosts, other.Hosts}, {"path", m.Paths, other.Paths}, {"aws", m.AWS, other.AWS}} {
		if len(c.ours) == 0 && len(c.them) == 0 {
			continue
		}
		i := slices.IndexFunc(c.ours, func(v string) bool { return slices.Contains(c.them, v) })
		if i < 0 {
			return "", false
		}
		common = append(common, c.name+" "+c.ours[i])
	}
	for _, name := range slices.Sorted(maps.Keys(m.Headers)) {
		common = append(common, "header "+name)
	}
	return strings.Join(common, ", "), true
}

// none reports whether there is no condition, as with an embedded service that takes the rest.
func (m Match) none() bool { return len(m.Hosts)+len(m.Paths)+len(m.Headers)+len(m.AWS) == 0 }

// Effective gives the services as [Document.Services] has read them, in the form of the file, with presets
// merged and defaults filled in. Values of environments and headers are masked, and what variables gave to
// commands is left as ${NAME}, unless secrets.
func (d *Document) Effective(secrets bool) map[string]any {
	out := map[string]any{}
	for _, s := range d.services {
		out[s.name] = s.group.show(secrets)
	}
	return out
}

// Command is a service's command as the file has it, without what variables gave; nil if there is none.
func (d *Document) Command(service string) []string {
	for _, s := range d.services {
		if s.name != service {
			continue
		}
		run, _ := s.group.show(false).(map[string]any)
		if run, _ = run[keyRun].(map[string]any); run != nil {
			words, _ := run["command"].([]string)
			return words
		}
	}
	return nil
}
