// Package statedir keeps the state of services in a folder: who may use it, how a save is committed,
// which generations are kept and which of them is loaded.
//
//	state/api_states/<service>/<part>.state                                   the newest file
//	state/api_states/<service>/<part>.state.g<generation>                     one kept from before
//	state/api_states/<service>/<part>.state.corrupt-<time>-g<generation>      a damaged one, set aside
//	state/api_states/<service>/<part>.state.corrupt-<time>-g<generation>-tail a damaged end of one
//	modules/<sha256>.wasm                                                     serializers: of kept states, and pinned
//	modules/pins.json                                                         names of pinned serializers (FORMAT.md)
//	LOCK                                                                      one runtime at a time
//
// A generation number has at least 12 digits; a time is UTC, as in 20261122T174203Z. What lies in a
// .state file is package statefile's matter: a full save, and the deltas that were appended to it. Each of
// them is a generation; the file up to its end is the state file of that generation. A file is named after
// the newest generation in it.
//
// # Saving in full
//
// [Dir.Begin] gives a [Pending] to write the next generation to; [Pending.Commit] publishes it. There
// is one function in the program that publishes a file (vfs.Publish): the bytes go to a temporary
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
// which is what it was given; so are several in a damaged end, each.)
//
// # Saving a delta
//
// [Dir.BeginDelta] gives a [Pending] whose bytes are appended to <part>.state. Commit reads them again, all
// of them, and syncs the file; its name was synced before. So at every moment the file holds the
// generation before, whole, and behind it nothing, a piece of the new one, or all of it; and once Commit
// has returned nil it is all. The generation before needs no file of its own.
//
// What an append that failed or was aborted has written is cut off again, and the cut synced. If that
// fails, it is not known what the disk holds there: this process reads no further than the old end, gives
// the number to nobody else, and cuts before anything else is done to the file. Then, and after any failure
// but that of a full disk, nothing is appended to this file any more: the next save is full.
//
// [Compaction] bounds how much is appended; where a bound is reached BeginDelta or [Pending.Write] refuses,
// and the save is to be made in full, which leaves behind what is dead. How many full saves are kept, each
// with its deltas, is [Options].Keep.
//
// # Loading
//
// [Dir.OpenNewest] opens the generation with the highest number that is structurally sound. A file that is
// damaged is renamed, kept, reported and logged, and the one before is opened. Damage found later, while
// records are read, is reported by [Dir.Quarantine]. A file of a format this program does not know is not
// damaged: it is neither moved nor passed over. Neither is one the disk fails to read.
//
// Of a file whose deltas are damaged, from one of them on, only that end is lost: it is published as a file
// of its own, with -tail in its name, and cut off; the generation before it is opened. The last delta is
// read whole when a process opens the newest file for the first time, for its trailer may be on disk
// without what is before it. An end without a trailer is what a crash during an append leaves: it never
// was a generation, and it is cut off without more than a line in the log.
//
// What a process hands out it has made durable: a process before it may have died between writing and
// syncing. Should that sync fail, the file is written anew before anything is built upon it.
//
// # Modules
//
// [Dir.KeepModule] keeps the serializer of a state beside it. A module is removed, at [Open] and after a
// commit that has removed older files, if this process has not kept it and no state file of any part, set
// aside or not, names it, and no name is pinned to it. As long as there is a state file that does not say
// what wrote it (damaged, of an unknown format, a -tail), or the pins can not be read or name a module that
// is not there, none is removed.
//
// [Dir.Pin] keeps a module because its owner says so, under a name. The module is published first, then
// pins.json, both by the same function as everything else; so at every moment a name stands for what it
// stood for or for the new module, and that is there. Who reads the pins makes them durable first.
package statedir
