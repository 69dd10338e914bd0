package host_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/fxamacker/cbor/v2"

	"github.com/torpor-run/torpor/host"
	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/modules"
)

// These tests run the built-in module that services use, through all of the host.

// streamRecords is size bytes or a little more of records of some 230 bytes, like a cloud emulator's.
func streamRecords(size int) (data []byte, records int) {
	blob := bytes.Repeat([]byte{0xa5}, 80)
	for len(data) < size {
		name := fmt.Sprintf("stream-%08d", records)
		data = record.AppendRecord(data)
		data = record.AppendText(data, "000000000000/eu-west-1")
		data = record.AppendText(data, name)
		data = record.AppendMap(data, 5)
		data = record.AppendText(data, "arn")
		data = record.AppendText(data, "arn:aws:kinesis:eu-west-1:000000000000:stream/"+name)
		data = record.AppendText(data, "created")
		data = record.AppendUint(data, 1_700_000_000+uint64(records))
		data = record.AppendText(data, "active")
		data = record.AppendBool(data, records%3 > 0)
		data = record.AppendText(data, "shards")
		data = record.AppendUint(data, uint64(records)%200)
		data = record.AppendText(data, "cursor")
		data = record.AppendBytes(data, blob)
		records++
	}
	return data, records
}

// records of up to max bytes, many small, some large.
func mixedRecords(seed uint64, n, max int) (data []byte) {
	r := rand.New(rand.NewPCG(seed, seed))
	for i := range n {
		data = record.AppendText(record.AppendRecord(data), fmt.Sprint("account-", r.IntN(3)))
		if r.IntN(2) == 0 {
			data = record.AppendText(data, fmt.Sprint("key/", i))
		} else {
			data = record.AppendBytes(data, fmt.Appendf(nil, "\xff%d", i))
		}
		data = record.AppendBytes(data, bytes.Repeat([]byte{byte(i)}, r.IntN(1+r.IntN(1+r.IntN(max)))))
	}
	return data
}

func TestRecordsPassThrough(t *testing.T) {
	w := &watcher{}
	h := newHost(t, host.Config{Observer: w})
	m := compile(t, h, modules.Records())
	stream, _ := streamRecords(1 << 20)
	large := func(n int) []byte {
		return append(record.AppendBytesHead([]byte("\x83\x60\x61k"), n), bytes.Repeat([]byte("large"), n/5+1)[:n]...)
	}
	for name, data := range map[string][]byte{
		"nothing":    nil,
		"one record": oneRecord("k"),
		"many":       stream,
		"mixed":      mixedRecords(1, 2000, 4000),
		// Around the 128 KiB of the module's buffer, and far beyond it.
		"some larger than the guest's buffer": mixedRecords(2, 100, 900_000),
		"just the buffer":                     large(131_072 - 9),
		"one byte more":                       large(131_072 - 8),
		"one of 20 MiB between small ones":    bytes.Join([][]byte{oneRecord("a"), large(20 << 20), oneRecord("b")}, nil),
	} {
		t.Run(name, func(t *testing.T) {
			for _, op := range []string{abi.OpSave, abi.OpLoad, abi.OpMigrate} {
				out, err := perform(t.Context(), m, op, data)
				if err != nil || !bytes.Equal(out, data) {
					t.Fatalf("%s: %d bytes of %d, %v", op, len(out), len(data), err)
				}
				c := w.last().cost
				if c.Input != int64(len(data)) || c.Output != int64(len(data)) || c.Memory <= 0 || c.Memory > 1<<20 {
					t.Errorf("%s: cost %+v; memory must not follow the size of records", op, c)
				}
			}
		})
	}
	t.Run("in single bytes", func(t *testing.T) {
		data := mixedRecords(3, 100, 4000)
		var sink collector
		if err := m.Save(t.Context(), abi.Call{Schema: 1}, iotest.OneByteReader(bytes.NewReader(data)), &sink); err != nil || !bytes.Equal(sink.data, data) {
			t.Errorf("%d bytes of %d, %v", len(sink.data), len(data), err)
		}
		var native bytes.Buffer
		batch := batchOf(t, data)
		i := 0
		one := sourceFunc(func() (*record.Batch, error) { // batches of one record
			if i == batch.Len() {
				return nil, io.EOF
			}
			i++
			return batchOf(t, batch.Record(i-1)), nil
		})
		if err := m.Load(t.Context(), abi.Call{Schema: 1}, one, &native); err != nil || !bytes.Equal(native.Bytes(), data) {
			t.Errorf("%d bytes of %d, %v", native.Len(), len(data), err)
		}
	})
}

// What the sink is given are whole records, found where the refs say.
func TestRecordsReachTheSinkWhole(t *testing.T) {
	m := compile(t, newHost(t, host.Config{}), modules.Records())
	data := mixedRecords(4, 500, 300_000)
	want := batchOf(t, data)
	i := 0
	err := m.Save(t.Context(), abi.Call{Schema: 1}, bytes.NewReader(data), sinkFunc(func(b *record.Batch) error {
		for j := range b.Len() {
			if !bytes.Equal(b.Record(j), want.Record(i)) || !bytes.Equal(b.Value(j), want.Value(i)) {
				t.Errorf("record %d differs", i)
			}
			i++
		}
		return nil
	}))
	if err != nil || i != want.Len() {
		t.Errorf("%d records of %d, %v", i, want.Len(), err)
	}
}

func TestRecordsInspect(t *testing.T) {
	m := compile(t, newHost(t, host.Config{}), modules.Records())
	data, n := streamRecords(100_000)
	out, err := perform(t.Context(), m, abi.OpInspect, data)
	if err != nil {
		t.Fatal(err)
	}
	var summary struct {
		Schema     uint64
		Records    int
		Bytes      int
		Partitions map[string]struct{ Records, Bytes int }
	}
	if err := cbor.Unmarshal(out, &summary); err != nil {
		t.Fatal(err)
	}
	if p := summary.Partitions["000000000000/eu-west-1"]; summary.Schema != 1 || summary.Records != n || summary.Bytes != len(data) || p.Records != n || p.Bytes != len(data) {
		t.Errorf("%+v of %d records, %d bytes", summary, n, len(data))
	}
}

// The module refuses what is no state of its, with the place in the state.
func TestRecordsRefuses(t *testing.T) {
	h := newHost(t, host.Config{})
	m := compile(t, h, modules.Records())
	good, _ := streamRecords(300_000)
	for name, c := range map[string]struct {
		native   []byte
		sentinel error
		code     abi.Code
		offset   int
	}{
		"cut short":     {good[:len(good)-1], abi.ErrCorrupt, abi.CodeCorrupt, len(good) - 1},
		"garbage after": {append(bytes.Clone(good), 'x'), abi.ErrCorrupt, abi.CodeCorrupt, len(good)},
		"JSON":          {[]byte(`{"a":1}`), abi.ErrCorrupt, abi.CodeCorrupt, 0},
		"too deep":      {append(bytes.Clone(good), "\x83\x60\x60"+string(bytes.Repeat([]byte{0x81}, 65))+"\x00"...), abi.ErrTooLarge, abi.CodeTooLarge, len(good) + 3 + 64},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := perform(t.Context(), m, abi.OpSave, c.native)
			var ge *host.GuestError
			if !errors.As(err, &ge) || ge.Code != c.code || ge.Failure.Offset != uint64(c.offset) {
				t.Fatalf("%v, want code %d at %d", err, c.code, c.offset)
			}
			wantSentinel(t, err, c.sentinel)
		})
	}
	err := m.Migrate(t.Context(), abi.Call{From: 1, To: 2}, record.NewReader(bytes.NewReader(good), 0), &collector{})
	var ge *host.GuestError
	if !errors.As(err, &ge) {
		t.Errorf("migrate to another schema: %v", err)
	}
	wantSentinel(t, err, abi.ErrVersion)
	err = m.Save(t.Context(), abi.Call{Settings: map[string]any{"shcema": 1}}, bytes.NewReader(good), &collector{})
	if !errors.As(err, &ge) || ge.Code != abi.CodeUnsupported {
		t.Errorf("a misspelled setting: %v", err)
	}

	// The host's own limit, which the module does not know.
	small := newHost(t, host.Config{Limits: host.Limits{RecordBytes: 4096}})
	_, err = perform(t.Context(), compile(t, small, modules.Records()), abi.OpSave, mixedRecords(1, 10, 100_000))
	wantModuleError(t, err, abi.OpSave, abi.ErrTooLarge, "limit")
}

func TestRecordsCancelled(t *testing.T) {
	m := compile(t, newHost(t, host.Config{}), modules.Records())
	data, _ := streamRecords(4 << 20)
	t.Run("while it saves", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		batches := 0
		err := m.Save(ctx, abi.Call{Schema: 1}, bytes.NewReader(data), sinkFunc(func(*record.Batch) error {
			batches++
			cancel()
			return nil
		}))
		if !errors.Is(err, context.Canceled) || batches != 1 {
			t.Errorf("%v after %d batches", err, batches)
		}
	})
	t.Run("while it loads", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		writes := 0
		err := m.Load(ctx, abi.Call{Schema: 1}, record.NewReader(bytes.NewReader(data), 0), writerFunc(func(p []byte) (int, error) {
			writes++
			cancel()
			return len(p), nil
		}))
		if !errors.Is(err, context.Canceled) || writes != 1 {
			t.Errorf("%v after %d writes", err, writes)
		}
	})
	if out, err := perform(t.Context(), m, abi.OpSave, data); err != nil || !bytes.Equal(out, data) {
		t.Errorf("afterwards: %d bytes of %d, %v", len(out), len(data), err)
	}
}

func TestConcurrentCalls(t *testing.T) {
	w := &watcher{}
	h := newHost(t, host.Config{Observer: w})
	m := compile(t, h, modules.Records())
	failing := compile(t, h, newGuest().does(abi.ExportSave, unreachable).bytes())
	const goroutines, rounds = 8, 4
	var wg sync.WaitGroup
	for g := range goroutines {
		wg.Go(func() {
			data := mixedRecords(uint64(g), 40, 400_000)
			for range rounds {
				for _, op := range []string{abi.OpSave, abi.OpLoad} {
					if out, err := perform(t.Context(), m, op, data); err != nil || !bytes.Equal(out, data) {
						t.Errorf("%s: %d bytes of %d, %v", op, len(out), len(data), err)
					}
				}
				if _, err := perform(t.Context(), failing, abi.OpSave, data); err == nil {
					t.Error("a trap that is none")
				}
				again, err := h.Compile(t.Context(), "again", modules.Records())
				if err != nil || again.Digest() != m.Digest() {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if len(w.called) != 2+goroutines*rounds*3 { // two describes
		t.Errorf("%d calls seen", len(w.called))
	}
}

// Many goroutines that compile the same new module get the same one, and nothing is left behind.
func TestConcurrentCompiles(t *testing.T) {
	h := newHost(t, host.Config{CacheDir: t.TempDir()})
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			m, err := h.Compile(t.Context(), guestName, modules.Records())
			if err != nil {
				t.Error(err)
				return
			}
			if out, err := perform(t.Context(), m, abi.OpSave, oneRecord("k")); err != nil || !bytes.Equal(out, oneRecord("k")) {
				t.Errorf("%q, %v", out, err)
			}
		})
	}
	wg.Wait()
}

// TestBatchIsNotLookedAtAgain: what a source gives is its own again at the next call, be that its last.
func TestBatchIsNotLookedAtAgain(t *testing.T) {
	m := compile(t, newHost(t, host.Config{}), modules.Records())
	data := mixedRecords(3, 50, 1000)
	var given *record.Batch
	rest := data
	source := sourceFunc(func() (*record.Batch, error) {
		if given != nil {
			clear(given.Data)
			*given = record.Batch{}
		}
		if len(rest) == 0 {
			return nil, io.EOF
		}
		var scan record.Scanner
		refs, err := scan.Scan(rest, nil)
		if err != nil {
			return nil, err
		}
		n := refs[min(6, len(refs)-1)].End
		refs, err = scan.Scan(rest[:n], refs[:0])
		given = &record.Batch{Data: bytes.Clone(rest[:n]), Refs: refs}
		rest = rest[n:]
		return given, err
	})
	var native bytes.Buffer
	if err := m.Load(t.Context(), abi.Call{Schema: 1}, source, &native); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(native.Bytes(), data) {
		t.Error("what came out is not what went in")
	}
}
