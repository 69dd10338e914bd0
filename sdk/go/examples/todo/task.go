package main

import (
	"bytes"
	"strconv"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
)

// maxTags bounds the tags of one task, and with them what is allocated for one.
const maxTags = 1000

// task is one task. Read from a record its texts share that record's memory; parsed they are its own.
type task struct {
	id, list, title, given, family, date, time []byte
	priority                                   uint64
	done                                       bool
	tags                                       [][]byte
	tagBytes                                   []byte // where parse puts all tags
}

// Members of a task, each of which must be there once.
const (
	hasID = 1 << iota
	hasList
	hasTitle
	hasOwner
	hasDate
	hasTime
	hasPriority
	hasDone
	hasTags
	hasCount // the one member of the last line

	hasAll = hasCount - 1
	hasDue = hasDate | hasTime // schema 1 has them in one
)

const (
	allMembers   = "a task has id, list, title, owner, date, time, priority, done and tags, each once"
	ownerMembers = "an owner has given and family, each once"
)

// readHeader reads the first line.
func readHeader(s *jsonscan.Scanner) error {
	if !s.Next() {
		if s.Err() != nil {
			return s.Err()
		}
		return s.Error(torpor.CodeCorrupt, "the file is empty; one without tasks has two lines")
	}
	says := []byte(nil)
	version, seen := uint64(0), 0
	s.Object()
	for {
		name, ok := s.Key()
		if !ok {
			break
		}
		switch string(name) {
		case "format":
			says = append(says, s.Text()...)
		case "schema":
			version, seen = s.Uint(), seen+1
		default:
			return s.Error(torpor.CodeCorrupt, `this is no file of the to-do service, which begins with {"format":"todo","schema":`)
		}
	}
	switch {
	case s.Err() != nil:
		return s.Err()
	case string(says) != format || seen != 1:
		return s.Error(torpor.CodeCorrupt, `this is no file of the to-do service, which begins with {"format":"todo","schema":`)
	case version != schema:
		return s.Error(torpor.CodeVersion, "a file of schema "+strconv.FormatUint(version, 10)+"; this serializer reads files of schema "+strconv.Itoa(schema))
	}
	return nil
}

// readEnd checks what the last line says, and that nothing follows.
func readEnd(s *jsonscan.Scanner, counted, tasks uint64) error {
	if counted != tasks {
		return s.Error(torpor.CodeCorrupt, "the file says that it has "+strconv.FormatUint(counted, 10)+" tasks but has "+strconv.FormatUint(tasks, 10))
	}
	return s.End()
}

// parse reads the line of a task, or the last one, which counts them.
func (t *task) parse(s *jsonscan.Scanner) (count uint64, end bool, err error) {
	seen := 0
	s.Object()
	for {
		name, ok := s.Key()
		if !ok {
			break
		}
		var member int
		switch string(name) {
		case "id":
			member, t.id = hasID, append(t.id[:0], s.Text()...)
		case "list":
			member, t.list = hasList, append(t.list[:0], s.Text()...)
		case "title":
			member, t.title = hasTitle, append(t.title[:0], s.Text()...)
		case "owner":
			member = hasOwner
			if err := t.parseOwner(s); err != nil {
				return 0, false, err
			}
		case "date":
			member, t.date = hasDate, append(t.date[:0], s.Text()...)
		case "time":
			member, t.time = hasTime, append(t.time[:0], s.Text()...)
		case "priority":
			member, t.priority = hasPriority, s.Uint()
		case "done":
			member, t.done = hasDone, s.Bool()
		case "tags":
			member = hasTags
			if err := t.parseTags(s); err != nil {
				return 0, false, err
			}
		case "tasks":
			member, count = hasCount, s.Uint()
		default:
			return 0, false, s.Error(torpor.CodeUnsupported, "a task has no "+strconv.Quote(string(name)))
		}
		if seen&member != 0 {
			return 0, false, s.Error(torpor.CodeCorrupt, allMembers)
		}
		seen |= member
	}
	switch {
	case s.Err() != nil:
		return 0, false, s.Err()
	case seen != hasAll && seen != hasCount:
		return 0, false, s.Error(torpor.CodeCorrupt, allMembers)
	}
	return count, seen == hasCount, nil
}

func (t *task) parseOwner(s *jsonscan.Scanner) error {
	given, family := 0, 0
	s.Object()
	for {
		name, ok := s.Key()
		if !ok {
			break
		}
		switch string(name) {
		case "given":
			t.given, given = append(t.given[:0], s.Text()...), given+1
		case "family":
			t.family, family = append(t.family[:0], s.Text()...), family+1
		default:
			return s.Error(torpor.CodeUnsupported, "an owner has no "+strconv.Quote(string(name)))
		}
	}
	if s.Err() == nil && (given != 1 || family != 1) {
		return s.Error(torpor.CodeCorrupt, ownerMembers)
	}
	return s.Err()
}

func (t *task) parseTags(s *jsonscan.Scanner) error {
	t.tags, t.tagBytes = t.tags[:0], t.tagBytes[:0]
	s.Array()
	for s.More() {
		if len(t.tags) == maxTags {
			return s.Error(torpor.CodeTooLarge, "more than "+strconv.Itoa(maxTags)+" tags")
		}
		from := len(t.tagBytes)
		t.tagBytes = append(t.tagBytes, s.Text()...) // if that moves them, the tags before stay where they were
		t.tags = append(t.tags, t.tagBytes[from:len(t.tagBytes):len(t.tagBytes)])
	}
	return s.Err()
}

// print writes the line of a task.
func (t *task) print(w *jsonscan.Writer) {
	w.Object()
	w.Key("id")
	w.TextBytes(t.id)
	w.Key("list")
	w.TextBytes(t.list)
	w.Key("title")
	w.TextBytes(t.title)
	w.Key("owner")
	w.Object()
	w.Key("given")
	w.TextBytes(t.given)
	w.Key("family")
	w.TextBytes(t.family)
	w.EndObject()
	w.Key("date")
	w.TextBytes(t.date)
	w.Key("time")
	w.TextBytes(t.time)
	w.Key("priority")
	w.Uint(t.priority)
	w.Key("done")
	w.Bool(t.done)
	w.Key("tags")
	w.Array()
	for _, tag := range t.tags {
		w.TextBytes(tag)
	}
	w.EndArray()
	w.EndObject()
	w.Newline()
}

// write writes the value of a task's record.
func (t *task) write(out *torpor.Output) {
	out.Map(8)
	out.Text("list")
	out.TextBytes(t.list)
	out.Text("title")
	out.TextBytes(t.title)
	out.Text("owner")
	out.Map(2)
	out.Text("given")
	out.TextBytes(t.given)
	out.Text("family")
	out.TextBytes(t.family)
	out.Text("date")
	out.TextBytes(t.date)
	out.Text("time")
	out.TextBytes(t.time)
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

// read reads the record of a task, of either schema. The members may come in any order but must all be
// there, once.
func (t *task) read(r *torpor.Record, from uint64) error {
	if len(r.Partition) > 0 || !r.TextKey {
		return r.Error(torpor.CodeUnsupported, `a task has the partition "" and a text as its key`)
	}
	t.id = r.Key
	v := r.Items()
	seen := hasID
	for range v.Map() {
		var member int
		name := v.Text()
		switch string(name) {
		case "list":
			member, t.list = hasList, v.Text()
		case "title":
			member, t.title = hasTitle, v.Text()
		case "priority":
			member, t.priority = hasPriority, v.Uint()
		case "done":
			member, t.done = hasDone, v.Bool()
		case "tags":
			member, t.tags = hasTags, t.tags[:0]
			tags := v.Array()
			if tags > maxTags {
				return r.Error(torpor.CodeTooLarge, "more than "+strconv.Itoa(maxTags)+" tags")
			}
			for range tags {
				t.tags = append(t.tags, v.Text())
			}
		default:
			var err error
			if from == before {
				member, err = t.readBefore(r, v, name)
			} else {
				member, err = t.readSince(r, v, name)
			}
			if err != nil {
				return err
			}
		}
		if v.Err() == nil && seen&member != 0 {
			return r.Error(torpor.CodeCorrupt, allMembers)
		}
		seen |= member
	}
	if err := r.End(); err != nil {
		return err
	}
	if seen != hasAll {
		return r.Error(torpor.CodeCorrupt, allMembers)
	}
	return t.valid(r)
}

// readBefore reads a member that only schema 1 has. Its names and times were texts of any kind: what they
// hold is split where the service that wrote them would have, and kept whole where there is no such place.
func (t *task) readBefore(r *torpor.Record, v *record.Pull, name []byte) (member int, err error) {
	switch string(name) {
	case "assignee":
		assignee := v.Text()
		t.given, t.family = assignee, nil
		if i := bytes.LastIndexByte(assignee, ' '); i >= 0 {
			t.given, t.family = assignee[:i], assignee[i+1:]
		}
		return hasOwner, nil
	case "due":
		t.date, t.time, _ = bytes.Cut(v.Text(), []byte("T"))
		return hasDue, nil
	}
	return 0, unknown(r, v, name)
}

// readSince reads a member that schema 1 does not have.
func (t *task) readSince(r *torpor.Record, v *record.Pull, name []byte) (member int, err error) {
	switch string(name) {
	case "owner":
		given, family := 0, 0
		for range v.Map() {
			switch name := v.Text(); string(name) {
			case "given":
				t.given, given = v.Text(), given+1
			case "family":
				t.family, family = v.Text(), family+1
			default:
				return 0, unknown(r, v, name)
			}
		}
		if v.Err() == nil && (given != 1 || family != 1) {
			return 0, r.Error(torpor.CodeCorrupt, ownerMembers)
		}
		return hasOwner, nil
	case "date":
		t.date = v.Text()
		return hasDate, nil
	case "time":
		t.time = v.Text()
		return hasTime, nil
	}
	return 0, unknown(r, v, name)
}

// unknown is the error for a member of which this serializer knows nothing, unless reading has failed, of
// which End tells more.
func unknown(r *torpor.Record, v *record.Pull, name []byte) error {
	if v.Err() != nil {
		return r.End()
	}
	return r.Error(torpor.CodeUnsupported, "a task has no "+strconv.Quote(string(name)))
}

// valid checks that all texts are UTF-8. Only partitions and keys of records have been checked, and what is
// not UTF-8 cannot be JSON.
func (t *task) valid(r *torpor.Record) error {
	valid := utf8.Valid(t.list) && utf8.Valid(t.title) && utf8.Valid(t.given) && utf8.Valid(t.family) && utf8.Valid(t.date) && utf8.Valid(t.time)
	for _, tag := range t.tags {
		valid = valid && utf8.Valid(tag)
	}
	if !valid {
		return r.Error(torpor.CodeCorrupt, "a text that is not UTF-8")
	}
	return nil
}
