// Package runtime is Torpor's persistence runtime: it pauses and resumes the state of services.
//
// A [Runtime] holds services, each of one or more parts. A part joins a [Source], where native state
// leaves and enters the live service, to a [Serializer], which turns it into records and back. A save
// captures the source, serializes it, proves that it can be loaded again and commits a generation to
// the state directory (package statedir); a restore reads the newest good generation and delivers it.
// When that happens is decided by the save and load strategies, which are LocalStack's.
//
// The package imports neither wazero nor Echo nor Prometheus: *host.Module satisfies [Serializer],
// the server consults a [Runtime] through methods, and metrics listen to it as an [Observer].
package runtime
