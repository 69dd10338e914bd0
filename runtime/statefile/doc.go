// Package statefile is the format of saved state, *.state: a CBOR sequence (RFC 8742) of a header,
// chunks of records, an index and a trailer, and behind it any number of deltas, which hold what has
// changed since, each with an index and a trailer of its own. FORMAT.md beside this file is the
// specification; this package is one reader and one writer of it and knows nothing of folders.
//
// A [Writer] streams records out; [Open] checks header, trailers and indexes and gives a [File], whose
// [File.Records] streams them back, deltas applied, all or by partition, checking every chunk before a
// record of it is handed out. Memory follows the largest chunk, the indexes and what the deltas change,
// never the state.
//
// To append a delta take [File.Tail] to [NewDeltaWriter]; [Tail.Next] reads back what was appended.
// [LastGood] finds what is left of a file whose end was cut off or damaged.
package statefile
