package repository_test

import (
	"bytes"
	"context"
	"fmt"
	"log"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/remote/folder"
	"github.com/torpor-run/torpor/runtime/snapshot"
	"github.com/torpor-run/torpor/runtime/snapshot/repository"
	"github.com/torpor-run/torpor/runtime/snapshot/seal"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// orders is a snapshot of one record.
func orders(count uint64) *snapshot.Snapshot {
	data := record.AppendUint(record.AppendText(record.AppendText(record.AppendRecord(nil), ""), "orders"), count)
	var scanner record.Scanner
	refs, err := scanner.Scan(data, nil)
	if err != nil {
		log.Fatal(err)
	}
	var out bytes.Buffer
	w, err := statefile.NewWriter(&out, statefile.Header{Service: "shop", Part: "store", Generation: 1, Serializer: statefile.Serializer{Name: "records", Version: "1.0.0"}})
	if err != nil {
		log.Fatal(err)
	}
	if err := w.WriteBatch(&record.Batch{Data: data, Refs: refs}); err != nil {
		log.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		log.Fatal(err)
	}
	f, err := statefile.Open(bytes.NewReader(out.Bytes()), int64(out.Len()), "shop/store")
	if err != nil {
		log.Fatal(err)
	}
	s, err := snapshot.New(snapshot.Info{}, []snapshot.Part{{Service: "shop", Name: "store", File: f}}, nil, nil)
	if err != nil {
		log.Fatal(err)
	}
	return s
}

func Example() {
	ctx := context.Background()
	r, err := repository.Open(ctx, repository.Config{Remote: folder.Open(vfs.NewMem()), Torpor: "0.7.0",
		Now: func() time.Time { return time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC) }})
	if err != nil {
		log.Fatal(err)
	}
	for count := range uint64(3) {
		if _, err := r.Save(ctx, "before-the-sale", orders(count), repository.SaveOptions{Lock: seal.Lock{}}); err != nil {
			log.Fatal(err)
		}
	}
	if err := r.Remove(ctx, "before-the-sale", 1); err != nil {
		log.Fatal(err)
	}
	if _, err := r.Collect(ctx, repository.CollectOptions{Grace: -1}); err != nil { // nobody else has the place open
		log.Fatal(err)
	}
	versions, err := r.Versions(ctx, "before-the-sale")
	if err != nil {
		log.Fatal(err)
	}
	for _, v := range versions {
		fmt.Println(v.Number, v.Created.Format(time.DateOnly), v.Services)
	}
	_, err = r.Open(ctx, "before-the-sale", 1, seal.Key{})
	fmt.Println(err)

	s, err := r.Open(ctx, "before-the-sale", 0, seal.Key{})
	if err != nil {
		log.Fatal(err)
	}
	defer s.Close()
	b, err := s.Parts[0].File.Records().ReadBatch()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("orders:", record.NewPull(b.Value(0)).Uint())
	// Output:
	// 2 2026-11-23 [shop]
	// 3 2026-11-23 [shop]
	// version 1 of snapshot "before-the-sale": not found: it was removed; the newest is 3
	// orders: 2
}
