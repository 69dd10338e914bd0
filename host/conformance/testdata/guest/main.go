// Command guest is a serializer for the tests of package conformance. It keeps lines "name=value\n",
// sorted by name, one record a line, and does so rightly unless the setting "break" names a way to do
// it wrongly.
//
// In schema 1 values were byte strings; today, in schema 2, they are text.
package main

import (
	"bytes"
	"errors"
	"io"
	"os"
	"strconv"
	"unicode/utf8"

	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// claims is set by the linker: "canonical", or "ordered", which is not true.
var claims = "canonical"

// What a call is not to know of those before it.
var (
	saved   uint64 // calls of save
	refused bool   // save has refused a state
)

type lines struct{}

func init() { torpor.Export(lines{}) } //nolint:gochecknoinits // how a module says what it is

func main() {}

func (lines) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "lines", Version: "1", Schema: 2, Reads: []uint64{1, 2}, Media: "text/plain",
		Canonical: claims == "canonical", Ordered: claims == "ordered"}
}

// broken is how this call is to go wrong.
func broken(call *torpor.Call) (how string, err error) {
	unknown := false
	err = call.Settings([]string{"break", "torpor-conformance-unknown"}, func(name string, value *record.Pull) error {
		if name == "break" {
			how = string(value.Text())
		} else {
			unknown = true
			value.Skip()
		}
		return nil
	})
	switch {
	case err != nil || !unknown || how == "take any setting":
		return how, err
	case how == "crash at settings":
		os.Exit(4)
	case how == "misjudge settings":
		return how, &torpor.Error{Code: torpor.CodeCorrupt, Msg: "unknown setting"}
	}
	return how, &torpor.Error{Code: torpor.CodeUnsupported, Msg: "unknown setting"}
}

func corrupt(offset uint64) error {
	return &torpor.Error{Code: torpor.CodeCorrupt, Offset: offset, Msg: "not a line of name=value in UTF-8, sorted by name"}
}

func (lines) Save(call *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	how, err := broken(call)
	if err != nil {
		return err
	}
	saved++
	pieces := false
	if how == "show pieces" || how == "crash at damage in pieces" {
		if err := native.Fill(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		pieces = len(native.Bytes()) == 1
	}
	if how == "show pieces" {
		records.Record("pieces", "first")
		records.Uint(uint64(len(native.Bytes())))
	}
	if how == "count calls" && saved > 1 || how == "remember a refusal" && refused {
		records.Record("trace", "saved")
		records.Uint(saved)
	}
	if how == "show a map's order" {
		records.Record("map", "order")
		all := map[uint64]bool{}
		for i := range uint64(30) {
			all[i] = true
		}
		records.Array(len(all))
		for i := range all {
			records.Uint(i)
		}
	}
	if how == "show the time" {
		records.Record("time", "now")
		records.Int(call.Time)
	}
	last := ""
	for n := 0; ; n++ {
		at := native.Offset()
		line, err := native.Until('\n')
		if errors.Is(err, io.EOF) {
			if n == 0 && how == "crash at nothing" {
				os.Exit(3)
			}
			return nil
		}
		if err != nil {
			return err
		}
		whole := line[len(line)-1] == '\n'
		name, value, ok := bytes.Cut(bytes.TrimSuffix(line, []byte("\n")), []byte("="))
		if !whole && ok {
			switch how {
			case "crash at a cut":
				os.Exit(3)
			case "panic at a cut":
				panic("no end of line")
			case "blame itself at a cut":
				return errors.New("no end of line")
			case "mend a cut":
				whole = true
			}
		}
		if !ok || !whole || string(name) <= last && n > 0 || !utf8.Valid(line) {
			if how == "crash at damage" || how == "crash at damage in pieces" && pieces {
				os.Exit(3)
			}
			refused = true
			return corrupt(at)
		}
		last = string(name)
		if how == "lose a line" && n == 1 {
			continue
		}
		key := last
		if how == "repeat a key" && n == 1 {
			key = "a"
		}
		if how == "fold when saving" {
			value = bytes.ToLower(value)
		}
		records.Record("", key)
		records.TextBytes(value)
	}
}

func (lines) Load(call *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	how, err := broken(call)
	if err != nil {
		return err
	}
	pieces := false
	if how == "crash at a value in pieces" {
		if err := records.Fill(); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		pieces = len(records.Bytes()) == 1
	}
	for n := 0; ; n++ {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if len(r.Partition) > 0 {
			r.Items().Skip()
			continue
		}
		var value []byte
		if call.Schema == 1 {
			value = r.Items().Bytes()
		} else {
			value = r.Items().Text()
		}
		if err := r.End(); err != nil {
			switch how {
			case "crash at a value":
				os.Exit(3)
			case "crash at a value in pieces":
				if pieces {
					os.Exit(3)
				}
				return err
			case "swallow a value":
				value = nil
			default:
				return err
			}
		}
		if how == "shout when loading" {
			value = bytes.ToUpper(value)
		}
		if how == "grow when loading" {
			value = append(bytes.Clone(value), '+')
		}
		native.Put(r.Key)
		native.PutByte('=')
		native.Put(value)
		native.PutByte('\n')
	}
}

func (lines) Migrate(call *torpor.Call, records *torpor.Input, migrated *torpor.Output) error {
	how, err := broken(call)
	if err != nil {
		return err
	}
	if call.From != 1 || call.To != 2 || how == "refuse to migrate" {
		return &torpor.Error{Code: torpor.CodeVersion, Msg: "from " + strconv.FormatUint(call.From, 10) + " to " + strconv.FormatUint(call.To, 10)}
	}
	for n := 0; ; n++ {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		value := r.Items().Bytes()
		if err := r.End(); err != nil {
			if how == "crash in migrate" {
				os.Exit(3)
			}
			return err
		}
		if how == "lose in migrate" && n == 1 {
			continue
		}
		migrated.RecordLike(r)
		migrated.TextBytes(value)
	}
}

func (lines) Inspect(call *torpor.Call, records *torpor.Input, summary *torpor.Output) error {
	how, err := broken(call)
	if err != nil {
		return err
	}
	n := uint64(0)
	for {
		if _, err := records.Record(); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return err
		}
		n++
	}
	switch how {
	case "list in inspect":
		summary.Array(1)
	case "twice in inspect":
		summary.Map(2)
		summary.Text("lines")
		summary.Uint(n)
		summary.Text("lines")
	default:
		summary.Map(1)
		summary.Text("lines")
	}
	summary.Uint(n)
	return nil
}
