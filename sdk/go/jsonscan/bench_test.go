package jsonscan_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"testing"

	torpor "github.com/torpor-run/torpor/sdk/go"
	"github.com/torpor-run/torpor/sdk/go/jsonscan"
)

// streams is an array of n objects as a cloud emulator keeps them.
func streams(n int) []byte {
	b := []byte("[")
	for i := range n {
		b = fmt.Appendf(b, `{"arn":"arn:aws:kinesis:eu-west-1:000000000000:stream/orders-%06d","created":%d,"active":true,"shards":[{"id":"shardId-%012d","from":0,"count":%d}],"tags":{"env":"dev","team":"orders"},"cursor":null},`,
			i, 1_700_000_000+i, i%7, i%1000)
	}
	return append(b[:len(b)-1], ']')
}

func BenchmarkScanner(b *testing.B) {
	document := streams(10_000)
	for name, f := range map[string]func(s *jsonscan.Scanner){
		"Skip": (*jsonscan.Scanner).Skip,
		"AppendItem": func(s *jsonscan.Scanner) {
			var item []byte
			s.Array()
			for s.More() {
				item = s.AppendItem(item[:0])
			}
		},
	} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(document)))
			for b.Loop() {
				h := input{rest: document}
				if torpor.Run(&h, "save", reading(func(s *jsonscan.Scanner) error {
					f(s)
					return s.End()
				})) != 0 {
					b.Fatal("failed")
				}
			}
		})
	}
	b.Run("encoding-json-Valid", func(b *testing.B) {
		b.SetBytes(int64(len(document)))
		for b.Loop() {
			json.Valid(document)
		}
	})
}

func BenchmarkItem(b *testing.B) {
	document := streams(10_000)
	var items [][]byte
	if err := read(document, 0, func(s *jsonscan.Scanner) error {
		s.Array()
		for s.More() {
			items = append(items, bytes.Clone(s.AppendItem(nil)))
		}
		return s.End()
	}); err != nil {
		b.Fatal(err)
	}
	b.SetBytes(int64(len(document)))
	for b.Loop() {
		h := input{}
		if torpor.Run(&h, "load", writing{f: func(w *jsonscan.Writer) error {
			w.Array()
			for _, item := range items {
				if err := w.Item(item); err != nil {
					return err
				}
			}
			w.EndArray()
			return nil
		}}) != 0 {
			b.Fatal("failed")
		}
	}
}

// input is a host that gives input and takes output, and does no more.
type input struct{ rest []byte }

func (h *input) Next(buf []byte) int64 {
	n := copy(buf, h.rest)
	if h.rest = h.rest[n:]; len(h.rest) == 0 {
		return int64(n) | 1<<32
	}
	return int64(n)
}

func (*input) Emit([]byte, bool) int32  { return 0 }
func (*input) Arg(buf []byte) int       { buf[0] = 0xa0; return 1 }
func (*input) Fail(torpor.Code, []byte) {}
func (*input) Log(torpor.Level, string) {}
