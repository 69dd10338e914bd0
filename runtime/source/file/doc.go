// Package file is the source of services that keep their whole state in one file whose bytes are the native
// state: the JSON of json-server or kinesis-local, a dump of Redis. The serializer that reads it is the one of
// those bytes, such as modules/json or modules/raw.
//
// A capture is a copy of the file, taken while it was left alone: it must not have been written to for
// [Config].Settle before, nor while it is copied. Services write such a file in one of two ways. Some write a
// new one and give it the name of the old one: of these a capture is always whole, however often they do so.
// Others write into the file itself, from truncating it to its end, and can be caught between two writes, with
// a file that is left alone and half there. [Config].Check finds such files by what stands in them. A file that
// changes, or is torn, is captured again after a moment, and refused in the end rather than saved torn.
//
// A file that is not there is a state too, that of a service which has not written any yet: [Config].Empty says
// as what it is saved.
//
// Restore writes a new file beside the old one, makes it durable and gives it the old one's name, in one step:
// after a crash at any moment there is the old file or the new one. Permissions are those of the file that was
// there, and so is the owner on Linux. Extended attributes, access lists, times and other hard links are not kept.
// Reset removes the file: that is what the service finds at its first start, and it knows best what to write then.
// The service must not be running during either, since it would overwrite what was restored with what it has in
// memory.
//
// The file may be a symbolic link to another file of the same folder, which is followed and stays. A link to
// elsewhere is refused: who can write to the folder could have any file saved and replaced. So is what is no
// file, such as a pipe.
//
// Changes through memory maps are captured as package files does it: on disks, not in memory (tmpfs) nor in
// the layers of a container.
package file
