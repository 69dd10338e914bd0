package snapshot

import (
	"encoding/hex"
	"errors"
	"fmt"
	"regexp"
	"strings"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
)

// Limits on the rules of a redaction.
const (
	MaxRules     = 1000
	MaxRuleBytes = 4 << 10
	MaxRuleSteps = 60 // of a path
)

// Rule says what is dropped or hashed before a snapshot is handed to others. [ParseRule] reads one. It is a value and
// safe for concurrent use; the zero Rule is about nothing.
type Rule struct {
	text          string
	service, part *regexp.Regexp // nil: any
	key           *regexp.Regexp
	path          []step // empty: the whole value
	drop          bool
}

// step is one of a path.
type step struct {
	any  bool // **: as many steps as there are, none too
	name *regexp.Regexp
}

// ParseRule reads a rule,
//
//	[SERVICE[/PART]:]KEY[#PATH]=drop|hash
//
// such as
//
//	s3:**/secret.txt=drop                  records with a key that ends so, of the service s3
//	orders/store:/customers/*=hash         all texts and byte strings in the values of these records
//	*:/customers/*#/email=hash             those in the member email of the values only, of any service
//	users:**#/**/password=drop             members called password, at any depth, taken away
//	ssm:000000000000/eu-west-1 **=drop     all of one account and region
//
// KEY is matched against all of a record's key: a text, or of a byte key its text and its bytes in hexadecimal; and against
// the partition and the key with a space between. In KEY, and in names of services and parts, * stands for any characters but a slash,
// ** for any at all, ? for one that is no slash; all else, and what a backslash stands before, is itself.
//
// SERVICE and PART end at the first colon: a key that has one needs a service before it (*:arn:aws:**) or a backslash
// (arn\:aws\:**). PATH begins at the first #/. It leads into the value like a JSON Pointer: names of members, or numbers of
// elements, each behind a slash; ~1 is a slash in a name, ~0 a tilde; the wildcards are as in KEY, but that a step ** is any number of steps, none too. CBOR tags
// are no steps. The last = ends it all, so that no quotes are needed in a list of YAML; a shell needs them for * and #.
//
// What cannot be a rule is an error that says why.
func ParseRule(text string) (Rule, error) {
	r := Rule{text: text}
	if err := r.parse(text); err != nil {
		if len(text) > 100 {
			text = strings.ToValidUTF8(text[:100], "") + "…"
		}
		return Rule{}, fmt.Errorf("rule %q: %w; a rule is [SERVICE[/PART]:]KEY[#PATH]=drop or =hash", text, err)
	}
	return r, nil
}

// String is the rule as it was written.
func (r Rule) String() string { return r.text }

func (r *Rule) parse(text string) (err error) {
	if len(text) > MaxRuleBytes {
		return fmt.Errorf("it has %d bytes; it may have %d", len(text), MaxRuleBytes)
	}
	if !utf8.ValidString(text) {
		return errors.New("it is not UTF-8")
	}
	at := strings.LastIndexByte(text, '=')
	if at < 0 {
		return errors.New("it does not say what is done")
	}
	switch action := text[at+1:]; action {
	case "drop":
		r.drop = true
	case "hash":
	default:
		return fmt.Errorf("nothing is known that is called %q", action)
	}
	text, path, paths := cutPlain(text[:at], "#/")
	if service, key, ok := cutPlain(text, ":"); ok {
		service, part, parts := cutPlain(service, "/")
		if service == "" || parts && part == "" {
			return errors.New("the name of the service or of the part is empty")
		}
		if r.service, err = glob(service); err != nil {
			return err
		}
		if parts {
			if r.part, err = glob(part); err != nil {
				return err
			}
		}
		text = key
	}
	if r.key, err = glob(text); err != nil {
		return err
	}
	if !paths {
		return nil
	}
	for name := range strings.SplitSeq(path, "/") {
		if len(r.path) == MaxRuleSteps {
			return fmt.Errorf("its path has more than %d steps", MaxRuleSteps)
		}
		s := step{any: name == "**"}
		name = strings.NewReplacer("~1", "/", "~0", "~").Replace(name)
		if s.name, err = glob(name); err != nil {
			return err
		}
		r.path = append(r.path, s)
	}
	if r.drop && r.path[len(r.path)-1].any {
		return errors.New("what is dropped must have a name, so its path cannot end in **")
	}
	return nil
}

// cutPlain is strings.Cut at the first sep that no backslash stands before.
func cutPlain(text, sep string) (before, after string, found bool) {
	for i := 0; i < len(text); i++ {
		if text[i] == '\\' {
			i++
		} else if strings.HasPrefix(text[i:], sep) {
			return text[:i], text[i+len(sep):], true
		}
	}
	return text, "", false
}

// glob is a pattern as a regular expression, which takes time by the length of what is matched and no more.
func glob(pattern string) (*regexp.Regexp, error) {
	var out strings.Builder
	out.WriteString(`(?s)\A`)
	for i := 0; i < len(pattern); i++ {
		switch c := pattern[i]; {
		case strings.HasPrefix(pattern[i:], "**"):
			out.WriteString(`.*`)
			i++
		case c == '*':
			out.WriteString(`[^/]*`)
		case c == '?':
			out.WriteString(`[^/]`)
		case c == '\\':
			if i++; i == len(pattern) {
				return nil, errors.New(`there is nothing behind its last \`)
			}
			fallthrough
		default:
			_, size := utf8.DecodeRuneInString(pattern[i:])
			out.WriteString(regexp.QuoteMeta(pattern[i : i+size]))
			i += size - 1
		}
	}
	out.WriteString(`\z`)
	return regexp.Compile(out.String())
}

// aboutPart reports whether the rule is about records of that part.
func (r Rule) aboutPart(service, part string) bool {
	return r.key != nil && (r.service == nil || r.service.MatchString(service)) && (r.part == nil || r.part.MatchString(part))
}

// aboutRecord reports whether it is about the record of that name, of a part it is about.
func (r Rule) aboutRecord(n *names) bool {
	for _, name := range n.all() {
		if r.key.Match(name) {
			return true
		}
	}
	return false
}

// names is what a record is called in rules.
type names struct {
	buf  []byte
	ends []int
	list [][]byte
}

// set is for record i of b.
func (n *names) set(b *record.Batch, i int) {
	n.buf, n.ends = n.buf[:0], n.ends[:0]
	key, text := b.Key(i)
	add := func(hexadecimal bool) {
		for _, partition := range []bool{false, true} {
			if partition {
				n.buf = append(append(n.buf, b.Partition(i)...), ' ')
			}
			if hexadecimal {
				n.buf = hex.AppendEncode(n.buf, key)
			} else {
				n.buf = append(n.buf, key...)
			}
			n.ends = append(n.ends, len(n.buf))
		}
	}
	add(false)
	if !text {
		add(true)
	}
}

// all are the names, good until the next set.
func (n *names) all() [][]byte {
	n.list = n.list[:0]
	begin := 0
	for _, end := range n.ends {
		n.list = append(n.list, n.buf[begin:end])
		begin = end
	}
	return n.list
}
