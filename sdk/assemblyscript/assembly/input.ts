import { Bytes, releaseViews } from "./bytes";
import { Code, beginPath, beginWords, corrupt, fail, say, sayNumber, tell } from "./error";
import { NEXT_END, next } from "./host";
import { findByte } from "./memory";
import { Checker, Record } from "./record";

/** How much memory the window has at first. */
export const INPUT_BYTES: i32 = 128 << 10;

/** The longest record, line or window there may be, unless {@link Input.limit} says otherwise. */
export const DEFAULT_LIMIT: i32 = 64 << 20;

/**
 * The input of one call: native state, or records.
 *
 * It holds a window of the input in memory. An author either looks at the window ({@link bytes},
 * {@link consume}, {@link fill}), or takes one piece after another ({@link record}, {@link until}). The
 * window grows as far as one record, line or {@link fill} needs.
 */
@unmanaged
export class Input {
  /** The longest record or line, in bytes, and the largest window that {@link fill} adds to. */
  limit: i32;
  /** Whether the host has said that the input ends with the window. */
  ended: bool;
  private buf: usize;
  private room: i32;
  private start: usize;
  private stop: usize;
  private at: u64; // of `start` in the input
  private window: Bytes;
  private current: Record;
  private checker: Checker;

  constructor() {
    this.buf = heap.alloc(INPUT_BYTES);
    this.room = INPUT_BYTES;
    this.window = new Bytes();
    this.current = new Record();
    this.checker = new Checker();
  }

  /** Begins a call. */
  reset(): void {
    if (this.room > INPUT_BYTES) {
      heap.free(this.buf);
      this.buf = heap.alloc(INPUT_BYTES);
      this.room = INPUT_BYTES;
    }
    this.limit = DEFAULT_LIMIT;
    this.ended = false;
    this.start = this.buf;
    this.stop = this.buf;
    this.at = 0;
    this.checker.reset();
  }

  /** The offset in the input of the window's first byte. */
  get offset(): u64 {
    return this.at;
  }

  /** The bytes read and not consumed. */
  get bytes(): Bytes {
    return this.show(this.start, this.stop);
  }

  private show(from: usize, to: usize): Bytes {
    const w = this.window;
    w.at = from;
    w.length = <i32>(to - from);
    return w;
  }

  /** Gives up the first `n` bytes of the window. */
  consume(n: i32): void {
    if (<usize><u32>n > this.stop - this.start) throw new RangeError("more consumed than there is");
    this.start += n;
    this.at += n;
  }

  /**
   * Adds at least one byte to the window, and gives up all views of it. False means that the input has
   * ended. A window beyond its {@link limit} is an error, {@link Code.TOO_LARGE}.
   */
  fill(): bool {
    if (this.ended) return false;
    releaseViews();
    const held = this.stop - this.start;
    if (this.start > this.buf) {
      memory.copy(this.buf, this.start, held);
      this.start = this.buf;
      this.stop = this.buf + held;
    }
    this.bound(held);
    if (held == this.room) this.grow();
    const free = this.room - <i32>held;
    const got = next(this.stop, free);
    const n = <u32>got;
    this.ended = (got & NEXT_END) != 0;
    if (got < 0 || n > <u32>free || (n == 0 && !this.ended)) {
      fail(Code.INTERNAL, "the input cannot be read", "", this.at + held);
    }
    this.stop += n;
    return n > 0;
  }

  /** Ends the call if `n` bytes from the window's first one on are more than there may be. */
  // @ts-ignore: decorator
  @inline
  private bound(n: usize): void {
    if (<i64>n > <i64>this.limit) this.tooLarge();
  }

  private tooLarge(): void {
    beginWords();
    say("longer than the limit of this serializer, ");
    sayNumber(max(this.limit, 0));
    say(" bytes");
    tell(Code.TOO_LARGE, beginPath(), this.at);
  }

  private grow(): void {
    const held = <i32>(this.stop - this.start);
    // One byte more than the limit, to see whether there is more than that.
    const room = <i32>min<i64>(max<i64>(<i64>this.limit + 1, <i64>held + 1), <i64>this.room * 2);
    const buf = heap.realloc(this.buf, room);
    this.buf = buf;
    this.room = room;
    this.start = buf;
    this.stop = buf + held;
  }

  /**
   * The next record, checked, or null at the end. Its memory is given up by the next call. A record longer
   * than {@link limit} is {@link Code.TOO_LARGE}.
   */
  record(): Record | null {
    releaseViews();
    const checker = this.checker;
    let done: usize = 0; // how far the record has been checked
    while (true) {
      const start = this.start;
      checker.base = <i64>this.at - <i64>start;
      const end = checker.check(start, start + done, this.stop);
      done = end - start;
      if (checker.whole) {
        this.bound(done);
        checker.whole = false;
        this.start = end;
        this.at += done;
        return checker.describe(this.current, start, end);
      }
      if (!this.fill()) {
        if (this.start == this.stop) return null;
        corrupt(this.at + (this.stop - this.start), "the input ends inside a record");
      }
    }
  }

  /**
   * The next bytes up to and including `stop`, or up to the end of the input; null at the end. Their memory
   * is given up by the next call. What is longer than {@link limit} is {@link Code.TOO_LARGE}.
   */
  until(stop: u8): Bytes | null {
    releaseViews();
    let done: usize = 0; // how far has been looked
    while (true) {
      const found = findByte(this.start + done, this.stop, stop);
      if (found < this.stop) return this.take(found + 1);
      done = this.stop - this.start;
      if (!this.fill()) {
        if (done == 0) return null;
        return this.take(this.stop);
      }
    }
  }

  /** Gives the window up to `end`, and goes on behind it. */
  // @ts-ignore: decorator
  @inline
  private take(end: usize): Bytes {
    const start = this.start;
    this.bound(end - start);
    this.start = end;
    this.at += end - start;
    return this.show(start, end);
  }
}
