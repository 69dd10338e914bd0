// Package metrics shows what Torpor does to Prometheus: collectors over the events of packages runtime
// and host, and over the runtime's status at each scrape.
//
// The figure to watch is torpor_restore_duration_seconds, how long a restore took by service, part and
// phase. [New] registers everything with the registry it is given; the names and meanings are listed
// in README.md beside this file. Units are base units, label values are bounded: services, parts and
// modules come from the configuration, the rest is fixed here.
package metrics
