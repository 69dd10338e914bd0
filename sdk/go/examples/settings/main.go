// Command settings is the shortest complete serializer, the one of the SDK's README.
package main

import (
	"bytes"
	"errors"
	"io"
	"unicode/utf8"

	torpor "github.com/torpor-run/torpor/sdk/go"
)

// settings keeps a file of lines "name=value", sorted by name: one record a line.
type settings struct{}

func init() { torpor.Export(settings{}) } //nolint:gochecknoinits // how a module says what it is

func main() {}

func (settings) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "settings", Version: "1.0.0", Schema: 1, Media: "text/plain", Canonical: true}
}

func (settings) Save(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	last := ""
	for {
		at := native.Offset()
		line, err := native.Until('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name, value, ok := bytes.Cut(line, []byte("="))
		if !ok || line[len(line)-1] != '\n' || string(name) <= last || !utf8.Valid(line) {
			return &torpor.Error{Code: torpor.CodeCorrupt, Offset: at, Msg: "not a line of name=value in UTF-8, sorted by name"}
		}
		last = string(name)
		records.Record("", last)
		records.TextBytes(value[:len(value)-1])
	}
}

func (settings) Load(_ *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	for {
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
		native.Put(r.Key)
		native.PutByte('=')
		native.Put(value)
		native.PutByte('\n')
	}
}
