/** Which of an edge's examples it trains on, and which it keeps for evaluation (protocol, 4.14). */

import { Generator } from "./random.js";

const ascending = (a, b) => a - b;

/**
 * @param {number} size the number of examples that the edge has
 * @param {{index: number, count: number, scheme: string, seed: number, holdout: number, examples: ?number}} partition
 * @returns {{training: number[], holdout: number[]}} places of examples, ascending
 */
export function divide(size, partition) {
  const own = partition.scheme === "own" ? everyIndex(size) : iidPart(size, partition);
  const kept = Math.min(halfToEven(partition.holdout * own.length), Math.max(own.length - 1, 0));
  const order = new Generator([partition.seed, 3, partition.index]).permutation(own.length);
  const at = (places) => places.map((place) => own[place]).sort(ascending);
  return { training: at(order.slice(kept)), holdout: at(order.slice(0, kept)) };
}

function iidPart(size, { index, count, scheme, seed, examples }) {
  if (scheme !== "iid") throw new Error(`partition: the scheme is ${scheme}; this edge has own and iid`);
  const all = everyIndex(size);
  const used = (examples ?? null) === null ? all : new Generator([seed, 1]).permutation(size).slice(0, examples).sort(ascending);
  const order = new Generator([seed, 2]).permutation(used.length);
  // The first parts have one example more, if the parts are not equal.
  const least = Math.floor(used.length / count);
  const longer = used.length % count;
  const start = index * least + Math.min(index, longer);
  return order
    .slice(start, start + least + (index < longer ? 1 : 0))
    .map((place) => used[place])
    .sort(ascending);
}

function everyIndex(size) {
  return Array.from({ length: size }, (_, index) => index);
}

function halfToEven(value) {
  const floor = Math.floor(value);
  const rest = value - floor;
  if (rest !== 0.5) return Math.round(value);
  return floor % 2 === 0 ? floor : floor + 1;
}
