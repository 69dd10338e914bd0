"use strict";
/**
 * Torpor's kit for services in Node: the state endpoints, in one file, of the standard library alone.
 *
 *     import { State } from "./torpor.cjs";              // or const { State } = require("./torpor.cjs")
 *
 *     const notes = new Map();                           // or a plain object, or an array
 *     const state = new State();
 *     state.part("store", notes);
 *     const server = await state.serve({ port: 4601 });  // http://127.0.0.1:4601/_torpor/state/store
 *
 * GET gives the part's state as JSON, PUT replaces it wholly or not at all, DELETE empties it. README.md says
 * what is promised, what is refused, and where the limits are. Node 18 or later.
 */

const { createHash, timingSafeEqual } = require("node:crypto");
const http = require("node:http");
const { isIP } = require("node:net");
const { Readable } = require("node:stream");
const { pipeline } = require("node:stream/promises");

const MAX_BYTES = 1 << 28; // of a state, by default; a text in V8 has less than 2 ** 29 characters
const MAX_DEPTH = 1000; // of arrays and objects inside one another
const DISCARD = 64 << 20; // of a body that was refused, so that its sender comes to read why
const PIECE = 1 << 16;

/**
 * A body that is not taken. Status 422 is for what is no state of this service, which Torpor takes for
 * damage; 415 for one of another version, which it keeps; 413, 411 and 400 for what HTTP calls so.
 */
class Refused extends Error {
  constructor(message, status = 422) {
    super(message);
    this.name = "Refused";
    this.status = status;
  }
}

/** A state that cannot be saved; it says which value, by its path, and why. */
class Unsavable extends Error {
  constructor(message) {
    super(message);
    this.name = "Unsavable";
  }
}

/** The parts of a service's state, and the lock under which they are read and replaced. */
class State {
  #parts = new Map();
  #token;
  #tail = Promise.resolve();

  /**
   * @param {object} [options]
   * @param {string} [options.path] what the parts' URLs begin with
   * @param {string} [options.token] what requests must carry as "Authorization: Bearer TOKEN". Without one,
   *   whoever is on this machine may
   * @param {number} [options.maxBytes] of the JSON text, both ways
   */
  constructor({ path = "/_torpor/state", token, maxBytes = MAX_BYTES } = {}) {
    if (!/^(\/[A-Za-z0-9_.~-]+)+$/.test(path)) throw new TypeError(`path ${path}: want one such as /_torpor/state`);
    if (token !== undefined && !/^[!-~]+$/.test(token)) {
      throw new TypeError("the token must be letters, digits and signs, without spaces");
    }
    if (!(Number.isSafeInteger(maxBytes) && maxBytes > 0)) throw new TypeError("maxBytes must be a whole number");
    this.path = path;
    this.maxBytes = maxBytes;
    this.#token = token;
    this.handler = this.handler.bind(this);
  }

  /**
   * Registers a part, to be found at path/name. target is a Map with texts for keys, an array, a plain object,
   * or { get, set, empty } of functions, which may be async: get gives a JSON value, set replaces the state by
   * one, wholly or, throwing, not at all, and empty gives the value of the empty state.
   *
   * A Map, array or object stays what it is: what is restored is put into it, so that whoever holds it sees
   * the restored state. What lies inside is new.
   *
   * @param {string} name
   * @param {Map<string, any>|any[]|object} target
   * @param {object} [options]
   * @param {(value: any) => void} [options.check] looks at a value before it is taken; it throws Refused
   * @param {() => void} [options.restored] called when the contents have been replaced or emptied. If it throws,
   *   what there was is put back, and the error is the answer
   */
  part(name, target, { check = () => {}, restored } = {}) {
    if (!/^[A-Za-z0-9_-]+$/.test(name) || this.#parts.has(name)) {
      throw new TypeError(`part ${name}: a name of letters, digits, _ and -, of its own`);
    }
    this.#parts.set(name, { name, check, restored, ...access(name, target) });
  }

  /**
   * Runs f while no state is read or replaced, and no other f runs; gives what it gives. For requests of the
   * service that await something half way through a change. f must not call it again, and should be short.
   */
  async hold(f) {
    const before = this.#tail;
    let done;
    this.#tail = new Promise((resolve) => (done = resolve));
    await before;
    try {
      return await f();
    } finally {
      done();
    }
  }

  /** The state of a part as pieces of JSON text (an array of Buffers). */
  async get(name) {
    const part = this.#find(name);
    return this.hold(async () => {
      const pieces = encode(await part.get(), `part ${name}`);
      const size = length(pieces);
      if (size > this.maxBytes) {
        throw new Unsavable(`part ${name}: a state of ${size} bytes could not be restored: maxBytes is ${this.maxBytes}`);
      }
      return pieces;
    });
  }

  /** Replaces the state of a part by JSON text, wholly or, if it throws, not at all. */
  async put(name, text) {
    const part = this.#find(name);
    const value = decode(text);
    await this.hold(async () => {
      await part.check(value);
      await this.#replace(part, value);
    });
  }

  /** Empties a part. */
  async empty(name) {
    const part = this.#find(name);
    await this.hold(async () => this.#replace(part, await part.empty()));
  }

  /** Whether a request's path is one of the kit's. */
  owns(url) {
    const path = url.split(/[?#]/, 1)[0];
    return path === this.path || path.startsWith(this.path + "/");
  }

  /**
   * Answers a request to one of the parts: a listener of node:http, and middleware of Express and its like,
   * before any that reads bodies. Others are next's, or 404.
   */
  handler(req, res, next) {
    const url = req.originalUrl ?? req.url;
    if (!this.owns(url)) {
      if (next) return next();
      return send(req, res, 404, "there is nothing here\n");
    }
    return this.#answer(req, res, url.split(/[?#]/, 1)[0].slice(this.path.length + 1));
  }

  /**
   * Serves the parts on a port of their own. It gives { server, port, url(name), close() }. Addresses other
   * than loopback need a token.
   */
  async serve({ host = "127.0.0.1", port = 0 } = {}) {
    if (this.#token === undefined && !loopback(host)) throw new TypeError(`${host} can be reached from elsewhere: that needs a token`);
    const server = http.createServer((req, res) => this.handler(req, res));
    await new Promise((resolve, reject) => server.once("error", reject).listen(port, host, resolve));
    const at = server.address();
    return {
      server,
      port: at.port,
      url: (name) => `http://${at.family === "IPv6" ? `[${at.address}]` : at.address}:${at.port}${this.path}/${name}`,
      close: () => {
        const closed = new Promise((resolve) => server.close(resolve));
        server.closeIdleConnections?.(); // of Node 18.2
        return closed;
      },
    };
  }

  #find(name) {
    const part = this.#parts.get(name);
    if (!part) throw new Refused(`there is no part ${JSON.stringify(name)}`, 404);
    return part;
  }

  async #replace(part, value) {
    const { restored } = part;
    const undo = await part.set(value, restored !== undefined);
    try {
      await restored?.();
    } catch (err) {
      await undo();
      throw err;
    }
  }

  async #answer(req, res, name) {
    try {
      this.#authorize(req);
      this.#find(name);
      switch (req.method) {
        case "GET":
          return await stream(res, await this.get(name));
        case "PUT":
          await this.put(name, await body(req, this.maxBytes));
          return await send(req, res, 204);
        case "DELETE":
          await this.empty(name);
          return await send(req, res, 204);
      }
      throw new Refused("GET, PUT and DELETE are answered", 405);
    } catch (err) {
      const headers = {};
      const status = err instanceof Refused ? err.status : 500;
      if (status === 401) headers["WWW-Authenticate"] = "Bearer";
      if (status === 405) headers.Allow = "GET, PUT, DELETE";
      const text = err instanceof Refused || err instanceof Unsavable ? err.message : String(err);
      return await send(req, res, status, `${text}\n`, headers);
    }
  }

  #authorize(req) {
    if (req.headers.origin !== undefined || req.headers["sec-fetch-site"] !== undefined) {
      throw new Refused("web pages have no business here", 403);
    }
    if (this.#token === undefined) {
      // A name that merely leads here could be a web page's own, made to point to this machine.
      const host = (req.headers.host ?? "localhost").replace(/:\d*$/, "").replace(/^\[(.*)\]$/, "$1");
      if (!loopback(req.socket.remoteAddress ?? "") || !loopback(host)) {
        throw new Refused("without a token only this machine is answered, by the name localhost or its address", 403);
      }
      return;
    }
    // Digests, since what is compared in constant time must be of one length.
    const digest = (text) => createHash("sha256").update(text).digest();
    if (!timingSafeEqual(digest(req.headers.authorization ?? ""), digest(`Bearer ${this.#token}`))) {
      throw new Refused("a token is needed: Authorization: Bearer TOKEN", 401);
    }
  }
}

/** What reads, replaces and empties a target: { get, set, empty }; set gives a function that undoes it. */
function access(name, target) {
  const refuse = (want, value) => {
    throw new Refused(`part ${name} is restored from ${want}, this is ${what(value)}`);
  };
  if (target instanceof Map) {
    const fill = (entries) => {
      target.clear();
      for (const [k, v] of entries) target.set(k, v);
    };
    return {
      get: () => target,
      set(value) {
        if (!plain(value)) refuse("an object", value);
        const before = [...target];
        fill(Object.entries(value));
        return () => fill(before);
      },
      empty: () => ({}),
    };
  }
  if (Array.isArray(target)) {
    const fill = (values) => {
      target.length = 0;
      for (const v of values) target.push(v); // all at once would be as many arguments
    };
    return {
      get: () => target,
      set(value) {
        if (!Array.isArray(value)) refuse("an array", value);
        const before = [...target];
        fill(value);
        return () => fill(before);
      },
      empty: () => [],
    };
  }
  const functions = ["get", "set", "empty"].filter((f) => typeof target?.[f] === "function");
  if (functions.length === 3) {
    return {
      get: () => target.get(),
      async set(value, undoable) {
        const before = undoable && decode(Buffer.concat(encode(await target.get(), `part ${name}`)));
        await target.set(value);
        return () => target.set(before);
      },
      empty: () => target.empty(),
    };
  }
  if (!plain(target) || functions.length > 0) {
    throw new TypeError(`part ${name}: ${what(target)} is no Map, array, plain object or { get, set, empty }`);
  }
  const fill = (entries) => {
    for (const k of Object.keys(target)) delete target[k];
    // Not assigned: "__proto__" is a name like any other.
    for (const [k, value] of entries) Object.defineProperty(target, k, { value, writable: true, enumerable: true, configurable: true });
  };
  return {
    get: () => target,
    set(value) {
      if (!plain(value)) refuse("an object", value);
      const before = Object.entries(target);
      fill(Object.entries(value));
      return () => fill(before);
    },
    empty: () => ({}),
  };
}

function plain(value) {
  if (typeof value !== "object" || value === null) return false;
  const prototype = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === null;
}

/** Pieces of JSON text. What JSON would lose or change is an error that names it by its path. */
function encode(root, where) {
  const pieces = [];
  let text = "";
  const add = (more) => {
    text += more;
    if (text.length >= PIECE) {
      pieces.push(Buffer.from(text));
      text = "";
    }
  };
  const inside = new Set();
  const path = [];
  const fail = (why) => {
    throw new Unsavable(`${where}: ${path.map((p) => `[${JSON.stringify(p)}]`).join("") || "the state"} ${why}`);
  };
  const write = (value) => {
    switch (typeof value) {
      case "string":
        return add(JSON.stringify(value));
      case "boolean":
        return add(String(value));
      case "number":
        if (!Number.isFinite(value)) fail(`is ${value}, which JSON does not have`);
        return add(Object.is(value, -0) ? "-0" : String(value));
      case "object":
        if (value === null) return add("null");
        break;
      default:
        fail(`is ${what(value)}, which JSON does not have`);
    }
    if (inside.has(value)) fail("is inside itself");
    if (inside.size >= MAX_DEPTH) fail(`lies more than ${MAX_DEPTH} deep`);
    inside.add(value);
    let first = true;
    const entry = (k, v) => {
      path.push(k);
      if (!first) add(",");
      first = false;
      if (typeof k === "string") add(JSON.stringify(k) + ":");
      write(v);
      path.pop();
    };
    if (Array.isArray(value)) {
      add("[");
      for (let i = 0; i < value.length; i++) entry(i, value[i]);
      if (Object.keys(value).length > value.length) fail("is an array with names, which JSON does not have");
      add("]");
    } else if (plain(value) || (value instanceof Map && path.length === 0)) {
      if (typeof value.toJSON === "function") fail("has its own toJSON");
      add("{");
      for (const [k, v] of value instanceof Map ? value : Object.entries(value)) {
        if (typeof k !== "string") fail(`has the key ${String(k)}, which is no text`);
        entry(k, v);
      }
      if (Object.getOwnPropertySymbols(value).length > 0) fail("has a symbol for a name");
      add("}");
    } else {
      fail(`is ${what(value)}; make it plain in a getter, or keep it elsewhere`);
    }
    inside.delete(value);
  };
  write(root);
  pieces.push(Buffer.from(text));
  return pieces;
}

function decode(bytes) {
  let text;
  try {
    text = new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes);
  } catch {
    throw new Refused("this is no state: it is not UTF-8");
  }
  try {
    return JSON.parse(text);
  } catch (err) {
    throw new Refused(`this is no state: ${err.message}`);
  }
}

function what(value) {
  if (value === null || value === undefined) return String(value);
  if (Array.isArray(value)) return "an array";
  if (typeof value !== "object") return `a ${typeof value}`;
  return `a ${value.constructor?.name ?? "object"}`;
}

function length(pieces) {
  return pieces.reduce((sum, p) => sum + p.length, 0);
}

function loopback(host) {
  const at = host.toLowerCase().replace(/^::ffff:/, "");
  return at === "localhost" || at === "::1" || (isIP(at) === 4 && at.startsWith("127."));
}

/** Reads a body to its end. */
async function body(req, limit) {
  const coding = req.headers["content-encoding"];
  if (coding !== undefined && coding !== "identity") throw new Refused("send the state as it is, without a Content-Encoding", 415);
  if (req.headers["content-length"] === undefined && req.headers["transfer-encoding"] === undefined) {
    throw new Refused("say how long the state is: Content-Length", 411);
  }
  if (req.readableEnded || req.body !== undefined) {
    throw new Error("the body was read before the kit came to see it: put state.handler before what reads bodies");
  }
  const large = (size) => new Refused(`a state of ${size} bytes; at most ${limit} are taken`, 413);
  if (Number(req.headers["content-length"]) > limit) throw large(req.headers["content-length"]);
  const pieces = [];
  let size = 0;
  await new Promise((resolve, reject) => {
    const cut = () => reject(new Refused(`the body is cut off after ${size} bytes`, 400));
    req.on("data", (piece) => {
      size += piece.length;
      if (size > limit) {
        pieces.length = 0;
        reject(large(`more than ${limit}`));
      } else {
        pieces.push(piece);
      }
    });
    req.on("end", resolve).on("error", cut).on("aborted", cut).on("close", cut);
  });
  if (!req.complete) throw new Refused(`the body is cut off after ${size} bytes`, 400);
  return Buffer.concat(pieces);
}

async function stream(res, pieces) {
  res.writeHead(200, { "Content-Type": "application/json", "Content-Length": length(pieces), "Cache-Control": "no-store" });
  await pipeline(Readable.from(pieces, { objectMode: false }), res).catch(() => {}); // whoever asked has gone
}

async function send(req, res, status, text = "", headers = {}) {
  // Closing on what was sent and not read would take the answer back.
  if (!req.complete) headers.Connection = "close";
  if (res.destroyed) return;
  const about = status === 204 ? {} : { "Content-Type": "text/plain; charset=utf-8", "Content-Length": Buffer.byteLength(text) };
  res.writeHead(status, { ...about, "Cache-Control": "no-store", ...headers });
  if (text) res.write(text);
  await drain(req);
  await finish(res);
}

/** Reads what is left of a body, up to a bound. */
function drain(req) {
  if (req.complete || req.readableEnded || req.destroyed) return undefined;
  return new Promise((resolve) => {
    let left = DISCARD;
    req.on("data", (piece) => {
      left -= piece.length;
      if (left < 0) resolve();
    });
    req.on("end", resolve).on("close", resolve).on("error", resolve).resume();
  });
}

function finish(res) {
  return new Promise((resolve) => res.once("close", resolve).end(resolve));
}

module.exports = { State, Refused, Unsavable };
