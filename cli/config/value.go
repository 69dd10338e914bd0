package config

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/torpor-run/torpor/runtime"
)

// value is a value of the form: it is read into what it is bound to, described by a schema, and shown again.
type value interface {
	read(r *reader, at string, n *node)
	// schema is its JSON Schema. A complete one says what must be there; the other one is for what is merged
	// above a preset.
	schema(complete bool) map[string]any
	// show is what it is bound to, as it stands in a file; nil for nothing. Secrets are shown only if secrets.
	show(secrets bool) any
}

// key is a key of a map whose keys are fixed.
type key struct {
	name, about string
	def         string // the default, for people
	required    bool
	value       value
}

// reader reads values.
type reader struct {
	faults
	folder string // where relative paths begin
	lookup func(name string) (string, bool)
}

// want tells that n is not what it must be; what says what it must be, with an article or an example.
func (r *reader) want(at string, n *node, what string) {
	switch {
	case n.kind != scalar:
		r.add(n, at, "%s; it must be %s", n.kind, what)
	default:
		r.add(n, at, "is %s; it must be %s", said(n), what)
	}
}

// said is a scalar as it stands in the file, cut to a bearable length.
func said(n *node) string {
	text := n.text
	if len(text) > 100 {
		text = strings.ToValidUTF8(text[:100], "") + "…"
	}
	if n.plain && n.tag != tagText {
		return text
	}
	return strconv.Quote(text)
}

// Pieces of patterns: they are regular expressions of RE2 and of ECMAScript alike, for the schema has them too.
const (
	namePattern    = `^[a-z][a-z0-9_-]{0,63}$`
	modulePattern  = `^[a-z0-9][a-z0-9_-]{0,63}$`
	durationNumber = `([0-9]+(\.[0-9]*)?|\.[0-9]+)`
	durationText   = `^(` + durationNumber + `([eE][+-]?[0-9]+)?|(` + durationNumber + `(ns|us|µs|μs|ms|s|m|h))+)$`
	sizeText       = `^[0-9]+([eE]\+?[0-9]+)? *(KiB|MiB|GiB|TiB)?$`
	countText      = `^[0-9]+([eE]\+?[0-9]+)?$`
	hostPattern    = `^(\*\.)?[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?)*$`
	pathPattern    = `^(/|(/[^/?#\s]+)+/?)$`
	awsPattern     = `^[a-z][a-z0-9-]*$`
	methodPattern  = `^[A-Za-z]+$`
	actionPattern  = `^[A-Za-z][A-Za-z0-9_]*$`
	changePattern  = `^([A-Za-z][A-Za-z0-9_]*|/|(/[^/?#\s]+)+/?)$`
	headerPattern  = "^[A-Za-z0-9!#$%&'*+.^_`|~-]+$"
	printPattern   = `^[^\x00-\x1f\x7f]+$`
	envNamePattern = `^[^=\s]+$`
	urlPattern     = `^https?://[^/?#@\s]+([/?][^#\s]*)?$`
	originPattern  = `^http://[^/?#@\s]+/?$`
	mediaPattern   = `^[A-Za-z0-9!#$&^_.+-]+/[A-Za-z0-9!#$&^_.+-]+(;.*)?$`
	patternPattern = `^.+$`
	envTextPattern = `^([^$]|\$\$|\$\{[A-Za-z_][A-Za-z0-9_]*(:-[^}]*)?\})*$`
)

// text is a text.
type text struct {
	to      *string
	what    string // it must be, with an example
	pattern string
	check   func(string) error // what the pattern cannot say
	folder  bool               // a path of the file system: relative ones begin at the file's folder
	tidy    func(string) string
}

func (v text) read(r *reader, at string, n *node) {
	if n.kind != scalar || n.tag != tagText || n.text == "" || !matches(v.pattern, n.text) {
		r.want(at, n, v.what)
		return
	}
	if v.check != nil {
		if err := v.check(n.text); err != nil {
			r.add(n, at, "is %s: %v; it must be %s", said(n), err, v.what)
			return
		}
	}
	if v.folder {
		if err := misspelt(n.text); err != nil {
			r.add(n, at, "%v", err)
			return
		}
	}
	*v.to = n.text
	if v.folder && !filepath.IsAbs(n.text) && !strings.HasPrefix(n.text, "{data}") && !strings.HasPrefix(n.text, "{folder}") {
		*v.to = filepath.Join(r.folder, n.text)
	}
	if v.tidy != nil {
		*v.to = v.tidy(n.text)
	}
}

func (v text) schema(bool) map[string]any {
	s := map[string]any{"type": "string", "minLength": 1}
	if v.pattern != "" {
		s["pattern"] = v.pattern
	}
	return s
}

func (v text) show(bool) any { return orNil(*v.to) }

// textBytes is a text whose bytes are wanted.
type textBytes struct{ to *[]byte }

func (v textBytes) read(r *reader, at string, n *node) {
	if n.kind != scalar || n.tag != tagText {
		r.want(at, n, "a text, such as '{}'")
		return
	}
	*v.to = []byte(n.text)
}

func (v textBytes) schema(bool) map[string]any { return map[string]any{"type": "string"} }

func (v textBytes) show(bool) any { return orNil(string(*v.to)) }

// matches holds s against a pattern; "" is every one.
func matches(pattern, s string) bool {
	return pattern == "" || regexp.MustCompile(pattern).MatchString(s)
}

// orNil is v, or nil if it is the zero value.
func orNil[T comparable](v T) any {
	var zero T
	if v == zero {
		return nil
	}
	return v
}

// oneOf is one of a few words, in any case.
type oneOf[T ~string] struct {
	to  *T
	all []T
}

func (v oneOf[T]) read(r *reader, at string, n *node) {
	if n.kind == scalar && n.tag == tagText {
		for _, a := range v.all {
			if strings.EqualFold(n.text, string(a)) {
				*v.to = a
				return
			}
		}
	}
	r.choose(at, n, texts(v.all))
}

// choose tells that n is none of what is allowed.
func (r *reader) choose(at string, n *node, allowed []string) {
	if n.kind != scalar {
		r.add(n, at, "%s; allowed are %s", n.kind, strings.Join(allowed, ", "))
		return
	}
	r.add(n, at, "is %s; allowed are %s", said(n), strings.Join(allowed, ", "))
}

func texts[T ~string](all []T) []string {
	out := make([]string, len(all))
	for i, a := range all {
		out[i] = string(a)
	}
	return out
}

func (v oneOf[T]) schema(bool) map[string]any { return wordsSchema(texts(v.all)) }

// wordsSchema allows words in any case, and lets editors offer them as they are written.
func wordsSchema(words []string) map[string]any {
	patterns := make([]string, len(words))
	for i, w := range words {
		patterns[i] = anyCase(w)
	}
	return map[string]any{"anyOf": []any{
		map[string]any{"enum": words},
		map[string]any{"type": "string", "pattern": "^(" + strings.Join(patterns, "|") + ")$"},
	}}
}

// anyCase is a pattern of a word of ASCII letters in any case.
func anyCase(word string) string {
	var b strings.Builder
	for _, c := range word {
		if up, low := strings.ToUpper(string(c)), strings.ToLower(string(c)); up != low {
			b.WriteString("[" + up + low + "]")
		} else {
			b.WriteString(regexp.QuoteMeta(string(c)))
		}
	}
	return b.String()
}

func (v oneOf[T]) show(bool) any { return orNil(string(*v.to)) }

// flag is true or false.
type flag struct {
	to  *bool
	def bool
}

func (v flag) read(r *reader, at string, n *node) {
	if b, ok := n.any().(bool); ok {
		*v.to = b
		return
	}
	r.want(at, n, "true or false")
}

func (v flag) schema(bool) map[string]any { return map[string]any{"type": "boolean"} }

func (v flag) show(bool) any {
	if *v.to == v.def {
		return nil
	}
	return *v.to
}

// whole is a whole number, or a size in bytes.
type whole[T ~int | ~int64] struct {
	to          *T
	least, most int64
	bytes       bool
	zero        bool // 0 is not as good as nothing
}

func (v whole[T]) read(r *reader, at string, n *node) {
	if n.kind != scalar || n.tag == tagBool || !v.bytes && n.tag == tagText {
		r.want(at, n, v.what())
		return
	}
	i, err := parseWhole(n.number(), v.least, v.most, v.bytes)
	if err != nil {
		r.want(at, n, v.what())
		return
	}
	*v.to = T(i)
}

func (v whole[T]) what() string { return wholeWhat(v.least, v.most, v.bytes) }

func wholeWhat(least, most int64, bytes bool) string {
	if bytes {
		return fmt.Sprintf("bytes, or a number of KiB, MiB, GiB or TiB, from %s to %s", FormatSize(least), FormatSize(most))
	}
	return fmt.Sprintf("a whole number from %d to %d", least, most)
}

func (v whole[T]) schema(bool) map[string]any { return wholeSchema(v.least, v.most, v.bytes) }

func wholeSchema(least, most int64, bytes bool) map[string]any {
	number := map[string]any{"type": "integer", "minimum": least, "maximum": most}
	if !bytes {
		return number
	}
	return map[string]any{"anyOf": []any{number, map[string]any{"type": "string", "pattern": sizeText}}}
}

func (v whole[T]) show(bool) any {
	switch {
	case *v.to == 0 && !v.zero:
		return nil
	case v.bytes:
		return FormatSize(int64(*v.to))
	}
	return int64(*v.to)
}

// span is a duration: seconds, or as Go writes it.
type span struct {
	to          *time.Duration
	least, most time.Duration
	zero        bool // 0 is allowed too
}

func (v span) read(r *reader, at string, n *node) {
	if n.kind == scalar && n.tag != tagBool {
		d, err := ParseDuration(n.number())
		if err == nil && (d >= v.least || v.zero && d == 0) && d <= v.most {
			*v.to = d
			return
		}
	}
	what := fmt.Sprintf("seconds or a duration such as 500ms, from %v to %v", FormatDuration(v.least), FormatDuration(v.most))
	if v.zero {
		what += ", or 0"
	}
	r.want(at, n, what)
}

func (v span) schema(bool) map[string]any { return spanSchema(v.least, v.most, v.zero) }

func spanSchema(least, most time.Duration, zero bool) map[string]any {
	ways := []any{
		map[string]any{"type": "number", "minimum": least.Seconds(), "maximum": most.Seconds()},
		map[string]any{"type": "string", "pattern": durationText},
	}
	if zero && least > 0 {
		ways = append(ways, map[string]any{"const": 0})
	}
	return map[string]any{"anyOf": ways}
}

func (v span) show(bool) any {
	if *v.to == 0 {
		return nil
	}
	return FormatDuration(*v.to)
}

// ParseDuration reads seconds, or a duration as Go writes it. It is not negative.
func ParseDuration(s string) (time.Duration, error) {
	if !matches(durationText, s) {
		return 0, fmt.Errorf("%q is no duration", s)
	}
	if seconds, err := strconv.ParseFloat(s, 64); err == nil && seconds < 1e9 {
		return time.Duration(seconds * float64(time.Second)), nil
	}
	return time.ParseDuration(s)
}

// FormatDuration writes a duration as short as ParseDuration reads it: 10m, not 10m0s.
func FormatDuration(d time.Duration) string {
	s := d.String()
	for _, zero := range []string{"m0s", "h0m"} {
		if strings.HasSuffix(s, zero) {
			s = s[:len(s)-2]
		}
	}
	return s
}

// sizeUnit is a unit of bytes.
type sizeUnit struct {
	name  string
	shift int
}

// sizeUnits are the units of bytes, the largest first.
func sizeUnits() []sizeUnit { return []sizeUnit{{"TiB", 40}, {"GiB", 30}, {"MiB", 20}, {"KiB", 10}} }

// ParseSize reads bytes, or a number of KiB, MiB, GiB or TiB, from least to most.
func ParseSize(s string, least, most int64) (int64, error) { return parseWhole(s, least, most, true) }

// ParseNumber reads a whole number, such as 17 or 4e9, from least to most.
func ParseNumber(s string, least, most int64) (int64, error) {
	return parseWhole(s, least, most, false)
}

func parseWhole(s string, least, most int64, bytes bool) (int64, error) {
	pattern, number, shift := countText, s, 0
	if bytes {
		pattern = sizeText
		for _, u := range sizeUnits() {
			if digits, ok := strings.CutSuffix(s, u.name); ok {
				number, shift = strings.TrimSpace(digits), u.shift
			}
		}
	}
	if !matches(pattern, s) {
		return 0, fmt.Errorf("%q is no number", s)
	}
	f, err := strconv.ParseFloat(number, 64) // so that 4e9 is a number too
	n, exact := strconv.ParseInt(number, 10, 64)
	if exact != nil {
		n = int64(f)
	}
	if err != nil || f != math.Trunc(f) || f > float64(most) || n<<shift>>shift != n || n<<shift < least || n<<shift > most {
		return 0, fmt.Errorf("%q is not from %d to %d", s, least, most)
	}
	return n << shift, nil
}

// FormatSize writes bytes in the largest unit that they are a whole number of.
func FormatSize(n int64) string {
	for _, u := range sizeUnits() {
		if n>>u.shift<<u.shift == n && n > 0 {
			return strconv.FormatInt(n>>u.shift, 10) + u.name
		}
	}
	return strconv.FormatInt(n, 10)
}

// wordList is a list of texts.
type wordList struct {
	to      *[]string
	what    string // an item must be
	pattern string // of an item
	check   func(string) error
	least   int
	unique  bool
	numbers bool // numbers and booleans are taken as they are written
	expand  bool // ${NAME} is the runtime's variable
	empty   bool // items may be empty, but for the first
	tidy    func(string) string
	plain   *[]string // as it stands in the file: what ${NAME} gave is a secret
}

func (v wordList) read(r *reader, at string, n *node) {
	if n.kind != list || len(n.items) < v.least {
		r.want(at, n, "a list, such as "+v.what)
		return
	}
	out, plain := make([]string, 0, len(n.items)), []string{}
	for i, item := range n.items {
		here := at + "[" + strconv.Itoa(i) + "]"
		s, ok := r.word(here, item, v.numbers, v.expand)
		if !ok {
			continue
		}
		if s == "" && (!v.empty || i == 0) || !matches(v.pattern, s) {
			r.want(here, item, "such as in "+v.what)
			continue
		}
		if v.check != nil {
			if err := v.check(s); err != nil {
				r.add(item, here, "is %s: %v", said(item), err)
				continue
			}
		}
		if v.tidy != nil {
			s = v.tidy(s)
		}
		if v.unique && slices.Contains(out, s) {
			r.add(item, here, "is %s, which stands there twice", said(item))
			continue
		}
		out, plain = append(out, s), append(plain, item.text)
	}
	*v.to = out
	if v.plain != nil {
		*v.plain = plain
	}
}

// misspelt tells of a placeholder in s that is none, and looks like one that there is: {prot}. Other words in braces may
// be meant for the program.
func misspelt(s string) error {
	for rest := s; ; {
		_, after, found := strings.Cut(rest, "{")
		if !found {
			return nil
		}
		word, _, closed := strings.Cut(after, "}")
		rest = after
		if !closed || !matches(`^[a-z]+$`, word) || slices.Contains(placeholders(), word) {
			continue
		}
		for _, p := range placeholders() {
			if distance(word, p) <= 2 && len(word) >= 3 {
				return fmt.Errorf("has {%s}; is {%s} meant? There are {%s}", word, p, strings.Join(placeholders(), "}, {"))
			}
		}
	}
}

// distance is how many letters must be put in, taken out or changed to make a of b.
func distance(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		before := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := 1
			if a[i] == b[j] {
				cost = 0
			}
			before, row[j+1] = row[j+1], min(row[j+1]+1, row[j]+1, before+cost)
		}
	}
	return row[len(b)]
}

// word reads a scalar as text.
func (r *reader) word(at string, n *node, numbers, expand bool) (string, bool) {
	switch {
	case n.kind == nothing:
		r.add(n, at, `has no value; write "" for an empty one`)
		return "", false
	case n.kind != scalar:
		r.add(n, at, "%s; it must be one value", n.kind)
		return "", false
	case !numbers && n.tag != tagText:
		r.add(n, at, "is %s; it must be a text: put it in quotes if it is one", said(n))
		return "", false
	case !expand:
		return n.text, true
	}
	s, err := r.environment(n.text)
	if err == nil {
		err = misspelt(n.text)
	}
	if err != nil {
		r.add(n, at, "%v", err)
		return "", false
	}
	return s, true
}

// environment replaces ${NAME}, ${NAME:-default} and $$. The error does not tell values.
func (r *reader) environment(s string) (string, error) {
	var b strings.Builder
	for {
		before, rest, found := strings.Cut(s, "$")
		b.WriteString(before)
		if !found {
			return b.String(), nil
		}
		if strings.HasPrefix(rest, "$") {
			b.WriteByte('$')
			s = rest[1:]
			continue
		}
		word, after, closed := strings.Cut(rest, "}")
		if !closed || !strings.HasPrefix(word, "{") {
			return "", fmt.Errorf("has a single $; write $$ for a dollar sign, ${NAME} or ${NAME:-default} for a variable of the runtime's environment")
		}
		name, def, hasDefault := strings.Cut(word[1:], ":-")
		if !matches(`^[A-Za-z_][A-Za-z0-9_]*$`, name) {
			return "", fmt.Errorf("has ${%s}, which names no variable; allowed are ${NAME} and ${NAME:-default}, and $$ for a dollar sign", name)
		}
		v, ok := r.lookup(name)
		switch {
		case hasDefault:
			v = cmp.Or(v, def)
		case !ok:
			return "", fmt.Errorf("needs ${%s}, which the runtime's environment does not have; set it, or give a default: ${%s:-…}", name, name)
		}
		if strings.ContainsRune(v, 0) {
			return "", fmt.Errorf("takes a zero byte from ${%s}", name)
		}
		b.WriteString(v)
		s = after
	}
}

func (v wordList) itemSchema() map[string]any {
	item := map[string]any{"type": "string"}
	if v.numbers {
		item["type"] = []string{"string", "number", "boolean"}
	}
	switch {
	case v.expand:
		item["pattern"] = envTextPattern
	case v.pattern != "":
		item["pattern"] = v.pattern
	}
	if !v.empty {
		item["minLength"] = 1
	}
	return item
}

func (v wordList) schema(bool) map[string]any {
	s := map[string]any{"type": "array", "items": v.itemSchema()}
	if v.least > 0 {
		s["minItems"] = v.least
	}
	if v.empty {
		first := maps.Clone(v.itemSchema())
		first["minLength"] = 1
		s["prefixItems"] = []any{first}
	}
	if v.unique {
		s["uniqueItems"] = true
	}
	return s
}

func (v wordList) show(secrets bool) any {
	all := *v.to
	if !secrets && v.plain != nil && *v.plain != nil {
		return *v.plain
	}
	if all == nil {
		return nil
	}
	all = slices.Clone(all)
	for i := range all {
		if v.expand {
			all[i] = escaped(all[i])
		}
	}
	return all
}

// escaped is s as it must be written where variables may stand.
func escaped(s string) string { return strings.ReplaceAll(s, "$", "$$") }

// wordMap is a map of texts.
type wordMap struct {
	to       *map[string]string
	keyWhat  string // a key must be
	keys     string // pattern of keys
	pattern  string // of values
	numbers  bool
	expand   bool
	secret   bool
	tidyKey  func(string) string
	nonEmpty bool
}

// masked stands for a value that is not shown.
const masked = "***"

func (v wordMap) read(r *reader, at string, n *node) {
	out := map[string]string{}
	for _, p := range r.pairs(at, n, v.keyWhat, v.keys) {
		here := join(at, p.key)
		s, ok := r.word(here, p.value, v.numbers, v.expand)
		if !ok {
			continue
		}
		if v.nonEmpty && s == "" || !matches(v.pattern, s) {
			r.add(p.value, here, "is empty, or has characters that are not allowed there")
			continue
		}
		key := p.key
		if v.tidyKey != nil {
			key = v.tidyKey(key)
		}
		if _, twice := out[key]; twice {
			r.add(p.value, here, "stands there twice")
		}
		out[key] = s
	}
	if len(out) > 0 {
		*v.to = out
	}
}

// pairs gives the pairs of a map whose keys match a pattern, and tells of the others.
func (r *reader) pairs(at string, n *node, what, pattern string) []pair {
	switch n.kind {
	case nothing:
		return nil
	case mapping:
	default:
		r.want(at, n, "a map, of "+what)
		return nil
	}
	var good []pair
	for _, p := range n.pairs {
		if !matches(pattern, p.key) {
			r.add(&node{file: n.file, line: p.line}, at, "has the key %q; allowed are %s", p.key, what)
			continue
		}
		good = append(good, p)
	}
	return good
}

func (v wordMap) schema(bool) map[string]any {
	item := wordList{pattern: v.pattern, numbers: v.numbers, expand: v.expand, empty: !v.nonEmpty}.itemSchema()
	return mapSchema(v.keys, item)
}

func mapSchema(keys string, item map[string]any) map[string]any {
	s := map[string]any{"type": []string{"object", "null"}, "additionalProperties": item}
	if keys != "" {
		s["propertyNames"] = map[string]any{"pattern": keys}
	}
	return s
}

func (v wordMap) show(secrets bool) any {
	if len(*v.to) == 0 {
		return nil
	}
	out := maps.Clone(*v.to)
	for k := range out {
		if v.secret && !secrets {
			out[k] = masked
		} else if v.expand {
			out[k] = escaped(out[k])
		}
	}
	return out
}

// listMap is a map of lists of texts.
type listMap struct {
	to      *map[string][]string
	keyWhat string
}

func (v listMap) read(r *reader, at string, n *node) {
	out := map[string][]string{}
	for _, p := range r.pairs(at, n, v.keyWhat, patternPattern) {
		var all []string
		wordList{to: &all, what: "[one, another]"}.read(r, join(at, p.key), p.value)
		out[p.key] = all
	}
	if len(out) > 0 {
		*v.to = out
	}
}

func (v listMap) schema(bool) map[string]any {
	return mapSchema(patternPattern, wordList{}.schema(true))
}

func (v listMap) show(bool) any {
	if len(*v.to) == 0 {
		return nil
	}
	return *v.to
}

// anything is a map of whatever there is.
type anything struct{ to *map[string]any }

func (v anything) read(r *reader, at string, n *node) {
	all := map[string]any{}
	for _, p := range r.pairs(at, n, "settings", "") {
		all[p.key] = p.value.any()
	}
	if len(all) > 0 {
		*v.to = all
	}
}

func (v anything) schema(bool) map[string]any {
	return map[string]any{"type": []string{"object", "null"}}
}

func (v anything) show(bool) any {
	if len(*v.to) == 0 {
		return nil
	}
	return *v.to
}

// group is a map whose keys are fixed.
type group struct {
	keys []key
	// after checks what one key alone cannot, and completes; n is what was read.
	after func(r *reader, at string, n *node)
	// rules are of the schema what after refuses in any case, needs what it wants to be there in the end; must
	// says that an empty group is none.
	rules, needs map[string]any
	must         bool
}

func (g group) names() []string {
	names := make([]string, len(g.keys))
	for i, k := range g.keys {
		names[i] = k.name
	}
	return names
}

func (g group) read(r *reader, at string, n *node) {
	if n.kind != mapping && n.kind != nothing {
		r.want(at, n, "a map, of "+strings.Join(g.names(), ", "))
		return
	}
	for _, p := range n.pairs {
		i := slices.IndexFunc(g.keys, func(k key) bool { return k.name == p.key })
		if i < 0 {
			r.add(&node{file: p.value.file, line: p.line}, join(at, p.key), "is not known; allowed are %s", strings.Join(g.names(), ", "))
			continue
		}
		g.keys[i].value.read(r, join(at, p.key), p.value)
	}
	for _, k := range g.keys {
		if k.required && n.get(k.name) == nil {
			r.add(n, join(at, k.name), "is missing: %s", k.about)
		}
	}
	if g.after != nil {
		g.after(r, at, n)
	}
}

func (g group) schema(complete bool) map[string]any {
	s := map[string]any{"type": []string{"object", "null"}, "additionalProperties": false}
	properties, required := map[string]any{}, []string{}
	for _, k := range g.keys {
		p := k.value.schema(complete)
		p["description"] = k.about
		if k.def != "" {
			p["description"] = k.about + " (default: " + k.def + ")"
		}
		properties[k.name] = p
		if k.required {
			required = append(required, k.name)
		}
	}
	s["properties"] = properties
	maps.Copy(s, g.rules)
	if complete {
		if len(required) > 0 {
			s["type"], s["required"] = "object", required
		}
		if g.must {
			s["type"] = "object"
		}
		maps.Copy(s, g.needs)
	}
	return s
}

func (g group) show(secrets bool) any {
	out := map[string]any{}
	for _, k := range g.keys {
		if v := k.value.show(secrets); v != nil {
			out[k.name] = v
		}
	}
	if len(out) == 0 {
		return nil
	}
	return out
}

// section is a group that may be missing.
type section[T any] struct {
	to    **T
	bind  func(*T) group
	bound *group // what was read
}

func newSection[T any](to **T, bind func(*T) group) *section[T] {
	return &section[T]{to: to, bind: bind}
}

func (v *section[T]) read(r *reader, at string, n *node) {
	*v.to = new(T)
	g := v.bind(*v.to)
	v.bound = &g
	g.read(r, at, n)
}

func (v *section[T]) schema(complete bool) map[string]any {
	return v.bind(new(T)).schema(complete)
}

func (v *section[T]) show(secrets bool) any {
	if v.bound == nil {
		return nil
	}
	if s := v.bound.show(secrets); s != nil {
		return s
	}
	return map[string]any{}
}

// named is a map from names to groups.
type named[T any] struct {
	to    *[]T
	bind  func(name string, to *T) group
	what  string
	all   []group
	names []string
}

func (v *named[T]) read(r *reader, at string, n *node) {
	good := r.pairs(at, n, v.what, namePattern)
	slices.SortFunc(good, func(a, b pair) int { return strings.Compare(a.key, b.key) })
	if len(good) > 0 {
		*v.to = make([]T, len(good))
	}
	for i, p := range good {
		g := v.bind(p.key, &(*v.to)[i])
		v.all, v.names = append(v.all, g), append(v.names, p.key)
		g.read(r, join(at, p.key), p.value)
	}
}

func (v *named[T]) schema(complete bool) map[string]any {
	return mapSchema(namePattern, v.bind("", new(T)).schema(complete))
}

func (v *named[T]) show(secrets bool) any {
	if len(v.all) == 0 {
		return nil
	}
	out := map[string]any{}
	for i, g := range v.all {
		out[v.names[i]] = g.show(secrets)
	}
	return out
}

// strategyKeys are the keys of Strategies, which hold what is said for all until they are read.
func strategyKeys(s *Strategies) []key {
	return []key{
		{name: "save_strategy", about: "when state is saved", def: "as for all", value: oneOf[runtime.SaveStrategy]{&s.Save, runtime.SaveStrategies()}},
		{name: "load_strategy", about: "when state is loaded", def: "as for all", value: oneOf[runtime.LoadStrategy]{&s.Load, runtime.LoadStrategies()}},
		{name: "flush_interval", about: "how often it is saved with SCHEDULED, if it has changed", def: "as for all", value: span{to: &s.FlushInterval, least: runtime.MinFlushInterval, most: runtime.MaxFlushInterval}},
		{name: "hold_timeout", about: "how long a save may wait for requests under way", def: "as for all", value: span{to: &s.HoldTimeout, least: MinHoldTimeout, most: MaxHoldTimeout}},
		{name: "proof", about: "which saves are proved by loading them again", def: "as for all", value: oneOf[runtime.Proof]{&s.Proof, runtime.Proofs()}},
		{name: "compression", about: "how state files are compressed, from the next full save on", def: "as for all", value: oneOf[string]{&s.Compression, runtime.Compressions()}},
	}
}
