import assert from "node:assert/strict";
import { readdir, readFile } from "node:fs/promises";
import { test } from "node:test";
import { Code, decode, encodeRecords, open, roundTrip } from "torpor/testing";

const serializer = await open(new URL("settings.wasm", import.meta.url));

test("describes itself", () => {
  const { name, schema, reads, canonical } = serializer.describe();
  assert.deepEqual({ name, schema, reads, canonical }, { name: "settings", schema: 1, reads: [1], canonical: true });
});

const fixtures = new URL("fixtures/", import.meta.url);
for (const { name } of (await readdir(fixtures, { withFileTypes: true })).filter((entry) => entry.isFile())) {
  // Folders hold records of older schemas, which torpor module test reads.
  test(`gives ${name} back`, async () => {
    roundTrip(serializer, await readFile(new URL(name, fixtures)));
  });
}

test("makes a record of each line", () => {
  const records = serializer.save("colour=green\nname=Ada = Lovelace\nzoom=\n");
  assert.deepEqual(decode(records), [
    ["", "colour", "green"],
    ["", "name", "Ada = Lovelace"],
    ["", "zoom", ""],
  ]);
});

test("refuses what it could not give back", () => {
  for (const bad of ["name", "name=Ada", "\n", "a=1\n", Uint8Array.of(0x63, 0x3d, 0xff, 0x0a)]) {
    const native = Buffer.concat([Buffer.from("b=1\n"), Buffer.from(bad)]);
    assert.throws(() => serializer.save(native), { code: Code.CORRUPT, offset: 4 });
  }
});

test("refuses records of another kind", () => {
  const records = encodeRecords([["", "a", "1"], ["", "b", 2]]);
  assert.throws(() => serializer.load(records), { code: Code.CORRUPT });
  const unsorted = encodeRecords([["", "b", "1"], ["", "a", "2"]]);
  assert.throws(() => serializer.load(unsorted), { code: Code.CORRUPT });
});

test("refuses settings it does not know", () => {
  assert.throws(() => serializer.save("", { settings: { depth: 2 } }), { code: Code.UNSUPPORTED, path: "settings.depth" });
});
