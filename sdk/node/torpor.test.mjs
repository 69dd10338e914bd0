// Tests of torpor.cjs: node --test, in this folder.

import assert from "node:assert/strict";
import { once } from "node:events";
import http from "node:http";
import { createRequire } from "node:module";
import net from "node:net";
import { after, describe, test } from "node:test";
import { Refused, State, Unsavable } from "./torpor.cjs";

const path = "/_torpor/state/store";

/** A State with one part, and a way to ask for it. */
async function live(target, options = {}, part = {}, listen) {
  const state = new State(options);
  if (target !== undefined) state.part("store", target, part);
  const server = http.createServer(listen ? listen(state) : state.handler);
  await once(server.listen(0, "127.0.0.1"), "listening");
  after(() => {
    server.closeAllConnections?.();
    server.close();
  });
  const { port } = server.address();
  const ask = (method, body, { headers = {}, at = path } = {}) =>
    new Promise((resolve, reject) => {
      if (options.token) headers = { Authorization: `Bearer ${options.token}`, ...headers };
      if (body !== undefined) headers = { "Content-Length": Buffer.byteLength(body), ...headers };
      const req = http.request({ port, host: "127.0.0.1", method, path: at, headers, agent: false }, (res) => {
        const pieces = [];
        res.on("data", (p) => pieces.push(p)).on("error", reject);
        res.on("end", () => resolve({ status: res.statusCode, text: Buffer.concat(pieces).toString(), headers: res.headers }));
      });
      req.on("error", reject);
      req.end(body);
    });
  /** Sends text and then no more, and gives the status of the answer, undefined for none. */
  const raw = (text) =>
    new Promise((resolve, reject) => {
      let said = "";
      const s = net.connect(port, "127.0.0.1", () => s.end(text));
      s.on("data", (d) => (said += d)).on("error", reject);
      s.on("close", () => resolve(said === "" ? undefined : Number(said.split(" ")[1])));
    });
  return { state, ask, raw, port };
}

/** The text of a part's state. */
const saved = async (state, name = "store") => Buffer.concat(await state.get(name)).toString();

const refusal = (status, message = /./) => (err) => {
  assert(err instanceof Refused, err);
  assert.equal(err.status, status);
  assert.match(err.message, message);
  return true;
};

const kinds = {
  Map: { make: () => new Map([["a", { n: 1 }]]), show: (t) => Object.fromEntries(t) },
  object: { make: () => ({ a: { n: 1 } }), show: (t) => ({ ...t }) },
  "object without a prototype": { make: () => Object.assign(Object.create(null), { a: { n: 1 } }), show: (t) => ({ ...t }) },
};

describe("states", () => {
  for (const [name, { make, show }] of Object.entries(kinds)) {
    test(`${name}: stays what it is`, async () => {
      const target = make();
      const state = new State();
      state.part("store", target);
      const text = await saved(state);
      assert.equal(text, '{"a":{"n":1}}');
      await state.put("store", Buffer.from('{"b":[2],"c":null}'));
      assert.deepEqual(show(target), { b: [2], c: null });
      await state.empty("store");
      assert.deepEqual(show(target), {});
      assert.equal(await saved(state), "{}");
      await state.put("store", Buffer.from(text));
      assert.deepEqual(show(target), { a: { n: 1 } });
      for (const other of ["[]", "1", "null", '"a"']) {
        await assert.rejects(state.put("store", Buffer.from(other)), refusal(422, /restored from an object/));
      }
      assert.deepEqual(show(target), { a: { n: 1 } });
    });
  }

  test("array: stays what it is", async () => {
    const target = [1, [2]];
    const state = new State();
    state.part("store", target);
    assert.equal(await saved(state), "[1,[2]]");
    await state.put("store", Buffer.from("[3]"));
    assert.deepEqual(target, [3]);
    await assert.rejects(state.put("store", Buffer.from("{}")), refusal(422, /restored from an array/));
    await state.put("store", Buffer.from(JSON.stringify(Array(300_000).fill(1))));
    assert.equal(target.length, 300_000);
    await state.empty("store");
    assert.deepEqual(target, []);
  });

  test("functions", async () => {
    let live = { day: new Date(0) };
    const state = new State();
    state.part("store", {
      get: async () => ({ day: live.day.toISOString() }),
      set: async (v) => {
        if (typeof v.day !== "string") throw new Refused("no day", 415);
        live = { day: new Date(v.day) };
      },
      empty: () => ({ day: new Date(0).toISOString() }),
    });
    const text = await saved(state);
    await state.put("store", Buffer.from('{"day":"2026-01-01T00:00:00.000Z"}'));
    assert.equal(live.day.getUTCFullYear(), 2026);
    await assert.rejects(state.put("store", Buffer.from("{}")), refusal(415, /no day/));
    assert.equal(live.day.getUTCFullYear(), 2026);
    await state.empty("store");
    assert.equal(await saved(state), text);
  });

  test("all of JSON", async () => {
    const target = {};
    const state = new State();
    state.part("store", target);
    const text = `{"":[0,-0,1.5,1e+21,5e-324,9007199254740993,true,false,null,[],{}],"\\ud800\\u0000\\"é😀":"\\u2028","__proto__":{"__proto__":1},"toString":2}`;
    await state.put("store", Buffer.from(text));
    assert.equal(await saved(state), text.replace("9007199254740993", "9007199254740992").replace("\\u2028", "\u2028"));
    assert.equal(Object.getPrototypeOf(target), Object.prototype);
    assert.equal(target.polluted, undefined);
    assert(Object.hasOwn(target, "__proto__"));
    const again = new Map();
    const other = new State();
    other.part("store", again);
    await other.put("store", Buffer.from(await saved(state)));
    assert.equal(await saved(other), await saved(state));
  });

  test("what JSON would lose is named", async () => {
    class Note {}
    const loop = { a: {} };
    loop.a.b = loop;
    let deep = [];
    for (let i = 0; i < 1000; i++) deep = [deep];
    const named = [1];
    named.name = 2;
    for (const [value, want] of [
      [undefined, /^part store: \["x"\] is undefined, which JSON does not have$/],
      [{ y: [1, () => 0] }, /\["x"\]\["y"\]\[1\] is a function, which JSON/],
      [[NaN], /\["x"\]\[0\] is NaN/],
      [-Infinity, /is -Infinity/],
      [1n, /is a bigint/],
      [Symbol("s"), /is a symbol/],
      [new Date(0), /\["x"\] is a Date; make it plain/],
      [{ m: new Map() }, /\["x"\]\["m"\] is a Map/],
      [new Set(), /is a Set/],
      [Buffer.from("a"), /is a Buffer/],
      [new Note(), /is a Note/],
      [{ toJSON: () => 1 }, /has its own toJSON/],
      [{ [Symbol("s")]: 1 }, /has a symbol for a name/],
      [[1, , 2], /\["x"\]\[1\] is undefined/], // eslint-disable-line no-sparse-arrays
      [named, /is an array with names/],
      [loop, /\["x"\]\["a"\]\["b"\] is inside itself/],
      [deep, /lies more than 1000 deep/],
    ]) {
      const state = new State();
      state.part("store", { x: value });
      await assert.rejects(state.get("store"), (err) => err instanceof Unsavable && want.test(err.message) || assert.fail(err));
    }
    const state = new State();
    state.part("store", new Map([[1, 2]]));
    await assert.rejects(state.get("store"), /part store: the state has the key 1, which is no text/);
    const shared = { a: 1 };
    const twice = new State();
    twice.part("store", { one: shared, two: shared }); // no circle; JSON has no references, so two of them
    assert.equal(await saved(twice), '{"one":{"a":1},"two":{"a":1}}');
  });

  test("restored is called, or all is put back", async () => {
    for (const target of [new Map([["a", 1]]), { a: 1 }, functions({ a: 1 })]) {
      const state = new State();
      const seen = [];
      state.part("store", target, {
        check: (v) => assert(v.d === undefined, new Refused("d", 415)),
        restored: async () => {
          const now = JSON.parse(await text());
          seen.push(now);
          if ("bad" in now) throw new Refused("bad");
        },
      });
      const text = async () => (target.get && target.empty ? JSON.stringify(target.get()) : JSON.stringify(target instanceof Map ? Object.fromEntries(target) : target));
      await state.put("store", Buffer.from('{"b":2}'));
      await assert.rejects(state.put("store", Buffer.from('{"bad":2}')), refusal(422, /bad/));
      await assert.rejects(state.put("store", Buffer.from('{"d":2}')), refusal(415, /d/));
      assert.equal(await text(), '{"b":2}');
      await state.empty("store");
      assert.deepEqual(seen, [{ b: 2 }, { bad: 2 }, {}]);
    }
  });

  test("what is no state changes nothing", async () => {
    const target = { a: 1 };
    const state = new State();
    state.part("store", target);
    const good = JSON.stringify({ b: "text é", c: [1, 2, { d: null }] });
    const bytes = Buffer.from(good);
    for (let n = 0; n < bytes.length; n++) await assert.rejects(state.put("store", bytes.subarray(0, n)), refusal(422, /no state/));
    for (const bad of [good + good, `\ufeff${good}`, "{'a':1}", '{"a":1,}', "NaN", "\0", "//\n{}"]) {
      await assert.rejects(state.put("store", Buffer.from(bad)), refusal(422, /no state/));
    }
    await assert.rejects(state.put("store", Buffer.from('{"a":"\xff"}', "latin1")), refusal(422, /UTF-8/));
    assert.deepEqual(target, { a: 1 });
  });

  test("hold", async () => {
    const target = { a: 1, b: 1 };
    const state = new State();
    state.part("store", target);
    const order = [];
    const change = state.hold(async () => {
      target.a = 2;
      await new Promise((resolve) => setTimeout(resolve, 20));
      target.b = 2;
      order.push("changed");
      return 7;
    });
    const failing = state.hold(() => {
      throw new Error("of the service");
    });
    const text = saved(state).then((t) => order.push(t));
    assert.equal(await change, 7);
    await assert.rejects(failing, /of the service/);
    await text;
    assert.deepEqual(order, ["changed", '{"a":2,"b":2}']);
  });

  test("wrong use", async () => {
    const state = new State();
    state.part("store", {});
    for (const call of [
      () => state.part("store", {}),
      () => state.part("a/b", {}),
      () => state.part("none"),
      () => state.part("number", 5),
      () => state.part("date", new Date()),
      () => state.part("half", { get() {}, set() {} }),
      () => new State({ path: "state/" }),
      () => new State({ token: "" }),
      () => new State({ token: "two words" }),
      () => new State({ maxBytes: 0 }),
    ]) {
      assert.throws(call, TypeError);
    }
    await assert.rejects(state.serve({ host: "0.0.0.0" }), /needs a token/);
  });

  test("require", () => {
    assert.equal(createRequire(import.meta.url)("./torpor.cjs").State, State);
  });
});

function functions(value) {
  return { get: () => value, set: (v) => void (value = v), empty: () => ({}) };
}

const doors = {
  "node:http": undefined,
  "express-style": (state) => (req, res) => {
    // As Express does for app.use("/_torpor", …).
    req.originalUrl = req.url;
    req.url = req.url.replace(/^\/_torpor/, "");
    state.handler(req, res, () => res.end("own"));
  },
};

for (const [name, listen] of Object.entries(doors)) {
  describe(`over HTTP, ${name}`, () => {
    const token = "s3cret";

    test("GET, PUT, DELETE", async () => {
      const target = new Map([["a", "é"]]);
      const { ask } = await live(target, { token }, {}, listen);
      const { status, text, headers } = await ask("GET");
      assert.deepEqual([status, text, headers["content-length"], headers["cache-control"]], [200, '{"a":"é"}', "10", "no-store"]);
      assert.equal((await ask("DELETE")).status, 204);
      assert.equal(target.size, 0);
      assert.deepEqual([(await ask("GET")).text, target.size], ["{}", 0]);
      assert.deepEqual([(await ask("PUT", text)).status, target.get("a")], [204, "é"]);
      assert.deepEqual([(await ask("PUT", "{}")).status, target.size], [204, 0]);
    });

    test("a large state", async () => {
      const target = { text: [] };
      for (let i = 0; i < 20_000; i++) target.text.push(`${i} ${"é".repeat(200)}`);
      const want = JSON.stringify(target);
      const { ask } = await live(target, { token }, {}, listen);
      const { text, headers } = await ask("GET");
      assert(text === want && headers["content-length"] === String(Buffer.byteLength(want)));
      target.text = [];
      assert.equal((await ask("PUT", text)).status, 204);
      assert(JSON.stringify(target) === want);
    });

    test("refusals", async () => {
      const target = { a: 1 };
      const { ask } = await live(target, { token, maxBytes: 100_000 }, {}, listen);
      const auth = (a) => ({ headers: { Authorization: a } });
      for (const [status, want, ...args] of [
        [422, /no state/, "PUT", ""],
        [422, /no state/, "PUT", "{"],
        [422, /from an object/, "PUT", "[]"],
        [413, /100001 bytes; at most 100000/, "PUT", "x".repeat(100_001)],
        [413, /at most 100000/, "PUT", "x".repeat(8 << 20)],
        [415, /Content-Encoding/, "PUT", "{}", { headers: { "Content-Encoding": "gzip" } }],
        [404, /no part "stores"/, "GET", undefined, { at: "/_torpor/state/stores" }],
        [404, /no part ""/, "GET", undefined, { at: "/_torpor/state/" }],
        [405, /GET, PUT/, "POST", "{}"],
        [401, /token/, "GET", undefined, auth("")],
        [401, /token/, "PUT", "{}", auth("Bearer s3cre")],
        [401, /token/, "DELETE", undefined, auth("Bearer s3cret2")],
        [401, /token/, "DELETE", undefined, auth("Basic s3cret")],
        [403, /web pages/, "GET", undefined, { headers: { Origin: "http://example.com" } }],
        [403, /web pages/, "GET", undefined, { headers: { "Sec-Fetch-Site": "cross-site" } }],
      ]) {
        const got = await ask(...args);
        assert.equal(got.status, status, `${args}`.slice(0, 100) + got.text);
        assert.match(got.text, want);
        assert.equal(got.headers["content-length"], String(Buffer.byteLength(got.text)));
        assert.deepEqual(target, { a: 1 });
      }
    });

    test("cut off", async () => {
      const target = { a: 1 };
      const { raw } = await live(target, { token, maxBytes: 1000 }, {}, listen);
      const head = (...lines) => [`PUT ${path} HTTP/1.1`, "Host: localhost", `Authorization: Bearer ${token}`, ...lines, "", ""].join("\r\n");
      const good = JSON.stringify({ b: "x".repeat(100) });
      const refused = async (text) => {
        assert([400, 411, undefined].includes(await raw(text)));
        assert.deepEqual(target, { a: 1 });
      };
      for (let n = 0; n < good.length; n += 7) await refused(head(`Content-Length: ${good.length}`) + good.slice(0, n));
      // One that is whole by itself, had the length not been told.
      await refused(head(`Content-Length: ${good.length + 1}`) + good);
      let chunks = "";
      for (let i = 0; i < good.length; i += 10) chunks += `${good.slice(i, i + 10).length.toString(16)}\r\n${good.slice(i, i + 10)}\r\n`;
      const whole = `${chunks}0\r\n\r\n`;
      for (let n = 0; n < whole.length; n += 7) await refused(head("Transfer-Encoding: chunked") + whole.slice(0, n));
      await refused(head("Transfer-Encoding: chunked") + chunks);
      await refused(head("Transfer-Encoding: chunked") + whole.slice(0, -1));
      await refused(head());
      assert.equal(await raw(head("Transfer-Encoding: chunked", "Connection: close") + `400\r\n${"x".repeat(1024)}\r\n0\r\n\r\n`), 413);
      assert.deepEqual(target, { a: 1 });
      assert.equal(await raw(head("Transfer-Encoding: chunked", "Connection: close") + whole), 204);
      assert.deepEqual(target, JSON.parse(good));
    });

    test("errors of the service", async () => {
      const target = { a: () => 0 };
      const { ask } = await live(target, {}, { restored: () => { throw new TypeError("of the service"); } }, listen);
      assert.match((await ask("GET")).text, /part store: \["a"\] is a function/);
      const got = await ask("DELETE");
      assert.deepEqual([got.status, got.text, Object.keys(target)], [500, "TypeError: of the service\n", ["a"]]);
    });

    test("at once", async () => {
      const target = { a: 500, b: 500 };
      const { state, ask } = await live(target, {}, {}, listen);
      let stop = false;
      const transfers = [1, 2].map(async (n) => {
        while (!stop) {
          await state.hold(async () => {
            target.a -= n;
            await new Promise(setImmediate);
            target.b += n;
          });
          await new Promise(setImmediate);
        }
      });
      await Promise.all(
        [0, 1, 2, 3].map(async (n) => {
          for (let i = 0; i < 15; i++) {
            if (n % 2) {
              assert.equal((await ask("PUT", JSON.stringify({ a: i, b: 1000 - i }))).status, 204);
            } else {
              const { a, b } = JSON.parse((await ask("GET")).text);
              assert.equal(a + b, 1000);
            }
          }
        }),
      );
      stop = true;
      await Promise.all(transfers);
    });
  });
}

test("other paths are the service's", async () => {
  const target = {};
  for (const [listen, want] of [[doors["express-style"], [200, "own"]], [undefined, [404, "there is nothing here\n"]]]) {
    const { ask } = await live(target, {}, {}, listen);
    for (const at of ["/", "/_torpor/states", "/_torpor/statex/store", `/x${path}`]) {
      const { status, text } = await ask("GET", undefined, { at });
      assert.deepEqual([status, text], want);
    }
  }
});

test("a body that was read before", async () => {
  const { ask } = await live({ a: 1 }, {}, {}, (state) => async (req, res) => {
    for await (const piece of req) req.body = piece;
    state.handler(req, res);
  });
  const { status, text } = await ask("PUT", "{}");
  assert.equal(status, 500);
  assert.match(text, /put state\.handler before what reads bodies/);
});

test("a server of its own, without a token", async () => {
  const state = new State();
  state.part("store", { a: 1 });
  const server = await state.serve();
  assert.equal(server.url("store"), `http://127.0.0.1:${server.port}${path}`);
  for (const [host, status] of [["localhost", 200], [`localhost:${server.port}`, 200], ["127.0.0.1", 200], ["[::1]:80", 200], ["torpor.example.com", 403], ["10.0.0.1:80", 403], ["127.0.0.1.example.com", 403]]) {
    const req = http.get({ port: server.port, host: "127.0.0.1", path, headers: { host }, agent: false });
    const [res] = await once(req, "response");
    res.resume();
    assert.equal(res.statusCode, status, host);
    await once(res, "end");
  }
  await server.close();
  await assert.rejects(once(http.get({ port: server.port, host: "127.0.0.1", agent: false }), "response"));
});
