package torpor_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// sample is records of many shapes, some longer than a small buffer.
func sample() []byte {
	var b []byte
	for i := range 30 {
		b = record.AppendRecord(b)
		b = record.AppendText(b, []string{"", "000000000000/eu-west-1"}[i%2])
		if i%3 == 0 {
			b = record.AppendBytes(b, []byte{byte(i), 0xff})
		} else {
			b = record.AppendText(b, fmt.Sprintf("key-%d", i))
		}
		switch i % 4 {
		case 0:
			b = record.AppendNull(b)
		case 1:
			b = record.AppendText(b, strings.Repeat("x", i*i))
		case 2:
			b = record.AppendUint(record.AppendText(record.AppendMap(b, 1), "n"), uint64(i)<<20)
		case 3:
			b = record.AppendBool(record.AppendTag(b, 42), true)
		}
	}
	return b
}

// spell writes what a record was seen as.
func spell(r *torpor.Record) string {
	return fmt.Sprintf("%d %q %q %v %x %x", r.Offset, r.Partition, r.Key, r.TextKey, r.Value, r.Encoded)
}

// want is what [spell] gives for the records of data, by package record, and the error behind them.
func want(data []byte) ([]string, error) {
	var scan record.Scanner
	refs, err := scan.Scan(data, nil)
	b := record.Batch{Data: data, Refs: refs}
	var all []string
	for i := range refs {
		key, text := b.Key(i)
		all = append(all, spell(&torpor.Record{Partition: b.Partition(i), Key: key, TextKey: text,
			Value: b.Value(i), Encoded: b.Record(i), Offset: uint64(refs[i].Start)}))
	}
	return all, err
}

func readAll(in *torpor.Input) ([]string, error) {
	var all []string
	for {
		r, err := in.Record()
		if err != nil {
			if _, again := in.Record(); !errors.Is(again, err) {
				return all, fmt.Errorf("the error does not stay: %w, then %w", err, again)
			}
			return all, err
		}
		all = append(all, spell(r))
	}
}

func TestRecordsInPiecesOfAnySize(t *testing.T) {
	data := sample()
	all, err := want(data)
	if err != nil {
		t.Fatal(err)
	}
	for _, buffer := range []int{16, 100, 1000, torpor.InputBytes} {
		for size := 1; size <= len(data); size += 1 + size/3 {
			for _, late := range []bool{false, true} {
				in := torpor.NewInput(&script{pieces: cut(data, size), late: late}, buffer)
				got, err := readAll(in)
				if err != io.EOF || strings.Join(got, "\n") != strings.Join(all, "\n") {
					t.Fatalf("pieces of %d, buffer of %d: %v after %d of %d records", size, buffer, err, len(got), len(all))
				}
				if in.Offset() != uint64(len(data)) {
					t.Fatalf("offset %d of %d", in.Offset(), len(data))
				}
			}
		}
	}
}

// As a host frames records: whole ones while they fit, a longer one alone and in pieces.
func TestRecordsFramedByAHost(t *testing.T) {
	data := sample()
	all, _ := want(data)
	var scan record.Scanner
	refs, _ := scan.Scan(data, nil)
	for size := 1; size < 200; size += 7 {
		var pieces []piece
		for _, r := range refs {
			for _, p := range cut(data[r.Start:r.End], size) {
				pieces = append(pieces, piece{p.data, true})
			}
			pieces[len(pieces)-1].more = false
		}
		host := &script{pieces: pieces, late: true}
		got, err := readAll(torpor.NewInput(host, 4096))
		if err != io.EOF || strings.Join(got, "\n") != strings.Join(all, "\n") {
			t.Fatalf("pieces of %d: %v after %d of %d records", size, err, len(got), len(all))
		}
	}
}

func TestRecordsThatAreNone(t *testing.T) {
	sound := sample()
	for _, c := range []struct {
		bad    string
		code   torpor.Code
		offset int
		msg    string
	}{
		{"\x00", torpor.CodeCorrupt, 0, "a record is an array of three"},
		{"\x83\x60\x01", torpor.CodeCorrupt, 2, "the key must be a text or byte string"},
		{"\x83\x60\x60\x5f", torpor.CodeCorrupt, 3, "an indefinite length"},
		{"\x83\x60\x60" + strings.Repeat("\x81", 70), torpor.CodeTooLarge, 3 + record.MaxDepth, "nested deeper"},
		{"\x83\x60", torpor.CodeCorrupt, 2, "the input ends inside a record"},
		{"\x83\x60\x60\x45aaaa", torpor.CodeCorrupt, 8, "the input ends inside a record"},
	} {
		data := append(bytes.Clone(sound), c.bad...)
		for _, size := range []int{1, 5, 1000, len(data)} {
			got, err := readAll(torpor.NewInput(&script{pieces: cut(data, size)}, 64))
			var e *torpor.Error
			if !errors.As(err, &e) || e.Code != c.code || e.Offset != uint64(len(sound)+c.offset) ||
				!strings.Contains(e.Msg, c.msg) || e.Path != "record 31" || len(got) != 30 {
				t.Errorf("%x in pieces of %d: after %d records %#v", c.bad, size, len(got), err)
			}
		}
	}
}

func TestRecordsCutAnywhere(t *testing.T) {
	data := sample()
	var scan record.Scanner
	refs, _ := scan.Scan(data, nil)
	whole := map[int]int{0: 0}
	for i, r := range refs {
		whole[r.End] = i + 1
	}
	for n := range data {
		got, err := readAll(torpor.NewInput(&script{pieces: cut(data[:n], 50)}, 64))
		if count, ok := whole[n]; ok {
			if err != io.EOF || len(got) != count {
				t.Fatalf("cut at %d, between records: %v after %d", n, err, len(got))
			}
			continue
		}
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeCorrupt || e.Offset != uint64(n) {
			t.Fatalf("cut at %d: %v", n, err)
		}
	}
}

func FuzzRecords(f *testing.F) {
	f.Add(sample(), 7, false)
	f.Add([]byte("\x83\x60\x60\xf6\x83\x60\x60\x5b\xff\xff\xff\xff\xff\xff\xff\xff"), 3, true)
	f.Add([]byte{}, 1, true)
	f.Fuzz(func(t *testing.T, data []byte, size int, late bool) {
		if size <= 0 {
			size = 1
		}
		all, wrong := want(data)
		got, err := readAll(torpor.NewInput(&script{pieces: cut(data, size), late: late}, 32))
		if strings.Join(got, "\n") != strings.Join(all, "\n") {
			t.Fatalf("records\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(all, "\n"))
		}
		var e *torpor.Error
		var fe *record.FormatError
		switch {
		case wrong == nil:
			if err != io.EOF {
				t.Fatal(err)
			}
		case !errors.As(err, &e) || !errors.As(wrong, &fe) || e.Offset != uint64(fe.Offset) || !errors.Is(err, fe.Err):
			t.Fatalf("%v, want %v", err, wrong)
		}
	})
}

func TestUntil(t *testing.T) {
	data := []byte("one\n\ntwo and a half\nthe last")
	for size := 1; size <= len(data); size++ {
		for _, late := range []bool{false, true} {
			in := torpor.NewInput(&script{pieces: cut(data, size), late: late}, 4)
			for at, want := range []string{"one\n", "\n", "two and a half\n", "the last"} {
				line, err := in.Until('\n')
				if err != nil || string(line) != want {
					t.Fatalf("pieces of %d, line %d: %q, %v", size, at, line, err)
				}
			}
			for range 2 {
				if line, err := in.Until('\n'); err != io.EOF || line != nil {
					t.Fatalf("at the end: %q, %v", line, err)
				}
			}
			if in.Offset() != uint64(len(data)) {
				t.Fatalf("offset %d", in.Offset())
			}
		}
	}
}

func TestReader(t *testing.T) {
	if err := iotest.TestReader(torpor.NewInput(&script{pieces: cut(sample(), 5), late: true}, 16), sample()); err != nil {
		t.Error(err)
	}
}

// Looking at the window, records, lines and reading may be mixed.
func TestMixed(t *testing.T) {
	one := record.AppendText(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"), "v")
	data := bytes.Join([][]byte{[]byte("head\n"), one, one, []byte("ab"), one, []byte("rest")}, nil)
	for size := 1; size <= len(data); size++ {
		in := torpor.NewInput(&script{pieces: cut(data, size)}, 8)
		if line, err := in.Until('\n'); err != nil || string(line) != "head\n" {
			t.Fatalf("%q, %v", line, err)
		}
		for i := range 3 {
			if i == 2 {
				for len(in.Bytes()) < 2 {
					if err := in.Fill(); err != nil {
						t.Fatal(err)
					}
				}
				if !bytes.HasPrefix(in.Bytes(), []byte("ab")) {
					t.Fatalf("window %q", in.Bytes())
				}
				in.Consume(2)
			}
			r, err := in.Record()
			if err != nil || !bytes.Equal(r.Encoded, one) || r.Offset != uint64(5+i*len(one)+i/2*2) {
				t.Fatalf("record %d in pieces of %d: %v, %v", i, size, r, err)
			}
		}
		if rest, err := io.ReadAll(in); err != nil || string(rest) != "rest" {
			t.Fatalf("%q, %v", rest, err)
		}
	}
}

func TestWindowHasALimit(t *testing.T) {
	in := torpor.NewInput(&script{pieces: cut(bytes.Repeat([]byte("x"), 5000), 100)}, 64)
	in.Limit(1000)
	_, err := in.Until('\n')
	var e *torpor.Error
	if !errors.As(err, &e) || !errors.Is(err, abi.ErrTooLarge) || e.Offset != 0 || !strings.Contains(e.Msg, "limit of 1000 bytes") {
		t.Errorf("a line without an end: %v", err)
	}
	if _, again := in.Until('\n'); again != err {
		t.Errorf("the second time: %v", again)
	}

	long := record.AppendBytes(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "k"), make([]byte, 2000))
	for _, c := range []struct {
		limit int
		fits  bool
	}{{len(long), true}, {len(long) - 1, false}} {
		for _, size := range []int{1, 333, len(long)} {
			in := torpor.NewInput(&script{pieces: cut(append(bytes.Clone(long), long...), size)}, 64)
			in.Limit(c.limit)
			got, err := readAll(in)
			if c.fits != (len(got) == 2 && err == io.EOF) || !c.fits && !errors.Is(err, abi.ErrTooLarge) {
				t.Errorf("limit %d for records of %d in pieces of %d: %d, %v", c.limit, len(long), size, len(got), err)
			}
		}
	}
}

// A host that breaks the rules of next gets an error, not an endless loop or a wild slice.
func TestInputThatCannotBeRead(t *testing.T) {
	for _, result := range []int64{abi.NextFailed, 0, 9, 1 << 31, abi.NextMore} {
		in := torpor.NewInput(answers{next: result}, 8)
		err := in.Fill()
		var e *torpor.Error
		if !errors.As(err, &e) || e.Code != torpor.CodeInternal || !strings.Contains(e.Msg, "cannot be read") {
			t.Errorf("next returns %#x: %v", result, err)
		}
		if _, err := in.Record(); !errors.Is(err, e) {
			t.Errorf("afterwards: %v", err)
		}
	}
}

type answers struct {
	torpor.Host
	next int64
}

func (a answers) Next([]byte) int64 { return a.next }

func TestTheHostIsNotAskedPastTheEnd(t *testing.T) {
	host := &script{pieces: cut(sample(), 1<<20)}
	if _, err := readAll(torpor.NewInput(host, 1<<20)); err != io.EOF || host.nexts != 1 {
		t.Errorf("%d calls, %v", host.nexts, err)
	}
}

func TestConsumeTooMuch(t *testing.T) {
	in := torpor.NewInput(&script{pieces: cut([]byte("abc"), 3)}, 8)
	if err := in.Fill(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if recover() == nil {
			t.Error("no panic")
		}
	}()
	in.Consume(4)
}

func TestRecordErrorsNameTheirPlace(t *testing.T) {
	first := record.AppendNull(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "first"))
	second := record.AppendBytes(record.AppendText(record.AppendRecord(nil), "000000000000/eu-west-1"), []byte{0xff, 'k'})
	value := len(first) + len(second)
	second = record.AppendText(record.AppendText(record.AppendMap(second, 1), "n"), "seven")
	data := append(first, second...)
	open := func() *torpor.Record {
		in := torpor.NewInput(&script{pieces: cut(data, 4)}, 64)
		if _, err := in.Record(); err != nil {
			t.Fatal(err)
		}
		r, err := in.Record()
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	const path = `record 2, key "\xffk" in "000000000000/eu-west-1"`

	r := open()
	p := r.Items()
	p.Map()
	p.Text()
	p.Uint()
	if err, want := r.End(), (torpor.Error{Code: torpor.CodeCorrupt, Msg: "an unsigned integer expected, found 0x65", Path: path, Offset: uint64(value + 3)}); *err.(*torpor.Error) != want {
		t.Errorf("wrong kind: %#v", err)
	}
	p = r.Items()
	p.Map()
	if err, want := r.End(), (torpor.Error{Code: torpor.CodeCorrupt, Msg: "8 bytes after the end", Path: path, Offset: uint64(value + 1)}); *err.(*torpor.Error) != want {
		t.Errorf("not read to the end: %#v", err)
	}
	r.Items().Skip()
	if err := r.End(); err != nil {
		t.Errorf("read to the end: %v", err)
	}
	if e, want := r.Error(64, "odd"), (torpor.Error{Code: 64, Msg: "odd", Path: path, Offset: uint64(len(first))}); *e != want {
		t.Errorf("own: %#v", e)
	}
	r.Partition, r.Key = nil, bytes.Repeat([]byte("k"), 1000)
	if e := r.Error(64, "odd"); e.Path != `record 2, key "`+strings.Repeat("k", 100)+`"...` {
		t.Errorf("long key: %s", e.Path)
	}
}
