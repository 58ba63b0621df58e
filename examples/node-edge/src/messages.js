/** Messages of the protocol as bytes: JSON for people, msgpack for tensors (protocol, 1.2 to 1.5). */

import { decode, encode } from "@msgpack/msgpack";

export const VERSION = 2;
/** The largest packet: a chunk of 16 MiB and 64 KiB (1.12). */
export const MAX_PACKET = 2 ** 24 + 2 ** 16;
/** Random names are 32 hexadecimal digits. */
export const randomName = () =>
  Array.from(globalThis.crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");

const NAME = /^[A-Za-z0-9_-]{1,64}$/;
const DIGEST = /^[0-9a-f]{64}$/;
const MAX_TEXT = 1000;

const name = (value) => typeof value === "string" && NAME.test(value);
const digest = (value) => typeof value === "string" && DIGEST.test(value);
const text = (value) => typeof value === "string" && value.length <= MAX_TEXT;
const count = (value) => Number.isSafeInteger(value) && value >= 0;
const number = (value) => typeof value === "number" && Number.isFinite(value);
const flag = (value) => typeof value === "boolean";
const bytes = (value) => value instanceof Uint8Array;
const one = (...values) => (value) => values.includes(value);
const list = (member, most) => (value) => Array.isArray(value) && value.length <= most && value.every(member);
const nullable = (member) => (value) => value === null || member(value);
const optional = (member) => (value) => value === undefined || member(value);
const object = (members) => (value) =>
  value !== null && typeof value === "object" && !Array.isArray(value) && Object.entries(members).every(([key, fits]) => fits(value[key]));

const RUN = { run: name, incarnation: count, seq: count };
const REPLY = { ...RUN, client: name, session: name };
const ANSWER = { ...REPLY, round: count, digest };
const PARTITION = object({ index: count, count, scheme: text, seed: count, holdout: number, examples: optional(nullable(count)) });
const TRAINING = object({
  epochs: nullable(count),
  batch_size: nullable(count),
  lr: nullable(number),
  momentum: nullable(number),
  lr_factor: optional(number),
  clip_gradients: optional(number),
  logit_adjustment: optional(number),
  precision: optional(one("float32", "bf16")),
  seed: count,
});
const ARRAY = object({ name: text, shape: list(count, 16), role: optional(one("parameter", "buffer")) });
const SECTION = object({ name: text, encoding: text, arrays: list(ARRAY, 20_000), size: count });
const CORRECTION = object({ name: text, settings: object({}) });

/** What an edge must find in the messages that it reads, by kind. It ignores all other members. */
const KINDS = {
  aggregator: { run: name, incarnation: count, session: name, state: one("online", "offline") },
  presence: { client: name, state: one("online", "offline"), session: name },
  admitted: {
    ...REPLY,
    task: (value) => typeof value === "string" && value.length <= 4096,
    partition: nullable(PARTITION),
    examples: optional(nullable(count)),
    finished_round: optional(nullable(count)),
    newest_round: optional(nullable(count)),
    awaited: optional(flag),
    masked: optional(flag),
    private: optional(flag),
  },
  refused: { ...REPLY, reason: text, detail: text },
  grant: { ...ANSWER, chunks: list(count, 1024) },
  accepted: ANSWER,
  rejected: { ...ANSWER, digest: nullable(digest), reason: text, detail: text },
  limited: { ...REPLY, reason: text, detail: text },
  selected: {
    ...RUN,
    round: count,
    cohort: nullable(list(name, 256)),
    training: TRAINING,
    encoding: text,
    base: nullable(object({ version: count, digest })),
    inline_limit: count,
    correction: optional(nullable(CORRECTION)),
    companions: optional(list(object({}), 4)),
    ticket: optional(flag),
    masked: optional(nullable(object({}))),
    privacy: optional(nullable(object({}))),
  },
  result: { ...RUN, round: count, outcome: one("committed", "abandoned") },
  model: { ...RUN, version: count, digest, evaluate: optional(nullable(one("test", "holdout", "personal"))) },
  manifest: { ...RUN, digest, sections: list(SECTION, 16), size: count, chunk_size: count, chunks: count },
  "model-chunk": { ...RUN, digest, index: count, data: bytes },
};

/** Limits of what is read, so that no message costs more memory than its bytes. */
const LIMITS = { maxStrLength: 65_536, maxBinLength: MAX_PACKET, maxArrayLength: 20_000, maxMapLength: 64, maxExtLength: 0 };

/** Thrown for a message that does not fit the protocol. It is dropped (1.5). */
export class MalformedError extends Error {}

/**
 * Reads a message of one of the given kinds.
 * @param {Uint8Array} payload @param {string[]} kinds @returns {object} @throws {MalformedError}
 */
export function read(payload, ...kinds) {
  let message;
  try {
    const json = payload[0] === 0x7b;
    message = json ? JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload)) : decode(payload, LIMITS);
  } catch (error) {
    throw new MalformedError(`neither JSON nor msgpack: ${error.message}`);
  }
  if (message === null || typeof message !== "object") throw new MalformedError("the payload is no object");
  if (message.v !== VERSION) throw new MalformedError(`v: ${message.v}, expected ${VERSION}`);
  if (!kinds.includes(message.kind)) throw new MalformedError(`kind: ${message.kind}, expected ${kinds.join(" or ")}`);
  for (const [member, fits] of Object.entries(KINDS[message.kind])) {
    if (!fits(message[member])) throw new MalformedError(`${message.kind}: ${member} does not fit the protocol`);
  }
  return message;
}

/** @param {object} message @returns {Uint8Array} */
export const toJson = (message) => new TextEncoder().encode(JSON.stringify(message));

/** @param {object} message @returns {Uint8Array} */
export const toMsgpack = (message) => encode(message);

/** A text of another's for a log: without control characters and changes of direction (1.5). */
export const readable = (value) => String(value).replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, " ");
