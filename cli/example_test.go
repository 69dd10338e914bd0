package cli_test

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"strings"

	"github.com/torpor-run/torpor/cli"
)

// The program is one call, which takes all it uses of the process it runs in.
func ExampleRun() {
	var out strings.Builder
	code := cli.Run(context.Background(), os.DirFS(".."), cli.Streams{In: strings.NewReader(""), Out: &out, Err: os.Stderr},
		os.Environ(), []string{"version", "--json"})

	var v struct{ Version string }
	if err := json.Unmarshal([]byte(out.String()), &v); err != nil {
		fmt.Println(err)
	}
	fmt.Println(code, v.Version == cli.Version)
	// Output: 0 true
}

// A mistake is told on the error stream, with what is allowed, and by the exit code.
func ExampleRun_mistake() {
	code := cli.Run(context.Background(), os.DirFS(".."), cli.Streams{In: strings.NewReader(""), Out: os.Stdout, Err: os.Stdout},
		[]string{"SNAPSHOT_SAVE_STRATEGY=HOURLY"}, []string{"serve"})
	fmt.Println("exit code", code)
	// Output:
	// torpor: $SNAPSHOT_SAVE_STRATEGY is "HOURLY"; allowed are SCHEDULED, ON_REQUEST, ON_SHUTDOWN, MANUAL
	// exit code 2
}
