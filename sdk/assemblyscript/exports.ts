// What `export * from "torpor/exports"` gives: the functions that a host calls.
export { torpor_describe, torpor_save, torpor_load, torpor_migrate, torpor_inspect } from "./assembly/run";
