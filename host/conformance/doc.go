// Package conformance tests serializer modules from outside, as "torpor module test" does: what any
// serializer must keep of the ABI (host/abi/ABI.md), held against fixtures, which are native states
// that the module must be able to save.
//
// [Run] runs the checks that [Checks] lists through package host and gives a [Report]. A check fails
// for what the ABI forbids; what is only unwise or could not be tested is a note. Figures are for
// people and judge nothing. Everything that looks random follows from [Options.Seed], so that the same
// module, fixtures and seed give the same verdicts.
//
// [ReadFixtures] reads a folder:
//
//	fixtures/NAME                   a native state
//	fixtures/schema-N/NAME.records  records of schema N, as an older version of the module wrote them
//	fixtures/schema-N/NAME.native   what they are to become today; may be missing
//
// [Options.Keep] is given the records of each fixture, so that an author can keep those of a release
// as the older records of the next.
package conformance
