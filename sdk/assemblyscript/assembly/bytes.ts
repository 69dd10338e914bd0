import { copy, compareBytes, findByte, utf8Length } from "./memory";

/**
 * A view of bytes in memory. Views of the input, and what {@link slice} cuts out of any, hold until the
 * input is read on: {@link Input.until}, {@link Input.record} and {@link Input.fill} give them up. What is
 * needed longer goes into a {@link Kept}, or becomes a string. Those of settings hold until the call ends.
 */
@unmanaged
export class Bytes {
  /** The address of the first byte. */
  at: usize;
  /** How many bytes. */
  length: i32;

  /** The byte at `i`. */
  @operator("[]")
  get(i: i32): u8 {
    if (<u32>i >= <u32>this.length) throw new RangeError("index out of range");
    return load<u8>(this.at + i);
  }

  /** The last byte; 0 where there is none. */
  get last(): u8 {
    return this.length > 0 ? load<u8>(this.at + this.length - 1) : 0;
  }

  /** Where the byte `b` is first found at or after `from`; -1 where it is not. */
  indexOf(b: u8, from: i32 = 0): i32 {
    if (<u32>from > <u32>this.length) throw new RangeError("index out of range");
    const end = this.at + this.length;
    const found = findByte(this.at + from, end, b);
    return found < end ? <i32>(found - this.at) : -1;
  }

  /** The bytes from `from` to before `to`. */
  slice(from: i32, to: i32 = this.length): Bytes {
    if (<u32>to > <u32>this.length || <u32>from > <u32>to) throw new RangeError("slice out of range");
    return view(this.at + from, to - from);
  }

  /** Below 0, 0 or above, as these bytes come before `other`, are the same, or come after. */
  compare(other: Bytes): i32 {
    return compareBytes(this.at, this.length, other.at, other.length);
  }

  /** Whether the bytes are those of `s` in UTF-8. */
  is(s: string): bool {
    return equalsString(this.at, this.length, s);
  }

  /** Whether the bytes are UTF-8. */
  isUtf8(): bool {
    return utf8Length(this.at, this.at + this.length) == this.length;
  }

  /** The bytes, which must be UTF-8, as a string. */
  toString(): string {
    if (!this.isUtf8()) throw new Error("these bytes are not UTF-8");
    return String.UTF8.decodeUnsafe(this.at, this.length);
  }

  /** A copy of the bytes, for what needs an array. */
  toArray(): Uint8Array {
    const a = new Uint8Array(this.length);
    memory.copy(a.dataStart, this.at, this.length);
    return a;
  }
}

/**
 * Bytes in memory of their own, which hold until the call ends, whatever becomes of the input. That memory
 * is given back when the call ends and not before: make a few and use them again.
 */
@unmanaged
export class Kept extends Bytes {
  private room: i32;
  private next: Kept | null;

  constructor() {
    super();
    this.at = 0;
    this.length = 0;
    this.room = 0;
    this.next = null;
    if (calling) {
      this.next = kept;
      kept = this;
    }
  }

  /** Becomes a copy of `b`, which may be a part of it. */
  keep(b: Bytes): this {
    const from = b.at;
    const n = b.length;
    this.length = 0;
    return this.add(from, n);
  }

  /** Adds a copy of `b` at the end. */
  append(b: Bytes): this {
    return this.add(b.at, b.length);
  }

  private add(from: usize, n: i32): this {
    const before = this.at;
    const within = from - before;
    const own = within < <usize>this.room;
    this.reserve(n);
    copy(this.at + this.length, own ? this.at + within : from, n);
    this.length += n;
    return this;
  }

  /** Adds one byte at the end. */
  push(b: u8): this {
    this.reserve(1);
    store<u8>(this.at + this.length, b);
    this.length++;
    return this;
  }

  private reserve(more: i32): void {
    const need = <i64>this.length + more;
    if (need <= this.room) return;
    if (need > 1 << 30) throw new RangeError("more than 1 GiB to keep");
    this.room = <i32>max<i64>(need, max<i64>(64, <i64>this.room * 2));
    this.at = this.at ? heap.realloc(this.at, this.room) : heap.alloc(this.room);
  }

  /** Gives up the memory of those that a call made. */
  static release(): void {
    for (let k = kept; k; ) {
      const next = k.next;
      if (k.at) heap.free(k.at);
      heap.free(changetype<usize>(k));
      k = next;
    }
    kept = null;
  }
}

/** Those made in this call. */
let kept: Kept | null = null;
let calling: bool = false;

/** Ends what the call before left, and begins another; `false` only ends. */
export function beginKeeping(on: bool): void {
  Kept.release();
  releaseHeld();
  releaseViews();
  calling = on;
}

/** The UTF-8 of a string, to hold until the call ends. */
export function utf8(s: string): Kept {
  const k = new Kept();
  const encoded = String.UTF8.encode(s, false, String.UTF8.ErrorMode.ERROR);
  return k.keep(view(changetype<usize>(encoded), encoded.byteLength));
}

// What is read of settings must outlast the input, so it is not among the views below.

/** The memory held last; each begins with the address of the one before it. */
let held: usize = 0;

/** Memory for `size` bytes, until the call ends. */
export function hold(size: usize): usize {
  const h = heap.alloc(sizeof<usize>() + size);
  store<usize>(h, held);
  held = h;
  return h + sizeof<usize>();
}

function releaseHeld(): void {
  while (held) {
    const before = load<usize>(held);
    heap.free(held);
    held = before;
  }
}

/** A view that holds until the call ends, of bytes that do. */
export function heldView(at: usize, length: i32): Bytes {
  const v = changetype<Bytes>(hold(offsetof<Bytes>()));
  v.at = at;
  v.length = length;
  return v;
}

// Views are made by the thousand and given up all at once, so they come from blocks that are used again
// rather than from the garbage collector.

const VIEWS: usize = 1024; // in a block; its first place is the address of the next block
const VIEW_BYTES: usize = offsetof<Bytes>();
const firstBlock = memory.data(1024 * 8, 8);
let block: usize = firstBlock;
let free: usize = firstBlock + VIEW_BYTES;

/** A view, until {@link releaseViews}. */
export function view(at: usize, length: i32): Bytes {
  if (free == block + VIEWS * VIEW_BYTES) nextBlock();
  const v = changetype<Bytes>(free);
  free += VIEW_BYTES;
  v.at = at;
  v.length = length;
  return v;
}

function nextBlock(): void {
  let following = load<usize>(block);
  if (!following) {
    following = heap.alloc(VIEWS * VIEW_BYTES);
    store<usize>(following, 0);
    store<usize>(block, following);
  }
  block = following;
  free = following + VIEW_BYTES;
}

/** Gives up all views. */
// @ts-ignore: decorator
@inline
export function releaseViews(): void {
  block = firstBlock;
  free = firstBlock + VIEW_BYTES;
}

function equalsString(at: usize, length: i32, s: string): bool {
  const n = s.length;
  if (length < n) return false; // a character has as many bytes as units, or more
  const units = changetype<usize>(s);
  for (let i = 0; i < n; i++) {
    const c = load<u16>(units + (<usize>i << 1));
    if (c > 0x7f) {
      const encoded = String.UTF8.encode(s);
      return compareBytes(at, length, changetype<usize>(encoded), encoded.byteLength) == 0;
    }
    if (load<u8>(at + i) != <u8>c) return false;
  }
  return length == n;
}
