// Package host runs serializers: WebAssembly modules in wazero, spoken to through the ABI of package
// abi (abi/ABI.md).
//
// A [Host] compiles modules, keeping what wazero compiled in a cache folder. A [Module] has been
// checked, says what it can do ([Module.Descriptor]) and converts state by [Module.Save],
// [Module.Load] and [Module.Migrate]. Each call has an instance to itself, which begins as the module's
// _initialize left it; instances are put back to that and used again. Everything streams: guest memory is
// bounded by a chunk plus the largest record.
//
// What a module may use is bounded by [Limits]. Modules run on fuel (package fuel): a guest that computes
// too much, or does not come back to the host, ends itself. What a reader, writer, source or sink is given
// in a call is the guest's memory, and gone from the process afterwards: it must not be kept.
//
// Modules are pure functions: no files, no network, no environment, a fixed random seed, a wall clock
// that shows the call's time and a monotonic clock that steps one microsecond at each reading. So the
// same input gives the same bytes.
package host
