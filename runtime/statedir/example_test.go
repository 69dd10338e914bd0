package statedir_test

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"log"
	"time"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/statefile"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// Save a part of a service, then load it as the next process would.
func Example() {
	fsys := vfs.NewMem() // vfs.OS("/var/lib/torpor") in a program
	module := []byte("\x00asm…")
	digest := sha256.Sum256(module)

	dir, err := statedir.Open(fsys, statedir.Options{})
	if err != nil {
		log.Fatal(err)
	}
	// The serializer is kept before the first generation that needs it.
	if err := dir.KeepModule(digest, module); err != nil {
		log.Fatal(err)
	}
	generation, err := saveOrders(dir, digest)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("saved generation", generation)
	if err := dir.Close(); err != nil {
		log.Fatal(err)
	}

	dir, err = statedir.Open(fsys, statedir.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	opened, err := dir.OpenNewest("orders", "store")
	if err != nil {
		log.Fatal(err)
	}
	defer opened.Close()
	for _, q := range opened.Quarantined {
		fmt.Println("damaged:", q.Path, q.Err)
	}
	records := opened.File().Records()
	for {
		batch, err := records.ReadBatch()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			log.Fatal(err) // if it is abi.ErrCorrupt: dir.Quarantine(opened, err), and open the newest again
		}
		for i := range batch.Len() {
			key, _ := batch.Key(i)
			fmt.Printf("generation %d has %s\n", opened.Generation, key)
		}
	}
	// Output:
	// saved generation 1
	// generation 1 has order-1
}

func saveOrders(dir *statedir.Dir, digest [sha256.Size]byte) (uint64, error) {
	pending, err := dir.Begin("orders", "store")
	if err != nil {
		return 0, err
	}
	defer pending.Abort()
	w, err := statefile.NewWriter(pending, statefile.Header{Service: "orders", Part: "store",
		Generation: pending.Generation(), Created: time.Now(),
		Serializer: statefile.Serializer{Name: "records", Version: "1.0.0", Digest: digest, Schema: 1}})
	if err != nil {
		return 0, err
	}
	order := record.AppendRecord(nil)
	order = record.AppendText(order, "")
	order = record.AppendText(order, "order-1")
	order = record.AppendUint(order, 42)
	var scan record.Scanner
	refs, err := scan.Scan(order, nil)
	if err != nil {
		return 0, err
	}
	if err := w.WriteBatch(&record.Batch{Data: order, Refs: refs}); err != nil {
		return 0, err
	}
	if _, err := w.Close(); err != nil {
		return 0, err
	}
	return pending.Generation(), pending.Commit()
}

// Save a change as a delta: it costs what the change costs, not what the state does.
func ExampleDir_BeginDelta() {
	module := []byte("\x00asm…")
	digest := sha256.Sum256(module)
	dir, err := statedir.Open(vfs.NewMem(), statedir.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	if err := dir.KeepModule(digest, module); err != nil {
		log.Fatal(err)
	}
	base, err := saveOrders(dir, digest)
	if err != nil {
		log.Fatal(err)
	}

	by := statefile.Serializer{Name: "records", Version: "1.0.0", Digest: digest, Schema: 1}
	pending, ok, err := dir.BeginDelta("orders", "store", base, by)
	if err != nil {
		log.Fatal(err)
	}
	if !ok {
		log.Fatal("to be saved in full")
	}
	defer pending.Abort()
	w, err := statefile.NewDeltaWriter(pending, pending.Tail(), pending.Generation(), time.Now())
	if err != nil {
		log.Fatal(err)
	}
	changes := record.AppendRecord(nil) // order-2 is new, order-1 is gone
	changes = record.AppendText(changes, "")
	changes = record.AppendText(changes, "order-2")
	changes = record.AppendUint(changes, 43)
	changes = record.AppendTombstone(changes)
	changes = record.AppendText(changes, "")
	changes = record.AppendText(changes, "order-1")
	scan := record.Scanner{Tombstones: true}
	refs, err := scan.Scan(changes, nil)
	if err != nil {
		log.Fatal(err)
	}
	w.Grow(0) // one more, one less
	if err := w.WriteBatch(&record.Batch{Data: changes, Refs: refs}); err != nil {
		log.Fatal(err)
	}
	if _, err := w.Close(); err != nil {
		log.Fatal(err)
	}
	if err := pending.Commit(); err != nil {
		log.Fatal(err)
	}

	generations, err := dir.Generations("orders", "store")
	if err != nil {
		log.Fatal(err)
	}
	for _, g := range generations {
		opened, err := dir.Open("orders", "store", g.Number)
		if err != nil {
			log.Fatal(err)
		}
		batch, err := opened.File().Records().ReadBatch()
		if err != nil {
			log.Fatal(err)
		}
		key, _ := batch.Key(0)
		fmt.Printf("generation %d, in %s, has %s\n", g.Number, g.Path, key)
		if err := opened.Close(); err != nil {
			log.Fatal(err)
		}
	}
	// Output:
	// generation 2, in state/api_states/orders/store.state, has order-2
	// generation 1, in state/api_states/orders/store.state, has order-1
}

// A module is kept under a name, whether a state needs it or not.
func ExampleDir_Pin() {
	dir, err := statedir.Open(vfs.NewMem(), statedir.Options{})
	if err != nil {
		log.Fatal(err)
	}
	defer dir.Close()
	for _, version := range []string{"1.0.0", "1.1.0"} {
		before, replaced, err := dir.Pin("orders", version, []byte("\x00asm "+version))
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s pinned; was another: %v %q\n", version, replaced, before.Version)
	}
	pins, err := dir.Pins()
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(pins), pins[0].Name, pins[0].Version)
	// Output:
	// 1.0.0 pinned; was another: false ""
	// 1.1.0 pinned; was another: true "1.0.0"
	// 1 orders 1.1.0
}
