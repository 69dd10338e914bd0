//go:build race

package host_test

// racing tells that the race detector is in the tests: it keeps memory of its own for what was used once.
const racing = true
