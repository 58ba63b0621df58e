/** The project's test vectors. */

import { readFileSync } from "node:fs";

const DIRECTORY = process.env.FL_VECTORS ?? new URL("../../../docs/vectors/", import.meta.url).pathname;

export function vectors(name) {
  return JSON.parse(readFileSync(`${DIRECTORY}/${name}.json`, "utf8"));
}

export function fromHex(text) {
  return new Uint8Array(Buffer.from(text, "hex"));
}

/** The content of a message, with bytes for `{"hex": …}`. */
export function content(value) {
  if (Array.isArray(value)) return value.map(content);
  if (value === null || typeof value !== "object") return value;
  if (typeof value.hex === "string" && Object.keys(value).length === 1) return fromHex(value.hex);
  return Object.fromEntries(Object.entries(value).map(([name, member]) => [name, content(member)]));
}
