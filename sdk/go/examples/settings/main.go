// Command settings is a serializer for files of lines name=value, sorted by name.
package main

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	torpor "github.com/torpor-run/torpor/sdk/go"
)

// lines keeps a file of lines "name=value", sorted by name: one record a line.
type lines struct{}

func init() { torpor.Export(lines{}) } //nolint:gochecknoinits // how a module says what it is

func main() {}

func (lines) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "settings", Version: "1.0.0", Schema: 1, Media: "text/plain", Canonical: true}
}

func (lines) Save(call *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	if err := call.Settings(nil, nil); err != nil {
		return err
	}
	var last []byte
	for first := true; ; first = false {
		at := native.Offset()
		line, err := native.Until('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, value, ok := bytes.Cut(line, []byte("="))
		if !ok || line[len(line)-1] != '\n' || !first && bytes.Compare(name, last) <= 0 || !utf8.Valid(line) {
			return &torpor.Error{Code: torpor.CodeCorrupt, Offset: at, Msg: "not a line of name=value in UTF-8, sorted by name"}
		}
		last = append(last[:0], name...)
		records.RecordText(nil, name)
		records.TextBytes(value[:len(value)-1])
	}
}

func (lines) Load(call *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	if err := call.Settings(nil, nil); err != nil {
		return err
	}
	var last []byte
	for first := true; ; first = false {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		value := r.Items().Text()
		if err := r.End(); err != nil {
			return err
		}
		if !r.TextKey || !utf8.Valid(value) || !first && bytes.Compare(r.Key, last) <= 0 {
			return r.Error(torpor.CodeCorrupt, "not a record of a name and a value in text, sorted by name")
		}
		last = append(last[:0], r.Key...)
		native.Put(r.Key)
		native.PutByte('=')
		native.Put(value)
		native.PutByte('\n')
	}
}
