package statefile_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statefile"
)

func Example() {
	// Two records of one partition.
	var data []byte
	for _, name := range []string{"orders", "payments"} {
		data = record.AppendRecord(data)
		data = record.AppendText(data, "000000000000/us-east-1")
		data = record.AppendText(data, "queue/"+name)
		data = record.AppendUint(data, 30)
	}
	var scanner record.Scanner
	refs, err := scanner.Scan(data, nil)
	if err != nil {
		log.Fatal(err)
	}

	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: "sqs", Part: "store", Generation: 1,
		Created: time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC), Serializer: statefile.Serializer{Name: "records", Version: "1.0.0", Schema: 1}})
	if err != nil {
		log.Fatal(err)
	}
	if err := w.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
		log.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		log.Fatal(err)
	}

	f, err := statefile.Open(bytes.NewReader(file.Bytes()), int64(file.Len()), "store.state")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(f.Header().Service, f.Info().Records)
	records := f.Records()
	for {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			fmt.Printf("%s %s\n", b.Partition(i), key)
		}
	}
	// Output:
	// sqs 2
	// 000000000000/us-east-1 queue/orders
	// 000000000000/us-east-1 queue/payments
}

// What has changed since a save is appended as a delta.
func ExampleNewDeltaWriter() {
	write := func(w *statefile.Writer, entries ...[]byte) {
		scanner := record.Scanner{Tombstones: true}
		data := bytes.Join(entries, nil)
		refs, err := scanner.Scan(data, nil)
		if err != nil {
			log.Fatal(err)
		}
		if err := w.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
			log.Fatal(err)
		}
		if _, err := w.Close(); err != nil {
			log.Fatal(err)
		}
	}
	queue := func(name string, timeout uint64) []byte {
		return record.AppendUint(record.AppendText(record.AppendText(record.AppendRecord(nil), "us-east-1"), name), timeout)
	}
	gone := func(name string) []byte {
		return record.AppendText(record.AppendText(record.AppendTombstone(nil), "us-east-1"), name)
	}
	open := func(file []byte) *statefile.File {
		f, err := statefile.Open(bytes.NewReader(file), int64(len(file)), "store.state")
		if err != nil {
			log.Fatal(err)
		}
		return f
	}

	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: "sqs", Part: "store", Generation: 1, Serializer: statefile.Serializer{Name: "records"}})
	if err != nil {
		log.Fatal(err)
	}
	write(w, queue("orders", 30), queue("payments", 30), queue("refunds", 30))

	tail := open(file.Bytes()).Tail()
	if w, err = statefile.NewDeltaWriter(&file, tail, 2, time.Date(2026, 11, 22, 0, 0, 0, 0, time.UTC)); err != nil {
		log.Fatal(err)
	}
	w.Grow(-1) // two are gone, one is new
	write(w, gone("orders"), queue("payments", 60), gone("refunds"), queue("returns", 30))

	// Whoever goes on appending need not read all of it again.
	if tail, err = tail.Next(context.Background(), bytes.NewReader(file.Bytes()), int64(file.Len()), "store.state"); err != nil {
		log.Fatal(err)
	}
	fmt.Println("generation", tail.Header().Generation, "of", tail.Live(), "records, by", tail.Changes(), "changes")

	f := open(file.Bytes())
	for records := f.Records(); ; {
		b, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err)
		}
		for i := range b.Len() {
			key, _ := b.Key(i)
			fmt.Printf("%s: %d\n", key, record.NewPull(b.Value(i)).Uint())
		}
	}
	// The file cut where its first save ends is the state it was then.
	before := open(file.Bytes()[:f.Saves()[0].End])
	fmt.Println("generation", before.Header().Generation, "of", before.Info().Records, "records")
	// Output:
	// generation 2 of 2 records, by 4 changes
	// payments: 60
	// returns: 30
	// generation 1 of 3 records
}
