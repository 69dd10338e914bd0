// Package seal encrypts snapshots and their exports, as age files (age-encryption.org/v1): whoever has the age program
// and the key can read one without this house. A file is locked by a [Lock], a passphrase or any number of recipients,
// and opened by a [Key].
//
// age authenticates what it encrypts, 64 KiB at a time: bytes that were changed or cut off are an error where they
// would be read, never other content. Who made the file it does not tell: anybody can encrypt to a recipient.
package seal
