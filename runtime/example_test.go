package runtime_test

import (
	"context"
	"fmt"
	"log/slog"

	"github.com/torpor-run/torpor/runtime"
	"github.com/torpor-run/torpor/runtime/statedir"
	"github.com/torpor-run/torpor/runtime/vfs"
)

// A service's state outlives the process. Here the service is a table of texts, its serializer is in Go
// (in the program it is a *host.Module), and the disk is in memory.
func Example() {
	disk := vfs.NewMem()
	ctx := context.Background()
	logger := slog.New(slog.DiscardHandler)

	// live is one life of a process: it starts, does something, and stops in order.
	live := func(do func(*table, *runtime.Service)) error {
		dir, err := statedir.Open(disk, statedir.Options{Logger: logger})
		if err != nil {
			return err
		}
		defer dir.Close()
		orders := newTable()
		rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Services: []runtime.ServiceConfig{{
			Name: "orders", Save: runtime.SaveOnShutdown, Load: runtime.LoadOnRequest,
			Parts: []runtime.PartConfig{{Name: "store", Source: orders, Dirty: &orders.dirty, Serializer: newPassThrough()}},
		}}})
		if err != nil {
			return err
		}
		if err := rt.Start(ctx); err != nil {
			return err
		}
		svc, err := rt.Service("orders")
		if err != nil {
			return err
		}
		// Every request is admitted: the first one restores the state.
		leave, err := svc.Enter(ctx)
		if err != nil {
			return err
		}
		do(orders, svc)
		leave()
		return rt.Close(ctx) // saves what has changed
	}

	err := live(func(orders *table, _ *runtime.Service) { orders.put("1001", "one lamp") })
	fmt.Println("first life:", err)
	err = live(func(orders *table, svc *runtime.Service) {
		part := svc.Status().Parts[0]
		fmt.Println("order 1001:", orders.all()["1001"])
		fmt.Println("generation", part.Generation, "with", part.Records, "record")
	})
	fmt.Println("second life:", err)
	// Output:
	// first life: <nil>
	// order 1001: one lamp
	// generation 1 with 1 record
	// second life: <nil>
}

// A save can be asked for, and tells when it is on disk; a load gives the state saved last.
func ExampleService_Save() {
	ctx := context.Background()
	logger := slog.New(slog.DiscardHandler)
	dir, err := statedir.Open(vfs.NewMem(), statedir.Options{Logger: logger})
	if err != nil {
		fmt.Println(err)
		return
	}
	defer dir.Close()
	orders := newTable()
	rt, err := runtime.New(runtime.Config{Dir: dir, Logger: logger, Services: []runtime.ServiceConfig{{
		Name: "orders", Save: runtime.SaveManual,
		Parts: []runtime.PartConfig{{Name: "store", Source: orders, Dirty: &orders.dirty, Serializer: newPassThrough()}},
	}}})
	if err != nil {
		fmt.Println(err)
		return
	}
	if err := rt.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer rt.Close(ctx)
	svc, err := rt.Service("orders")
	if err != nil {
		fmt.Println(err)
		return
	}

	orders.put("1001", "one lamp")
	fmt.Println("saved:", svc.Save(ctx))
	orders.put("1001", "two lamps")
	found, err := svc.Load(ctx)
	fmt.Println("loaded:", found, err, orders.all()["1001"])
	// Output:
	// saved: <nil>
	// loaded: true <nil> one lamp
}
