// Package json holds the built-in serializer json against the JSON that there is: the cases that tests
// of JSON parsers know, random texts in all spellings and spacings, package encoding/json, and files that
// services wrote.
package json
