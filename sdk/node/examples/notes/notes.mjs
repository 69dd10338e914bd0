// A small service that keeps notes, in memory alone; Torpor keeps them beyond that.
//
//     GET  /notes                 all of them
//     PUT  /notes                 {"ID": {"title": "tea", "text": "…"}}: all there are, from now on
//     PUT  /notes/ID              {"title": "tea", "text": "…"}
//     POST /notes/ID              more text, written behind what there is
//     DELETE /notes/ID
//
// and the state at /_torpor/state/store. Run it with TORPOR_STATE_TOKEN set, and it asks for that token.

import http from "node:http";
import { parseArgs } from "node:util";
import { Refused, State } from "../../torpor.cjs";

const notes = new Map();
let words = 0; // follows from the notes, and is no state

const count = () => {
  words = [...notes.values()].reduce((sum, n) => sum + n.text.split(/\s+/).filter(Boolean).length, 0);
};

const state = new State({ token: process.env.TORPOR_STATE_TOKEN || undefined });
const note = (n) => {
  if (typeof n?.title !== "string" || typeof n.text !== "string") throw new Refused("a note has a title and a text");
  return { title: n.title, text: n.text };
};

state.part("store", notes, { check: (all) => Object.values(all).forEach(note), restored: count });

async function text(req) {
  req.setEncoding("utf8");
  let all = "";
  for await (const piece of req) all += piece;
  return all;
}

async function answer(req) {
  const [, kind, id, ...more] = req.url.split("/").map(decodeURIComponent);
  if (kind !== "notes" || more.length > 0) return [404, { error: "there are notes, and nothing else" }];
  if (req.method === "GET") return [200, { words, notes: Object.fromEntries(notes) }];
  const body = await text(req); // before the lock: whoever sends it may take long
  return state.hold(() => {
    switch (req.method) {
      case "PUT":
        if (id === undefined) {
          const all = Object.entries(JSON.parse(body)).map(([k, n]) => [k, note(n)]);
          notes.clear();
          for (const [k, n] of all) notes.set(k, n);
        } else {
          notes.set(id, note(JSON.parse(body)));
        }
        break;
      case "POST":
        if (!notes.has(id)) return [404, { error: "there is no such note" }];
        notes.get(id).text += body;
        break;
      case "DELETE":
        if (!notes.delete(id)) return [404, { error: "there is no such note" }];
        break;
      default:
        return [405, { error: "GET, PUT, POST and DELETE are answered" }];
    }
    count();
    return [200, {}];
  });
}

const server = http.createServer((req, res) =>
  state.handler(req, res, async () => {
    const [status, said] = await answer(req).catch((err) => [err instanceof SyntaxError || err instanceof Refused ? 400 : 500, { error: err.message }]);
    res.writeHead(status, { "Content-Type": "application/json" }).end(JSON.stringify(said));
  }),
);

const { values } = parseArgs({ options: { port: { type: "string", default: "4700" } } });
server.listen(Number(values.port), "127.0.0.1", () => {
  console.log(`notes: listening on http://127.0.0.1:${server.address().port}`);
});
