/**
 * Layers of networks: what they give for a minibatch, and the gradients of their weights.
 *
 * A minibatch is one Float32Array, an example after the other; a picture is its channels, rows and columns. Weights and their
 * gradients are one vector each, in which a layer finds its arrays at `at`. Sums are computed in float64 and kept as float32.
 */

/** `fc`: outputs = inputs × weightᵀ + bias. */
export class Dense {
  constructor(name, inputs, outputs) {
    Object.assign(this, { name, inputs, outputs, fanIn: inputs, at: {} });
    this.arrays = { weight: [outputs, inputs], bias: [outputs] };
  }

  forward(weights, batch, rows) {
    const result = new Float32Array(rows * this.outputs);
    for (let row = 0; row < rows; row++) this.multiply(weights, batch, row * this.inputs, result, row * this.outputs);
    return result;
  }

  multiply(weights, batch, from, result, to) {
    const { inputs, outputs, at } = this;
    for (let output = 0, place = at.weight; output < outputs; output++, place += inputs) {
      let sum = weights[at.bias + output];
      for (let input = 0; input < inputs; input++) sum += weights[place + input] * batch[from + input];
      result[to + output] = sum;
    }
  }

  backward(weights, gradient, batch, errors, rows) {
    const before = new Float32Array(rows * this.inputs);
    for (let row = 0; row < rows; row++) this.propagate(weights, gradient, batch, row * this.inputs, errors, row * this.outputs, before);
    return before;
  }

  /** Adds to the gradients, and to the errors of the inputs. */
  propagate(weights, gradient, batch, from, errors, to, before) {
    const { inputs, outputs, at } = this;
    for (let output = 0, place = at.weight; output < outputs; output++, place += inputs) {
      const error = errors[to + output];
      if (error === 0) continue;
      gradient[at.bias + output] += error;
      for (let input = 0; input < inputs; input++) {
        gradient[place + input] += error * batch[from + input];
        before[from + input] += error * weights[place + input];
      }
    }
  }
}

/** Max(0, x). */
export class Relu {
  constructor() {
    this.arrays = {};
  }

  forward(_weights, batch) {
    return batch.map((value) => (value > 0 ? value : 0));
  }

  backward(_weights, _gradient, batch, errors) {
    return errors.map((error, index) => (batch[index] > 0 ? error : 0));
  }
}

/** A convolution with kernels of 3 × 3 and a border of zeros, on pictures of side × side: a dense layer on each pixel's surroundings. */
export class Convolution {
  constructor(name, channels, kernels, side) {
    Object.assign(this, { name, channels, kernels, side, fanIn: 9 * channels });
    this.arrays = { weight: [kernels, channels, 3, 3], bias: [kernels] };
    this.dense = new Dense(name, 9 * channels, kernels);
    this.at = this.dense.at;
  }

  /** Yields a place among the surroundings of all pixels, and the pixel that is there, unless it is on the border of zeros. */
  *surroundings() {
    const { channels, side } = this;
    for (let y = 0, place = 0; y < side; y++) {
      for (let x = 0; x < side; x++) {
        for (let channel = 0; channel < channels; channel++) {
          for (let down = y - 1; down <= y + 1; down++) {
            for (let right = x - 1; right <= x + 1; right++, place++) {
              if (down >= 0 && down < side && right >= 0 && right < side) yield [place, (channel * side + down) * side + right];
            }
          }
        }
      }
    }
  }

  /** These pairs, one after the other. */
  get places() {
    this.pairs ??= Int32Array.from([...this.surroundings()].flat());
    return this.pairs;
  }

  unfold(batch, row, columns) {
    const start = row * this.channels * this.side ** 2;
    const { places } = this;
    for (let index = 0; index < places.length; index += 2) columns[places[index]] = batch[start + places[index + 1]];
  }

  forward(weights, batch, rows) {
    const pixels = this.side ** 2;
    const columns = new Float32Array(pixels * this.fanIn);
    const result = new Float32Array(rows * this.kernels * pixels);
    for (let row = 0; row < rows; row++) {
      this.unfold(batch, row, columns);
      const outputs = this.dense.forward(weights, columns, pixels);
      transpose(outputs, pixels, this.kernels, result.subarray(row * this.kernels * pixels));
    }
    return result;
  }

  backward(weights, gradient, batch, errors, rows) {
    const { places } = this;
    const pixels = this.side ** 2;
    const size = this.channels * pixels;
    const columns = new Float32Array(pixels * this.fanIn);
    const own = new Float32Array(pixels * this.kernels);
    const before = new Float32Array(rows * size);
    for (let row = 0; row < rows; row++) {
      this.unfold(batch, row, columns);
      transpose(errors.subarray(row * this.kernels * pixels), this.kernels, pixels, own);
      const around = this.dense.backward(weights, gradient, columns, own, pixels);
      for (let index = 0; index < places.length; index += 2) before[row * size + places[index + 1]] += around[places[index]];
    }
    return before;
  }
}

/** The greatest of each 2 × 2 pixels. */
export class MaxPool {
  constructor(channels, side) {
    Object.assign(this, { channels, side, arrays: {} });
  }

  /** @returns {Int32Array} the place of the greatest pixel of each four; of equal ones the first */
  greatest(batch, rows) {
    const { channels, side } = this;
    const half = side / 2;
    const places = new Int32Array(rows * channels * half * half);
    for (let picture = 0, out = 0; picture < rows * channels; picture++) {
      for (let y = 0; y < half; y++) {
        for (let x = 0; x < half; x++, out++) {
          const first = (picture * side + 2 * y) * side + 2 * x;
          let best = first;
          for (const other of [first + 1, first + side, first + side + 1]) if (batch[other] > batch[best]) best = other;
          places[out] = best;
        }
      }
    }
    return places;
  }

  forward(_weights, batch, rows) {
    return Float32Array.from(this.greatest(batch, rows), (place) => batch[place]);
  }

  backward(_weights, _gradient, batch, errors, rows) {
    const before = new Float32Array(batch.length);
    this.greatest(batch, rows).forEach((place, index) => (before[place] = errors[index]));
    return before;
  }
}

function transpose(from, rows, columns, to) {
  for (let row = 0; row < rows; row++) for (let column = 0; column < columns; column++) to[column * rows + row] = from[row * columns + column];
}
