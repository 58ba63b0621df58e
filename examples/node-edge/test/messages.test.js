import assert from "node:assert/strict";
import { test } from "node:test";

import { decode } from "@msgpack/msgpack";

import { MalformedError, read, readable, toJson, toMsgpack } from "../src/messages.js";
import { content, fromHex, vectors } from "./support.js";

const READ = ["aggregator", "presence", "admitted", "refused", "grant", "accepted", "rejected", "limited", "selected", "model", "manifest", "model-chunk", "result"];

test("the messages that an edge reads", () => {
  for (const [name, { payload, content: expected }] of Object.entries(vectors("messages"))) {
    if (!READ.includes(expected.kind)) continue;
    assert.deepEqual(read(fromHex(payload), expected.kind), content(expected), name);
  }
});

test("the messages that an edge writes", () => {
  for (const [name, { payload, encoding, content: given }] of Object.entries(vectors("messages"))) {
    const members = content(given);
    if (encoding === "json") assert.deepEqual(JSON.parse(new TextDecoder().decode(toJson(members))), given, name);
    else assert.deepEqual(decode(toMsgpack(members)), decode(fromHex(payload)), name);
  }
});

test("what has a default may be left out (1.5)", () => {
  const members = content(vectors("messages").admitted.content);
  const defaults = ["examples", "newest_round", "finished_round", "awaited", "masked", "private"];
  const least = Object.fromEntries(Object.entries(members).filter(([name]) => !defaults.includes(name)));
  delete least.partition.examples;
  assert.deepEqual(read(toJson(least), "admitted"), least);
});

test("what does not fit is dropped (1.5)", () => {
  const presence = { v: 2, kind: "presence", client: "7", state: "online", session: "c3d4" };
  const bad = [{ v: 1 }, { kind: "status" }, { client: "a b" }, { state: "away" }, { session: 7 }];
  for (const change of bad) assert.throws(() => read(toJson({ ...presence, ...change }), "presence"), MalformedError, JSON.stringify(change));
  for (const bytes of [[], [0x7b], [0xc1, 1], [0xdf, 255, 255, 255, 255], [0xc0]]) assert.throws(() => read(Uint8Array.from(bytes), "presence"), MalformedError);
  assert.deepEqual(read(toJson({ ...presence, further: 1 }), "presence").further, 1);
});

test("texts of others have no control characters (1.5)", () => {
  assert.equal(readable("a\u001b[31mb\nc\u202ed\u2028e"), "a [31mb c d e");
});
