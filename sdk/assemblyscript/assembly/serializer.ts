import { Call } from "./call";
import { Code, fail } from "./error";
import { Input } from "./input";
import { Output } from "./output";

/** What a serializer says about itself (host/abi/ABI.md, "Descriptor"). */
export class Descriptor {
  /** Its name, as in a state file's header. */
  name: string = "";
  /** Its version, free text. */
  version: string = "";
  /** The schema of the records that `save` writes. */
  schema: u64 = 1;
  /** The schemas that `load` takes, `schema` among them; none given means `schema` alone. */
  reads: u64[] = [];
  /** The media type of the native state. */
  media: string = "";
  /** `save` and `load`, and `migrate`, `inspect` if they are offered. */
  operations: string[] = ["save", "load"];
  /** Within a partition, records leave `save` in ascending order of their encoded keys. */
  ordered: bool = false;
  /** `load` gives back the very bytes that `save` was given. */
  canonical: bool = false;
  /**
   * The bytes that may follow the key of a record in the keys of those inside of it (ABI.md, "Records inside of
   * others"); none if no record is inside of another.
   */
  nesting: string = "";
}

/**
 * A serializer: native state into records and back.
 *
 * Each call gets a serializer of its own. Each method reads its input to the end and returns; an error ends
 * the call, and nothing that was written counts. Methods are pure: the same input gives the same output.
 */
export abstract class Serializer {
  /** What it is and can do. */
  abstract describe(): Descriptor;

  /** Reads native state and writes records. */
  abstract save(call: Call, native: Input, records: Output): void;

  /** Reads records and writes native state. */
  abstract load(call: Call, records: Input, native: Output): void;

  /** Reads records of schema `call.from` and writes those of `call.to`. */
  migrate(call: Call, records: Input, out: Output): void {
    fail(Code.UNSUPPORTED, "this serializer does not offer migrate");
  }

  /** Reads records and writes a summary for people: one map. */
  inspect(call: Call, records: Input, summary: Output): void {
    fail(Code.UNSUPPORTED, "this serializer does not offer inspect");
  }

  /** The names of the settings it knows. A call with another one ends with {@link Code.UNSUPPORTED}. */
  settings(): string[] {
    return [];
  }
}
