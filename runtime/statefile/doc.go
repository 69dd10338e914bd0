// Package statefile is the format of one saved state, *.state: a CBOR sequence (RFC 8742) of a header,
// chunks of records, an index and a trailer. FORMAT.md beside this file is the specification; this
// package is one reader and one writer of it and knows nothing of folders or generations.
//
// A [Writer] streams records out; [Open] checks header, trailer and index and gives a [File], whose
// [File.Records] streams them back, all or by partition, checking every chunk before a record of it is
// handed out. Memory follows the largest chunk and the index, never the state.
package statefile
