import { Bytes, Call, Code, Descriptor, Input, Kept, Level, Major, Output, Reader, Serializer, corrupt, fail, log, serve, utf8 } from "torpor";
export * from "torpor/exports";

serve(() => new Trouble());

/** Does what its native state says, a word and a number a line, so that tests see what becomes of it. */
class Trouble extends Serializer {
  seen: i32 = 0;

  describe(): Descriptor {
    return { name: "trouble", version: "1", schema: 2, reads: [1, 2], media: "text/plain", operations: ["save", "load", "migrate", "inspect"] };
  }

  settings(): string[] {
    return ["depth", "größe"];
  }

  save(call: Call, native: Input, records: Output): void {
    while (true) {
      const at = native.offset;
      const line = native.until(0x0a);
      if (!line) return;
      this.seen++;
      const words = line.slice(0, line.length - 1).toString().split(" ");
      const word = words[0];
      const n = words.length > 1 ? I32.parseInt(words[1]) : 0;
      if (word == "throw") throw new Error("on purpose");
      if (word == "assert") assert(n > 0, "n is too small");
      if (word == "index") records.uint(line[n]);
      if (word == "array") records.text(words[n]);
      if (word == "null") this.nothing(n)!.toString();
      if (word == "cast") records.text(new Uint8Array(n)); // a huge one is refused by the runtime
      if (word == "half") records.record("", String.fromCharCode(0xd800));
      if (word == "unreachable") unreachable();
      if (word == "error") fail(64, "gone", "a path", at);
      if (word == "long") fail(Code.VERSION, "é".repeat(n), "ü".repeat(n));
      if (word == "short") return;
      if (word == "limit") native.limit = n;
      if (word == "log") log(Level.WARN, "logged größer");
      if (word == "value") this.value(at, n, records);
      if (word == "string") {
        records.record("p", `s${at}`);
        records.text("größe 😀".repeat(n));
      }
      if (word == "bytes") {
        records.recordBytes(utf8("p"), new Uint8Array(n));
        records.bytes(new Uint8Array(n));
      }
      if (word == "kinds") this.kinds(records);
      if (word == "window") this.window(n, native, records);
      if (word == "garbage") {
        let kept = "";
        for (let i = 0; i < n; i++) kept = kept.substring(0, 1) + "x".repeat(4096);
        records.record("", "garbage");
        records.uint(kept.length);
      }
      if (word == "settings") this.configured(n, call, native, records);
      if (word == "call") {
        records.record(call.service, call.part);
        records.array(7);
        records.text(call.op);
        records.uint(call.schema);
        records.int(call.time);
        const depth = call.setting("depth");
        if (depth) {
          const v = depth.uint();
          if (v > 9) call.wrongSetting("depth", "at most 9");
          records.uint(v);
        } else records.null();
        const size = call.setting("größe");
        if (size) records.text(size.text());
        else records.null();
        records.uint(this.seen);
        const kept = new Kept().append(line).append(line).push(0);
        for (let i = 0; i < 6; i++) kept.append(kept); // its memory moves meanwhile
        records.bytes(kept.keep(kept.slice(3, kept.length)).keep(kept));
      }
    }
  }

  /**
   * A record for each line that is left, of what its settings were before the first one was read; the last
   * setting is read after them all. At last it asks for a setting n times more.
   */
  configured(n: i32, call: Call, native: Input, records: Output): void {
    const size = call.setting("größe")!;
    const depth = call.setting("depth")!;
    const again = call.setting("größe")!;
    const name = size.text();
    const item = again.item();
    while (true) {
      const line = native.until(0x0a);
      if (!line) break;
      const key = line.slice(0, 1);
      const value = line.slice(1, 2);
      const end = line.slice(2, 3);
      for (let i = 0; i < 50; i++) line.slice(i % 3); // where views are used again, this uses them
      records.record(name, key);
      records.array(3);
      records.write(item);
      records.text(value);
      records.text(end);
    }
    records.record("", "depth");
    records.uint(depth.uint());
    for (let i = 0; i < n; i++) call.setting("größe")!.text();
  }

  nothing(n: i32): Bytes | null {
    return n > 0 ? utf8("x") : null;
  }

  /** A record of n bytes, written in pieces. */
  value(at: u64, n: i32, records: Output): void {
    records.record("", `v${at}`);
    records.bytesHead(n);
    const piece = new Uint8Array(1000).fill(7);
    for (; n >= 1000; n -= 1000) records.write(piece);
    records.write(piece.subarray(0, n));
  }

  /** Reads what is left through the window, n bytes at a time. */
  window(n: i32, native: Input, records: Output): void {
    const from = native.offset;
    const all = new Kept();
    while (native.bytes.length >= n || native.fill()) {
      if (native.bytes.length < n) continue;
      all.append(native.bytes.slice(0, n));
      native.consume(n);
    }
    all.append(native.bytes);
    native.consume(native.bytes.length);
    records.record("", "window");
    records.array(3);
    records.uint(from);
    records.bytes(all);
    records.uint(native.offset);
  }

  kinds(records: Output): void {
    records.record("", "kinds");
    records.array(16);
    records.uint(0);
    records.uint(u64.MAX_VALUE);
    records.int(-1);
    records.int(i64.MIN_VALUE);
    records.int(i64.MAX_VALUE);
    records.text("é");
    records.bytes("bytes");
    records.bool(true);
    records.bool(false);
    records.null();
    records.float(1.5);
    records.tag(1000);
    records.uint(65536);
    records.map(1);
    records.text("k");
    records.array(0);
    records.textHead(3);
    records.write("a");
    records.byte(0x62);
    records.write(utf8("c"));
    records.uint(255);
    records.uint(256);
  }

  /** Writes what it reads in words. A key that is the name of a kind has its value read as that. */
  load(call: Call, records: Input, native: Output): void {
    while (true) {
      const r = records.record();
      if (!r) return;
      const v = r.value;
      native.write(r.partition);
      native.write("/");
      native.write(r.key);
      native.write(r.isText ? " " : "(bytes) ");
      if (r.key.is("uint")) native.write(v.uint().toString());
      else if (r.key.is("int")) native.write(v.int().toString());
      else if (r.key.is("bytes")) native.write(v.bytes());
      else if (r.key.is("text")) native.write(v.text());
      else if (r.key.is("array")) v.array();
      else if (r.key.is("map")) v.map();
      else if (r.key.is("tag")) v.tag();
      else if (r.key.is("bool")) v.bool();
      else if (r.key.is("float")) native.write(v.float().toString());
      else if (r.key.is("compare")) this.compare(v, native);
      else show(v, native);
      v.end();
      native.byte(0x0a);
    }
  }

  /** Two texts: how they compare, and where the first byte of the second is in the first. */
  compare(v: Reader, native: Output): void {
    if (v.array() != 2) corrupt(v.offset, "two expected");
    const a = v.text();
    const b = v.text();
    const c = a.compare(b);
    native.write(c < 0 ? "<" : c > 0 ? ">" : "=");
    native.write(b.length > 0 ? a.indexOf(b[0]).toString() : "-");
    native.write(b.length > 0 && a.is(b.toString()) ? "=" : "!");
  }

  migrate(call: Call, records: Input, out: Output): void {
    if (call.from != 1 || call.to != 2) fail(Code.VERSION, "from 1 to 2 only");
    while (true) {
      const r = records.record();
      if (!r) return;
      out.encoded(r.encoded);
    }
  }

  inspect(call: Call, records: Input, summary: Output): void {
    let n = 0;
    while (records.record()) n++;
    summary.map(1);
    summary.text("records");
    summary.uint(n);
  }
}

function show(v: Reader, out: Output): void {
  const kind = v.major;
  if (kind == Major.UINT) out.write(v.uint().toString());
  else if (kind == Major.NEGATIVE) out.write(v.int().toString());
  else if (kind == Major.BYTES) out.write(`<${v.bytes().length}>`);
  else if (kind == Major.TEXT) {
    const text = v.text();
    out.byte(0x22);
    if (text.length > 100) out.write(text.length.toString());
    else out.write(text.toString());
    out.byte(0x22);
  } else if (kind == Major.ARRAY) {
    out.write("[");
    for (let n = v.array(); n > 0; n--) {
      show(v, out);
      out.write(n > 1 ? "," : "");
    }
    out.write("]");
  } else if (kind == Major.MAP) {
    out.write("{");
    for (let n = v.map(); n > 0; n--) {
      show(v, out);
      out.write(":");
      show(v, out);
      out.write(n > 1 ? "," : "");
    }
    out.write("}");
  } else if (kind == Major.TAG) {
    out.write(v.tag().toString());
    out.write("(");
    show(v, out);
    out.write(")");
  } else if (v.null()) out.write("null");
  else {
    const item = v.item();
    out.write(item[0] == 0xf5 ? "true" : item[0] == 0xf4 ? "false" : `item(${item[0]},${item.length})`);
  }
}
