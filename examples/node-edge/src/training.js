/** How a round's settings become a training (protocol, 5.4 and 5.14). */

import { sha256 } from "@noble/hashes/sha2.js";

/** @returns {(number|bigint)[]} the entropy of an edge's random numbers in a round */
export function trainingSeed(seed, round, client) {
  const digest = sha256(new TextEncoder().encode(client));
  const h = digest.subarray(0, 8).reduce((sum, byte) => (sum << 8n) | BigInt(byte), 0n);
  return [seed, round, h];
}
