import { Bytes, heldView, view } from "./bytes";
import { Code, beginPath, beginWords, say, sayBytes, sayHex, sayNumber, tell } from "./error";
import { ARRAY, BYTES, MAP, NEGATIVE, OTHER, TAG, TEXT, UINT } from "./head";
import { utf8Length } from "./memory";

/** The major types of CBOR, as {@link Reader.major} gives them. */
export enum Major {
  /** An unsigned integer. */
  UINT = 0,
  /** A negative integer. */
  NEGATIVE = 1,
  /** A byte string. */
  BYTES = 2,
  /** A text string. */
  TEXT = 3,
  /** An array. */
  ARRAY = 4,
  /** A map. */
  MAP = 5,
  /** A tag. */
  TAG = 6,
  /** A simple value or a float. */
  OTHER = 7,
}

/** How deep arrays, maps and tags may nest in one item, the item itself counted. */
const MAX_DEPTH: u32 = 64;

/** What no string may exceed in bytes and no collection in items. */
const MAX_LENGTH: u64 = 1 << 30;

/** Where bytes come from, so that a fault can be told: the call's input, its parameters, or a setting. */
@unmanaged
export class Source {
  /** The offset in the input that the address 0 would have; {@link PARAMETERS} for the parameters. */
  base: i64;
  /** The name of the setting that the bytes are the value of. */
  setting: Bytes | null;

  /** Ends the call with the words said so far, which are about the byte at `p`. */
  refuse(p: usize, code: i32): void {
    const setting = this.setting;
    const path = beginPath();
    if (setting) {
      say("settings.");
      sayBytes(setting.at, setting.length);
      tell(Code.UNSUPPORTED, path, -1);
    }
    if (this.base == PARAMETERS) tell(Code.INTERNAL, path, -1);
    tell(code, path, this.base + <i64>p);
  }

  /** Ends the call: the byte at `p` breaks the rules. */
  corrupt(p: usize, msg: string): void {
    beginWords();
    say(msg);
    this.refuse(p, Code.CORRUPT);
  }

  /** Ends the call: something else was expected than the byte at `p`. */
  expected(p: usize, what: string): void {
    beginWords();
    say(what);
    say(" expected, found ");
    sayHex(load<u8>(p));
    this.refuse(p, Code.CORRUPT);
  }

  /** Ends the call: `n` is beyond a limit. */
  tooLong(p: usize, what: string, n: u64, bound: string, limit: u64): void {
    beginWords();
    say(what);
    sayNumber(n);
    say(bound);
    sayNumber(limit);
    this.refuse(p, Code.TOO_LARGE);
  }

  /**
   * Reads the head at `p`, which is before `end`: its argument goes to {@link headArg}. Returns where what
   * follows it begins, or 0 if the bytes end inside it. Not for major type 7, whose rules differ.
   */
  // @ts-ignore: decorator
  @inline
  head(p: usize, end: usize): usize {
    const info = load<u8>(p) & 0x1f;
    if (info < 24) {
      headArg = info;
      return p + 1;
    }
    return this.longHead(p, end);
  }

  private longHead(p: usize, end: usize): usize {
    const info = load<u8>(p) & 0x1f;
    if (info == 31) this.corrupt(p, "an indefinite length; records use definite ones only");
    if (info > 27) this.noItem(p);
    const size: usize = <usize>1 << (info - 24);
    if (end - p <= size) return 0;
    let arg: u64;
    let least: u64;
    if (info == 24) {
      arg = load<u8>(p, 1);
      least = 24;
    } else if (info == 25) {
      arg = bswap<u16>(load<u16>(p, 1));
      least = 0x100;
    } else if (info == 26) {
      arg = bswap<u32>(load<u32>(p, 1));
      least = 0x1_0000;
    } else {
      arg = bswap<u64>(load<u64>(p, 1));
      least = 0x1_0000_0000;
    }
    if (arg < least) this.corrupt(p, "a head that is not of the shortest form");
    headArg = arg;
    return p + 1 + size;
  }

  /** Ends the call: the byte at `p` begins no item. */
  noItem(p: usize): void {
    beginWords();
    sayHex(load<u8>(p));
    say(" begins no CBOR item");
    this.refuse(p, Code.CORRUPT);
  }
}

/** In {@link Source.base}: not the input, but the call's parameters. */
export const PARAMETERS: i64 = i64.MIN_VALUE;

/** The argument of the head that was read last. */
export let headArg: u64 = 0;

/**
 * Passes over one item, in one go or in several, checking that it is well-formed. It holds the count of
 * items still to come at each open level, so that no input can make it recurse or allocate.
 */
@unmanaged
export class Nesting extends Source {
  /** Whether the item that was begun has been passed over. */
  whole: bool;
  private left: u32;
  private depth: u32;
  private stack: usize;

  constructor() {
    super();
    this.stack = heap.alloc(MAX_DEPTH * 4);
  }

  /** Ready for one item. */
  // @ts-ignore: decorator
  @inline
  begin(): void {
    this.whole = false;
    this.left = 1;
    this.depth = 0;
  }

  /**
   * Goes on at `p`, with bytes up to `end`. Returns where the item ends, if it is whole, or from where it
   * must be gone on with: beyond `end` where a string ends there.
   */
  pass(p: usize, end: usize): usize {
    const stack = this.stack;
    let left = this.left;
    let depth = this.depth;
    while (true) {
      while (left == 0) {
        if (depth == 0) {
          this.left = 0;
          this.whole = p <= end;
          return p;
        }
        depth--;
        left = load<u32>(stack + (depth << 2));
      }
      if (p >= end) break;
      const first = load<u8>(p);
      const major = first >> 5;
      if (major == OTHER) {
        const next = this.other(p, end, first);
        if (!next) break;
        p = next;
      } else {
        const next = this.head(p, end);
        if (!next) break;
        const arg = headArg;
        if (major <= NEGATIVE) {
          p = next;
        } else if (major <= TEXT) {
          if (arg > MAX_LENGTH) this.tooLong(p, "a string of ", arg, " bytes; no record may pass ", MAX_LENGTH);
          p = next + <usize>arg;
        } else {
          let inside: u32 = 1;
          if (major != TAG) {
            if (arg > MAX_LENGTH) this.tooLong(p, "a collection of ", arg, " items; no record may pass ", MAX_LENGTH);
            inside = <u32>arg << (major - ARRAY); // a map has two items a pair
          }
          if (depth == MAX_DEPTH) {
            beginWords();
            say("nested deeper than ");
            sayNumber(MAX_DEPTH);
            this.refuse(p, Code.TOO_LARGE);
          }
          p = next;
          if (inside > 0) {
            store<u32>(stack + (depth << 2), left - 1);
            depth++;
            left = inside;
            continue;
          }
        }
      }
      left--;
    }
    this.left = left;
    this.depth = depth;
    return p;
  }

  /** The end of the simple value or float at `p`, or 0 if the bytes end inside it. */
  private other(p: usize, end: usize, first: u8): usize {
    const info = first & 0x1f;
    if (info < 24) return p + 1;
    if (info == 31) this.corrupt(p, "a break without an indefinite length");
    if (info > 27) this.noItem(p);
    if (info > 24) return p + 1 + (<usize>1 << (info - 24)); // the bits of a float may be any
    if (p + 1 >= end) return 0;
    if (load<u8>(p, 1) < 32) this.corrupt(p, "a simple value below 32 in two bytes");
    return p + 2;
  }
}

/** Passes over items for all readers, one after another. */
const skipper = new Nesting();

/**
 * Reads items one after another from bytes that are all in memory: a record's value, a setting. Where
 * the bytes are not what is asked for, it ends the call and tells where.
 */
@unmanaged
export class Reader extends Source {
  private p: usize;
  private stop: usize;

  /** Reads other bytes from now on. */
  over(at: usize, end: usize, base: i64, setting: Bytes | null): this {
    this.p = at;
    this.stop = end;
    this.base = base;
    this.setting = setting;
    return this;
  }

  /** The offset in the call's input of the next item; of no use in settings. */
  get offset(): u64 {
    return <u64>(this.base + <i64>this.p);
  }

  /** The major type of the next item; -1 where there is none. */
  get major(): Major {
    return this.p < this.stop ? <Major>(load<u8>(this.p) >> 5) : <Major>-1;
  }

  /** Makes sure that all has been read. */
  end(): void {
    if (this.p < this.stop) this.corrupt(this.p, "bytes after the end");
  }

  /** Reads a head of one major type; its argument is in {@link headArg}. */
  private expect(major: u8, what: string): usize {
    const p = this.p;
    if (p >= this.stop) this.short(p);
    if (load<u8>(p) >> 5 != major) this.expected(p, what);
    const next = this.head(p, this.stop);
    if (!next) this.short(p);
    return next;
  }

  private short(p: usize): void {
    this.corrupt(p, "the bytes end inside an item");
  }

  /** An unsigned integer. */
  uint(): u64 {
    this.p = this.expect(UINT, "an unsigned integer");
    return headArg;
  }

  /** An integer that fits in 64 bits with its sign. */
  int(): i64 {
    const negative = this.major == Major.NEGATIVE;
    const next = this.expect(negative ? NEGATIVE : UINT, "an integer");
    if (headArg > <u64>i64.MAX_VALUE) this.expected(this.p, "an integer of 64 bits");
    this.p = next;
    return negative ? -1 - <i64>headArg : <i64>headArg;
  }

  /** What is read of a setting holds as long as the setting does. */
  // @ts-ignore: decorator
  @inline
  private show(at: usize, length: i32): Bytes {
    return this.setting ? heldView(at, length) : view(at, length);
  }

  private string(major: u8, what: string): Bytes {
    const next = this.expect(major, what);
    const n = headArg;
    if (n > <u64>(this.stop - next)) this.short(this.p);
    this.p = next + <usize>n;
    return this.show(next, <i32>n);
  }

  /** A byte string. */
  bytes(): Bytes {
    return this.string(BYTES, "a byte string");
  }

  /** A text string; it is UTF-8. */
  text(): Bytes {
    const start = this.p;
    const s = this.string(TEXT, "a text string");
    if (utf8Length(s.at, s.at + s.length) != s.length) this.corrupt(start, "a text string that is not UTF-8");
    return s;
  }

  /** The head of an array: how many items follow. No more than the bytes left can hold. */
  array(): i32 {
    return this.count(ARRAY, 1, "an array");
  }

  /** The head of a map: how many pairs follow. No more than the bytes left can hold. */
  map(): i32 {
    return this.count(MAP, 2, "a map");
  }

  private count(major: u8, each: u64, what: string): i32 {
    const next = this.expect(major, what);
    const n = headArg;
    if (n > <u64>(this.stop - next) / each) this.short(this.p);
    this.p = next;
    return <i32>n;
  }

  /** The number of a tag; its content follows. */
  tag(): u64 {
    this.p = this.expect(TAG, "a tag");
    return headArg;
  }

  /** True or false. */
  bool(): bool {
    if (this.p >= this.stop) this.short(this.p);
    const b = load<u8>(this.p);
    if ((b & 0xfe) != 0xf4) this.expected(this.p, "true or false");
    this.p++;
    return b == 0xf5;
  }

  /** Passes over null if that is what comes next. */
  null(): bool {
    const found = this.p < this.stop && load<u8>(this.p) == 0xf6;
    this.p += <usize>found;
    return found;
  }

  /** A float of two, four or eight bytes. */
  float(): f64 {
    const p = this.p;
    if (p >= this.stop) this.short(p);
    const first = load<u8>(p);
    if (first < 0xf9 || first > 0xfb) this.expected(p, "a float");
    const size: usize = <usize>1 << (first - 0xf8);
    if (this.stop - p <= size) this.short(p);
    this.p = p + 1 + size;
    if (size == 8) return reinterpret<f64>(bswap<u64>(load<u64>(p, 1)));
    if (size == 4) return <f64>reinterpret<f32>(bswap<u32>(load<u32>(p, 1)));
    return half(bswap<u16>(load<u16>(p, 1)));
  }

  /** Passes over one item of any kind and gives its bytes. */
  item(): Bytes {
    const start = this.p;
    skipper.base = this.base;
    skipper.setting = this.setting;
    skipper.begin();
    const next = skipper.pass(start, this.stop);
    if (!skipper.whole) this.short(min(next, this.stop));
    this.p = next;
    return this.show(start, <i32>(next - start));
  }
}

/** The value of a float of two bytes. */
function half(bits: u16): f64 {
  const exponent = (bits >> 10) & 0x1f;
  const mantissa = <f64>(bits & 0x3ff);
  let v: f64;
  if (exponent == 0) {
    v = mantissa / 16_777_216; // 2^-24 each
  } else if (exponent == 31) {
    v = mantissa == 0 ? Infinity : NaN;
  } else {
    v = (1024 + mantissa) / 33_554_432 * <f64>(<u32>1 << exponent); // 2^(exponent - 25)
  }
  return bits & 0x8000 ? -v : v;
}
