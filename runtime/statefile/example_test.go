package statefile_test

import (
	"bytes"
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
