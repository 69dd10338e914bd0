package metrics_test

import (
	"fmt"
	"os"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/prometheus/common/expfmt"

	"github.com/torpor-run/torpor/metrics"
	"github.com/torpor-run/torpor/runtime"
)

// Metrics are made of a registry, and given to a runtime and a host as their observer. What those do
// then shows in the registry.
func ExampleNew() {
	reg := prometheus.NewRegistry()
	m, err := metrics.New(reg, metrics.Build{Version: "1.0.0", GoVersion: "go1.26"})
	if err != nil {
		fmt.Println(err)
		return
	}
	// This is what a runtime.Config{Observer: m} leads to.
	m.RestoreFinished(runtime.RestoreEvent{Service: "s3", Part: "store", Bytes: 4096, Total: 12 * time.Millisecond})
	m.RequestServed("s3", 200, time.Millisecond)
	m.RequestServed("s3", 404, time.Millisecond)

	n, err := testutil.GatherAndCount(reg, "torpor_restore_duration_seconds")
	fmt.Println("restore phases:", n, err)
	text, err := testutil.GatherAndFormat(reg, expfmt.TypeTextPlain, "torpor_gateway_requests_total")
	if err != nil {
		fmt.Println(err)
		return
	}
	os.Stdout.Write(text)
	// Output:
	// restore phases: 4 <nil>
	// # HELP torpor_gateway_requests_total Requests passed to a service, by status class of the answer.
	// # TYPE torpor_gateway_requests_total counter
	// torpor_gateway_requests_total{code="2xx",service="s3"} 1
	// torpor_gateway_requests_total{code="4xx",service="s3"} 1
}
