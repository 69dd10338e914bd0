// The five imports (host/abi/ABI.md, "Imports").

// @ts-ignore: decorator
@external("torpor_v1", "next")
export declare function next(buf: usize, cap: i32): i64;

// @ts-ignore: decorator
@external("torpor_v1", "emit")
export declare function emit(ptr: usize, len: i32, flags: i32): i32;

// @ts-ignore: decorator
@external("torpor_v1", "arg")
export declare function arg(buf: usize, cap: i32): i32;

// @ts-ignore: decorator
@external("torpor_v1", "fail")
export declare function hostFail(code: i32, ptr: usize, len: i32): void;

// @ts-ignore: decorator
@external("torpor_v1", "log")
declare function hostLog(level: i32, ptr: usize, len: i32): void;

/** The bit of what `next` returns that says that the input ends with these bytes. */
export const NEXT_END: i64 = 1 << 32;

/** The bit of `emit` that says that more of this record follows. */
export const EMIT_MORE: i32 = 1;

/** How much a log line matters. */
export enum Level {
  /** For the author. */
  DEBUG = 0,
  /** For who wants to know. */
  INFO = 1,
  /** For who should look. */
  WARN = 2,
  /** For who must look. */
  ERROR = 3,
}

/** Writes a line to the host's log, which cuts it to 1 KiB and drops lines that come too fast. */
export function log(level: Level, line: string): void {
  const encoded = String.UTF8.encode(line);
  hostLog(level, changetype<usize>(encoded), encoded.byteLength);
}
