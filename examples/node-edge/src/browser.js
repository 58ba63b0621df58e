/**
 * The edge in a Web Worker of the dashboard. The page sends `{start: {broker, prefix, user, password, client, device, library, file}}` and
 * `{stop: true}`; `file` has the user's own examples as text, or is null for the edge's part of the digits that the page is served with.
 * The worker answers `{state, …}`: connected, waiting, training, accepted, rejected, refused, stopped; and `{text}` for people.
 */

import { Edge } from "./edge.js";
import { parseRows, unpacked } from "./rows.js";
import { jobOf } from "./tasks.js";

importScripts("../vendor/mqtt.min.js"); // the page's own copy of MQTT.js

const DIGITS = "digits.csv.gz"; // beside the worker
let edge = null;

async function published() {
  const answer = await fetch(DIGITS);
  if (!answer.ok) throw new Error(`${DIGITS}: ${answer.status}`);
  return unpacked(new Uint8Array(await answer.arrayBuffer()));
}

async function start({ broker, prefix, user, password, client, device, library, file }) {
  const rows = file === null ? parseRows(await published(), DIGITS) : parseRows(file, "the file");
  const options = { ...(user ? { username: user } : {}), ...(password ? { password } : {}) };
  const settings = {
    device,
    task: null,
    environment: { library },
    loadJob: async (task, partition) => jobOf(task, partition, rows, file === null),
    trust: null,
  };
  edge = new Edge(self.mqtt, { url: broker, options, prefix, client }, settings, {
    log: (text) => postMessage({ text }),
    changed: (what) => postMessage(what),
    ended: (reason) => stop({ state: "refused", reason }),
  });
  edge.start();
}

async function stop(last) {
  await edge?.stop(last.reason ?? "its user has stopped it");
  edge = null;
  postMessage(last);
}

self.addEventListener("message", ({ data }) => {
  if (data.stop) stop({ state: "stopped" });
  else start(data.start).catch((error) => stop({ state: "refused", reason: error.message }));
});
