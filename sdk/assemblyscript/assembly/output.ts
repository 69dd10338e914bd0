import { Bytes, view } from "./bytes";
import { Code, fail } from "./error";
import { ARRAY, BYTES, HEAD_BYTES, MAP, NEGATIVE, OTHER, TAG, TEXT, UINT, encodeHead } from "./head";
import { EMIT_MORE, emit } from "./host";
import { copy } from "./memory";
import { RECORD_HEAD } from "./record";

/** How much is gathered before it is handed to the host. */
export const OUTPUT_BYTES: i32 = 64 << 10;

/**
 * The output of one call: records, native state, or one CBOR map.
 *
 * Small writes gather in memory. Records leave it whole; one that is longer than the memory leaves in
 * fragments, so that a record may be of any length. Where text or bytes are taken, a string, {@link Bytes}
 * or a Uint8Array may be given; a string is written as UTF-8, and one with half a surrogate pair ends the
 * call.
 */
@unmanaged
export class Output {
  private buf: usize;
  private end: usize;
  private to: usize; // where the next byte goes
  private whole: usize; // where the record under way begins
  private framed: bool; // a record is under way, so that what is emitted must be whole or a fragment
  private fragment: bool; // part of the record under way has been emitted

  constructor() {
    this.buf = heap.alloc(OUTPUT_BYTES);
    this.end = this.buf + OUTPUT_BYTES;
  }

  /** Begins a call. */
  reset(): void {
    this.to = this.buf;
    this.whole = this.buf;
    this.framed = false;
    this.fragment = false;
  }

  /**
   * Begins a record with a key of text; the items written next are its value, which is one item. The record
   * ends where the next one begins, or with the call.
   */
  record<P, K>(partition: P, key: K): void {
    this.begin<P>(partition);
    this.text<K>(key);
  }

  /** Begins a record whose key is a byte string. */
  recordBytes<P, K>(partition: P, key: K): void {
    this.begin<P>(partition);
    this.bytes<K>(key);
  }

  /** Writes a whole record that is encoded already, as `Record.encoded` is. */
  encoded<T>(record: T): void {
    this.close();
    this.framed = true;
    this.write<T>(record);
  }

  private begin<P>(partition: P): void {
    this.close();
    this.framed = true;
    this.byte(RECORD_HEAD);
    this.text<P>(partition);
  }

  /** A text string. */
  text<T>(s: T): void {
    this.string<T>(TEXT, s);
  }

  /** A byte string. */
  bytes<T>(s: T): void {
    this.string<T>(BYTES, s);
  }

  private string<T>(major: u8, s: T): void {
    if (isString<T>()) {
      const str = changetype<string>(s);
      this.head(major, String.UTF8.byteLength(str));
      this.writeString(str);
    } else {
      this.writeHeaded(major, viewOf<T>(s));
    }
  }

  /** Writes bytes or a string as they are: native state, encoded items, or a string whose head is written. */
  write<T>(s: T): void {
    if (isString<T>()) {
      this.writeString(changetype<string>(s));
    } else {
      const b = viewOf<T>(s);
      const to = this.to;
      if (<usize>b.length <= this.end - to) {
        copy(to, b.at, b.length);
        this.to = to + b.length;
      } else {
        this.writeLong(b.at, b.length);
      }
    }
  }

  private writeHeaded(major: u8, b: Bytes): void {
    const to = this.to;
    const n = b.length;
    if (<usize>n + HEAD_BYTES <= this.end - to) {
      const p = encodeHead(to, major, n);
      copy(p, b.at, n);
      this.to = p + n;
    } else {
      this.head(major, n);
      this.writeLong(b.at, n);
    }
  }

  private writeLong(from: usize, n: usize): void {
    while (n > 0) {
      if (this.to == this.end) this.makeRoom();
      const here = min(n, this.end - this.to);
      memory.copy(this.to, from, here);
      this.to += here;
      from += here;
      n -= here;
    }
  }

  private writeString(s: string): void {
    const units = s.length;
    if (units == 0) return;
    if (<usize>units * 3 <= this.end - this.to) {
      this.to += String.UTF8.encodeUnsafe(changetype<usize>(s), units, this.to, false, String.UTF8.ErrorMode.ERROR);
    } else {
      const encoded = String.UTF8.encode(s, false, String.UTF8.ErrorMode.ERROR);
      this.writeLong(changetype<usize>(encoded), encoded.byteLength);
    }
  }

  /** Writes one byte as it is. */
  byte(b: u8): void {
    if (this.to == this.end) this.makeRoom();
    store<u8>(this.to, b);
    this.to++;
  }

  /** An unsigned integer. */
  uint(v: u64): void {
    this.head(UINT, v);
  }

  /** A signed integer. */
  int(v: i64): void {
    if (v < 0) {
      this.head(NEGATIVE, ~v);
    } else {
      this.head(UINT, v);
    }
  }

  /** The head of a text string; its `n` bytes are to be written next, in as many writes as it takes. */
  textHead(n: u64): void {
    this.head(TEXT, n);
  }

  /** The head of a byte string; its `n` bytes are to be written next, in as many writes as it takes. */
  bytesHead(n: u64): void {
    this.head(BYTES, n);
  }

  /** The head of an array; its `n` items follow. */
  array(n: u64): void {
    this.head(ARRAY, n);
  }

  /** The head of a map; its `n` pairs follow. */
  map(n: u64): void {
    this.head(MAP, n);
  }

  /** A tag; its content follows. */
  tag(n: u64): void {
    this.head(TAG, n);
  }

  /** True or false. */
  bool(v: bool): void {
    this.byte(<u8>(0xf4 + <u8>v));
  }

  /** Null. */
  null(): void {
    this.byte(0xf6);
  }

  /** A float, in eight bytes. */
  float(v: f64): void {
    this.byte(0xfb);
    store<u64>(small, bswap<u64>(reinterpret<u64>(v)));
    this.writeLong(small, 8);
  }

  /** The head of an item, in its shortest form. */
  private head(major: u8, arg: u64): void {
    if (this.end - this.to >= HEAD_BYTES) {
      this.to = encodeHead(this.to, major, arg);
    } else {
      this.writeLong(small, encodeHead(small, major, arg) - small);
    }
  }

  /** Ends the record under way and hands over all that is gathered. */
  finish(): void {
    this.close();
    this.framed = false;
    if (this.to > this.buf) this.hand(this.to, 0);
    this.to = this.buf;
    this.whole = this.buf;
  }

  /** Ends the record under way, if there is one. */
  // @ts-ignore: decorator
  @inline
  private close(): void {
    if (this.fragment) {
      // Its last fragment must go alone. It is not empty: a fragment is emitted only when more bytes wait.
      this.fragment = false;
      this.hand(this.to, 0);
      this.to = this.buf;
    }
    this.whole = this.to;
  }

  /** Makes room in full memory for bytes that are about to be written. */
  private makeRoom(): void {
    if (this.framed && this.whole > this.buf) {
      this.hand(this.whole, 0);
      const open = this.to - this.whole;
      memory.copy(this.buf, this.whole, open);
      this.to = this.buf + open;
      this.whole = this.buf;
      return;
    }
    if (this.framed) this.fragment = true;
    this.hand(this.to, this.framed ? EMIT_MORE : 0);
    this.to = this.buf;
  }

  private hand(end: usize, flags: i32): void {
    if (emit(this.buf, <i32>(end - this.buf), flags) != 0) fail(Code.INTERNAL, "the host refused the output");
  }
}

/** Room for a head or a float. */
const small = memory.data(16, 8);

// @ts-ignore: decorator
@inline
function viewOf<T>(s: T): Bytes {
  if (isNullable<T>()) {
    ERROR("a string, Bytes or Uint8Array is wanted here, and not null");
  } else if (s instanceof Uint8Array) {
    return view(s.dataStart, s.length);
  } else if (!(s instanceof Bytes)) {
    ERROR("a string, Bytes or Uint8Array is wanted here");
  }
  return changetype<Bytes>(s);
}
