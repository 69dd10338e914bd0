import { Bytes } from "./bytes";
import { Nesting, Reader, headArg } from "./cbor";
import { Code, beginWords, say, sayHex } from "./error";
import { BYTES, TEXT } from "./head";
import { utf8Length } from "./memory";

/** The first byte of every record: an array of three. */
export const RECORD_HEAD: u8 = 0x83;

/** How many bytes a partition may have, without its head. */
const MAX_PARTITION_BYTES: u64 = 4 << 10;

/** How many bytes a key may have, without its head. */
const MAX_KEY_BYTES: u64 = 64 << 10;

/** One record; all of it is given up when the input is read on. */
@unmanaged
export class Record {
  /** `<account>/<region>` for cloud services, empty where there is none. It is UTF-8. */
  partition: Bytes;
  /** Unique in its partition. */
  key: Bytes;
  /** Whether the key is text, which is UTF-8; else it is a byte string. */
  isText: bool;
  /** Reads the value, one item. */
  value: Reader;
  /** The whole record, encoded. */
  encoded: Bytes;
  /** Where in the input it begins. */
  offset: u64;

  constructor() {
    this.partition = new Bytes();
    this.key = new Bytes();
    this.value = new Reader();
    this.encoded = new Bytes();
  }
}

// What of a record comes next.
const HEAD = 0;
const PARTITION = 1;
const KEY = 2;
const VALUE = 3;

/**
 * Checks records that come in pieces of any size. It accepts and refuses what the host's own check does;
 * only the limit on the length of a whole record, which is the host's configuration, is left to the host.
 */
@unmanaged
export class Checker extends Nesting {
  private part: i32;
  private from: usize; // the string that `name` found
  // As distances from the record's first byte, since its bytes may move before it is whole.
  private partitionAt: i32;
  private partitionLength: i32;
  private keyAt: i32;
  private keyLength: i32;
  private keyIsText: bool;
  private valueAt: i32;

  /** Ready for the first record. */
  reset(): void {
    this.part = HEAD;
    this.whole = false;
  }

  /**
   * Checks the record that begins at `start`, going on at `p`, with bytes up to `end`. Returns where it ends,
   * if it is {@link whole}, or from where it must be gone on with, which may be beyond `end`.
   */
  check(start: usize, p: usize, end: usize): usize {
    if (this.part == HEAD) {
      if (p >= end) return p;
      this.whole = false;
      const first = load<u8>(p);
      if (first != RECORD_HEAD) {
        beginWords();
        say("a record is an array of three (0x83), this byte is ");
        sayHex(first);
        this.refuse(p, Code.CORRUPT);
      }
      p++;
      this.part = PARTITION;
    }
    if (this.part == PARTITION) {
      const next = this.name(p, end, false);
      if (!next) return p;
      this.partitionAt = <i32>(this.from - start);
      this.partitionLength = <i32>(next - this.from);
      p = next;
      this.part = KEY;
    }
    if (this.part == KEY) {
      const next = this.name(p, end, true);
      if (!next) return p;
      this.keyIsText = load<u8>(p) >> 5 == TEXT;
      this.keyAt = <i32>(this.from - start);
      this.keyLength = <i32>(next - this.from);
      this.valueAt = <i32>(next - start);
      p = next;
      this.part = VALUE;
      this.begin();
    }
    p = this.pass(p, end);
    if (this.whole) this.part = HEAD;
    return p;
  }

  /** Points `r` at the record from `start` to `end`, which is the one that was checked last. */
  describe(r: Record, start: usize, end: usize): Record {
    r.partition.at = start + this.partitionAt;
    r.partition.length = this.partitionLength;
    r.key.at = start + this.keyAt;
    r.key.length = this.keyLength;
    r.isText = this.keyIsText;
    r.value.over(start + this.valueAt, end, this.base, null);
    r.encoded.at = start;
    r.encoded.length = <i32>(end - start);
    r.offset = <u64>(this.base + <i64>start);
    return r;
  }

  /** Checks the partition or key at `p` and returns its end, or 0 if it is not all here. */
  private name(p: usize, end: usize, key: bool): usize {
    if (p >= end) return 0;
    const major = load<u8>(p) >> 5;
    if (major != TEXT && (major != BYTES || !key)) {
      beginWords();
      say(key ? "the key must be a text or byte string" : "the partition must be a text string");
      say(", this byte is ");
      sayHex(load<u8>(p));
      this.refuse(p, Code.CORRUPT);
    }
    const from = this.head(p, end);
    if (!from) return 0;
    const n = headArg;
    const limit = key ? MAX_KEY_BYTES : MAX_PARTITION_BYTES;
    if (n > limit) this.tooLong(p, key ? "the key is " : "the partition is ", n, " bytes; the limit is ", limit);
    if (n > <u64>(end - from)) return 0;
    const next = from + <usize>n;
    if (major == TEXT && <u64>utf8Length(from, next) != n) {
      this.corrupt(from, key ? "the key is text but not UTF-8" : "the partition is text but not UTF-8");
    }
    this.from = from;
    return next;
  }
}
