import { beginKeeping } from "./bytes";
import { Call } from "./call";
import { Code, fail } from "./error";
import { arg } from "./host";
import { INPUT_BYTES, Input } from "./input";
import { OUTPUT_BYTES, Output } from "./output";
import { Serializer } from "./serializer";

/** Room for the parameters of a call, which are at most 64 KiB. */
const ARG_BYTES: i32 = 64 << 10;

let make: (() => Serializer) | null = null;
const argument = heap.alloc(ARG_BYTES);
const input = new Input();
const output = new Output();

/**
 * Makes a serializer this module's: write `serve(() => new Mine());` in the file that asconfig.json
 * names. Each call gets a new one, so that nothing is left of the call before.
 */
export function serve(maker: () => Serializer): void {
  make = maker;
}

function serializer(): Serializer {
  const maker = make;
  if (maker == null) fail(Code.INTERNAL, "this module has no serializer; it must call serve");
  return maker!();
}

function begin(): Call {
  beginKeeping(true);
  input.reset();
  output.reset();
  const n = arg(argument, ARG_BYTES);
  if (<u32>n > <u32>ARG_BYTES) fail(Code.TOO_LARGE, "the parameters of the call are too long");
  return Call.parse(argument, n);
}

function end(): i32 {
  output.finish();
  beginKeeping(false);
  return 0;
}

export function torpor_describe(): i32 {
  beginKeeping(true);
  output.reset();
  const d = serializer().describe();
  output.map(d.nesting.length > 0 ? 10 : 9);
  output.text("name");
  output.text(d.name);
  output.text("version");
  output.text(d.version);
  output.text("schema");
  output.uint(d.schema);
  output.text("reads");
  const reads = d.reads.length > 0 ? d.reads : [d.schema];
  output.array(reads.length);
  for (let i = 0; i < reads.length; i++) output.uint(reads[i]);
  output.text("media");
  output.text(d.media);
  output.text("operations");
  output.array(d.operations.length);
  for (let i = 0; i < d.operations.length; i++) output.text(d.operations[i]);
  output.text("ordered");
  output.bool(d.ordered);
  output.text("canonical");
  output.bool(d.canonical);
  if (d.nesting.length > 0) {
    output.text("nesting");
    output.text(d.nesting);
  }
  output.text("memory");
  output.uint(ARG_BYTES + INPUT_BYTES + OUTPUT_BYTES);
  return end();
}

export function torpor_save(): i32 {
  const call = begin();
  const s = serializer();
  call.allow(s.settings());
  s.save(call, input, output);
  return end();
}

export function torpor_load(): i32 {
  const call = begin();
  const s = serializer();
  call.allow(s.settings());
  s.load(call, input, output);
  return end();
}

export function torpor_migrate(): i32 {
  const call = begin();
  const s = serializer();
  call.allow(s.settings());
  s.migrate(call, input, output);
  return end();
}

export function torpor_inspect(): i32 {
  const call = begin();
  const s = serializer();
  call.allow(s.settings());
  s.inspect(call, input, output);
  return end();
}
