// Package s3 is an S3 service that runs in this process, with its whole state in memory, and that
// Torpor can put to sleep and wake: one program is a useful cloud emulator by itself.
//
// A [Service] is three things in one:
//
//   - a state: buckets in copy-on-write ordered maps, whose objects never change once they are
//     visible, so that a copy of everything is a matter of microseconds;
//   - an S3 API over HTTP, [Service.Handler]: gofakes3 speaks the protocol, this package is its
//     backend and answers itself what gofakes3 lacks or gets wrong (README.md lists both);
//   - a source of native state for the runtime: [Service.Capture], [Service.Restore] and
//     [Service.Reset]. The native state is a CBOR sequence of records; README.md has the schema. A capture
//     also tells what changed since the last one that was saved.
//
// Nobody is authenticated: whoever reaches the handler may do everything.
package s3
