// Package vfs is the few file operations that state is kept with: open, read, write, sync, rename,
// remove, list, make a folder, lock. They are few so that there can be three file systems with the same
// behaviour, held to it by one conformance suite (package vfstest):
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
//     be lost in a power cut, in any order, and the file may have any length in between.
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
