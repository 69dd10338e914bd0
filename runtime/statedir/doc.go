// Package statedir keeps the state of services in a folder: who may use it, how a save is committed,
// which generations are kept and which of them is loaded.
//
//	state/api_states/<service>/<part>.state                              the newest generation
//	state/api_states/<service>/<part>.state.g<generation>                one kept from before
//	state/api_states/<service>/<part>.state.corrupt-<time>-g<generation> a damaged one, set aside
//	modules/<sha256>.wasm                                                serializers of kept states
//	LOCK                                                                 one runtime at a time
//
// A generation number has at least 12 digits; a time is UTC, as in 20261122T174203Z. What lies in a
// .state file is package statefile's matter.
//
// # Saving
//
// [Dir.Begin] gives a [Pending] to write the next generation to; [Pending.Commit] publishes it. There
// is one function in the program that publishes a file (draft.publish): the bytes go to a temporary
// file in the same folder, which is synced; the file of that name so far is renamed to its generation
// name; the temporary one is renamed to the name wanted; the folder is synced. So at every moment, a
// power cut included, the newest sound generation is the one before or the new one, and once Commit has
// returned nil it is the new one.
//
// A save that fails at any step leaves the last good generation to be loaded. After a sync that failed
// nothing is assumed about what the disk holds (package vfs): the temporary file is dropped, and the
// next save writes all of its generation anew. Only a failed sync of the folder, the last step, leaves
// the new generation in place: whole, but not certain to outlive a power cut, and so reported as failed.
//
// Generations are numbered from 1. The next number is one above the highest that is in the folder,
// damaged ones included, or has been seen there by this [Dir]; so a number is not given twice. (A
// damaged newest generation whose number can no longer be read is counted as one above the others,
// which is what it was given.)
//
// # Loading
//
// [Dir.OpenNewest] opens the generation with the highest number that is structurally sound. One that is
// damaged is renamed, kept, reported and logged, and the one before is opened. Damage found later,
// while records are read, is reported by [Dir.Quarantine]. A file of a format this program does not
// know is not damaged: it is neither moved nor passed over. Neither is one the disk fails to read.
package statedir
