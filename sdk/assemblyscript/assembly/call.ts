import { heldView, hold } from "./bytes";
import { PARAMETERS, Reader } from "./cbor";
import { Code, beginPath, beginWords, say, sayBytes, tell } from "./error";

/** The parameters of one call (host/abi/ABI.md, "Call"). */
export class Call {
  /** `describe`, `save`, `load`, `migrate` or `inspect`. */
  op: string = "";
  /** The service's name. */
  service: string = "";
  /** The part's name. */
  part: string = "";
  /** Save: the schema wanted. Load, inspect: that of the records given. */
  schema: u64 = 0;
  /** Migrate: the schema of the records given. */
  from: u64 = 0;
  /** Migrate: the schema wanted. */
  to: u64 = 0;
  /** The wall clock of this call, in nanoseconds since 1970. */
  time: i64 = 0;

  private settingsAt: usize = 0;
  private settingsEnd: usize = 0;

  /** Reads the map that `arg` gave, which stays in memory. Keys it does not know are passed over. */
  static parse(at: usize, length: i32): Call {
    const call = new Call();
    const r = reader.over(at, at + length, PARAMETERS, null);
    for (let n = r.map(); n > 0; n--) {
      const key = r.text();
      if (key.is("op")) call.op = r.text().toString();
      else if (key.is("service")) call.service = r.text().toString();
      else if (key.is("part")) call.part = r.text().toString();
      else if (key.is("schema")) call.schema = r.uint();
      else if (key.is("from")) call.from = r.uint();
      else if (key.is("to")) call.to = r.uint();
      else if (key.is("time")) call.time = r.int();
      else if (key.is("settings") && !r.null()) {
        const settings = r.item();
        call.settingsAt = settings.at;
        call.settingsEnd = settings.at + settings.length;
      } else if (!key.is("settings")) r.item();
    }
    r.end();
    return call;
  }

  /** Ends the call if it has a setting that is not among `known`: a misspelled one is worth telling. */
  allow(known: string[]): void {
    if (!this.settingsAt) return;
    const r = reader.over(this.settingsAt, this.settingsEnd, PARAMETERS, null);
    for (let n = r.map(); n > 0; n--) {
      const name = r.text();
      let found = false;
      for (let i = 0; i < known.length && !found; i++) found = name.is(known[i]);
      if (!found) {
        beginWords();
        say(known.length == 0 ? "unknown setting; this serializer knows none" : "unknown setting; known are:");
        for (let i = 0; i < known.length; i++) {
          say(" ");
          say(known[i]);
        }
        const path = beginPath();
        say("settings.");
        sayBytes(name.at, name.length);
        tell(Code.UNSUPPORTED, path, -1);
      }
      r.item();
    }
  }

  /**
   * Reads the value of a setting, or null if the call has none of that name. A value that is not of the kind
   * that is asked for ends the call and names the setting. Each reader is its own; it and the bytes it gives
   * hold until the call ends, and so does their memory: read a setting once, not for each record.
   */
  setting(name: string): Reader | null {
    if (!this.settingsAt) return null;
    const r = reader.over(this.settingsAt, this.settingsEnd, PARAMETERS, null);
    for (let n = r.map(); n > 0; n--) {
      const key = r.text();
      const value = r.item();
      if (key.is(name)) {
        const own = changetype<Reader>(hold(offsetof<Reader>()));
        return own.over(value.at, value.at + value.length, PARAMETERS, heldView(key.at, key.length));
      }
    }
    return null;
  }

  /** Ends the call: a setting has a value that it cannot have. `expected` says in words what it may be. */
  wrongSetting(name: string, expected: string): void {
    beginWords();
    say(expected);
    say(" expected");
    const path = beginPath();
    say("settings.");
    say(name);
    tell(Code.UNSUPPORTED, path, -1);
  }
}

/** Goes over the parameters; no author gets it. */
const reader = new Reader();
