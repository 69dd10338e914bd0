// Package files_test tests the serializer modules/files together with the source runtime/source/files: real
// folders through both, in the host that runs the one.
package files_test
