// Package archive is the exported snapshot, a file *.snapshot: a zip archive of a manifest, the state files, the
// serializer modules they need, and checksums; encrypted, it is an age file of that zip. FORMAT.md beside this file is
// the specification. [Write] streams one out and [Open] takes one in, and believes nothing of it before all is checked.
package archive
