// Command todo is a serializer for the state of a to-do service, as an example of a complete one: it reads
// and writes JSON, and it knows two schemas, because the service has changed its own.
//
// The service keeps one file in JSON lines, written with encoding/json from structs: a line that says the
// format and its schema, one line for each task in ascending order of ids, and a line that says how many
// tasks there are, so that a file that was cut is known as such.
//
//	{"format":"todo","schema":2}
//	{"id":"0007","list":"home","title":"Buy milk","owner":{"given":"Ada","family":"Lovelace"},"date":"2026-05-01","time":"18:00","priority":2,"done":false,"tags":["shop"]}
//	{"tasks":1}
//
// A task is a record: partition "", its id as the key, and a map of the other members.
//
// Schema 1 had "assignee":"Ada Lovelace" where schema 2 has "owner", and "due":"2026-05-01T18:00" where it
// has "date" and "time". Records of schema 1 are read by load and inspect, and migrate makes them ones of
// schema 2. The service of today writes files of schema 2 only, so save reads no other. testdata/v1 is this
// program as it was for schema 1.
package main

import (
	"errors"
	"io"
	"strconv"

	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
)

const (
	format = "todo"
	schema = 2
	before = 1 // the schema that is read and migrated, too
)

type todo struct{}

func init() { torpor.Export(todo{}) } //nolint:gochecknoinits // how a module says what it is

func main() {}

// Describe implements torpor.Serializer.
//
// It does not say Canonical: a file that says the same in another spelling, with spaces for example, is
// saved as well, and comes back as the service spells it.
func (todo) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: format, Version: "2.0.0", Schema: schema, Reads: []uint64{before, schema}, Media: "application/x-ndjson"}
}

// Save implements torpor.Serializer.
func (todo) Save(call *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	if err := call.Settings(nil, nil); err != nil {
		return err
	}
	s := jsonscan.New(native)
	if err := readHeader(s); err != nil {
		return err
	}
	var t task
	var last []byte
	for tasks := uint64(0); s.Next(); tasks++ {
		at := s.Offset()
		counted, end, err := t.parse(s)
		if err != nil {
			return err
		}
		if end {
			return readEnd(s, counted, tasks)
		}
		if tasks > 0 && string(t.id) <= string(last) {
			return &torpor.Error{Code: torpor.CodeCorrupt, Offset: at,
				Msg: "task " + strconv.Quote(string(t.id)) + " comes after " + strconv.Quote(string(last)) + "; ids ascend"}
		}
		last = append(last[:0], t.id...)
		records.RecordText(nil, t.id)
		t.write(records)
	}
	if err := s.Err(); err != nil {
		return err
	}
	return s.Error(torpor.CodeCorrupt, "the file ends without the line that counts the tasks")
}

// Load implements torpor.Serializer.
func (todo) Load(call *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	w := jsonscan.NewWriter(native)
	w.EscapeHTML = true // as the service does
	w.Object()
	w.Key("format")
	w.Text(format)
	w.Key("schema")
	w.Uint(schema)
	w.EndObject()
	w.Newline()
	tasks := uint64(0)
	err := each(call, call.Schema, records, func(t *task, _ *torpor.Record) {
		t.print(w)
		tasks++
	})
	if err != nil {
		return err
	}
	w.Object()
	w.Key("tasks")
	w.Uint(tasks)
	w.EndObject()
	w.Newline()
	return w.Err()
}

// Migrate implements torpor.Migrator.
func (todo) Migrate(call *torpor.Call, records *torpor.Input, migrated *torpor.Output) error {
	if call.To != schema {
		return &torpor.Error{Code: torpor.CodeVersion,
			Msg: "records of schema " + strconv.FormatUint(call.To, 10) + " are wanted; this serializer makes those of schema " + strconv.Itoa(schema)}
	}
	return each(call, call.From, records, func(t *task, r *torpor.Record) {
		migrated.RecordLike(r)
		t.write(migrated)
	})
}

// Inspect implements torpor.Inspector.
func (todo) Inspect(call *torpor.Call, records *torpor.Input, summary *torpor.Output) error {
	var tasks, done uint64
	err := each(call, call.Schema, records, func(t *task, _ *torpor.Record) {
		tasks++
		if t.done {
			done++
		}
	})
	if err != nil {
		return err
	}
	summary.Map(2)
	summary.Text("tasks")
	summary.Uint(tasks)
	summary.Text("done")
	summary.Uint(done)
	return nil
}

// each reads all records, which are of the given schema, and gives out the task that each of them is.
func each(call *torpor.Call, from uint64, records *torpor.Input, f func(*task, *torpor.Record)) error {
	if err := call.Settings(nil, nil); err != nil {
		return err
	}
	if from != before && from != schema {
		return &torpor.Error{Code: torpor.CodeVersion,
			Msg: "records of schema " + strconv.FormatUint(from, 10) + "; this serializer reads schemas " + strconv.Itoa(before) + " and " + strconv.Itoa(schema)}
	}
	var t task
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.read(r, from); err != nil {
			return err
		}
		f(&t, r)
	}
}
