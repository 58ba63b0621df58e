/** Sends an update until it is answered: whole if it is small, else offered and then in the chunks that are granted (protocol, 5.5 and 6). */

import { Repeater } from "./repeating.js";
import { contentDigest, encodeFloats, manifestDigest } from "./sections.js";

const CHUNK_SIZE = 2 ** 18;
/** Bytes of a message besides its data: at most, sealed, with a long topic. */
const OVERHEAD = 4096;

export class Upload {
  /**
   * @param {object} report round, base, examples, steps, seconds and metrics of the update
   * @param {Float32Array} delta @param {object[]} arrays of the model @param {boolean} described whether the arrays travel, too (5.3)
   * @param {{inlineLimit: number, maximumPacket: number}} limits bytes: of the round, and of the broker
   * @param {(kind: string, members: object) => void} send
   */
  constructor(report, delta, arrays, described, { inlineLimit, maximumPacket }, send) {
    this.data = encodeFloats(delta);
    const section = { name: "delta", encoding: "f32", manifest: manifestDigest(arrays), arrays: described ? arrays : null };
    this.digest = contentDigest([{ ...section, data: this.data }]);
    this.section = section;
    this.inlineLimit = Math.min(inlineLimit, maximumPacket - OVERHEAD);
    this.chunkSize = Math.min(CHUNK_SIZE, maximumPacket - OVERHEAD);
    this.send = send;
    const { round, base, ...rest } = report;
    this.round = round;
    this.members = { round, base, digest: this.digest, ...rest, sum_of: null, plan: null };
    this.repeater = null;
  }

  /** Sends it for the first time. */
  start() {
    if (this.data.length <= this.inlineLimit) this.send("update", { ...this.members, sections: [{ ...this.section, data: this.data }] });
    else this.offer();
    this.repeat();
  }

  /** Sends it again, as after a new connection. */
  again() {
    this.send("delayed", { round: this.round, awaits: "answer" });
    this.offer();
  }

  restart() {
    this.repeater?.stop();
    this.again();
    this.repeat();
  }

  repeat() {
    this.repeater = new Repeater(() => this.again(), 5, 30, false);
  }

  offer() {
    const size = this.data.length;
    const cut = { size, chunk_size: this.chunkSize, chunks: Math.ceil(size / this.chunkSize) };
    this.send("offer", { ...this.members, sections: [{ ...this.section, size }], ...cut });
  }

  /** Sends the chunks that a grant names. @param {{round: number, digest: string, chunks: number[]}} grant */
  grant({ round, digest, chunks }) {
    if (round !== this.round || digest !== this.digest) return;
    for (const index of chunks) {
      const data = this.data.subarray(index * this.chunkSize, (index + 1) * this.chunkSize);
      if (data.length > 0) this.send("update-chunk", { round, digest, index, data });
    }
  }

  stop() {
    this.repeater?.stop();
  }
}
