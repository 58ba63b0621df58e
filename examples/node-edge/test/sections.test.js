import assert from "node:assert/strict";
import { test } from "node:test";

import { blake3 } from "@noble/hashes/blake3.js";

import { contentDigest, decodeFloats, encodeFloats, hex, manifestDigest } from "../src/sections.js";
import { fromHex, vectors } from "./support.js";

test("BLAKE3", () => {
  for (const [length, digest] of Object.entries(vectors("digests").blake3.digests)) {
    assert.equal(hex(blake3(Uint8Array.from({ length: Number(length) }, (_, index) => index % 251))), digest);
  }
});

test("digests of manifests (3.3)", () => {
  for (const { arrays, digest } of vectors("digests").manifests) assert.equal(manifestDigest(arrays), digest);
});

test("digests of contents (3.4)", () => {
  for (const { sections, digest } of vectors("digests").contents) {
    assert.equal(contentDigest(sections.map((one) => ({ ...one, data: fromHex(one.data) }))), digest);
  }
});

test("f32 and bf16 (3.1, 3.8)", () => {
  const values = Float32Array.of(0.5, -1.25, 3, Math.fround(5.71e-4));
  assert.equal(hex(encodeFloats(values)), "0000003f0000a0bf00004040" + hex(encodeFloats(values.slice(3))));
  assert.deepEqual(decodeFloats(encodeFloats(values), "f32"), values);
  assert.deepEqual(decodeFloats(fromHex("003fa0bf4040"), "bf16"), values.slice(0, 3));
});
