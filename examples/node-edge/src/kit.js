/** Reads a kit of `fl-aggregator provision` (protocol, 9.16). */

import { X509Certificate, createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { checkServerIdentity } from "node:tls";

import { strFromU8, unzipSync } from "fflate";

const FORMAT = 2;
const KEYS = ["signing_public", "sealing_public", "sealing_private", "voucher"];

/**
 * @param {string} path of the zip file
 * @returns {object} name, roles, broker, prefix, the keys as bytes, and `tls`: options of the connection
 */
export function readKit(path) {
  const files = unzipSync(readFileSync(path));
  const text = (name) => files[name] && strFromU8(files[name]);
  const kit = JSON.parse(text("kit.json") ?? "{}");
  if (kit.format !== FORMAT) throw new Error(`${path}: its format is ${kit.format}, expected ${FORMAT}; make a new kit with fl-aggregator provision`);
  if (!kit.roles.includes("train")) throw new Error(`${path}: its roles are ${kit.roles.join(", ")}; this edge needs train`);
  const keys = Object.fromEntries(KEYS.map((name) => [name, new Uint8Array(Buffer.from(kit[name], "base64"))]));
  const tls = {
    ca: text("ca.pem"),
    cert: text("cert.pem"),
    key: text("key.pem"),
    ...(kit.password ? { username: kit.user, password: kit.password } : {}),
    minVersion: "TLSv1.2",
    checkServerIdentity: (host, certificate) => checkKey(host, certificate, kit.broker_pin),
  };
  return { ...kit, ...keys, tls };
}

/** Node's own check of the name, and that the broker has the key that the kit names: SHA-256 of its SubjectPublicKeyInfo. */
function checkKey(host, certificate, pin) {
  const wrongName = checkServerIdentity(host, certificate);
  if (wrongName) return wrongName;
  const key = new X509Certificate(certificate.raw).publicKey.export({ type: "spki", format: "der" });
  const found = createHash("sha256").update(key).digest("base64");
  return found === pin ? undefined : new Error("the broker has another key than the kit expects");
}
