// Package repository keeps snapshots: named, versioned, of all or some services, each version whole and never changed.
// FORMAT.md beside this file says what lies where.
//
// The states of a version are cut into pieces where their state files have chunks. A piece is kept once, whatever versions
// have it, in a pack of some 16 MiB; one that changed a little is kept as what differs from the piece it was. A version
// is one small commit record, put if there is none of its number: two who save at once get two numbers. It is put last,
// so that what can be seen is whole. Removing a version puts a removal record; [Repository.Collect] then deletes the
// packs, or writes them anew, that hold what no version needs.
//
// There is no file that is changed, no head, no lock: all that a [Remote] must do is to put what is not there yet.
//
// A version can be encrypted ([SaveOptions].Lock). Its record then shows its number, time and sizes and no more.
package repository
