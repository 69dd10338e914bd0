package notation_test

import (
	"encoding/json"
	"fmt"
	"log"

	"github.com/torpor-run/torpor/host/abi/record"
	"github.com/torpor-run/torpor/runtime/notation"
)

func Example() {
	n, err := notation.New()
	if err != nil {
		log.Fatal(err)
	}
	item := record.AppendText(record.AppendMap(nil, 1), "body")
	item = record.AppendBytes(item, "\xff")
	fmt.Println(n.Show(item))
	b, err := json.Marshal(n.JSON(item))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(string(b))
	// Output:
	// {"body": h'ff'}
	// {"body":{"$bytes":"/w=="}}
}
