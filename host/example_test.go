package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// keys is a sink that prints what it is given.
type keys struct{ records []byte }

func (k *keys) WriteBatch(b *record.Batch) error {
	for i := range b.Len() {
		key, _ := b.Key(i)
		fmt.Printf("record %s/%s, %d bytes\n", b.Partition(i), key, len(b.Record(i)))
	}
	k.records = append(k.records, b.Data...) // the batch is ours only until we return
	return nil
}

// Save a service's native state as records, and load it back.
func Example() {
	ctx := context.Background()
	h, err := host.New(ctx, host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close(ctx)

	// The built-in serializer of services that speak records themselves.
	m, err := h.Compile(ctx, "records", modules.Records())
	if err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(m.Descriptor().Name, m.Descriptor().Operations)

	native := []byte("\x83\x66orders\x62o1\x18\x2a" + "\x83\x66orders\x62o2\x18\x2b")
	call := abi.Call{Service: "orders", Part: "store", Schema: m.Descriptor().Schema}
	var saved keys
	if err := m.Save(ctx, call, bytes.NewReader(native), &saved); err != nil {
		fmt.Println(err)
		return
	}

	var restored bytes.Buffer
	if err := m.Load(ctx, call, record.NewReader(bytes.NewReader(saved.records), 0), &restored); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println("restored:", bytes.Equal(restored.Bytes(), native))
	// Output:
	// records [save load migrate inspect]
	// record orders/o1, 13 bytes
	// record orders/o2, 13 bytes
	// restored: true
}

// What a serializer finds wrong with a state, and what is wrong with a module, are different errors.
func ExampleModule_Save_errors() {
	ctx := context.Background()
	h, err := host.New(ctx, host.Config{Logger: slog.New(slog.DiscardHandler)})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer h.Close(ctx)

	if _, err = h.Compile(ctx, "mine", []byte("#!/bin/sh")); err != nil {
		fmt.Println(err)
	}
	m, err := h.Compile(ctx, "records", modules.Records())
	if err != nil {
		fmt.Println(err)
		return
	}
	err = m.Save(ctx, abi.Call{}, bytes.NewReader([]byte("\x83\x66orders\x62o1")), &keys{})
	var refused *host.GuestError
	fmt.Println(errors.As(err, &refused), errors.Is(err, abi.ErrCorrupt))
	fmt.Println(err)
	// Output:
	// module mine: compile: this is no WebAssembly module: it does not begin with \0asm
	// true true
	// serializer records: save: the input ends inside a record at record 1 (offset 11)
}
