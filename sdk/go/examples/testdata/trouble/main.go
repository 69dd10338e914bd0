// Command trouble is a serializer for tests: each line of its native state is a command.
package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strconv"
	"time"

	torpor "github.com/torpor-run/torpor/sdk/go"
)

type trouble struct{}

func init() { torpor.Export(trouble{}) }

func main() {}

func (trouble) Describe() torpor.Descriptor {
	return torpor.Descriptor{Name: "trouble", Version: "1.0.0", Schema: 1, Media: "text/plain"}
}

var kept []string

func (trouble) Save(call *torpor.Call, native *torpor.Input, records *torpor.Output) error {
	for n := 1; ; n++ {
		line, err := native.Until('\n')
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		command, arg, _ := bytes.Cut(bytes.TrimSpace(line), []byte(" "))
		key := fmt.Sprintf("%d", n)
		switch string(command) {
		case "panic":
			panic(string(arg))
		case "nil":
			var p *torpor.Call
			p.Service = "x"
		case "index":
			_ = arg[len(arg)+n]
		case "error":
			return fmt.Errorf("line %d: %w", n, &torpor.Error{Code: 64, Msg: string(arg), Path: "a path", Offset: native.Offset()})
		case "short":
			return nil
		case "print": // the parts of the standard library that a guest may lean on
			var v map[string]any
			if err := json.Unmarshal(arg, &v); err != nil {
				return err
			}
			fmt.Println("printed", v)
			call.Log(torpor.LevelWarn, "logged "+time.Unix(0, call.Time).UTC().Format(time.RFC3339))
			records.Record("", key)
			records.Text(time.Now().UTC().Format(time.RFC3339Nano))
		case "value": // one of so many bytes, in pieces
			size, err := strconv.Atoi(string(arg))
			if err != nil {
				return err
			}
			records.Record("", key)
			records.BytesHead(size)
			piece := bytes.Repeat([]byte{byte(n)}, 1000)
			for size > 0 {
				piece = piece[:min(size, len(piece))]
				records.Put(piece)
				size -= len(piece)
			}
		case "garbage": // so many MB, in pieces of 1 KB
			mb, err := strconv.Atoi(string(arg))
			if err != nil {
				return err
			}
			for i := range mb << 10 {
				kept = append(kept[:i&0xff], string(bytes.Repeat([]byte{'x'}, 1024)))
			}
			kept = nil
		default:
			records.Record("", key)
			records.TextBytes(line)
		}
	}
}

func (trouble) Load(_ *torpor.Call, records *torpor.Input, native *torpor.Output) error {
	for {
		r, err := records.Record()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		v, _ := r.Items().TextOrBytes()
		if err := r.End(); err != nil {
			return err
		}
		native.Put(v)
	}
}
