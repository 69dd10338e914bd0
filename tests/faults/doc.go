// Package faults holds what goes wrong outside of the runtime's process against the program: services that die,
// hang or lie at every moment of their life, a runtime that is killed in each phase of sleep and wake, clients
// that write all the while, a clock that jumps, a disk that is full. The program is the built binary with a
// torpor.yaml, the service a program of these tests, which misbehaves when it is told to.
//
// After each fault the same is checked: what a barrier (sync) said is saved is there, in this runtime and in the
// next; the last good generation stays; torpor verify finds nothing; no process of the service is left.
package faults
