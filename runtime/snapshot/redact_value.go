package snapshot

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
)

// Tags of CBOR (IANA registry) whose content is not what it seems.
const (
	tagDate         = 0   // a text that is a time
	tagNegative     = 3   // 2 and 3: byte strings that are numbers
	tagEmbeddedJSON = 262 // a byte string that is JSON
)

// Tags of the serializer pickle (its README) that hold names of classes and functions, or of records.
const (
	tagReference = 59904
	tagGlobal    = 59909
	tagReduce    = 59910 // the first element of it
	tagNew       = 59912 // and of those from here on
	tagInstance  = 59915 // to here
	tagComputed  = 59927
)

// where are the places of a rule's path that a place in a value may be at: bit i says that i steps have been gone.
type where uint64

// begin is the place of a value as a whole.
func (r Rule) begin() where { return r.skip(1) }

// skip adds the places behind those of ** that may be none.
func (r Rule) skip(at where) where {
	for i, s := range r.path {
		if s.any && at&(1<<i) != 0 {
			at |= 1 << (i + 1)
		}
	}
	return at
}

// step goes to the member or element of that name.
func (r Rule) step(at where, name []byte) (to where) {
	for i, s := range r.path {
		switch {
		case at&(1<<i) == 0:
		case s.any:
			to |= 1 << i
		case s.name.Match(name):
			to |= 1 << (i + 1)
		}
	}
	return r.skip(to)
}

// there reports whether a place is one that the rule is about.
func (r Rule) there(at where) bool { return at&(1<<len(r.path)) != 0 }

// item appends what the rule leaves of the next item, which is at a place and is not dropped.
func (w *redactor) item(dst []byte, p *record.Pull, done *Redacted, at where) []byte {
	here := done.Rule.there(at) && !done.Rule.drop
	if !here && at == 0 {
		return append(dst, p.Skip()...)
	}
	w.depth++
	defer func() { w.depth-- }()
	switch p.Peek() {
	case record.KindText:
		if here {
			done.Hashed++
			return record.AppendText(dst, w.hashed(p.Text()))
		}
	case record.KindBytes:
		if here {
			done.Hashed++
			return record.AppendBytes(dst, w.hashed(p.Bytes()))
		}
	case record.KindArray:
		return w.array(dst, p, done, at, 0)
	case record.KindMap:
		return w.members(dst, p, done, at)
	case record.KindTag:
		return w.tagged(dst, p, done, at)
	}
	return append(dst, p.Skip()...)
}

// array is item for an array, whose first kept elements are kept as they are.
func (w *redactor) array(dst []byte, p *record.Pull, done *Redacted, at where, kept int) []byte {
	n := p.Array()
	left, begin := n, len(dst)
	dst = record.AppendArray(dst, n)
	content := len(dst)
	var name []byte
	for i := range n {
		name = strconv.AppendInt(name[:0], int64(i), 10)
		to := w.into(done, at, name)
		switch {
		case i < kept:
			dst = append(dst, p.Skip()...)
		case done.Rule.drop && done.Rule.there(to):
			p.Skip()
			done.Dropped++
			left--
		default:
			dst = w.item(dst, p, done, to)
		}
	}
	return shortened(dst, begin, content, left == n, func(b []byte) []byte { return record.AppendArray(b, left) })
}

// members is item for a map.
func (w *redactor) members(dst []byte, p *record.Pull, done *Redacted, at where) []byte {
	n := p.Map()
	left, begin := n, len(dst)
	dst = record.AppendMap(dst, n)
	content := len(dst)
	for range n {
		key := p.Skip()
		to := w.member(done, at, key)
		if done.Rule.drop && done.Rule.there(to) {
			p.Skip()
			done.Dropped++
			left--
			continue
		}
		dst = w.item(append(dst, key...), p, done, to)
	}
	return shortened(dst, begin, content, left == n, func(b []byte) []byte { return record.AppendMap(b, left) })
}

// into is the place of an element: below what a rule is about, all is.
func (w *redactor) into(done *Redacted, at where, name []byte) where {
	to := done.Rule.step(at, name)
	if done.Rule.there(at) {
		to |= 1 << len(done.Rule.path)
	}
	return to
}

// member is the place of the member of a map that has that key, an item: a byte string goes by its text or its bytes in
// hexadecimal, what is no string by its bytes as an item, but a number by its digits.
func (w *redactor) member(done *Redacted, at where, key []byte) where {
	p := record.NewPull(key)
	switch p.Peek() {
	case record.KindText:
		return w.into(done, at, p.Text())
	case record.KindBytes:
		content := p.Bytes()
		return w.into(done, at, content) | w.into(done, at, hex.AppendEncode(nil, content))
	case record.KindUint:
		return w.into(done, at, strconv.AppendUint(nil, p.Uint(), 10))
	case record.KindNeg:
		if n := p.Int(); p.Err() == nil {
			return w.into(done, at, strconv.AppendInt(nil, n, 10))
		}
	}
	return w.into(done, at, hex.AppendEncode(nil, key))
}

// shortened puts a head of fewer elements in the place of the one at begin.
func shortened(dst []byte, begin, content int, same bool, head func([]byte) []byte) []byte {
	if same {
		return dst
	}
	var room [9]byte
	h := head(room[:0])
	copy(dst[begin:], h) // no longer than the other
	n := copy(dst[begin+len(h):], dst[content:])
	return dst[:begin+len(h)+n]
}

// tagged is item for a tag: a path goes through it as if it were not there.
func (w *redactor) tagged(dst []byte, p *record.Pull, done *Redacted, at where) []byte {
	whole := p.Skip()
	p = record.NewPull(whole)
	tag := p.Tag()
	switch kind := p.Peek(); {
	case tag >= tagDate && tag <= tagNegative:
		return append(dst, whole...)
	case tag == tagEmbeddedJSON && kind == record.KindBytes:
		return w.embedded(dst, whole, p.Bytes(), done, at)
	case w.pickle && (tag == tagReference || tag == tagGlobal || tag == tagComputed):
		return append(dst, whole...)
	case kind == record.KindArray && (tag == tagOfType || w.pickle && (tag == tagReduce || tag >= tagNew && tag <= tagInstance)):
		return w.array(record.AppendTag(dst, tag), p, done, at, 1)
	}
	return w.item(record.AppendTag(dst, tag), p, done, at)
}

// embedded is item for JSON that is kept as it was spelled. What a rule is about in it must not stay because somebody
// put a space behind a comma: it is taken apart, and given as items where the rule changes something. What cannot be taken
// apart and may hold what the rule is about is hashed as a whole.
func (w *redactor) embedded(dst, whole, text []byte, done *Redacted, at where) []byte {
	item, err := jsonItem(text, maxEmbedded-w.depth)
	if err != nil {
		done.Hashed++
		return record.AppendText(dst, w.hashed(text))
	}
	dropped, hashed, begin := done.Dropped, done.Hashed, len(dst)
	if p := record.NewPull(item); p.Peek() != record.KindTag { // a number that is spelled in its own way
		dst = w.item(dst, p, done, at)
	}
	if dropped == done.Dropped && hashed == done.Hashed {
		return append(dst[:begin], whole...)
	}
	return dst
}

// maxEmbedded is how deep a record may nest with what has been taken apart in it: as the serializer json has it, below
// what a record may have at all.
const maxEmbedded = 60

var errNotJSON = errors.New("no JSON that items could say")

// jsonItem is a JSON text as an item, in the form that the serializer json has for it.
func jsonItem(text []byte, depth int) ([]byte, error) {
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.UseNumber()
	item, err := appendJSON(nil, dec, depth)
	if err != nil {
		return nil, err
	}
	if _, err := dec.Token(); err != io.EOF {
		return nil, errNotJSON
	}
	return item, nil
}

// appendJSON appends the next value.
func appendJSON(dst []byte, dec *json.Decoder, depth int) ([]byte, error) {
	if depth <= 0 {
		return nil, errNotJSON
	}
	token, err := dec.Token()
	if err != nil {
		return nil, err
	}
	switch v := token.(type) {
	case nil:
		return record.AppendNull(dst), nil
	case bool:
		return record.AppendBool(dst, v), nil
	case string:
		if strings.ContainsRune(v, utf8.RuneError) { // half a surrogate pair, perhaps
			return nil, errNotJSON
		}
		return record.AppendText(dst, v), nil
	case json.Number:
		return appendNumber(dst, v.String()), nil
	case json.Delim:
		var content []byte
		n := 0
		for ; dec.More(); n++ {
			if content, err = appendJSON(content, dec, depth-1); err != nil {
				return nil, err
			}
		}
		if _, err := dec.Token(); err != nil {
			return nil, err
		}
		if v == '{' {
			return append(record.AppendMap(dst, n/2), content...), nil
		}
		return append(record.AppendArray(dst, n), content...), nil
	}
	return nil, errNotJSON
}

// appendNumber appends a number, as it was spelled where that is not how most would.
func appendNumber(dst []byte, text string) []byte {
	if n, err := strconv.ParseInt(text, 10, 64); err == nil && strconv.FormatInt(n, 10) == text {
		return record.AppendInt(dst, n)
	}
	if n, err := strconv.ParseUint(text, 10, 64); err == nil && strconv.FormatUint(n, 10) == text {
		return record.AppendUint(dst, n)
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil && strings.Contains(text, ".") {
		if shortest := strconv.FormatFloat(f, 'f', -1, 64); shortest == text || shortest+".0" == text {
			return record.AppendFloat(dst, f)
		}
	}
	return record.AppendBytes(record.AppendTag(dst, tagEmbeddedJSON), text)
}
