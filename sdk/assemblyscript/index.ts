// What `import { ... } from "torpor"` gives.
export * from "./assembly";
