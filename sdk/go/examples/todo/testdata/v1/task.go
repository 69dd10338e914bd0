package main

import (
	"errors"
	"io"
	"strconv"
	"unicode/utf8"

	torpor "github.com/torpor-run/torpor/sdk/go"
)

// maxTags bounds the tags of one task, and with them what is allocated for one.
const maxTags = 1000

// task is one task. Its strings share the memory of what it was read from, or the parser's.
type task struct {
	id, list, title, assignee, due []byte
	priority                       uint64
	done                           bool
	tags                           [][]byte
}

// first reads the line that says format and schema.
func (p *parser) first(native *torpor.Input) error {
	line, err := native.Until('\n')
	if errors.Is(err, io.EOF) {
		return &torpor.Error{Code: torpor.CodeCorrupt, Msg: "the file is empty; one without tasks has two lines"}
	}
	if err != nil {
		return err
	}
	p.reset(line, 0)
	if !p.literal(`{"format":"todo","schema":`) {
		return p.corrupt(`this is no file of the to-do service, which begins with {"format":"todo","schema":`)
	}
	version, ok := p.uint()
	if !ok || !p.literal("}\n") {
		return p.malformed()
	}
	if version != schema {
		return &torpor.Error{Code: torpor.CodeVersion,
			Msg: "a file of schema " + strconv.FormatUint(version, 10) + "; this serializer reads schema " + strconv.Itoa(schema)}
	}
	return nil
}

// last reads the rest of the line that counts the tasks, behind which there is nothing.
func (p *parser) last(native *torpor.Input, tasks uint64) error {
	n, ok := p.uint()
	if !ok || !p.literal("}\n") {
		return p.malformed()
	}
	if n != tasks {
		return p.corrupt("the file says that it has " + strconv.FormatUint(n, 10) + " tasks but has " + strconv.FormatUint(tasks, 10))
	}
	if len(native.Bytes()) == 0 {
		if err := native.Fill(); !errors.Is(err, io.EOF) && err != nil {
			return err
		}
	}
	if len(native.Bytes()) > 0 {
		return &torpor.Error{Code: torpor.CodeCorrupt, Offset: native.Offset(), Msg: "there is more after the line that counts the tasks"}
	}
	return nil
}

// parse reads the line of a task.
func (t *task) parse(p *parser) error {
	ok := p.literal(`{"id":"`) && p.text(&t.id) &&
		p.literal(`,"list":"`) && p.text(&t.list) &&
		p.literal(`,"title":"`) && p.text(&t.title) &&
		p.literal(`,"assignee":"`) && p.text(&t.assignee) &&
		p.literal(`,"due":"`) && p.text(&t.due) &&
		p.literal(`,"priority":`)
	if ok {
		t.priority, ok = p.uint()
	}
	if !ok || !p.literal(`,"done":`) {
		return p.malformed()
	}
	t.done = p.literal("true")
	if !t.done && !p.literal("false") {
		return p.malformed()
	}
	t.tags = t.tags[:0]
	ok = p.literal(`,"tags":[`)
	for ok && !p.literal("]") {
		if len(t.tags) == maxTags {
			return &torpor.Error{Code: torpor.CodeTooLarge, Offset: p.offset(), Msg: "more than " + strconv.Itoa(maxTags) + " tags"}
		}
		var tag []byte
		ok = (len(t.tags) == 0 || p.literal(",")) && p.literal(`"`) && p.text(&tag)
		t.tags = append(t.tags, tag)
	}
	if !ok || !p.literal("}\n") {
		return p.malformed()
	}
	return nil
}

// appendLine adds the line of a task.
func (t *task) appendLine(dst []byte) []byte {
	dst = appendText(append(dst, `{"id":`...), t.id)
	dst = appendText(append(dst, `,"list":`...), t.list)
	dst = appendText(append(dst, `,"title":`...), t.title)
	dst = appendText(append(dst, `,"assignee":`...), t.assignee)
	dst = appendText(append(dst, `,"due":`...), t.due)
	dst = strconv.AppendUint(append(dst, `,"priority":`...), t.priority, 10)
	if t.done {
		dst = append(dst, `,"done":true,"tags":[`...)
	} else {
		dst = append(dst, `,"done":false,"tags":[`...)
	}
	for i, tag := range t.tags {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst = appendText(dst, tag)
	}
	return append(dst, "]}\n"...)
}

// record writes the record of a task.
func (t *task) record(out *torpor.Output) {
	out.Record("", string(t.id))
	out.Map(7)
	out.Text("list")
	out.TextBytes(t.list)
	out.Text("title")
	out.TextBytes(t.title)
	out.Text("assignee")
	out.TextBytes(t.assignee)
	out.Text("due")
	out.TextBytes(t.due)
	out.Text("priority")
	out.Uint(t.priority)
	out.Text("done")
	out.Bool(t.done)
	out.Text("tags")
	out.Array(len(t.tags))
	for _, tag := range t.tags {
		out.TextBytes(tag)
	}
}

// read reads the record of a task, whose members may come in any order but must all be there, once.
func (t *task) read(r *torpor.Record) error {
	if len(r.Partition) > 0 || !r.TextKey {
		return r.Error(torpor.CodeUnsupported, `a task has the partition "" and a text as its key`)
	}
	t.id = r.Key
	v := r.Items()
	seen := 0
	n := v.Map()
	for range n {
		member := 0
		switch name := v.Text(); string(name) {
		case "list":
			member, t.list = 1, v.Text()
		case "title":
			member, t.title = 2, v.Text()
		case "assignee":
			member, t.assignee = 4, v.Text()
		case "due":
			member, t.due = 8, v.Text()
		case "priority":
			member, t.priority = 16, v.Uint()
		case "done":
			member, t.done = 32, v.Bool()
		case "tags":
			member, t.tags = 64, t.tags[:0]
			tags := v.Array()
			if tags > maxTags {
				return r.Error(torpor.CodeTooLarge, "more than "+strconv.Itoa(maxTags)+" tags")
			}
			for range tags {
				t.tags = append(t.tags, v.Text())
			}
		default:
			if v.Err() == nil {
				return r.Error(torpor.CodeUnsupported, "a task has no "+strconv.Quote(string(name)))
			}
		}
		seen |= member
	}
	if err := r.End(); err != nil {
		return err
	}
	if n != 7 || seen != 127 {
		return r.Error(torpor.CodeCorrupt, "a task has list, title, assignee, due, priority, done and tags, each once")
	}
	// Of texts only partitions and keys have been checked, and what is not UTF-8 cannot be JSON.
	valid := utf8.Valid(t.list) && utf8.Valid(t.title) && utf8.Valid(t.assignee) && utf8.Valid(t.due)
	for _, tag := range t.tags {
		valid = valid && utf8.Valid(tag)
	}
	if !valid {
		return r.Error(torpor.CodeCorrupt, "a text that is not UTF-8")
	}
	return nil
}
