package torpor_test

import (
	"bytes"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	torpor "github.com/torpor-run/torpor/sdk/go"
)

// joined checks that what was emitted keeps the rules of ABI.md for records, and returns it.
func joined(t *testing.T, all []emitted, buffer int) []byte {
	t.Helper()
	var out, open []byte
	partial := false
	for _, e := range all {
		if len(e.data) > buffer {
			t.Fatalf("%d bytes at once from a buffer of %d", len(e.data), buffer)
		}
		open = append(open, e.data...)
		if e.more {
			partial = true
			continue
		}
		var scan record.Scanner
		refs, err := scan.Scan(open, nil)
		if err != nil || len(refs) == 0 || partial && len(refs) != 1 {
			t.Fatalf("%d records emitted at once, in fragments: %v, %v: %x", len(refs), partial, err, open)
		}
		out, open, partial = append(out, open...), open[:0], false
	}
	if partial {
		t.Fatal("a record is left open")
	}
	return out
}

func TestRecordsLeaveWholeOrInFragmentsOfOne(t *testing.T) {
	values := []int{1, 0, 3, 40, 2, 100, 1, 15, 16, 17, 18, 19, 20, 23, 24, 255, 256, 300, 0, 0}
	for buffer := torpor.MaxHeadBytes; buffer < 400; buffer++ {
		host := &script{}
		out := torpor.NewOutput(host, buffer)
		var want []byte
		for i, n := range values {
			key := []string{"k", "a longer key, in fact"}[i%2]
			want = record.AppendText(record.AppendRecord(want), "p")
			if i%3 == 0 {
				out.RecordBytes("p", []byte(key))
				want = record.AppendBytes(want, key)
			} else {
				out.Record("p", key)
				want = record.AppendText(want, key)
			}
			value := bytes.Repeat([]byte{'a' + byte(i)}, n)
			switch i % 5 {
			case 0:
				out.Bytes(value)
				want = record.AppendBytes(want, value)
			case 1:
				out.Text(string(value))
				want = record.AppendText(want, value)
			case 2:
				out.TextBytes(value)
				want = record.AppendText(want, value)
			case 3: // in pieces
				out.TextHead(n)
				for _, c := range value {
					out.PutByte(c)
				}
				want = record.AppendText(want, value)
			case 4:
				out.BytesHead(n)
				out.PutString(string(value[:n/2]))
				if _, err := out.Write(value[n/2:]); err != nil {
					t.Fatal(err)
				}
				want = record.AppendBytes(want, value)
			}
		}
		if err := out.Finish(); err != nil {
			t.Fatal(err)
		}
		if got := joined(t, host.emitted, buffer); !bytes.Equal(got, want) {
			t.Fatalf("buffer of %d: %x, want %x", buffer, got, want)
		}
	}
}

func TestNativeOutputHasNoFraming(t *testing.T) {
	text := []byte(strings.Repeat("0123456789", 30))
	for _, buffer := range []int{9, 64, 299, 300, 301, 1000} {
		host := &script{}
		out := torpor.NewOutput(host, buffer)
		for i := 0; i < len(text); i += 10 {
			switch i % 40 {
			case 0:
				out.Put(text[i : i+10])
			case 10:
				out.PutString(string(text[i : i+10]))
			case 20:
				out.Put(append(out.AvailableBuffer(), text[i:i+10]...)) // in place if there is room
			case 30:
				fmt.Fprintf(out, "%s", text[i:i+10])
			}
		}
		if err := out.Finish(); err != nil {
			t.Fatal(err)
		}
		var got []byte
		for _, e := range host.emitted {
			if e.more {
				t.Fatal("a fragment")
			}
			got = append(got, e.data...)
		}
		if !bytes.Equal(got, text) {
			t.Fatalf("buffer of %d: %q", buffer, got)
		}
	}
}

func TestOutputWritesEachKind(t *testing.T) {
	host := &script{}
	out := torpor.NewOutput(host, 64)
	out.Array(13)
	out.Uint(300)
	out.Int(-300)
	out.Int(math.MinInt64)
	out.Int(7)
	out.Bool(true)
	out.Bool(false)
	out.Null()
	out.Tag(1)
	out.Float(1.5)
	out.Map(1)
	out.Text("é")
	out.Bytes([]byte{7})
	out.Text(strings.Repeat("t", 23))
	out.Text(strings.Repeat("t", 24))
	out.TextBytes([]byte(strings.Repeat("t", 23)))
	out.Put([]byte{0xf6})
	if err := out.Finish(); err != nil {
		t.Fatal(err)
	}
	var got []byte
	for _, e := range host.emitted {
		got = append(got, e.data...)
	}
	p := record.NewPull(got)
	if p.Array() != 13 || p.Uint() != 300 || p.Int() != -300 || p.Int() != math.MinInt64 || p.Int() != 7 || !p.Bool() || p.Bool() {
		t.Error("integers or bools")
	}
	if null, float := p.Skip(), p.Skip(); !bytes.Equal(null, []byte{0xf6}) || !bytes.Equal(float, []byte{0xc1, 0xfb, 0x3f, 0xf8, 0, 0, 0, 0, 0, 0}) {
		t.Errorf("null %x, tagged float %x", null, float)
	}
	if p.Map() != 1 || string(p.Text()) != "é" || !bytes.Equal(p.Bytes(), []byte{7}) {
		t.Error("map")
	}
	for _, n := range []int{23, 24, 23} {
		if s := p.Text(); len(s) != n {
			t.Errorf("text %q", s)
		}
	}
	p.Skip()
	if err := p.End(); err != nil {
		t.Error(err)
	}
}

func TestARefusalOfOutputStays(t *testing.T) {
	host := &script{refuse: 1}
	out := torpor.NewOutput(host, 16)
	for range 100 {
		out.Record("", "key")
		out.Bytes(make([]byte, 50))
	}
	_, err := out.Write([]byte("x"))
	if err == nil || out.Finish() != err {
		t.Errorf("%v", err)
	}
	if len(host.emitted) != 2 {
		t.Errorf("the host was asked %d times; it had refused the second", len(host.emitted))
	}
	status := torpor.Run(&script{refuse: 1, arg: []byte{0xa0}, pieces: cut([]byte("x"), 1)}, abi.OpSave, funcs{save: func(_ *torpor.Call, native *torpor.Input, records *torpor.Output) error {
		for range 1000 {
			records.Record("", "key")
			records.Bytes(make([]byte, 1000))
		}
		return drain(native)
	}})
	if status != int32(torpor.CodeInternal) {
		t.Errorf("status %d", status)
	}
}

// drain reads in to its end.
func drain(in *torpor.Input) error {
	_, err := io.Copy(io.Discard, in)
	return err
}

func TestRecordLike(t *testing.T) {
	data := sample()
	host := &script{}
	in, out := torpor.NewInput(&script{pieces: cut(data, 100)}, 64), torpor.NewOutput(host, 64)
	for {
		r, err := in.Record()
		if err != nil {
			break
		}
		out.RecordLike(r)
		out.Put(r.Value)
	}
	if err := out.Finish(); err != nil {
		t.Fatal(err)
	}
	if got := joined(t, host.emitted, 64); !bytes.Equal(got, data) {
		t.Errorf("%x", got)
	}
}

// Texts of every length that is copied by hand, and those around it, at every place of the buffer.
func TestTextOfEveryLength(t *testing.T) {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	for n := range len(letters) + 1 {
		for before := range 40 {
			h := &script{}
			out := torpor.NewOutput(h, 64)
			pad := strings.Repeat("-", before)
			out.PutString(pad)
			out.Text(letters[:n])
			out.TextBytes([]byte(letters)[:n])
			if err := out.Finish(); err != nil {
				t.Fatal(err)
			}
			var got []byte
			for _, e := range h.emitted {
				got = append(got, e.data...)
			}
			if want := record.AppendText(record.AppendText([]byte(pad), letters[:n]), letters[:n]); !bytes.Equal(got, want) {
				t.Fatalf("%d letters behind %d bytes: %q, want %q", n, before, got, want)
			}
		}
	}
}
