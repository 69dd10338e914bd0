package snapshot_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/notation"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/statefile"
)

// queues is the state of a service: a record for each queue, by account and region.
func queues(names map[string][]string) *statefile.File {
	var file bytes.Buffer
	w, err := statefile.NewWriter(&file, statefile.Header{Service: "sqs", Part: "store", Generation: 1, Created: time.Unix(1, 0),
		Serializer: statefile.Serializer{Name: "records", Version: "1.0.0", Schema: 1}})
	if err != nil {
		log.Fatal(err)
	}
	var scanner record.Scanner
	for _, partition := range []string{"000000000000/eu-west-1", "000000000000/us-east-1"} {
		for _, name := range names[partition] {
			data := record.AppendText(record.AppendText(record.AppendRecord(nil), partition), "queue/"+name)
			data = record.AppendUint(data, 30)
			refs, err := scanner.Scan(data, nil)
			if err == nil {
				err = w.WriteBatch(&record.Batch{Data: data, Refs: refs})
			}
			if err != nil {
				log.Fatal(err)
			}
		}
	}
	if _, err := w.Close(); err != nil {
		log.Fatal(err)
	}
	f, err := statefile.Open(bytes.NewReader(file.Bytes()), int64(file.Len()), "store.state")
	if err != nil {
		log.Fatal(err)
	}
	return f
}

// printed writes records as they come.
type printed struct{}

func (printed) WriteBatch(b *record.Batch) error {
	for i := range b.Refs {
		fmt.Printf("%s %s\n", b.Partition(i), notation.Key(b.KeyItem(i)))
	}
	return nil
}

func ExampleMerge() {
	live := queues(map[string][]string{"000000000000/eu-west-1": {"orders"}, "000000000000/us-east-1": {"mail", "log"}})
	in := queues(map[string][]string{"000000000000/us-east-1": {"mail", "payments"}})
	counts, err := snapshot.Merge(context.Background(), live, in, snapshot.MergeOptions{}, printed{})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%+v\n", counts)
	// Output:
	// 000000000000/eu-west-1 queue/orders
	// 000000000000/us-east-1 queue/mail
	// 000000000000/us-east-1 queue/payments
	// {Added:1 Changed:0 Removed:1 Kept:2}
}

func ExampleDiff() {
	one := func(f *statefile.File) *snapshot.Snapshot {
		s, err := snapshot.New(snapshot.Info{}, []snapshot.Part{{Service: "sqs", Name: "store", File: f}}, nil, nil)
		if err != nil {
			log.Fatal(err)
		}
		return s
	}
	from := one(queues(map[string][]string{"000000000000/us-east-1": {"mail", "log"}}))
	to := one(queues(map[string][]string{"000000000000/us-east-1": {"mail", "payments"}}))
	stats, err := snapshot.Diff(context.Background(), from, to, func(c snapshot.Change) error {
		_, err := fmt.Println(c.Kind(), c.Service, c.Partition, notation.Key(c.Key))
		return err
	})
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(stats[0].Same, "the same")
	// Output:
	// added sqs 000000000000/us-east-1 queue/payments
	// removed sqs 000000000000/us-east-1 queue/log
	// 1 the same
}

func ExampleParseReference() {
	for _, text := range []string{"live", "saved~2", "pod:orders:7", "backup/orders.snapshot"} {
		r, err := snapshot.ParseReference(text)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(r.Kind, r)
	}
	// Output:
	// live live
	// saved saved~2
	// snapshot snapshot:orders@7
	// archive backup/orders.snapshot
}
