//go:build !race

package host_test

const racing = false
