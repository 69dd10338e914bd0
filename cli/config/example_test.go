package config_test

import (
	"fmt"

	"github.com/torpor-run/torpor/cli/config"
	"github.com/torpor-run/torpor/runtime"
)

// A file is read, and then its services, which fall back to what is said for all.
func ExampleRead() {
	d, err := config.Read(config.Form{Embedded: []string{"s3"}}, "/etc/torpor.yaml", []byte(`
services:
  orders:
    run: {command: [orders, "--port={port}", "--db={data}/orders.db"], env: {LOG: "${LOG:-info}"}}
    match: {path: [/orders]}
    idle: 10m
    parts:
      store: {serializer: sqlite, source: {sqlite: {path: "{data}/orders.db"}}}
`))
	if err != nil {
		fmt.Println(err)
		return
	}
	services, err := d.Services(config.Strategies{Save: runtime.SaveScheduled}, []string{"HOME=/home/me"})
	if err != nil {
		fmt.Println(err)
		return
	}
	for _, s := range services {
		s = s.InData("/var/lib/torpor/state/" + s.Name)
		fmt.Println(s.Name, s.Embedded, s.Save, s.Idle)
		for _, p := range s.Parts {
			fmt.Println(" ", p.Name, p.Serializer, p.Source.SQLite.Path, s.Run.Env)
		}
	}
	// Output:
	// orders false SCHEDULED 10m0s
	//   store sqlite /var/lib/torpor/state/orders/orders.db [LOG=info]
	// s3 true SCHEDULED 0s
}

// Every mistake is told, with its line.
func ExampleRead_mistakes() {
	d, err := config.Read(config.Form{}, "torpor.yaml", []byte("servces: {}\nservices:\n  orders:\n    upstream: localhost\n    idle: soon\n"))
	fmt.Println(err)
	_, err = d.Services(config.Strategies{}, nil)
	fmt.Println(err)
	// Output:
	// torpor.yaml:1: servces is not known; allowed are services, modules
	// torpor.yaml:4: services.orders.upstream is "localhost"; it must be a URL without TLS and without a path, such as http://127.0.0.1:8080
	// torpor.yaml:5: services.orders.idle is "soon"; it must be seconds or a duration such as 500ms, from 100ms to 720h, or 0
}
