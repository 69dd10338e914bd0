package conformance_test

import (
	"context"
	"fmt"
	"log/slog"
	"testing/fstest"

	"github.com/torpor-run/torpor/host/conformance"
	"github.com/torpor-run/torpor/modules"
)

// Hold a serializer against a folder of fixtures.
func Example() {
	folder := fstest.MapFS{ // or os.DirFS("fixtures")
		"one.cbor": {Data: []byte("\x83\x60\x67order-1\xa1\x64item\x63tea")},
		"cut.cbor": {Data: []byte("\x83\x60\x67order-1\xa1\x64item\x63te")},
	}
	fixtures, err := conformance.ReadFixtures(folder)
	if err != nil {
		fmt.Println(err)
		return
	}
	report, err := conformance.Run(context.Background(), conformance.Options{
		Name: "records", Wasm: modules.Records(), Fixtures: fixtures, Logger: slog.New(slog.DiscardHandler),
		Only: []string{"round-trip", "truncation"},
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, r := range report.Results {
		fmt.Printf("%s %s: %s, %d tried\n", r.Check, r.Fixture, r.Status, r.Trials)
		for _, f := range r.Failures {
			fmt.Println(" ", f)
		}
	}
	// Output:
	// round-trip cut.cbor: failed, 1 tried
	//   the fixture cannot be saved: save failed with code 2 (corrupt): the input ends inside a record at record 1 (offset 19); a fixture is a state as the service writes it
	// round-trip one.cbor: passed, 1 tried
	// truncation cut.cbor: passed, 38 tried
	// truncation one.cbor: passed, 40 tried
}
