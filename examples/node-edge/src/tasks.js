/** The tasks of this edge: `digits`, `digits-mlp`, and dense models of the user's own (docs/tasks.md, "The built-in models"). */

import { Convolution, Dense, MaxPool, Relu } from "./layers.js";
import { Model, denseLayers } from "./model.js";
import { divide } from "./partition.js";
import { Generator } from "./random.js";

const ACCURACY = { name: "accuracy", higher_is_better: true, unit: "%", minimum: 0, maximum: 1 };
const DEFAULTS = { epochs: 10, batch_size: 32, lr: 0.05, momentum: 0.9 };
const PIXELS = 64;
const MEAN = Math.fround(4.8767);
const DEVIATION = Math.fround(6.0111);
const TEST_SHARE = 0.2;
const TEST_SEED = 1797;
const MAX_HIDDEN = 4096;

/** A convolutional network of 53,002 parameters. */
function digitsModel() {
  const layers = [
    new Convolution("conv1", 1, 32, 8),
    new MaxPool(32, 8),
    new Relu(),
    new Convolution("conv2", 32, 64, 4),
    new MaxPool(64, 4),
    new Relu(),
    new Dense("fc1", 256, 128),
    new Relu(),
    new Dense("fc2", 128, 10),
  ];
  return new Model(layers, PIXELS, 10);
}

/**
 * @param {string} text the task of the run: a name, perhaps with options (protocol, 2.4)
 * @param {{name: string, sizes: number[]}[]} own dense models of the user's own, by the names of their tasks
 * @returns {{model: Model, digits: boolean}} @throws {Error} for a task or an option that this edge does not have
 */
export function taskOf(text, own = []) {
  const [name, query = ""] = text.split("?");
  const options = new URLSearchParams(query);
  const hidden = Number(options.get("hidden") ?? 64);
  for (const option of options.keys()) {
    if (name !== "digits-mlp" || option !== "hidden") throw new Error(`task ${name}: the option ${option} is unknown to this edge`);
  }
  if (!Number.isInteger(hidden) || hidden < 0 || hidden > MAX_HIDDEN) throw new Error(`hidden: ${hidden}, expected 0 to ${MAX_HIDDEN}`);
  if (name === "digits") return { model: digitsModel(), digits: true };
  if (name === "digits-mlp") return { model: dense(hidden ? [PIXELS, hidden, 10] : [PIXELS, 10]), digits: true };
  const found = own.find((task) => task.name === name);
  if (found === undefined) throw new Error(`task ${name}: this edge has ${["digits", "digits-mlp", ...own.map((task) => task.name)].join(", ")}`);
  return { model: dense(found.sizes), digits: false };
}

function dense(sizes) {
  return new Model(denseLayers(sizes), sizes[0], sizes.at(-1));
}

/**
 * What an edge needs for its rounds: the model, and its examples.
 *
 * @param {string} text the task of the run @param {object} partition that of `admitted`
 * @param {{inputs: number[][], labels: number[]}} rows all that the edge has
 * @param {boolean} shared whether all edges have these rows, and each trains on its part (4.14); for the digits they include the test split
 */
export function jobOf(text, partition, rows, shared, own = []) {
  const { model, digits } = taskOf(text, own);
  const used = digits && shared ? withoutTest(rows) : rows;
  const examples = { inputs: new Float32Array(used.inputs.length * model.width), labels: Uint16Array.from(used.labels) };
  used.inputs.forEach((row, index) => {
    if (row.length !== model.width) throw new Error(`data: example ${index + 1} has ${row.length} inputs, expected ${model.width}`);
    examples.inputs.set(digits ? row.map((pixel) => Math.fround(Math.fround(pixel - MEAN) / DEVIATION)) : row, index * model.width);
  });
  const wrong = used.labels.findIndex((label) => !Number.isInteger(label) || label < 0 || label >= model.classes);
  if (wrong >= 0) throw new Error(`data: the class of example ${wrong + 1} is ${used.labels[wrong]}, expected 0 to ${model.classes - 1}`);
  const { training, holdout } = divide(used.labels.length, shared ? partition : { ...partition, scheme: "own" });
  if (training.length === 0) throw new Error("data: there are no examples to train on");
  return { model, examples, training, holdout, metrics: [ACCURACY], defaults: DEFAULTS };
}

/** The digits without the fifth that is the test split. */
function withoutTest({ inputs, labels }) {
  const order = new Generator([TEST_SEED]).permutation(labels.length);
  const kept = order.slice(Math.round(TEST_SHARE * labels.length)).sort((a, b) => a - b);
  return { inputs: kept.map((place) => inputs[place]), labels: kept.map((place) => labels[place]) };
}
