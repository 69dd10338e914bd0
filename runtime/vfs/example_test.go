package vfs_test

import (
	"fmt"
	"log"
	"math/rand/v2"

	"github.com/torpor-run/torpor/runtime/vfs"
)

// A file that was synced, in a folder that was not, is there or not after a power cut.
func ExampleMem_PowerCut() {
	m := vfs.NewMem()
	f, err := m.OpenFile("state", vfs.Create)
	if err != nil {
		log.Fatal(err)
	}
	if _, err := f.Write([]byte("precious")); err != nil {
		log.Fatal(err)
	}
	if err := f.Sync(); err != nil {
		log.Fatal(err)
	}
	survived := func() (n int) {
		for seed := range uint64(1000) {
			if entries, _ := m.PowerCut(rand.New(rand.NewPCG(seed, 0))).ReadDir("."); len(entries) == 1 {
				n++
			}
		}
		return n
	}
	fmt.Println("always there:", survived() == 1000)

	folder, err := m.OpenFile(".", vfs.Read)
	if err != nil {
		log.Fatal(err)
	}
	if err := folder.Sync(); err != nil {
		log.Fatal(err)
	}
	fmt.Println("always there after a sync of the folder:", survived() == 1000)
	// Output:
	// always there: false
	// always there after a sync of the folder: true
}

// Crash at each operation in turn, until an operation is not reached any more.
func ExampleCrash() {
	work := func(fsys vfs.FS) error {
		if err := fsys.Mkdir("d"); err != nil {
			return err
		}
		f, err := fsys.OpenFile("d/f", vfs.Create)
		if err != nil {
			return err
		}
		defer f.Close()
		_, err = f.Write([]byte("x"))
		return err
	}
	for k := 1; ; k++ {
		fsys := vfs.Faulty(vfs.NewMem(), vfs.Crash(k))
		err := work(fsys)
		fmt.Println(k, err)
		if !fsys.Fired() {
			break
		}
	}
	// Output:
	// 1 mkdir d: crashed (injected)
	// 2 open d/f: crashed (injected)
	// 3 write d/f: crashed (injected)
	// 4 <nil>
}
