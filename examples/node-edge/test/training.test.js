import assert from "node:assert/strict";
import { test } from "node:test";

import { Model, denseLayers } from "../src/model.js";
import { divide } from "../src/partition.js";
import { Generator, seedState } from "../src/random.js";
import { encodeFloats, hex } from "../src/sections.js";
import { taskOf } from "../src/tasks.js";
import { trainingSeed } from "../src/training.js";
import { vectors } from "./support.js";

test("the seeds of edges, and what is drawn from them (5.4)", () => {
  for (const edge of vectors("seeds").edges) {
    const entropy = trainingSeed(edge.seed, edge.round, edge.client);
    assert.equal(String(entropy[2]), String(edge.h));
    const state = seedState(entropy, 4).flatMap((word) => [Number(word & 0xffffffffn), Number(word >> 32n)]);
    assert.deepEqual(state, edge.state);
    const random = new Generator(entropy);
    assert.deepEqual(edge.pcg64.map(() => String(random.next64())), edge.pcg64);
    const orders = new Generator(entropy);
    assert.deepEqual(edge.orders_of_10.map(() => orders.permutation(10)), edge.orders_of_10);
  }
});

test("partitions (4.14)", () => {
  const { examples, cases } = vectors("seeds").partitions;
  for (const { partition, training, holdout } of cases) assert.deepEqual(divide(examples, partition), { training, holdout });
});

test("first weights, and a training of two epochs", async () => {
  const { inputs, labels, settings, models } = vectors("training");
  const examples = { inputs: Float32Array.from(inputs.flat()), labels: Uint8Array.from(labels), size: labels.length };
  for (const expected of models) {
    const model = new Model(denseLayers(expected.sizes), expected.sizes[0], expected.sizes.at(-1));
    assert.deepEqual(model.arrays.map(({ name, shape }) => [name, shape]), expected.arrays);
    const base = model.firstWeights(settings.seed);
    assert.equal(hex(encodeFloats(base)), expected.first_weights);
    const asked = { epochs: settings.epochs, batchSize: settings.batch_size, rate: settings.lr, momentum: settings.momentum, clip: 0, mu: 0 };
    const random = new Generator(trainingSeed(settings.seed, settings.round, settings.client));
    const places = labels.map((_, index) => index);
    const trained = await model.train(base, examples, places, asked, random, () => false);
    assert.equal(trained.steps, expected.steps);
    assert.ok(Math.abs(trained.loss - expected.loss) < 1e-5, `${trained.loss}, not ${expected.loss}`);
    trained.weights.forEach((weight, index) => {
      const delta = weight - base[index];
      assert.ok(Math.abs(delta - expected.delta[index]) < 2e-6, `value ${index}: ${delta}, not ${expected.delta[index]}`);
    });
  }
});

test("training stops when it is cancelled", async () => {
  const model = new Model(denseLayers([2, 2]), 2, 2);
  const examples = { inputs: new Float32Array(4), labels: new Uint8Array(2), size: 2 };
  const asked = { epochs: 1e6, batchSize: 1, rate: 0.1, momentum: 0, clip: 1, mu: 0.1 };
  assert.equal(await model.train(model.firstWeights(0), examples, [0, 1], asked, new Generator([0]), () => true), null);
});

test("the gradients of the convolutional network are its slopes", () => {
  const { model } = taskOf("digits");
  assert.equal(model.values, 53_002);
  const random = new Generator([1]);
  const inputs = Float32Array.from({ length: 3 * 64 }, () => 2 * random.nextFloat32() - 1);
  const examples = { inputs, labels: Uint8Array.of(3, 1, 4), size: 3 };
  const places = [0, 1, 2];
  const weights = model.firstWeights(5);
  const gradient = new Float32Array(model.values);
  model.gradient(weights, examples, places, gradient);
  const loss = (index, change) => {
    const moved = weights.slice();
    moved[index] += change;
    return model.evaluate(moved, examples, places).loss;
  };
  for (const { name, shape } of model.arrays) {
    const start = model.layers.find((layer) => layer.name === name.split(".")[0]).at[name.split(".")[1]];
    // The places of the greatest slope: those of others drown in the rounding of float32.
    const length = shape.reduce((product, side) => product * side, 1);
    const steepest = gradient.subarray(start, start + length).reduce((best, value, index, all) => (Math.abs(value) > Math.abs(all[best]) ? index : best), 0);
    const slope = (loss(start + steepest, 0.004) - loss(start + steepest, -0.004)) / 0.008;
    const expected = gradient[start + steepest];
    assert.ok(Math.abs(slope - expected) < 0.03 * Math.abs(expected), `${name}: ${expected}, not ${slope}`);
  }
});
