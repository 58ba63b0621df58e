"use strict";

/**
 * Validates messages as docs/protocol.md specifies them. Any client may have published them: invalid ones are junk and
 * ignored, unknown members are dropped, and every text stays untrusted (it goes into textContent only).
 */
const Messages = (() => {
  class Junk extends Error {}

  const MAX_TEXT_BYTES = 65_536;
  const MAX_LONG_BYTES = 2 * 2 ** 20;
  const STATES = ["present", "offline", "selected", "training", "uploading", "in", "missing"];
  const PHASES = ["selecting", "collecting", "agreeing", "unmasking", "aggregating", "buffering", "evaluating", "finished", "failed", "interrupted"];

  /** @template T @typedef {(value: unknown) => T} Reader returns the value, or throws Junk */

  /** @param {boolean} holds */
  const expect = (holds) => {
    if (!holds) throw new Junk();
  };
  /** @type {Reader<boolean>} */
  const boolean = (value) => (expect(typeof value === "boolean"), value);
  /** @type {Reader<number>} */
  const number = (value) => (expect(typeof value === "number" && Number.isFinite(value)), value);
  /** @type {Reader<number>} */
  const count = (value) => (expect(Number.isSafeInteger(value) && value >= 0), value);
  /** @type {Reader<number>} */
  const seconds = (value) => (expect(number(value) >= 0 && value <= 1e9), value);
  /** @param {number} most @returns {Reader<string>} */
  const text = (most) => (value) => (expect(typeof value === "string" && value.length <= most), value);
  /** @param {RegExp} pattern @returns {Reader<string>} */
  const matching = (pattern) => (value) => (expect(typeof value === "string" && pattern.test(value)), value);
  /** @param {string[]} allowed @returns {Reader<string>} */
  const oneOf = (allowed) => (value) => (expect(allowed.includes(/** @type {string} */ (value))), value);
  /** @template T @param {Reader<T>} read @returns {Reader<?T>} null also if it is left out */
  const nullable = (read) => (value) => (value == null ? null : read(value));
  /** @template T @param {Reader<T>} read @param {number} most @returns {Reader<T[]>} */
  const list = (read, most) => (value) => (expect(Array.isArray(value) && value.length <= most), value.map(read));

  /** @param {unknown} value */
  const object = (value) => (expect(typeof value === "object" && value !== null && !Array.isArray(value)), value);
  /** A Map, so that a key named __proto__ is a key. @template T
   * @param {Reader<string>} key @param {Reader<T>} read @param {number} most @returns {Reader<Map<string, T>>} */
  const record = (key, read, most) => (value) => {
    const entries = Object.entries(object(value));
    expect(entries.length <= most);
    return new Map(entries.map(([name, one]) => [key(name), read(one)]));
  };
  /** @param {Record<string, Reader<any>>} members @returns {Reader<Record<string, any>>} */
  const shape = (members) => (value) => {
    const given = object(value);
    return Object.fromEntries(Object.entries(members).map(([name, read]) => [name, read(given[name])]));
  };

  const token = matching(/^[A-Za-z0-9_-]{1,64}$/);
  const version = (value) => (expect(value === 2), value);
  const metrics = record(text(64), number, 128);
  const metric = shape({ name: text(64), higher_is_better: boolean, unit: text(16), minimum: nullable(number), maximum: nullable(number) });
  const split = nullable(oneOf(["test", "holdout"]));
  const scope = { v: version, run: token, incarnation: count };

  const columns = (value) => {
    const rows = (read) => list(read, 500);
    const found = shape({
      round: rows(count), version: rows(nullable(count)), metrics: record(text(64), rows(nullable(number)), 128),
      split: rows(split), seconds: rows(seconds), participants: rows(count), cohort: rows(count),
      bytes_up: rows(count), bytes_down: rows(count),
    })(value);
    // Only private runs have it: as a series, it is read as a metric is.
    const epsilon = nullable(rows(nullable(number)))(object(value).epsilon) ?? [];
    if (epsilon.length > 0) found.metrics.set("epsilon", epsilon);
    const rising = found.round.every((round, row) => row === 0 || round > found.round[row - 1]);
    const { metrics: measured, ...others } = found;
    expect(rising && [...Object.values(others), ...measured.values()].every((column) => column.length === found.round.length));
    return found;
  };

  /** The cosines of all pairs, 1 is 100. @type {Reader<Int8Array>} */
  const cosines = (value) => {
    const given = matching(/^[A-Za-z0-9_-]{0,6600}$/)(value);
    expect(given.length % 4 !== 1);
    const found = Int8Array.from(atob(given.replaceAll("-", "+").replaceAll("_", "/")), (one) => one.charCodeAt(0));
    expect(found.every((one) => Math.abs(one) <= 100));
    return found;
  };
  const similarity = (value) => {
    const found = shape({
      round: count, edges: list(token, 100), groups: list(count, 100), cosines, outliers: record(token, text(1000), 20),
    })(value);
    const edges = found.edges.length;
    expect(new Set(found.edges).size === edges && found.cosines.length === (edges * (edges - 1)) / 2);
    expect(!found.groups.includes(0) && found.groups.reduce((sum, size) => sum + size, 0) === edges);
    return found;
  };

  const privacy = shape({ epsilon: number, delta: number, budget: nullable(number), against: oneOf(["wire", "models"]), insecure: nullable(boolean) });
  const maskedSums = shape({ least: count, certified: boolean });
  const personalScore = shape({ before: number, after: number });
  const edge = shape({
    state: oneOf(STATES), reason: nullable(text(1000)), examples: nullable(count), seconds: nullable(seconds),
    bytes: nullable(count), primary: nullable(number), loss: nullable(number), environment: nullable(count),
  });
  const environment = shape({
    fl_mqtt: nullable(text(64)), python: nullable(text(64)), library: nullable(text(64)), platform: nullable(text(64)),
    memory: nullable(count), cores: nullable(count),
  });

  const KINDS = {
    aggregator: shape({ v: version, run: token, incarnation: count, state: oneOf(["online", "offline"]) }),
    presence: shape({ v: version, client: token, session: token, state: oneOf(["online", "offline"]) }),
    status: shape({
      ...scope, written: matching(/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z$/), task: text(64), phase: oneOf(PHASES),
      round: nullable(count), version: nullable(count), rounds: count, have: count, need: count, present: count,
      seconds_left: nullable(seconds), missing: list(token, 10), metrics, primary: nullable(metric), split,
      paused: nullable(text(300)), held: boolean, attack: nullable(text(120)), masked: nullable(maskedSums), privacy: nullable(privacy), first_version: nullable(count),
    }),
    history: shape({ ...scope, task: text(64), rounds: count, started: text(40), metrics: nullable(list(metric, 32)), columns, similarity: nullable(similarity) }),
    edges: shape({
      ...scope, round: count, phase: oneOf(PHASES), edges: record(token, edge, 20_000), left_out: nullable(count), environments: nullable(list(environment, 256)),
      personal: nullable(record(token, personalScore, 20_000)),
    }),
    result: shape({
      ...scope, round: count, outcome: oneOf(["committed", "abandoned"]), reason: nullable(text(1000)),
      version: nullable(count), participants: list(token, 20_000), missing: record(token, text(1000), 20_000),
      metrics, primary: nullable(metric), split, seconds, outliers: nullable(record(token, text(1000), 20)),
      worst_edges: nullable(record(token, number, 3)), masked: nullable(boolean),
    }),
    refused: shape({ ...scope, client: token, reason: text(64), detail: text(1000) }),
    rejected: shape({ ...scope, client: token, round: count, reason: text(64), detail: text(1000) }),
    prediction: shape({
      v: version, client: token, version: count, first_version: nullable(count), label: nullable(text(256)),
      probabilities: nullable(record(text(256), number, 1000)), error: nullable(text(1000)),
      output: nullable(object), example: (value) => value ?? null,
    }),
  };

  /**
   * The message, which must be of one of `kinds`; null if it is junk.
   * @param {string[]} kinds @param {Uint8Array} payload @returns {?Record<string, any>}
   */
  function read(kinds, payload) {
    if (payload.length > (["edges", "result", "history"].some((kind) => kinds.includes(kind)) ? MAX_LONG_BYTES : MAX_TEXT_BYTES)) return null;
    try {
      const value = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(payload));
      if (!kinds.includes(value?.kind)) return null;
      return { kind: value.kind, ...KINDS[value.kind](value) };
    } catch (error) {
      if (error instanceof Junk || error instanceof SyntaxError || error instanceof TypeError) return null;
      throw error;
    }
  }

  return { read, STATES, PHASES };
})();
