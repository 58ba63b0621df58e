/** Sections of models and updates: their manifests, their bytes and their digests (protocol, section 3). */

import { blake3 } from "@noble/hashes/blake3.js";

const BYTES = new TextEncoder();

/** @param {Uint8Array} bytes */
export function hex(bytes) {
  return Array.from(bytes, (byte) => byte.toString(16).padStart(2, "0")).join("");
}

/** @param {{name: string, shape: number[], role: string}[]} arrays in ascending order of their names */
export function manifestDigest(arrays) {
  const text = JSON.stringify(arrays.map(({ name, shape, role }) => [name, shape, role]));
  const ascii = text.replace(/[\u007f-\uffff]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return hex(blake3(BYTES.encode(ascii)));
}

/** @param {{name: string, encoding: string, manifest: string, data: Uint8Array}[]} sections */
export function contentDigest(sections) {
  const hash = blake3.create();
  for (const { name, encoding, manifest, data } of sections) {
    hash.update(BYTES.encode(`${name}\0${encoding}\0${manifest}\0${data.length}\0`)).update(data);
  }
  return hex(hash.digest());
}

/** The encoding `f32`: little-endian on any machine. @param {Float32Array} values @returns {Uint8Array} */
export function encodeFloats(values) {
  const data = new Uint8Array(4 * values.length);
  const view = new DataView(data.buffer);
  values.forEach((value, index) => view.setFloat32(4 * index, value, true));
  return data;
}

/** @param {Uint8Array} data of `f32` or `bf16` @returns {Float32Array} */
export function decodeFloats(data, encoding) {
  const view = new DataView(data.buffer, data.byteOffset, data.byteLength);
  if (encoding === "f32") return Float32Array.from({ length: data.length / 4 }, (_, index) => view.getFloat32(4 * index, true));
  // bf16: the upper half of a float32 (3.8).
  const upper = Uint32Array.from({ length: data.length / 2 }, (_, index) => view.getUint16(2 * index, true) << 16);
  return new Float32Array(upper.buffer);
}

/** Bytes of a value. */
export const WIDTH = { f32: 4, bf16: 2 };

/** @param {Uint8Array[]} parts */
export function joined(parts) {
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let offset = 0;
  for (const part of parts) {
    whole.set(part, offset);
    offset += part.length;
  }
  return whole;
}
