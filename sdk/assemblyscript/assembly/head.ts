// CBOR heads (RFC 8949): the major type and argument that every item begins with.

/** Major type 0: an unsigned integer. */
export const UINT: u8 = 0;
/** Major type 1: a negative integer; the argument is -1 - n. */
export const NEGATIVE: u8 = 1;
/** Major type 2: a byte string. */
export const BYTES: u8 = 2;
/** Major type 3: a text string. */
export const TEXT: u8 = 3;
/** Major type 4: an array. */
export const ARRAY: u8 = 4;
/** Major type 5: a map. */
export const MAP: u8 = 5;
/** Major type 6: a tag. */
export const TAG: u8 = 6;
/** Major type 7: simple values and floats. */
export const OTHER: u8 = 7;

/** The longest head. */
export const HEAD_BYTES: usize = 9;

/** Writes the shortest head of `major` and `arg` at `p`, where there is room for it, and returns its end. */
export function encodeHead(p: usize, major: u8, arg: u64): usize {
  const kind = major << 5;
  if (arg < 24) {
    store<u8>(p, kind | <u8>arg);
    return p + 1;
  }
  if (arg <= 0xff) {
    store<u8>(p, kind | 24);
    store<u8>(p, arg, 1);
    return p + 2;
  }
  if (arg <= 0xffff) {
    store<u8>(p, kind | 25);
    store<u16>(p, bswap<u16>(<u16>arg), 1);
    return p + 3;
  }
  if (arg <= 0xffff_ffff) {
    store<u8>(p, kind | 26);
    store<u32>(p, bswap<u32>(<u32>arg), 1);
    return p + 5;
  }
  store<u8>(p, kind | 27);
  store<u64>(p, bswap<u64>(arg), 1);
  return p + 9;
}
