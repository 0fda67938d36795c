/** Chance that can be repeated: the same seed makes the same choices. */

export class Random {
  #state;

  constructor(seed) {
    this.#state = seed >>> 0;
  }

  /** A whole number from 0 to `limit` - 1. Mulberry32: 32 bits of state are enough to choose what a test does. */
  below(limit) {
    this.#state = (this.#state + 0x6d2b79f5) >>> 0;
    let mixed = this.#state;
    mixed = Math.imul(mixed ^ (mixed >>> 15), mixed | 1);
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61);
    return ((mixed ^ (mixed >>> 14)) >>> 0) % limit;
  }

  /** True once in `times`. */
  oneIn(times) {
    return this.below(times) === 0;
  }

  /** One of a list; undefined of an empty one. */
  of(list) {
    return list[this.below(Math.max(1, list.length))];
  }

  /** One of the keys of `{ key: weight }`, as often as its weight says. */
  weighted(weights) {
    let left = this.below(Object.values(weights).reduce((sum, weight) => sum + weight, 0));
    for (const [key, weight] of Object.entries(weights)) {
      left -= weight;
      if (left < 0) return key;
    }
    throw new Error('there are no weights');
  }
}

/** The seed of this run: WSBROKER_TEST_SEED repeats an earlier one. */
export function chooseSeed() {
  const { WSBROKER_TEST_SEED: given } = process.env;
  if (given === undefined) return Math.floor(Math.random() * 2 ** 32);
  if (!/^\d{1,10}$/.test(given)) throw new Error(`WSBROKER_TEST_SEED: expected a whole number, got ${given}`);
  return Number(given);
}
