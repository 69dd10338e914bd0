/**
 * Write a Torpor serializer in AssemblyScript: a WebAssembly module that turns a service's native state
 * into records and back. Extend {@link Serializer}, hand it to {@link serve}, and write
 * `export * from "torpor/exports"`. README.md beside this has the shortest complete serializer;
 * host/abi/ABI.md is the specification.
 */

export { Bytes, Kept, utf8 } from "./bytes";
export { Call } from "./call";
export { Reader, Major } from "./cbor";
export { Code, abort, corrupt, fail } from "./error";
export { Level, log } from "./host";
export { Input, DEFAULT_LIMIT } from "./input";
export { Output } from "./output";
export { Record } from "./record";
export { serve } from "./run";
export { Descriptor, Serializer } from "./serializer";
