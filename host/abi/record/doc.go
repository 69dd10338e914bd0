// Package record is the one currency between the layers: a record is one keyed piece of state, the
// CBOR array [partition, key, value] (RFC 8949).
//
//   - partition is a text string, "<account>/<region>" for cloud services and "" where there is none;
//   - key is a text or byte string, unique in its partition;
//   - value is any item.
//
// Every head is of the shortest form and every length definite, so that equal records are equal
// bytes; text in partition and key is UTF-8; arrays, maps and tags nest at most [MaxDepth] deep.
//
// Records travel in a [Batch]: whole records back to back, with the places of their parts. A
// [Scanner] checks bytes from anywhere and makes a Batch; [Reader] cuts a byte stream into batches;
// the Append functions and [Pull] write and read items without reflection, for code that handles
// hundreds of thousands of records.
package record
