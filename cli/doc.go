// Package cli is the torpor command. It is the only place that puts the parts of the house together:
// [Run] reads flags, environment and configuration file, and serve builds host, state directory,
// services, runtime, metrics and server of them.
package cli
