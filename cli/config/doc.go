// Package config reads Torpor's configuration file, torpor.yaml: the services and how they are run, reached and
// saved. A file is read wholly and strictly: each key that is not known, each value of a wrong kind and each
// contradiction is told, with file, line, key and what is allowed, all of them at once.
//
//	services:
//	  orders:
//	    run: {command: [orders, "--port={port}", "--db={data}/orders.db"]}
//	    match: {path: [/orders], strip: true}
//	    idle: 10m
//	    parts:
//	      store: {serializer: sqlite, source: {sqlite: {path: "{data}/orders.db"}}}
//
// The keys are in tables (form.go), from which come the parser, the JSON Schema for editors
// (torpor.schema.json) and what "torpor config check --json" prints. Presets are files of the same form as a
// service, in the folder presets; what a file says is merged above the preset that it names.
//
// What is one value for the whole runtime, and the limits of modules, are settings of package cli, which says
// what there is ([Form]) and reads the values: there flags and environment win over the file.
package config
