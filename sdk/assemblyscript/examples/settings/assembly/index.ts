import { Call, Descriptor, Input, Kept, Output, Serializer, corrupt, serve } from "torpor";
export * from "torpor/exports";

serve(() => new Lines());

const EQUALS: u8 = 0x3d;
const NEWLINE: u8 = 0x0a;

/** Keeps a file of lines "name=value", sorted by name: one record a line. */
class Lines extends Serializer {
  describe(): Descriptor {
    return { name: "settings", version: "1.0.0", media: "text/plain", canonical: true };
  }

  save(call: Call, native: Input, records: Output): void {
    const last = new Kept();
    for (let first = true; ; first = false) {
      const at = native.offset;
      const line = native.until(NEWLINE);
      if (!line) return;
      const equals = line.indexOf(EQUALS);
      if (equals < 0 || line.last != NEWLINE || !line.isUtf8() || (!first && line.slice(0, equals).compare(last) <= 0)) {
        return corrupt(at, "not a line of name=value in UTF-8, sorted by name");
      }
      last.keep(line.slice(0, equals));
      records.record("", last);
      records.text(line.slice(equals + 1, line.length - 1));
    }
  }

  load(call: Call, records: Input, native: Output): void {
    const last = new Kept();
    for (let first = true; ; first = false) {
      const record = records.record();
      if (!record) return;
      if (!record.isText || (!first && record.key.compare(last) <= 0)) {
        return corrupt(record.offset, "not a record of a name and a value in text, sorted by name");
      }
      last.keep(record.key);
      native.write(record.key);
      native.byte(EQUALS);
      native.write(record.value.text());
      native.byte(NEWLINE);
    }
  }
}
