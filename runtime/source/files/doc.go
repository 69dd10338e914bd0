// Package files is the source of services that keep their state in a folder: LevelDB, Azurite, PostgreSQL
// and the like. [Source.Capture] fixes the folder as it is at one moment, [Source.Restore] replaces it as a
// whole or not at all. The native state is a sequence of entries that modules/files/README.md describes; the
// serializer "files" reads it.
//
// A capture lists the folder, copies what has changed since the last capture into a folder of its own, the
// spool, and lists the folder again: only if the two lists are equal, with every size, time and inode, was
// what was copied there at one moment. If not, it is tried again, and refused in the end rather than torn.
// What is unchanged is not read again; the spool takes as much room as the folder, but for files that the
// file system can clone.
//
// What is kept of an entry: its path (any bytes), type, permissions, time of last change, extended
// attributes in "user.", owner and group if the process is the superuser's, hard links within the folder,
// and holes of 64 KiB and more in files. What is not: other times, access lists and other attributes, and
// what a symbolic link outside the folder points to, which is why such links are refused unless asked for.
//
// Changes through memory maps are captured where the file system gives a file a new time for them: on disks, not
// in memory (tmpfs) nor in the layers of a container, where a service that writes so must not be running.
//
// Linux is what it is made for. Elsewhere files are read at each capture, hard links become files, and
// extended attributes, owners and holes are not kept.
package files
