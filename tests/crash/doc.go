// Package crash kills a real process at its n-th system call, for every n, and looks at what is left on
// a real file system. What a power cut leaves is the matter of runtime/statedir's tests, which have a file
// system of their own for it.
//
// strace does the killing. The process is the test's own binary, which keeps a small state and tells, by
// a line for each, what it has been told is saved.
package crash
