// Runs a serializer as a host does, for tests in Node: by the rules of the border (host/abi/ABI.md), with
// input in pieces of any size. `torpor module test` is stricter; this one needs nothing but Node.

import assert from "node:assert/strict";
import { readFile } from "node:fs/promises";

const NEXT_END = 1n << 32n;
const NEXT_MORE = 1n << 33n;
const EMIT_MORE = 1;
const MAX_DEPTH = 64;
const MAX_RECORD_BYTES = 64 << 20;
const IMPORTS = ["next", "emit", "arg", "fail", "log"];

/** What a serializer said by `fail`; or, with code 0, what it did that breaks the rules. */
export class Failure extends Error {
  constructor(code, message, path, offset) {
    super(message);
    this.name = "Failure";
    this.code = code;
    this.path = path;
    this.offset = offset;
  }
}

/** The codes of the ABI. */
export const Code = Object.freeze({ INTERNAL: 1, CORRUPT: 2, VERSION: 3, UNSUPPORTED: 4, TOO_LARGE: 5 });

/** Compiles the module in a file: a path or a URL. */
export async function open(file) {
  return new Serializer(await WebAssembly.compile(await readFile(file)));
}

/**
 * A serializer. Options of a call: `piece`, the most bytes that one `next` gives; `lateEnd`, whether the
 * end comes alone; `settings`, an object; `service`, `part`, `schema`, `from`, `to`, `time` as in the ABI.
 * What it logs is in `lines`. A call that fails throws a Failure.
 */
export class Serializer {
  #module;
  #instance;
  #call;

  constructor(module) {
    for (const i of WebAssembly.Module.imports(module)) {
      if (i.module !== "torpor_v1" || !IMPORTS.includes(i.name)) {
        throw new Failure(0, `the module imports ${i.module}.${i.name}, which no host has; asconfig.json must have "use": ["abort=..."], and Date, Math.random, console and trace cannot be used`);
      }
    }
    this.#module = module;
    this.lines = [];
  }

  /** The descriptor, as an object. */
  describe() {
    return this.#map("describe", new Uint8Array(), {});
  }

  /** Native state in, records out, as bytes; see {@link decode}. */
  save(native, options = {}) {
    return this.#run("save", bytesOf(native), options).output();
  }

  /** Records in, native state out. */
  load(records, options = {}) {
    return this.#run("load", records, options).output();
  }

  /** Records of schema `from` in, records of schema `to` out. */
  migrate(records, options = {}) {
    return this.#run("migrate", records, options).output();
  }

  /** Records in, the summary out, as an object. */
  inspect(records, options = {}) {
    return this.#map("inspect", records, options);
  }

  /** Runs an operation that gives one map. */
  #map(op, input, options) {
    const bytes = this.#run(op, input, options).output();
    const r = new Decoder(bytes);
    const map = r.item();
    if (r.at !== bytes.length || typeof map !== "object") throw new Failure(0, `${op} must give one map`);
    return map;
  }

  #run(op, input, options) {
    this.#instance ??= this.#instantiate();
    const call = new Call(op, input, options);
    this.#call = call;
    const f = this.#instance.exports[`torpor_${op}`];
    if (typeof f !== "function") throw new Failure(0, `the module does not export torpor_${op}`);
    let status;
    try {
      status = f();
    } catch (e) {
      this.#instance = undefined; // a host discards it
      throw call.failure ?? (e instanceof Failure ? e : new Failure(0, `${op} trapped: ${e.message}`));
    } finally {
      this.#call = undefined;
    }
    if (call.failure) throw call.failure;
    if (status !== 0) throw new Failure(0, `${op} returned ${status} without saying why`);
    if (op !== "describe" && !call.told) throw new Failure(0, `${op} returned before its input had ended`);
    if (call.open) throw new Failure(0, `${op} returned with a record emitted in part`);
    return call;
  }

  #instantiate() {
    let memory;
    const at = (p, n) => new Uint8Array(memory.buffer, p >>> 0, n >>> 0);
    const during = () => this.#call ?? fault("an import was called outside a call");
    const instance = new WebAssembly.Instance(this.#module, {
      torpor_v1: {
        next: (buf, cap) => during().next(at(buf, cap)),
        emit: (p, n, flags) => during().emit(at(p, n), flags),
        arg: (buf, cap) => during().arg(at(buf, cap)),
        fail: (code, p, n) => during().fail(code, at(p, n)),
        log: (level, p, n) => void this.lines.push({ level, line: new TextDecoder().decode(at(p, n)) }),
      },
    });
    memory = instance.exports.memory;
    instance.exports._initialize?.();
    return instance;
  }
}

/** One call, seen from the host. */
class Call {
  constructor(op, input, options) {
    this.op = op;
    this.input = input;
    this.isRecords = op === "load" || op === "migrate" || op === "inspect";
    this.framed = op === "save" || op === "migrate";
    this.piece = options.piece ?? Infinity;
    this.lateEnd = options.lateEnd ?? false;
    this.read = 0; // of the input
    this.recordEnd = 0; // of the record that is given in pieces
    this.told = false;
    this.pieces = [];
    this.record = []; // fragments of the record under way
    this.open = false;
    const map = { op, part: options.part ?? "part", time: options.time ?? 1_800_000_000_000_000_000n, schema: options.schema ?? 1, service: options.service ?? "service" };
    for (const key of ["from", "to", "settings"]) if (options[key] !== undefined) map[key] = options[key];
    this.parameters = encode(map);
  }

  next(buf) {
    if (buf.length === 0) fault("next was called with no room");
    const cap = Math.min(buf.length, this.piece);
    const left = this.input.length - this.read;
    let n = Math.min(cap, left);
    let flags = 0n;
    if (this.isRecords && left > 0) {
      if (this.recordEnd <= this.read) {
        const ends = this.#recordsUpTo(cap);
        n = ends.whole;
        if (n === 0) {
          this.recordEnd = ends.first;
          n = Math.min(cap, this.recordEnd - this.read);
        }
      } else {
        n = Math.min(cap, this.recordEnd - this.read);
      }
      if (this.recordEnd > this.read + n) flags = NEXT_MORE;
    }
    buf.set(this.input.subarray(this.read, this.read + n));
    this.read += n;
    if (this.read === this.input.length && (n === 0 || !this.lateEnd)) {
      this.told = true;
      flags |= NEXT_END;
    }
    return BigInt(n) | flags;
  }

  /** How many bytes of whole records fit into cap, and where the first record ends. */
  #recordsUpTo(cap) {
    let whole = 0;
    let first = 0;
    for (let p = this.read; p < this.input.length; ) {
      const r = new Decoder(this.input, p);
      try {
        r.record();
      } catch {
        first ||= this.input.length; // what is broken is given as it is
        if (whole === 0 && this.input.length - this.read <= cap) whole = this.input.length - this.read;
        break;
      }
      p = r.at;
      first ||= p;
      if (p - this.read > cap) break;
      whole = p - this.read;
    }
    return { whole, first };
  }

  emit(bytes, flags) {
    const more = (flags & EMIT_MORE) !== 0;
    if (flags & ~EMIT_MORE || (more && !this.framed)) fault(`emit was called with flags ${flags}`);
    this.pieces.push(bytes.slice());
    if (!this.framed) return 0;
    const had = this.open;
    this.record.push(bytes.slice());
    this.open = more;
    if (more) return 0;
    const all = concat(this.record);
    this.record = [];
    let n = 0;
    for (let p = 0; p < all.length; n++) {
      const r = new Decoder(all, p);
      r.record();
      p = r.at;
    }
    if (had && n !== 1) fault(`fragments that make ${n} records`);
    return 0;
  }

  arg(buf) {
    if (this.parameters.length <= buf.length) buf.set(this.parameters);
    return this.parameters.length;
  }

  fail(code, bytes) {
    if (this.failure) return;
    const r = new Decoder(bytes.slice());
    const map = bytes.length <= 16384 ? r.item() : {};
    this.failure = new Failure(code, map.msg ?? `code ${code}, without a message`, map.path, map.offset);
  }

  output() {
    return concat(this.pieces);
  }
}

/**
 * Saves a native state and loads it again, with input in pieces of 1, 2, 3, ... bytes and whole, and
 * makes sure that each time the same records and the same state come out. Where the
 * serializer is not canonical, the state that load gave is saved again and the records are compared.
 * Returns the records.
 */
export function roundTrip(serializer, native, options = {}) {
  native = bytesOf(native);
  const records = serializer.save(native, options);
  const { canonical } = serializer.describe();
  const state = serializer.load(records, options);
  if (canonical) same(state, native, "load gives other bytes than save was given");
  else same(serializer.save(state, options), records, "a save of what load gave has other records");
  for (const piece of pieces(Math.max(native.length, records.length))) {
    for (const lateEnd of [false, true]) {
      const how = { ...options, piece, lateEnd };
      same(serializer.save(native, how), records, `save in pieces of ${piece} gives other records`);
      same(serializer.load(records, how), state, `load in pieces of ${piece} gives other bytes`);
    }
  }
  return records;
}

/** Sizes of pieces to try: all the small ones, and some of each magnitude. */
function* pieces(most) {
  for (let n = 1; n <= most + 1; n = n < 16 ? n + 1 : Math.ceil(n * 1.7)) yield n;
  yield Infinity;
}

function same(got, want, what) {
  if (got.length === want.length && got.every((b, i) => b === want[i])) return;
  const at = got.findIndex((b, i) => b !== want[i]);
  assert.fail(`${what}: ${got.length} bytes, not ${want.length}; they differ at ${at < 0 ? Math.min(got.length, want.length) : at}`);
}

/** The records in bytes: an array of `[partition, key, value]`. */
export function decode(records) {
  const all = [];
  for (let p = 0; p < records.length; ) {
    const r = new Decoder(records, p);
    all.push(r.record());
    p = r.at;
  }
  return all;
}

/**
 * Encodes a value as CBOR: null, booleans, numbers (whole ones as integers), BigInt, strings, Uint8Array,
 * arrays, and objects and Maps as maps.
 */
export function encode(value) {
  const out = [];
  const head = (major, arg) => {
    const n = BigInt(arg);
    const size = n < 24n ? 0 : n < 1n << 8n ? 1 : n < 1n << 16n ? 2 : n < 1n << 32n ? 4 : 8;
    out.push((major << 5) | (size === 0 ? Number(n) : 24 + Math.log2(size)));
    for (let i = size - 1; i >= 0; i--) out.push(Number((n >> BigInt(8 * i)) & 0xffn));
  };
  const put = (v) => {
    if (v === null) out.push(0xf6);
    else if (typeof v === "boolean") out.push(v ? 0xf5 : 0xf4);
    else if (typeof v === "bigint" || Number.isSafeInteger(v)) {
      const n = BigInt(v);
      if (n < 0n) head(1, -1n - n);
      else head(0, n);
    } else if (typeof v === "number") {
      const b = new DataView(new ArrayBuffer(8));
      b.setFloat64(0, v);
      out.push(0xfb, ...new Uint8Array(b.buffer));
    } else if (typeof v === "string") {
      const b = new TextEncoder().encode(v);
      head(3, b.length);
      for (const c of b) out.push(c);
    } else if (v instanceof Uint8Array) {
      head(2, v.length);
      for (const c of v) out.push(c);
    } else if (Array.isArray(v)) {
      head(4, v.length);
      v.forEach(put);
    } else {
      const pairs = v instanceof Map ? [...v] : Object.entries(v);
      head(5, pairs.length);
      for (const [k, x] of pairs) {
        put(k);
        put(x);
      }
    }
  };
  put(value);
  return Uint8Array.from(out);
}

/** Encodes records: an array of `[partition, key, value]`. */
export function encodeRecords(records) {
  return concat(records.map((r) => encode(r)));
}

/** Reads CBOR as records allow it. */
class Decoder {
  constructor(bytes, at = 0) {
    this.bytes = bytes;
    this.view = new DataView(bytes.buffer, bytes.byteOffset, bytes.byteLength);
    this.at = at;
  }

  record() {
    const start = this.at;
    if (this.bytes[start] !== 0x83) fault(`a record is an array of three (0x83), not ${this.bytes[start]}`, start);
    this.at++;
    const text = (limit, kinds) => {
      if (!kinds.includes(this.bytes[this.at] >> 5)) fault("a partition must be text, a key text or bytes", this.at);
      const at = this.at;
      const v = this.item(1, true);
      if ((typeof v === "string" ? Buffer.byteLength(v) : v.length) > limit) fault("a partition or key is too long", at);
      return v;
    };
    const r = [text(4096, [3]), text(65536, [2, 3]), this.item()];
    if (this.at - start > MAX_RECORD_BYTES) fault("a record is too long", start);
    return r;
  }

  item(depth = 1, strict = false) {
    const start = this.at;
    if (start >= this.bytes.length) fault("the bytes end inside an item", start);
    const first = this.bytes[this.at++];
    const major = first >> 5;
    const info = first & 31;
    if (info > 27) fault("an item that no record may have", start);
    const size = info < 24 ? 0 : 1 << (info - 24);
    if (this.at + size > this.bytes.length) fault("the bytes end inside an item", start);
    if (major === 7) return this.#simple(info, start);
    let n = BigInt(info);
    if (size > 0) {
      n = 0n;
      for (let i = 0; i < size; i++) n = (n << 8n) | BigInt(this.bytes[this.at + i]);
      const least = size === 1 ? 24n : 1n << BigInt(4 * size);
      if (n < least) fault("a head that is not of the shortest form", start);
    }
    this.at += size;
    if (major === 0) return small(n);
    if (major === 1) return small(-1n - n);
    if (major < 4) {
      if (n > this.bytes.length - this.at) fault("the bytes end inside a string", start);
      const s = this.bytes.subarray(this.at, (this.at += Number(n)));
      if (major === 2) return s;
      try {
        return new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(s);
      } catch {
        return strict ? fault("text that is not UTF-8", start) : s;
      }
    }
    if (depth > MAX_DEPTH) fault(`nested deeper than ${MAX_DEPTH}`, start);
    if (major === 6) return { tag: small(n), content: this.item(depth + 1) };
    if (n > this.bytes.length - this.at) fault("the bytes end inside a collection", start);
    if (major === 4) return Array.from({ length: Number(n) }, () => this.item(depth + 1));
    const pairs = Array.from({ length: Number(n) }, () => [this.item(depth + 1), this.item(depth + 1)]);
    return pairs.every(([k]) => typeof k === "string") ? Object.fromEntries(pairs) : new Map(pairs);
  }

  #simple(info, start) {
    const at = this.at;
    if (info === 24 && this.bytes[at] < 32) fault("a simple value below 32 in two bytes", start);
    if (info >= 24) this.at += 1 << (info - 24);
    if (info === 27) return this.view.getFloat64(at);
    if (info === 26) return this.view.getFloat32(at);
    if (info === 25) return half(this.view.getUint16(at));
    if (info === 24) return { simple: this.bytes[at] };
    const known = new Map([[20, false], [21, true], [22, null], [23, undefined]]);
    return known.has(info) ? known.get(info) : { simple: info };
  }
}

function half(bits) {
  const exponent = (bits >> 10) & 31;
  const mantissa = bits & 1023;
  const v = exponent === 0 ? mantissa * 2 ** -24 : exponent === 31 ? (mantissa ? NaN : Infinity) : (1024 + mantissa) * 2 ** (exponent - 25);
  return bits & 0x8000 ? -v : v;
}

function small(n) {
  return n >= Number.MIN_SAFE_INTEGER && n <= Number.MAX_SAFE_INTEGER ? Number(n) : n;
}

function fault(message, offset) {
  throw new Failure(0, message, undefined, offset);
}

function bytesOf(v) {
  return typeof v === "string" ? new TextEncoder().encode(v) : v;
}

function concat(parts) {
  const all = new Uint8Array(parts.reduce((n, p) => n + p.length, 0));
  let at = 0;
  for (const p of parts) {
    all.set(p, at);
    at += p.length;
  }
  return all;
}
