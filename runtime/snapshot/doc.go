// Package snapshot is the state of several services at one time, and what can be done with two of them: merge and
// diff. A [Snapshot] is the same thing wherever it is kept: captured from live services (package runtime), a version
// in a repository (package repository), an exported file (package archive), or what a state directory holds
// ([Generations]). Each of its parts is a state file, so that records, chunks and checksums are what they are
// everywhere else.
package snapshot
