/** An edge in Node: `node src/node.js --help`. */

import { readFileSync, mkdirSync, writeFileSync } from "node:fs";
import { cpus, totalmem } from "node:os";
import { join } from "node:path";
import { parseArgs } from "node:util";

import mqtt from "mqtt";

import { Edge } from "./edge.js";
import { readKit } from "./kit.js";
import { randomName } from "./messages.js";
import { parseRows, unpacked } from "./rows.js";
import { jobOf } from "./tasks.js";
import { Trust } from "./trust.js";

const HELP = `node src/node.js --data FILE (--broker URL --id ID | --kit FILE) [options]

Trains on a file's examples in an fl-mqtt run, until Ctrl-C.

  --data FILE     CSV (one example per row: inputs, then the class; .gz, too) or JSON ({"inputs": [[…]], "labels": […]})
  --broker URL    mqtt://, mqtts://, ws:// or wss://host[:port]; with a kit, another address of the same broker
  --id ID         the edge's id: 1 to 64 of A-Z a-z 0-9 _ -
  --kit FILE      a kit of fl-aggregator provision
  --seal          seal what is sent to the aggregator; needs a kit
  --prefix TEXT   prefix of all topics (default: fl)
  --task NAME     take part in runs of this task only
  --layers SIZES  the task of --task has a dense model of this edge's user: inputs, hidden units, classes, such as 4,16,3
  --shared        all edges have this file, and each trains on its part of it; for the digits, FILE must have all 1,797
  --state DIR     where the edge keeps its device's name (default: .fl-edge)
`;
const OPTIONS = {
  data: { type: "string" },
  broker: { type: "string" },
  id: { type: "string" },
  kit: { type: "string" },
  seal: { type: "boolean", default: false },
  prefix: { type: "string" },
  task: { type: "string" },
  layers: { type: "string" },
  shared: { type: "boolean", default: false },
  state: { type: "string", default: ".fl-edge" },
  help: { type: "boolean", default: false },
};

/** A mistake of the user: one line, and exit code 2. */
function wrong(text) {
  process.stderr.write(`node-edge: ${text}\n`);
  process.exit(2);
}

function readOptions() {
  const { values } = parseArgs({ options: OPTIONS });
  if (values.help) {
    process.stdout.write(HELP);
    process.exit(0);
  }
  const kit = values.kit === undefined ? null : readKit(values.kit);
  if (kit !== null && (values.id !== undefined || values.prefix !== undefined)) throw new Error("--kit: it has an id and a prefix; leave --id and --prefix out");
  if (values.seal && kit === null) throw new Error("--seal: expected --kit, which has the keys");
  const where = {
    url: values.broker ?? kit?.broker,
    client: values.id ?? kit?.name,
    prefix: values.prefix ?? kit?.prefix ?? "fl",
    options: kit?.tls ?? {},
  };
  if (where.url === undefined) throw new Error("--broker: is missing, expected mqtt://host, or a kit");
  if (!/^[A-Za-z0-9_-]{1,64}$/.test(where.client ?? "")) throw new Error(`--id: ${where.client ?? "is missing"}, expected 1 to 64 of A-Z a-z 0-9 _ -, or a kit`);
  if (values.data === undefined) throw new Error("--data: is missing, expected a CSV or JSON file");
  return { ...values, where, kit, own: ownTasks(values) };
}

function ownTasks({ task, layers }) {
  if (layers === undefined) return [];
  const sizes = layers.split(",").map(Number);
  if (task === undefined) throw new Error("--layers: expected --task, the name of the task that has this model");
  if (sizes.length < 2 || !sizes.every((size) => Number.isInteger(size) && size > 0)) throw new Error(`--layers: ${layers}, expected sizes such as 4,3 or 4,16,3`);
  return [{ name: task, sizes }];
}

/** The name of this device, which stays the same (protocol, 4.2). */
function deviceOf(directory, client) {
  const file = join(directory, `${client}.device`);
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  try {
    writeFileSync(file, randomName(), { flag: "wx", mode: 0o600 });
  } catch (error) {
    if (error.code !== "EEXIST") throw error;
  }
  return readFileSync(file, "utf8").trim();
}

async function main() {
  const { where, kit, own, ...options } = readOptions();
  const rows = parseRows(await unpacked(readFileSync(options.data)), options.data);
  const settings = {
    device: deviceOf(options.state, where.client),
    task: options.task ?? null,
    environment: {
      library: `node ${process.versions.node}`,
      platform: `${process.platform} ${process.arch}`,
      memory: totalmem(),
      cores: cpus().length,
    },
    loadJob: async (task, partition) => jobOf(task, partition, rows, options.shared, own),
    trust: kit && new Trust(kit, options.seal),
  };
  const edge = new Edge(mqtt, where, settings, {
    log: (text) => process.stdout.write(`${where.client}: ${text}\n`),
    changed: () => {},
    ended: (reason) => wrong(`the aggregator has refused this edge (${reason})`),
  });
  const stop = async () => {
    await edge.stop("its user has stopped it");
    process.exit(0);
  };
  process.on("SIGINT", stop).on("SIGTERM", stop);
  edge.start();
}

await main().catch((error) => wrong(error.message));
