/** NumPy's SeedSequence, PCG64 and the few draws of its Generator that the protocol names (5.4, 4.14). */

const MASK_32 = 0xffffffffn;
const MASK_64 = (1n << 64n) - 1n;
const MASK_128 = (1n << 128n) - 1n;
const MULTIPLIER = (2549297995355413924n << 64n) | 4865540595714422341n;
const POOL_SIZE = 4;

/** The 32-bit words of a non-negative integer, the least first. */
function words(value) {
  let rest = BigInt(value);
  const all = [];
  do {
    all.push(Number(rest & MASK_32));
    rest >>= 32n;
  } while (rest > 0n);
  return all;
}

function mixer(start, factor) {
  let constant = start;
  return (value) => {
    const mixed = Math.imul(value ^ constant, (constant = Math.imul(constant, factor) >>> 0)) >>> 0;
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
}

/** `SeedSequence(entropy).generate_state(count, uint64)`. @param {(number|bigint)[]} entropy @returns {bigint[]} */
export function seedState(entropy, count) {
  const given = entropy.flatMap(words);
  const hash = mixer(0x43b0d7e5, 0x931e8875);
  const combine = (x, y) => {
    const mixed = (Math.imul(x, 0xca01f9dd) - Math.imul(y, 0x4973f715)) >>> 0;
    return (mixed ^ (mixed >>> 16)) >>> 0;
  };
  const pool = Array.from({ length: POOL_SIZE }, (_, index) => hash(given[index] ?? 0));
  for (let source = 0; source < POOL_SIZE; source++) {
    for (let target = 0; target < POOL_SIZE; target++) {
      if (source !== target) pool[target] = combine(pool[target], hash(pool[source]));
    }
  }
  for (const extra of given.slice(POOL_SIZE)) {
    for (let target = 0; target < POOL_SIZE; target++) pool[target] = combine(pool[target], hash(extra));
  }
  const draw = mixer(0x8b51f9dd, 0x58f38ded);
  const state = Array.from({ length: 2 * count }, (_, index) => BigInt(draw(pool[index % POOL_SIZE])));
  return Array.from({ length: count }, (_, index) => state[2 * index] | (state[2 * index + 1] << 32n));
}

/** `Generator(PCG64(SeedSequence(entropy)))`. */
export class Generator {
  /** @param {(number|bigint)[]} entropy non-negative integers */
  constructor(entropy) {
    const [high, low, sequenceHigh, sequenceLow] = seedState(entropy, 4);
    this.increment = ((((sequenceHigh << 64n) | sequenceLow) << 1n) | 1n) & MASK_128;
    this.state = (this.increment + ((high << 64n) | low)) & MASK_128;
    this.step();
    this.upperHalf = null;
  }

  step() {
    this.state = (this.state * MULTIPLIER + this.increment) & MASK_128;
  }

  /** The next 64 bits. @returns {bigint} */
  next64() {
    this.step();
    const value = (this.state >> 64n) ^ (this.state & MASK_64);
    const turn = this.state >> 122n;
    return ((value >> turn) | (value << (64n - turn))) & MASK_64;
  }

  /** The next 32 bits: the lower half of 64, and then the upper one. */
  next32() {
    if (this.upperHalf !== null) {
      const half = this.upperHalf;
      this.upperHalf = null;
      return half;
    }
    const both = this.next64();
    this.upperHalf = Number(both >> 32n);
    return Number(both & MASK_32);
  }

  /** A multiple of 2^-24 in [0, 1), as `random(dtype=float32)`. */
  nextFloat32() {
    return (this.next32() >>> 8) / 2 ** 24;
  }

  /** An integer from 0 to `last`, at least 1: the lower bits of 32, drawn until they are no more. */
  upTo(last) {
    const mask = 2 ** (32 - Math.clz32(last)) - 1;
    for (;;) {
      const value = (this.next32() & mask) >>> 0;
      if (value <= last) return value;
    }
  }

  /** `permutation(count)`. @returns {number[]} */
  permutation(count) {
    const order = Array.from({ length: count }, (_, index) => index);
    for (let index = count - 1; index > 0; index--) {
      const other = this.upTo(index);
      [order[index], order[other]] = [order[other], order[index]];
    }
    return order;
  }
}
