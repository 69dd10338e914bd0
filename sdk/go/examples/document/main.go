// Command document is a serializer for services that keep their state in one JSON document, an object of
// objects, as many emulators and mocks do. Use it as it is, or as the beginning of one of your own.
//
//	{"streams":{"orders":{"shards":[0,1]},"refunds":{"shards":[0]}},"topics":{},"version":3}
//
// Each member of a member is a record, so that Torpor can store, compare and merge them one by one: the
// outer name is its partition, the inner one its key, and what stands there its value. A member that is no
// object, or an empty one, is a record too, with the empty byte string for a key.
//
//	["streams", "orders", {"shards": [0, 1]}]
//	["streams", "refunds", {"shards": [0]}]
//	["topics", h'', {}]
//	["version", h'', 3]
//
// Names must ascend, as they do when a program sorts them (encoding/json does so for maps, Python's json
// with sort_keys=True), because that is how a serializer can tell that none comes twice without remembering
// all of them. What load gives back is the same document without white space and with the fewest escapes;
// numbers keep their spelling.
package main

import (
	"bytes"
	"errors"
	"io"

	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
)

type document struct{}

func init() { torpor.Export(document{}) } //nolint:gochecknoinits // how a module says what it is

func main() {}

// Describe implements torpor.Serializer.
func (document) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "document", Version: "1.0.0", Schema: 1, Media: "application/json"}
}

// Save implements torpor.Serializer.
func (document) Save(call *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	if err := call.Settings(nil, nil); err != nil {
		return err
	}
	s := jsonscan.New(native)
	var partition, key, value []byte // kept, because a name is valid only until the next is read
	s.Object()
	for members := 0; ; members++ {
		name, ok := s.Key()
		if !ok {
			return s.End()
		}
		if members > 0 && bytes.Compare(name, partition) <= 0 {
			return s.Error(torpor.CodeUnsupported, notAscending)
		}
		partition = append(partition[:0], name...)
		if s.Peek() != jsonscan.KindObject {
			records.RecordBytes(string(partition), nil)
			value = s.AppendItem(value[:0])
			records.Put(value)
			continue
		}
		s.Object()
		for n := 0; ; n++ {
			name, ok := s.Key()
			if !ok && n == 0 && s.Err() == nil {
				records.RecordBytes(string(partition), nil)
				records.Map(0)
			}
			if !ok {
				break
			}
			if n > 0 && bytes.Compare(name, key) <= 0 {
				return s.Error(torpor.CodeUnsupported, notAscending)
			}
			key = append(key[:0], name...)
			records.RecordText(partition, key)
			value = s.AppendItem(value[:0])
			records.Put(value)
		}
	}
}

const notAscending = "this name does not come after the one before: the names in an object must ascend, so that none can come twice; have the service sort them"

// Load implements torpor.Serializer.
func (document) Load(call *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	if err := call.Settings(nil, nil); err != nil {
		return err
	}
	w := jsonscan.NewWriter(native)
	var partition []byte
	open := false // an object, for the records of this partition
	w.Object()
	for n := 0; ; n++ {
		r, err := records.Record()
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if open && (err != nil || !bytes.Equal(r.Partition, partition)) {
			w.EndObject()
			open = false
		}
		if err != nil {
			w.EndObject()
			return w.Err()
		}
		if !open {
			if n > 0 && bytes.Compare(r.Partition, partition) <= 0 {
				return r.Error(torpor.CodeUnsupported, "records of one partition must be together, and partitions ascend")
			}
			partition = append(partition[:0], r.Partition...)
			w.KeyBytes(partition)
		}
		switch {
		case r.TextKey:
			if !open {
				w.Object()
				open = true
			}
			w.KeyBytes(r.Key)
		case open || len(r.Key) > 0:
			return r.Error(torpor.CodeUnsupported, "a key is a text, or it is the empty byte string and the only one of its partition")
		}
		if err := w.Item(r.Value); err != nil {
			return r.ValueError(err)
		}
	}
}
