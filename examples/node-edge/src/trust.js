/** What an edge with a kit does besides: it checks the aggregator's signatures and seals what it sends (protocol, section 9). */

import { gcm } from "@noble/ciphers/aes.js";
import { ed25519, x25519 } from "@noble/curves/ed25519.js";
import { expand, extract } from "@noble/hashes/hkdf.js";
import { sha256 } from "@noble/hashes/sha2.js";

import { joined } from "./sections.js";

const BYTES = new TextEncoder();
const INFO = BYTES.encode("fl-mqtt 1");
const HEAD = Uint8Array.of(0xc1, 1);
const SIGNATURE = /,"sig":"([A-Za-z0-9_-]{86})"\}$/;
const SIGNATURE_LENGTH = ',"sig":"'.length + 86 + '"}'.length;

const EMPTY = new Uint8Array(0);
// RFC 9180: DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM.
const KEM = Uint8Array.of(...BYTES.encode("KEM"), 0, 0x20);
const SUITE = Uint8Array.of(...BYTES.encode("HPKE"), 0, 0x20, 0, 1, 0, 2);
const MODE_AUTH = 2;

const labeledExtract = (suite, salt, label, value) => extract(sha256, joined([BYTES.encode("HPKE-v1"), suite, BYTES.encode(label), value]), salt);
const labeledExpand = (suite, key, label, info, length) =>
  expand(sha256, key, joined([Uint8Array.of(length >> 8, length & 255), BYTES.encode("HPKE-v1"), suite, BYTES.encode(label), info]), length);

/** The sender's side of HPKE in the authenticated mode: one encapsulation, many messages. */
export class Sealer {
  /**
   * @param {{sealing_public: Uint8Array, sealing_private: Uint8Array, voucher: Uint8Array}} kit
   * @param {Uint8Array} [ephemeral] the secret key of the encapsulation; tests choose it
   */
  constructor(kit, ephemeral = x25519.utils.randomSecretKey()) {
    const enc = x25519.getPublicKey(ephemeral);
    const sender = x25519.getPublicKey(kit.sealing_private);
    const products = joined([x25519.getSharedSecret(ephemeral, kit.sealing_public), x25519.getSharedSecret(kit.sealing_private, kit.sealing_public)]);
    const context = joined([enc, kit.sealing_public, sender]);
    this.sharedSecret = labeledExpand(KEM, labeledExtract(KEM, EMPTY, "eae_prk", products), "shared_secret", context, 32);
    const schedule = joined([
      Uint8Array.of(MODE_AUTH),
      labeledExtract(SUITE, EMPTY, "psk_id_hash", EMPTY),
      labeledExtract(SUITE, EMPTY, "info_hash", INFO),
    ]);
    const secret = labeledExtract(SUITE, this.sharedSecret, "secret", EMPTY);
    this.key = labeledExpand(SUITE, secret, "key", schedule, 32);
    this.baseNonce = labeledExpand(SUITE, secret, "base_nonce", schedule, 12);
    this.head = joined([HEAD, enc, sender, kit.voucher]);
    this.sequence = 0;
  }

  /** @param {string} topic with the prefix @param {Uint8Array} payload @returns {Uint8Array} */
  seal(topic, payload) {
    const sequence = new Uint8Array(8);
    new DataView(sequence.buffer).setBigUint64(0, BigInt(this.sequence++));
    const nonce = this.baseNonce.slice();
    sequence.forEach((byte, index) => (nonce[4 + index] ^= byte));
    return joined([this.head, sequence, gcm(this.key, nonce, BYTES.encode(topic)).encrypt(payload)]);
  }
}

export class Trust {
  /** @param {object} kit of `kit.js` @param {boolean} seals whether this edge seals its messages */
  constructor(kit, seals) {
    Object.assign(this, { kit, seals, sealer: null });
  }

  /** On each connection: it encapsulates anew (9.11). */
  connected() {
    if (this.seals) this.sealer = new Sealer(this.kit);
  }

  seal(topic, payload) {
    return this.seals ? this.sealer.seal(topic, payload) : payload;
  }

  /** Whether the aggregator has signed a JSON message on this topic (9.1). */
  verifies(topic, payload) {
    const covered = payload.subarray(0, Math.max(0, payload.length - SIGNATURE_LENGTH));
    const found = SIGNATURE.exec(new TextDecoder("latin1").decode(payload.subarray(covered.length)));
    if (found === null) return false;
    const signature = Uint8Array.from(atob(found[1].replaceAll("-", "+").replaceAll("_", "/")), (character) => character.charCodeAt(0));
    return ed25519.verify(signature, joined([BYTES.encode(`${topic}\0`), covered]), this.kit.signing_public);
  }
}
