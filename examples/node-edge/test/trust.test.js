import assert from "node:assert/strict";
import { test } from "node:test";

import { hex } from "../src/sections.js";
import { Sealer, Trust } from "../src/trust.js";
import { fromHex, vectors } from "./support.js";

test("signatures (9.1)", () => {
  const { public: key, messages } = vectors("signatures");
  const trust = new Trust({ signing_public: fromHex(key) }, false);
  for (const { topic, payload } of Object.values(messages)) {
    assert.ok(trust.verifies(topic, fromHex(payload)), topic);
    assert.ok(!trust.verifies(`${topic}x`, fromHex(payload)), "another topic");
    const other = fromHex(payload);
    other[2] ^= 1;
    assert.ok(!trust.verifies(topic, other), "another payload");
  }
  assert.ok(!trust.verifies("fl/model", fromHex("7b7d")));
});

test("sealed messages (9.10, 9.11)", () => {
  const { aggregator, edge, ephemeral, shared_secret: secret, voucher, messages } = vectors("seals");
  const kit = { sealing_public: fromHex(aggregator.public), sealing_private: fromHex(edge.private), voucher: fromHex(voucher.encoded) };
  const sealer = new Sealer(kit, fromHex(ephemeral.private));
  assert.equal(hex(sealer.sharedSecret), secret);
  for (const { topic, sequence, plain, sealed } of messages) {
    sealer.sequence = sequence;
    assert.equal(hex(sealer.seal(topic, fromHex(plain))), sealed);
  }
});
