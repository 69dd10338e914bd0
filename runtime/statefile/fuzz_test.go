package statefile_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"testing"

	"github.com/klauspost/compress/zstd"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// wantRefused checks that an error is one a reader may give: one of the three, with an offset in the file.
func wantRefused(t *testing.T, err error, size int) {
	t.Helper()
	var fe *statefile.FileError
	if !errors.As(err, &fe) || fe.Offset < 0 || fe.Offset > int64(size) {
		t.Fatalf("an error of another kind, or elsewhere than in %d bytes: %v", size, err)
	}
	kinds := 0
	for _, kind := range []error{abi.ErrCorrupt, abi.ErrVersion, abi.ErrTooLarge} {
		if errors.Is(err, kind) {
			kinds++
		}
	}
	if kinds != 1 {
		t.Fatalf("an error of %d kinds: %v", kinds, err)
	}
}

// FuzzOpen reads anything as a whole file, and looks for the last good one in it.
func FuzzOpen(f *testing.F) {
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		full, _ := encode(f, header(compression), records(f, 12, 40))
		for _, file := range [][]byte{full, goldenDelta(f, compression).file} {
			f.Add(file)
			f.Add(file[:len(file)/2])
			f.Add(file[:len(file)-1])
			f.Add(append(bytes.Clone(file), 0))
		}
	}
	f.Add([]byte{0xd9, 0xd9, 0xf7})
	f.Fuzz(func(t *testing.T, b []byte) {
		file, err := open(b)
		if err == nil {
			_, err = readAll(file.Records())
		}
		if err == nil {
			err = file.Verify(context.Background())
		}
		if err != nil {
			wantRefused(t, err, len(b))
		}
		end, _, err := lastGood(b)
		if errors.Is(err, abi.ErrNotFound) {
			return
		}
		if err != nil {
			wantRefused(t, err, len(b))
			return
		}
		if end <= 0 || end >= len(b) {
			t.Fatalf("LastGood gives %d of %d bytes", end, len(b))
		}
		good, err := open(b[:end])
		if err == nil {
			err = good.VerifyLast(context.Background())
		}
		if err != nil {
			t.Fatalf("what LastGood gives is refused: %v", err)
		}
	})
}

// FuzzHeader puts a header before what makes any header a whole file, its digest included.
func FuzzHeader(f *testing.F) {
	file, _ := encode(f, header(""), &record.Batch{})
	at := binary.BigEndian.Uint64(file[len(file)-28:])
	f.Add(file[:at])
	zstd, _ := encode(f, header(statefile.CompressionZstd), &record.Batch{})
	f.Add(zstd[:binary.BigEndian.Uint64(zstd[len(zstd)-28:])])
	f.Fuzz(func(t *testing.T, item []byte) {
		sum, root := sha256.Sum256(item), sha256.Sum256(nil)
		b := statefile.Forge(item, encodeIndex(t, map[string]any{"header": sum[:], "root": root[:]}))
		x, err := open(b)
		if err != nil {
			wantRefused(t, err, len(b))
			return
		}
		h := x.Header()
		if x.Info().Records != 0 || h.Service == "" || h.Part == "" || h.Generation == 0 || h.Serializer.Name == "" {
			t.Fatalf("accepted: %+v, %+v", h, x.Info())
		}
		// What it says can be written, but for times that RFC 3339 has no words for, and read again.
		var out bytes.Buffer
		w, err := statefile.NewWriter(&out, h)
		if err != nil {
			return
		}
		if _, err := w.Close(); err != nil {
			t.Fatal(err)
		}
		again, err := open(out.Bytes())
		if err != nil {
			t.Fatalf("%+v: written anew it is refused: %v", h, err)
		}
		g := again.Header()
		if !g.Created.Equal(h.Created) {
			t.Fatalf("created %v, written anew %v", h.Created, g.Created)
		}
		g.Created = h.Created
		if g != h {
			t.Fatalf("header %+v, written anew %+v", h, g)
		}
	})
}

// FuzzIndex gives the fuzzer what a checksum would keep from it: arbitrary index bytes under a right
// CRC, of a full save or of a delta.
func FuzzIndex(f *testing.F) {
	full, _ := encode(f, header(""), records(f, 12, 40))
	fullAt := binary.BigEndian.Uint64(full[len(full)-28:])
	delta := goldenDelta(f, statefile.CompressionNone).file
	deltaAt := binary.BigEndian.Uint64(delta[len(delta)-28:])
	f.Add(full[fullAt:len(full)-30], false)
	f.Add(delta[deltaAt:len(delta)-30], true)
	f.Add(full[fullAt:len(full)-30], true)
	f.Fuzz(func(t *testing.T, index []byte, isDelta bool) {
		front := full[:fullAt]
		if isDelta {
			front = delta[:deltaAt]
		}
		forged := statefile.Forge(front, index)
		x, err := open(forged)
		if err != nil {
			wantRefused(t, err, len(forged))
			return
		}
		got, err := readAll(x.Records())
		if err == nil && x.Info().Deltas == 0 && uint64(len(got)) != x.Info().Raw {
			t.Errorf("%d bytes of records, the index says %d", len(got), x.Info().Raw)
		}
		if err == nil {
			err = x.Verify(context.Background())
		}
		if err != nil {
			wantRefused(t, err, len(forged))
		}
		if end, _, err := lastGood(append(forged, 0)); err == nil && end > len(forged) {
			t.Errorf("LastGood gives %d of %d bytes", end, len(forged))
		}
	})
}

// FuzzTrailer puts a trailer behind a sound file's index, with its CRC made right or not. It is refused, or
// the records are what they are.
func FuzzTrailer(f *testing.F) {
	h := goldenDelta(f, statefile.CompressionNone)
	size := len(h.file)
	at := int(binary.BigEndian.Uint64(h.file[size-28:]))
	sound := h.file[size-30:]
	f.Add(sound, true)
	f.Add(statefile.ForgeAt(h.then[1].end-30, nil), true)
	f.Add(append(bytes.Clone(sound[:28]), 0, 2), true)
	f.Add(sound[:29], false)
	f.Fuzz(func(t *testing.T, trailer []byte, right bool) {
		if right && len(trailer) == 30 {
			offset, length := binary.BigEndian.Uint64(trailer[2:]), binary.BigEndian.Uint64(trailer[10:])
			if offset <= uint64(size-30) && length == uint64(size-30)-offset {
				// The CRC is of what this trailer calls the index.
				copy(trailer[18:22], statefile.ForgeAt(int(offset), h.file[offset:size-30])[length+18:])
			}
		}
		b := append(bytes.Clone(h.file[:size-30]), trailer...)
		x, err := open(b)
		if err == nil {
			err = x.Verify(context.Background())
		}
		if err != nil {
			wantRefused(t, err, len(b))
			return
		}
		got, err := readAll(x.Records())
		if err != nil || !bytes.Equal(got, h.model.encode()) || x.Info() != h.then[2].info {
			t.Fatalf("trailer % x before %d: other records, %v", trailer, at, err)
		}
	})
}

// FuzzChunk puts a chunk into a full save or a delta whose index tells of it what there is to tell: it is
// accepted if a scanner accepts its records, and not otherwise.
func FuzzChunk(f *testing.F) {
	var body []byte
	for _, e := range []entry{{"p", "a", false, []byte("1")}, {"p", "b", true, []byte("22")}} {
		body = e.encode(body)
	}
	enc, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		f.Fatal(err)
	}
	gone := entry{"p", "b", true, nil}.encode(bytes.Clone(body))
	f.Add(body, uint16(2), false, false)
	f.Add(body, uint16(2), true, false)
	f.Add(gone, uint16(3), false, false)
	f.Add(gone, uint16(3), true, false)
	f.Add(enc.EncodeAll(body, nil), uint16(2), false, true)
	f.Add(enc.EncodeAll(gone, nil), uint16(3), true, true)
	fulls := map[string][]byte{}
	for _, compression := range []string{statefile.CompressionNone, statefile.CompressionZstd} {
		fulls[compression] = begin(f, compression, nil).file
	}
	f.Fuzz(func(t *testing.T, body []byte, count uint16, delta, packed bool) {
		compression, raw, unpacks := statefile.CompressionNone, body, true
		item := append([]byte{0xd8, 0x3f}, record.AppendBytes(nil, body)...)
		if packed {
			compression, item = statefile.CompressionZstd, item[2:]
			dec, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderMaxMemory(16<<20))
			if err != nil {
				t.Fatal(err)
			}
			defer dec.Close()
			raw, err = dec.DecodeAll(body, nil)
			unpacks = err == nil
		}
		full := fulls[compression]
		before := savesOf(t, full)[0]
		front := full // a delta's
		index := map[string]any{"previous": len(full), "generation": 100, "live": 0}
		kind, root := "delta", before.index["root"].([]byte)
		if !delta {
			front = full[:before.at]
			index, kind, root = map[string]any{}, "full", nil
		}
		sum := sha256.Sum256(raw)
		h := sha256.New()
		h.Write(append(bytes.Clone(root), "\x00\x00\x00\x01p"...))
		h.Write(sum[:])
		index["header"], index["root"], index["records"], index["raw"] = before.index["header"], h.Sum(nil), int(count), len(raw)
		index["runs"] = []any{map[string]any{"kind": kind, "partition": "p",
			"chunks": []any{[]any{len(front), len(item), int(count), len(raw), sum[:]}}}}
		b := statefile.Forge(append(bytes.Clone(front), item...), encodeIndex(t, index))

		x, err := open(b)
		if err != nil {
			t.Fatalf("the index is sound, yet: %v", err)
		}
		s := record.Scanner{Tombstones: delta}
		refs, want := s.Scan(raw, nil)
		batch := record.Batch{Data: raw, Refs: refs}
		sound := unpacks && want == nil && len(refs) == int(count)
		for i := range refs {
			sound = sound && string(batch.Partition(i)) == "p"
		}
		if err = x.VerifyLast(context.Background()); err == nil {
			_, err = readAll(x.Records())
		}
		if err != nil {
			wantRefused(t, err, len(b))
		}
		if sound != (err == nil) {
			t.Fatalf("a scanner says %v of %d records, %d are told of; the file: %v", want, len(refs), count, err)
		}
		// Verify finds that live is 0, unless nothing is left.
		if sound && delta && x.Verify(context.Background()) == nil {
			if got, _ := readAll(x.Records()); len(got) > 0 {
				t.Fatalf("%d bytes of records and none alive", len(got))
			}
		}
	})
}

// operations makes of any bytes the entries of a full save and of deltas. A first byte of 0xff ends a save;
// of another the low bits are partition and key, the high ones what becomes of it. Two more say of how long
// a value.
func operations(script []byte) (saves [][]entry) {
	saves = [][]entry{nil}
	seen := map[string]bool{}
	for len(script) > 0 && len(saves) < 12 {
		op := script[0]
		script = script[1:]
		if op == 0xff {
			saves = append(saves, nil)
			clear(seen)
			continue
		}
		if len(script) < 2 {
			break
		}
		e := entry{partition: fmt.Sprint("p", op&3), key: fmt.Sprint("k", script[0]&7), bytesKey: script[0]&8 != 0}
		e.value = bytes.Repeat(script[1:2], int(script[1])<<(script[0]>>4)/16)
		if op&0x80 != 0 {
			e.value = nil
		}
		script = script[2:]
		last := len(saves) - 1
		id := fmt.Sprint(e.partition, e.key, e.bytesKey)
		if seen[id] || last == 0 && e.value == nil {
			continue
		}
		seen[id] = true
		saves[last] = append(saves[last], e)
	}
	return saves
}

// FuzzDelta makes saves of any bytes: merged, they must give what applying them one by one gives.
func FuzzDelta(f *testing.F) {
	f.Add([]byte{0, 0, 9, 1, 0, 9, 0xff, 0x80, 0, 0, 0xff, 0, 0, 7}, false)
	f.Add([]byte{0xff, 0, 0, 9, 0xff, 0xff, 0x80, 0, 0, 2, 3, 4, 0xff, 0, 0, 1}, true)
	f.Add([]byte{0, 0, 9, 1, 0, 9, 0, 1, 9, 1, 1, 9, 0xff, 0, 2, 9, 1, 2, 9}, false)
	f.Add([]byte{0, 0xf0, 255, 0, 0xe1, 255, 0xff, 0, 0xf0, 254, 0, 0xe2, 254, 0x80, 1, 0}, false)
	f.Fuzz(func(t *testing.T, script []byte, packed bool) {
		compression := statefile.CompressionNone
		if packed {
			compression = statefile.CompressionZstd
		}
		saves := operations(script)
		h := begin(t, compression, saves[0])
		for _, entries := range saves[1:] {
			h.add(t, entries...)
		}
		h.check(t)
		f, err := open(h.file)
		if err != nil {
			t.Fatal(err)
		}
		records := f.Records()
		statefile.SetMergeCache(records, len(script)<<4)
		if got, err := readAll(records); err != nil || !bytes.Equal(got, h.model.encode()) {
			t.Fatalf("with little memory: other records, %v", err)
		}
	})
}
