// Bytes in raw memory, eight at a time where that can be done. No function here reads outside the range
// it is given.

/** Copies `n` bytes; the ranges must not overlap where `to` is behind `from`. */
// @ts-ignore: decorator
@inline
export function copy(to: usize, from: usize, n: usize): void {
  if (n > 64) {
    memory.copy(to, from, n);
  } else {
    copyShort(to, from, n);
  }
}

function copyShort(to: usize, from: usize, n: usize): void {
  if (n >= 8) {
    const end = to + n - 8;
    const last = load<u64>(from + n - 8); // before a store may change it
    for (; to < end; to += 8, from += 8) store<u64>(to, load<u64>(from));
    store<u64>(end, last);
    return;
  }
  if (n & 4) {
    store<u32>(to, load<u32>(from));
    from += 4;
    to += 4;
  }
  if (n & 2) {
    store<u16>(to, load<u16>(from));
    from += 2;
    to += 2;
  }
  if (n & 1) store<u8>(to, load<u8>(from));
}

/** The address of the first byte `b` from `p` on, or `end`. */
export function findByte(p: usize, end: usize, b: u8): usize {
  const pattern = <u64>b * 0x0101_0101_0101_0101;
  while (p + 8 <= end) {
    const x = load<u64>(p) ^ pattern;
    const zero = (x - 0x0101_0101_0101_0101) & ~x & 0x8080_8080_8080_8080;
    if (zero) return p + (<usize>ctz(zero) >> 3); // the first one found is exact
    p += 8;
  }
  while (p < end && load<u8>(p) != b) p++;
  return p;
}

/** Below 0, 0 or above, as `a` comes before `b`, is the same, or comes after. */
export function compareBytes(a: usize, an: i32, b: usize, bn: i32): i32 {
  const n: usize = min(an, bn);
  const end = a + n;
  if (n >= 8) {
    for (const last = end - 8; ; a += 8, b += 8) {
      if (a > last) {
        b -= a - last; // the bytes that are looked at twice are the same
        a = last;
      }
      const x = load<u64>(a);
      const y = load<u64>(b);
      if (x != y) return bswap<u64>(x) < bswap<u64>(y) ? -1 : 1;
      if (a == last) return an - bn;
    }
  }
  for (; a < end; a++, b++) {
    const d = <i32>load<u8>(a) - <i32>load<u8>(b);
    if (d) return d;
  }
  return an - bn;
}

/** Whether the bytes from `p` to `end` are all ASCII. */
// @ts-ignore: decorator
@inline
function isASCII(p: usize, end: usize): bool {
  const n = end - p;
  if (n >= 8) {
    const last = end - 8;
    while (p < last) {
      if (load<u64>(p) & 0x8080_8080_8080_8080) return false;
      p += 8;
    }
    return !(load<u64>(last) & 0x8080_8080_8080_8080);
  }
  let all: u32 = 0;
  if (n & 4) {
    all = load<u32>(p);
    p += 4;
  }
  if (n & 2) {
    all |= load<u16>(p);
    p += 2;
  }
  if (n & 1) all |= load<u8>(p);
  return !(all & 0x8080_8080);
}

/** How many of the bytes from `p` to `end` are UTF-8, up to the first that is not. */
export function utf8Length(p: usize, end: usize): i32 {
  return isASCII(p, end) ? <i32>(end - p) : longLength(p, end);
}

function longLength(p: usize, end: usize): i32 {
  const start = p;
  while (p < end) {
    while (p + 8 <= end && !(load<u64>(p) & 0x8080_8080_8080_8080)) p += 8;
    if (p == end) break;
    const b = <u32>load<u8>(p);
    if (b < 0x80) {
      p++;
      continue;
    }
    // The bounds of the second byte tell forms too long, halves of pairs, and what lies beyond the last.
    let low: u32 = 0x80;
    let high: u32 = 0xbf;
    let size = 2;
    if (b < 0xc2 || b > 0xf4) break;
    if (b >= 0xf0) {
      size = 4;
      if (b == 0xf0) low = 0x90;
      if (b == 0xf4) high = 0x8f;
    } else if (b >= 0xe0) {
      size = 3;
      if (b == 0xe0) low = 0xa0;
      if (b == 0xed) high = 0x9f;
    }
    if (p + size > end) break;
    const second = <u32>load<u8>(p, 1);
    if (second < low || second > high) break;
    if (size > 2 && (load<u8>(p, 2) & 0xc0) != 0x80) break;
    if (size > 3 && (load<u8>(p, 3) & 0xc0) != 0x80) break;
    p += size;
  }
  return <i32>(p - start);
}
