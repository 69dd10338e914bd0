// Package host runs serializers: WebAssembly modules in wazero, spoken to through the ABI of package
// abi (abi/ABI.md).
//
// A [Host] compiles modules, keeping what wazero compiled in a cache folder. A [Module] has been
// checked, says what it can do ([Module.Descriptor]) and converts state by [Module.Save],
// [Module.Load] and [Module.Migrate]; each call runs in an instance of its own, which is gone
// afterwards. Everything streams: guest memory is bounded by a chunk plus the largest record.
//
// Modules are pure functions: no files, no network, no environment, a fixed random seed, a wall clock
// that shows the call's time and a monotonic clock that steps one microsecond at each reading. So the
// same input gives the same bytes.
package host
