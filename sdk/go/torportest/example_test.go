package torportest_test

import (
	"fmt"

	"github.com/torpor-run/torpor/host/abi"
	"github.com/torpor-run/torpor/sdk/go/torportest"
)

// There and back. RoundTrip does this in a test, with pieces of every size.
func Example() {
	records, err := torportest.Save(sound(), []byte("one\ntwo\n"))
	fmt.Printf("%x %v\n", records, err)
	native, err := torportest.Load(sound(), records)
	fmt.Printf("%q %v\n", native, err)
	// Output:
	// 8360683030303030303030446f6e650a83606830303030303030314474776f0a <nil>
	// "one\ntwo\n" <nil>
}

// One call with all there is to choose: here input in pieces of one byte, and a setting.
func ExampleHost() {
	h := torportest.Host{
		Call:  abi.Call{Op: abi.OpSave, Service: "notes", Part: "store", Settings: map[string]any{"depth": 2}},
		Input: []byte("one\ntwo\n"),
		Piece: 1,
	}
	records, err := h.Run(sound())
	fmt.Printf("%x %v\n", records, err)
	// Output: 8360683030303030303030446f6e650a83606830303030303030314474776f0a <nil>
}
