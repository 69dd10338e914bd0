// Package sqlite tests the serializer and the source of SQLite databases together: databases that the
// sqlite3 program writes go through the source, the module in a host, and back, and sqlite3 compares.
package sqlite
