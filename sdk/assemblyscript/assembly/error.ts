import { encodeHead, MAP, TEXT, UINT } from "./head";
import { hostFail } from "./host";

/** The kind of an error (host/abi/ABI.md, "Errors"); numbers from 64 up are a serializer's own. */
export enum Code {
  /** A fault of the serializer itself. */
  INTERNAL = 1,
  /** The input is not what it claims to be. */
  CORRUPT = 2,
  /** The input is of a schema or version that this serializer does not read. */
  VERSION = 3,
  /** The input is sound but holds what this serializer cannot keep, or a setting is unknown. */
  UNSUPPORTED = 4,
  /** The input passes a limit. */
  TOO_LARGE = 5,
}

/**
 * Ends the call: what happened in words, where in the state for people (such as `record 17`), and at
 * which byte of the call's input; an offset below 0 is none. It does not return. Words beyond 4 KiB are
 * cut.
 */
export function fail(code: i32, msg: string, path: string = "", offset: i64 = -1): void {
  beginWords();
  say(msg);
  const middle = beginPath();
  say(path);
  tell(code, middle, offset);
}

/** Ends the call with {@link Code.CORRUPT} at a byte of the input. It does not return. */
export function corrupt(offset: u64, msg: string, path: string = ""): void {
  fail(Code.CORRUPT, msg, path, offset);
}

/**
 * Ends the call where AssemblyScript gives up: an index out of range, a null that should be none, `throw`,
 * a failed `assert`. asconfig.json names it, so that the module does not import one.
 */
export function abort(msg: string | null, file: string | null, line: u32, column: u32): void {
  beginWords();
  say("the serializer panicked");
  if (msg != null) {
    say(": ");
    say(msg);
  }
  if (file != null) {
    say(" at ");
    say(file);
    say(":");
    sayNumber(line);
  }
  tell(Code.INTERNAL, words, -1);
}

// An error may be about memory, so its words are put together in memory set aside.

const MAX_WORDS: usize = 4096;
const TEXTS = memory.data(2 * 4096 + 8);
const MESSAGE = memory.data(2 * 4096 + 64);
let words: usize = TEXTS;
let limit: usize = TEXTS;

/** Begins the words of an error. */
export function beginWords(): void {
  words = TEXTS;
  limit = TEXTS + MAX_WORDS;
}

/** Adds words. */
export function say(s: string): void {
  for (let i = 0, n = s.length; i < n; ) {
    const c = s.codePointAt(i);
    i += 1 + i32(c > 0xffff);
    const size = 1 + i32(c > 0x7f) + i32(c > 0x7ff) + i32(c > 0xffff);
    if (words + size > limit) {
      limit = words; // cut here, not where a shorter character would fit
      return;
    }
    const half = c >= 0xd800 && c < 0xe000;
    if (size == 1) {
      store<u8>(words, c);
    } else if (size == 2) {
      store<u8>(words, 0xc0 | (c >> 6));
      store<u8>(words, 0x80 | (c & 0x3f), 1);
    } else if (size == 3) {
      const v = half ? 0xfffd : c;
      store<u8>(words, 0xe0 | (v >> 12));
      store<u8>(words, 0x80 | ((v >> 6) & 0x3f), 1);
      store<u8>(words, 0x80 | (v & 0x3f), 2);
    } else {
      store<u8>(words, 0xf0 | (c >> 18));
      store<u8>(words, 0x80 | ((c >> 12) & 0x3f), 1);
      store<u8>(words, 0x80 | ((c >> 6) & 0x3f), 2);
      store<u8>(words, 0x80 | (c & 0x3f), 3);
    }
    words += size;
  }
}

/** Adds words that are UTF-8 already, which a caller has checked. */
export function sayBytes(at: usize, length: i32): void {
  let n: usize = min<usize>(length, limit - words);
  while (n < <usize>length && n > 0 && (load<u8>(at + n) & 0xc0) == 0x80) n--; // not inside a character
  memory.copy(words, at, n);
  words += n;
}

/** Adds a number in decimal digits. */
export function sayNumber(v: u64): void {
  let power: u64 = 1;
  while (v / power >= 10) power *= 10;
  for (; power > 0 && words < limit; power /= 10) {
    store<u8>(words, 0x30 + <u8>((v / power) % 10));
    words++;
  }
}

/** Adds a byte as 0x and two digits. */
export function sayHex(b: u8): void {
  say("0x");
  for (let shift = 4; shift >= 0 && words < limit; shift -= 4) {
    const digit = (b >> <u8>shift) & 15;
    store<u8>(words, digit + (digit < 10 ? 0x30 : 0x57));
    words++;
  }
}

/** Where the words added so far end; what is said after it is the path. */
export function beginPath(): usize {
  limit = words + MAX_WORDS;
  return words;
}

/** Tells the host the words added, those from `path` on as the path, and ends the call. */
export function tell(code: i32, path: usize, offset: i64): void {
  let p = MESSAGE;
  p = encodeHead(p, MAP, 1 + i32(words > path) + i32(offset >= 0));
  p = name(p, "msg");
  p = text(p, TEXTS, path);
  if (words > path) {
    p = name(p, "path");
    p = text(p, path, words);
  }
  if (offset >= 0) {
    p = name(p, "offset");
    p = encodeHead(p, UINT, offset);
  }
  hostFail(code, MESSAGE, <i32>(p - MESSAGE));
  unreachable();
}

function name(p: usize, key: string): usize {
  p = encodeHead(p, TEXT, key.length);
  for (let i = 0; i < key.length; i++) store<u8>(p++, key.charCodeAt(i));
  return p;
}

function text(p: usize, from: usize, to: usize): usize {
  p = encodeHead(p, TEXT, to - from);
  memory.copy(p, from, to - from);
  return p + (to - from);
}
