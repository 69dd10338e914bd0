// Command v1 is the todo example as it was while the to-do service wrote schema 1: the module that is kept
// beside the states of that time, and that tests write such states with.
//
// The service keeps one file in JSON lines, written with encoding/json from a struct: a line that says
// the format and its schema, one line for each task in ascending order of ids, and a line that says
// how many tasks there are, so that a file that was cut is known as such.
//
//	{"format":"todo","schema":1}
//	{"id":"0007","list":"home","title":"Buy milk","assignee":"Ada Lovelace","due":"2026-05-01T18:00","priority":2,"done":false,"tags":["shop"]}
//	{"tasks":1}
//
// A task is a record: partition "", its id as the key, and a map of the other members. What load gives
// back is the very bytes that save was given; a line that says the same in another spelling, with
// spaces for example, is refused.
//
// task.go holds the conversions, json.go what they need of JSON.
package main

import (
	"errors"
	"io"
	"strconv"

	torpor "github.com/torpor-run/torpor/sdk/go"
)

const (
	schema   = 1
	firstRow = `{"format":"todo","schema":1}` + "\n"
)

type todo struct{}

func init() { torpor.Export(todo{}) } //nolint:gochecknoinits // how a module says what it is

func main() {}

// Describe implements torpor.Serializer.
func (todo) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "todo", Version: "1.0.0", Schema: schema, Media: "application/x-ndjson", Canonical: true}
}

// Save implements torpor.Serializer.
func (todo) Save(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	p := parser{}
	if err := p.first(native); err != nil {
		return err
	}
	var t task
	var last []byte
	for tasks := uint64(0); ; tasks++ {
		at := native.Offset()
		line, err := native.Until('\n')
		if errors.Is(err, io.EOF) {
			return &torpor.Error{Code: torpor.CodeCorrupt, Offset: at, Msg: "the file ends without the line that counts the tasks"}
		}
		if err != nil {
			return err
		}
		p.reset(line, at)
		if p.literal(`{"tasks":`) {
			return p.last(native, tasks)
		}
		if err := t.parse(&p); err != nil {
			return err
		}
		if tasks > 0 && string(t.id) <= string(last) {
			return &torpor.Error{Code: torpor.CodeCorrupt, Offset: at,
				Msg: "task " + strconv.Quote(string(t.id)) + " comes after " + strconv.Quote(string(last)) + "; ids ascend"}
		}
		last = append(last[:0], t.id...)
		t.record(records)
	}
}

// Load implements torpor.Serializer.
func (todo) Load(call *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	if err := readable(call); err != nil {
		return err
	}
	native.PutString(firstRow)
	var t task
	for tasks := uint64(0); ; tasks++ {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			native.Put(append(strconv.AppendUint([]byte(`{"tasks":`), tasks, 10), "}\n"...))
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.read(r); err != nil {
			return err
		}
		native.Put(t.appendLine(native.AvailableBuffer()))
	}
}

// Inspect implements torpor.Inspector.
func (todo) Inspect(call *torpor.Call, records *torpor.Input, summary *torpor.Output) error {
	if err := readable(call); err != nil {
		return err
	}
	var t task
	var tasks, done uint64
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			summary.Map(2)
			summary.Text("tasks")
			summary.Uint(tasks)
			summary.Text("done")
			summary.Uint(done)
			return nil
		}
		if err != nil {
			return err
		}
		if err := t.read(r); err != nil {
			return err
		}
		tasks++
		if t.done {
			done++
		}
	}
}

func readable(call *torpor.Call) error {
	if call.Schema == schema {
		return nil
	}
	return &torpor.Error{Code: torpor.CodeVersion,
		Msg: "records of schema " + strconv.FormatUint(call.Schema, 10) + "; this serializer reads schema " + strconv.Itoa(schema)}
}
