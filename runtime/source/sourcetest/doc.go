// Package sourcetest is the conformance suite of [runtime.Source]: what every way in which native state
// leaves and enters a live service must keep, whatever the service. A source's own tests call [Test]
// once with a way to make a service that can be changed and looked at.
//
// What it holds a source to is what the comments of package runtime promise: a capture stays what it was,
// Restore is all or nothing whatever the input does, errors are told apart, and nothing is left behind.
package sourcetest
