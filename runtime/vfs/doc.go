// Package vfs is the few file operations that state is kept with: open, read, write, truncate, sync,
// rename, remove, list, make a folder, lock. They are few so that there can be three file systems with
// the same behaviour, held to it by one conformance suite (package vfstest):
//
//   - [OS], a folder of the operating system, which nothing leaves;
//   - [Mem], a file system in memory that can be cloned as it would be after a power cut;
//   - [FaultFS], a wrapper that fails the k-th operation as a bad disk, a full disk or a crash would.
//
// Together the last two prove the crash safety of the packages above: run an operation, crash at its
// k-th step, cut the power, look at what is left; for every k until none is reached.
//
// # What is durable
//
// The rules a caller has to go by, and which [Mem] enforces without mercy:
//
//   - Bytes written to a file are durable once [File].Sync has returned nil. Until then any of them may
//     be lost in a power cut, in any order, and the file may have any length in between. Bytes appended
//     to a file that was synced are no different: what was synced before them stays, and behind it there
//     may be nothing, all, or pieces with zeros between.
//   - A file truncated has its new length for certain once Sync has returned nil. Until then a power cut
//     may give the old length back, with the old bytes but for the rest of the page the cut goes through,
//     which may be zeros. Bytes appended behind a cut that was not synced may be lost as any others, and
//     where they are, there may be zeros or what stood there before the cut: what was cut off is gone
//     only when the cut has been synced. So sync between cutting and appending.
//   - A name is durable once the folder it stands in has been synced: open the folder with [Read] and
//     call Sync. That goes for creating, renaming and removing files and for making folders, so a new
//     folder needs a sync of its parent. Until then each such change is kept or lost on its own; a
//     rename within one folder is never kept by half.
//   - After a Sync that failed nothing is known. The system may have marked the pages clean without
//     having written them: a second Sync then returns nil and proves nothing. What was to be written has
//     to be written anew, to a new file.
//
// The idea of such a file system is that of Pebble's vfs; what Linux does after a failed fsync is
// described in Rebello et al., "Can Applications Recover from fsync Failures?", USENIX ATC 2020.
package vfs
