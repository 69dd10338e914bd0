//go:build unix

package supervisor_test

import (
	"context"
	"fmt"
	"log/slog"
	"os"

	"github.com/torpor-run/torpor/runtime/supervisor"
)

// The program that runs this has called [supervisor.Guard] first of all, as TestMain does here.
func Example() {
	s, err := supervisor.New(supervisor.Config{
		Service: "greeter",
		Command: []string{"sh", "-c", "echo hello from {folder}; echo ready; exec sleep 100"},
		Env:     []string{"PATH=/usr/bin:/bin"},
		Folder:  "/",
		Ready:   supervisor.Ready{Line: "^ready$"},
		Logger: slog.New(slog.NewTextHandler(os.Stdout, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.MessageKey {
				return a
			}
			return slog.Attr{} // times and numbers, which are others each time
		}})),
	})
	if err != nil {
		fmt.Println(err)
		return
	}
	ctx := context.Background()
	if err := s.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Status().State)
	if err := s.Stop(ctx); err != nil {
		fmt.Println(err)
		return
	}
	fmt.Println(s.Status().State)
	// Output:
	// msg="greeter: hello from /"
	// msg="greeter: ready"
	// msg="service started"
	// running
	// msg="service stopped"
	// stopped
}
