/** Classifiers: layers, softmax and cross-entropy, trained by SGD with momentum. */

import { Dense, Relu } from "./layers.js";
import { Generator } from "./random.js";

const PAUSE_AFTER_MS = 20;
const EVALUATION_BATCH = 256;

/** The layers of a dense model with ReLU between them. @param {number[]} sizes inputs, hidden units, classes */
export function denseLayers(sizes) {
  return sizes.slice(1).flatMap((outputs, index) => {
    const layer = new Dense(`fc${index + 1}`, sizes[index], outputs);
    return index === 0 ? [layer] : [new Relu(), layer];
  });
}

export class Model {
  /** @param {object[]} layers see `layers.js` @param {number} width values of an example @param {number} classes */
  constructor(layers, width, classes) {
    Object.assign(this, { layers, width, classes, values: 0 });
    const found = layers.flatMap((layer) =>
      Object.entries(layer.arrays).map(([kind, shape]) => ({ layer, kind, name: `${layer.name}.${kind}`, shape })),
    );
    // In the order of the manifest (protocol, 3.2).
    found.sort((one, other) => (one.name < other.name ? -1 : 1));
    this.arrays = found.map(({ layer, kind, name, shape }) => {
      layer.at[kind] = this.values;
      this.values += lengthOf(shape);
      return { name, shape, role: "parameter" };
    });
  }

  /** First weights, which follow from the seed: uniform within ±1/√inputs, each layer's weights before its bias. */
  firstWeights(seed) {
    const random = new Generator([seed]);
    const weights = new Float32Array(this.values);
    for (const layer of this.layers) {
      const bound = Math.fround(1 / Math.sqrt(layer.fanIn));
      for (const [kind, shape] of Object.entries(layer.arrays)) {
        const start = layer.at[kind];
        for (let index = 0; index < lengthOf(shape); index++) {
          weights[start + index] = Math.fround(2 * random.nextFloat32() - 1) * bound;
        }
      }
    }
    return weights;
  }

  /** @returns {Float32Array[]} the inputs of each layer, and at last the scores of the classes */
  forward(weights, examples, places) {
    const { width } = this;
    let batch = new Float32Array(places.length * width);
    places.forEach((place, row) => batch.set(examples.inputs.subarray(place * width, (place + 1) * width), row * width));
    const all = [batch];
    for (const layer of this.layers) all.push((batch = layer.forward(weights, batch, places.length)));
    return all;
  }

  /** Writes the gradient of the mean cross-entropy of a minibatch to `gradient`. @returns {number} that mean */
  gradient(weights, examples, places, gradient) {
    const batches = this.forward(weights, examples, places);
    const rows = places.length;
    let errors = batches.pop();
    let loss = 0;
    for (let row = 0; row < rows; row++) loss += softmaxError(this.scoresOf(errors, row), examples.labels[places[row]], rows);
    gradient.fill(0);
    for (let index = this.layers.length - 1; index >= 0; index--) {
      errors = this.layers[index].backward(weights, gradient, batches[index], errors, rows);
    }
    return loss / rows;
  }

  scoresOf(scores, row) {
    return scores.subarray(row * this.classes, (row + 1) * this.classes);
  }

  /** The mean loss and the accuracy on examples at `places`, at least one. @returns {{loss: number, accuracy: number}} */
  evaluate(weights, examples, places) {
    let loss = 0;
    let right = 0;
    for (let start = 0; start < places.length; start += EVALUATION_BATCH) {
      const some = places.slice(start, start + EVALUATION_BATCH);
      const scores = this.forward(weights, examples, some).at(-1);
      some.forEach((place, row) => {
        const own = this.scoresOf(scores, row);
        if (own.indexOf(Math.max(...own)) === examples.labels[place]) right += 1;
        loss += softmaxError(own, examples.labels[place], 1);
      });
    }
    return { loss: loss / places.length, accuracy: right / places.length };
  }

  /**
   * Trains a copy of `base`, and yields to the event loop now and then.
   *
   * @param {object} settings epochs, batchSize, rate, momentum, clip (the greatest norm of a gradient, 0: any) and mu (`prox`, 5.14)
   * @param {Generator} random draws the minibatches
   * @param {() => boolean} cancelled @returns {Promise<?{weights: Float32Array, steps: number, loss: number}>} null if cancelled
   */
  async train(base, examples, places, settings, random, cancelled) {
    const weights = base.slice();
    const gradient = new Float32Array(this.values);
    const velocity = new Float32Array(this.values);
    let steps = 0;
    let losses = 0;
    let since = performance.now();
    for (let epoch = 0; epoch < settings.epochs; epoch++) {
      const order = random.permutation(places.length);
      losses = 0;
      for (let start = 0; start < order.length; start += settings.batchSize) {
        const batch = order.slice(start, start + settings.batchSize).map((place) => places[place]);
        losses += batch.length * this.gradient(weights, examples, batch, gradient);
        step(weights, base, gradient, velocity, settings);
        steps += 1;
        if (performance.now() - since > PAUSE_AFTER_MS) {
          await new Promise((resolve) => setTimeout(resolve, 0));
          since = performance.now();
        }
        if (cancelled()) return null;
      }
    }
    const loss = losses / places.length;
    if (!Number.isFinite(loss)) throw new Error(`training diverged: the loss is ${loss} (lr ${settings.rate}, momentum ${settings.momentum})`);
    return { weights, steps, loss };
  }
}

/** v ← momentum × v + g, w ← w − rate × v. */
function step(weights, base, gradient, velocity, { rate, momentum, clip, mu }) {
  const scale = clip > 0 ? Math.min(1, clip / Math.sqrt(gradient.reduce((sum, value) => sum + value * value, 0))) : 1;
  for (let index = 0; index < weights.length; index++) {
    velocity[index] = momentum * velocity[index] + scale * gradient[index] + mu * (weights[index] - base[index]);
    weights[index] -= rate * velocity[index];
  }
}

/** Replaces scores by their error, divided by `rows`. @returns {number} the cross-entropy */
function softmaxError(scores, label, rows) {
  const greatest = Math.max(...scores);
  let sum = 0;
  for (const score of scores) sum += Math.exp(score - greatest);
  const loss = Math.log(sum) + greatest - scores[label];
  for (let index = 0; index < scores.length; index++) {
    scores[index] = (Math.exp(scores[index] - greatest) / sum - (index === label ? 1 : 0)) / rows;
  }
  return loss;
}

const lengthOf = (shape) => shape.reduce((product, length) => product * length, 1);
