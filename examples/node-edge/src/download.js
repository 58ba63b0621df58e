/** Fetches a model from the broker's retained messages, as many chunks at a time as the receiver asks for (protocol, 3.6). */

import { MalformedError, MAX_PACKET, read } from "./messages.js";
import { contentDigest, decodeFloats, joined, manifestDigest, WIDTH } from "./sections.js";

const AT_ONCE = 16;
const PATIENCE_S = 5;
const MAX_CHUNK = MAX_PACKET - 2 ** 16;

export class Download {
  /**
   * @param {import("./connection.js").Connection} connection
   * @param {string} digest of the model @param {{name: string, shape: number[], role: string}[]} arrays that it must have
   * @param {() => void} delayed called when parts have not come
   *
   * `result` is a promise of the weights, or of null after `end()`.
   */
  constructor(connection, digest, arrays, delayed) {
    Object.assign(this, { connection, digest, arrays, delayed });
    this.below = `model/${digest.slice(0, 12)}/`;
    this.result = new Promise((resolve) => (this.resolve = resolve));
    this.manifest = null;
    this.parts = [];
    this.asked = [];
    this.ask();
  }

  /** Subscribes to what is missing next, and again if nothing has come for a while. */
  ask() {
    clearTimeout(this.timer);
    if (this.asked.length > 0) this.connection.unsubscribe(this.asked);
    this.asked = this.missing().map((part) => `${this.below}${part}`);
    this.connection.subscribe(this.asked);
    this.timer = setTimeout(() => {
      this.delayed();
      this.ask();
    }, 1000 * PATIENCE_S);
  }

  missing() {
    if (this.manifest === null) return ["manifest"];
    const indices = [];
    for (let index = 0; index < this.manifest.chunks && indices.length < AT_ONCE; index++) {
      if (this.parts[index] === undefined) indices.push(index);
    }
    return indices;
  }

  /** Takes a message below `model/`. Drops what is not for this model. */
  hear(topic, payload) {
    if (!topic.startsWith(this.below) || payload.length === 0) return;
    const message = read(payload, "manifest", "model-chunk");
    if (message.digest !== this.digest) return;
    if (message.kind === "manifest") this.describe(message);
    else this.add(message);
    const complete = this.manifest !== null && this.missing().length === 0;
    if (complete) this.finish();
    else if (this.asked.every((one) => this.has(one.slice(this.below.length)))) this.ask();
  }

  has(part) {
    return part === "manifest" ? this.manifest !== null : this.parts[part] !== undefined;
  }

  describe(message) {
    const [section] = message.sections;
    const fits =
      message.sections.length === 1 &&
      section.name === "weights" &&
      section.encoding in WIDTH &&
      manifestDigest(section.arrays.map((one) => ({ role: "parameter", ...one }))) === manifestDigest(this.arrays) &&
      message.size === WIDTH[section.encoding] * valuesOf(this.arrays) &&
      message.chunk_size > 0 &&
      message.chunk_size <= MAX_CHUNK &&
      message.chunks === Math.ceil(message.size / message.chunk_size);
    if (!fits) throw new MalformedError("manifest: it does not describe a model of this edge");
    this.manifest = message;
  }

  add({ index, data }) {
    if (this.manifest === null || index >= this.manifest.chunks) return;
    const { size, chunk_size: length } = this.manifest;
    if (data.length === Math.min(length, size - index * length)) this.parts[index] = data.slice();
  }

  finish() {
    const data = joined(this.parts);
    const { encoding } = this.manifest.sections[0];
    const digest = contentDigest([{ name: "weights", encoding, manifest: manifestDigest(this.arrays), data }]);
    if (digest !== this.digest) {
      // A chunk has no checksum of its own, so all are fetched again, after a pause.
      this.manifest = null;
      this.parts = [];
      return;
    }
    this.resolve(decodeFloats(data, encoding));
    this.end();
  }

  /** Gives up, or is done. */
  end() {
    clearTimeout(this.timer);
    this.connection.unsubscribe(this.asked);
    this.resolve(null);
  }
}

const valuesOf = (arrays) => arrays.reduce((sum, { shape }) => sum + shape.reduce((product, length) => product * length, 1), 0);
