// Package sqlite tests the serializer and the source of SQLite databases together: databases that the
// sqlite3 program writes go through the source, the module in a host, and back, and sqlite3 compares.
//
// TORPOR_SQLITE_THOROUGH, if it is not empty, has TestLarge take 200 MB and a value of 100 MB through.
package sqlite
