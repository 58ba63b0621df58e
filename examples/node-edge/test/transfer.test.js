import assert from "node:assert/strict";
import { afterEach, beforeEach, mock, test } from "node:test";

import { Download } from "../src/download.js";
import { toMsgpack } from "../src/messages.js";
import { contentDigest, decodeFloats, encodeFloats, manifestDigest } from "../src/sections.js";
import { Upload } from "../src/upload.js";
import { content, vectors } from "./support.js";

const ARRAYS = [
  { name: "fc.bias", shape: [2], role: "parameter" },
  { name: "norm.mean", shape: [1, 2], role: "buffer" },
];
const ENVELOPE = ["v", "kind", "run", "incarnation", "seq", "client", "session"];
const LIMITS = { inlineLimit: 1000, maximumPacket: 100_000 };

beforeEach(() => mock.timers.enable({ apis: ["setTimeout"] }));
afterEach(() => mock.timers.reset());

/** An upload of the update in the vectors, and what it sends. */
function uploading(limits) {
  const { update } = vectors("chunks");
  const { data } = content(update.whole.content).sections[0];
  const { round, base, examples, steps, seconds, metrics } = update.whole.content;
  const sent = [];
  const report = { round, base, examples, steps, seconds, metrics };
  const upload = new Upload(report, decodeFloats(data, "f32"), ARRAYS, false, limits, (kind, members) => sent.push({ kind, ...members }));
  upload.chunkSize = update.offer.content.chunk_size;
  return { upload, sent, update };
}

/** A message of the vectors without its envelope, which the edge adds. */
const inside = ({ content: message }) => ({ kind: message.kind, ...Object.fromEntries(Object.entries(content(message)).filter(([name]) => !ENVELOPE.includes(name))) });

test("a small update is sent whole, and offered when it is sent again (6.1, 5.5)", () => {
  const { upload, sent, update } = uploading(LIMITS);
  upload.start();
  assert.deepEqual(sent, [inside(update.whole)]);
  mock.timers.tick(4_999);
  assert.equal(sent.length, 1);
  mock.timers.tick(1_500);
  assert.deepEqual(sent.slice(1), [{ kind: "delayed", round: 3, awaits: "answer" }, inside(update.offer)]);
  upload.stop();
  mock.timers.tick(100_000);
  assert.equal(sent.length, 3);
});

test("the chunks that are granted are sent, and no others (6.3)", () => {
  const { upload, sent, update } = uploading({ ...LIMITS, inlineLimit: 8 });
  upload.start();
  assert.deepEqual(sent.splice(0), [inside(update.offer)]);
  upload.grant({ round: 3, digest: upload.digest, chunks: [1, 7] });
  assert.deepEqual(sent.splice(0), [inside(update.chunks[1])]);
  upload.grant({ round: 3, digest: "0".repeat(64), chunks: [0] });
  upload.grant({ round: 2, digest: upload.digest, chunks: [0] });
  assert.deepEqual(sent, []);
  upload.grant({ round: 3, digest: upload.digest, chunks: [0] });
  assert.deepEqual(sent, [inside(update.chunks[0])]);
  upload.stop();
});

/** A model of four values in chunks of ten bytes, and its download. */
function downloading() {
  const values = Float32Array.of(0.5, -1.25, 3, 2);
  const data = encodeFloats(values);
  const section = { name: "weights", encoding: "f32", arrays: ARRAYS, size: data.length };
  const digest = contentDigest([{ ...section, manifest: manifestDigest(ARRAYS), data }]);
  const run = { v: 2, run: "r", incarnation: 1, seq: 1, digest };
  const messages = {
    manifest: { ...run, kind: "manifest", sections: [section], size: data.length, chunk_size: 10, chunks: 2 },
    0: { ...run, kind: "model-chunk", index: 0, data: data.slice(0, 10) },
    1: { ...run, kind: "model-chunk", index: 1, data: data.slice(10) },
  };
  const asked = [];
  const below = `model/${digest.slice(0, 12)}/`;
  const connection = { subscribe: (topics) => asked.push(topics.map((topic) => topic.slice(below.length))), unsubscribe: () => {} };
  const late = mock.fn();
  const download = new Download(connection, digest, ARRAYS, late);
  const hear = (part, changes = {}) => download.hear(`${below}${part}`, toMsgpack({ ...messages[part], ...changes }));
  return { download, hear, asked, late, values };
}

test("a receiver asks for the manifest, then for the chunks, and again for what is missing (3.6)", async () => {
  const { download, hear, asked, late, values } = downloading();
  assert.deepEqual(asked.splice(0), [["manifest"]]);
  hear("manifest");
  assert.deepEqual(asked.splice(0), [["0", "1"]]);
  hear("1");
  hear("1");
  mock.timers.tick(5_000);
  assert.deepEqual(asked.splice(0), [["0"]]);
  assert.equal(late.mock.callCount(), 1);
  hear("0");
  assert.deepEqual(await download.result, values);
  mock.timers.tick(100_000);
  assert.deepEqual(asked, []);
});

test("a model whose digest is wrong is fetched again, and other messages are dropped (3.6)", async () => {
  const { download, hear, asked, values } = downloading();
  assert.throws(() => hear("manifest", { chunks: 3 }), /does not describe a model of this edge/);
  hear("manifest", { digest: "0".repeat(64) });
  hear("0");
  hear("manifest");
  hear("0", { data: new Uint8Array(10) });
  hear("1", { data: new Uint8Array(3) });
  hear("1");
  asked.length = 0;
  mock.timers.tick(5_000);
  assert.deepEqual(asked, [["manifest"]]);
  for (const part of ["manifest", "0", "1"]) hear(part);
  assert.deepEqual(await download.result, values);
});

test("a download that is given up ends", async () => {
  const { download, asked } = downloading();
  download.end();
  assert.equal(await download.result, null);
  mock.timers.tick(100_000);
  assert.equal(asked.length, 1);
});
