// Package fuel writes a counter into WebAssembly modules, so that a host can bound what a guest computes.
//
// A guest that never comes back cannot be ended from outside: wazero runs it as machine code, and its
// own means against that (closing on the context's end) makes all guests many times slower. So the guest
// ends itself. [Instrument] gives a copy of a module with one more global, exported as [DefaultExport]:
// the fuel that is left, an i64. The code takes from it what it is about to do and traps when it is
// below zero. The host sets the global before it calls the guest, may look at it and set it anew
// whenever the guest calls the host, and reads afterwards what was used. [Info] also tells whether, and by
// which globals, an instance can be put back into a state it had before.
//
// # What costs how much
//
// An instruction costs one unit; block, end, else and nop nothing; loop one in each round, and calling a
// function one more. What moves many values (calls, branches, ends of blocks, declared locals) costs one
// more for every 8 of them. What takes a processor long costs more: dividing whole numbers 4, dividing
// floats and square roots 16. memory.copy, memory.fill, memory.init, table.copy, table.fill and table.init
// cost 16 and one more for every 16 bytes, a reference counting as 8, paid before they begin; memory.grow
// and table.grow cost 64 and pay in the same way for what was added, if it was.
//
// # What is guaranteed
//
//   - Every way around a loop and every call lowers the counter, by one at least, and looks at it, and so
//     does what is charged behind a call. So no guest runs for longer than its fuel and one way through
//     one function, without loops, lasts.
//   - What is charged is never less than the cost of what runs, but for a run that traps, and never more
//     than 1 + slack times as much: a branch may be charged with 4 units too much. Real code is charged
//     with 1 to 2 percent too much.
//   - The count depends on the module and its input only: both of wazero's engines, and every run, count
//     the same.
//   - When the fuel ends, the guest traps with unreachable and the counter is -1; it stays so, and the
//     guest can run no further, until the host sets it. No other trap leaves a counter below zero. But a
//     call may come back, or call the host, with a counter below zero: the little that was left did not
//     pay for the last few instructions. That is spent fuel as well.
//   - When the guest calls the host and when a call returns, the counter is exact. After a trap of another
//     kind it is what it was when the guest last called something, which is too much.
//   - Nothing else changes: results, memory, traps, the indices of functions, types, globals and all
//     the rest, and custom sections, so that traps name functions as before. Only the sections of DWARF,
//     which tell of offsets in the code, are left out. Deep recursion overflows the stack a little
//     earlier.
//   - The guest cannot reach the counter: code or exports that name a global or a local that the module
//     does not have are refused. An instrumented module is valid exactly if the module is, so compiling
//     the result tells whether the module is sound.
//
// # How it is charged
//
// The code of a function is cut into blocks, runs of instructions that are left at their end only. To
// charge at each block would be exact, and slow. So a block is paid for further up where whatever comes
// there surely goes on to it, and also where it would not be missed: see distribute. Within a function
// the counter is kept in a local, which costs a subtraction of a register to lower, and is brought to
// the global and back around calls. It is looked at where a function or a round of a loop begins, and at
// the first charge behind a call. That, and a common exit for all checks, brought the cost for the
// built-in module from 46 percent, with a charge of the global at each block, down to 4 to 10; a Go
// guest is about 6 percent slower (BenchmarkSerializers).
//
// Small functions are not spared their charge: compilers put them in line, and without them each call
// lowers the counter, which is a simple thing to be sure of.
package fuel
