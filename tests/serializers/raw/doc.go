// Package raw_test tests the serializer modules/raw in the host that runs it.
package raw_test
