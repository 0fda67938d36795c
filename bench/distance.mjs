// Keeps runs comparable on a machine whose cores move.
//
// The cores of a virtual machine are threads of its host. For some seconds the two that a row is pinned to are neighbours, for
// some they are in different parts of a processor. Whatever goes from one to the other takes several times as long then, and
// every server up to three times the CPU time for the same work. So the distance is measured before each run and behind it.

import { setTimeout as delay } from 'node:timers/promises';
import { median } from './statistics.mjs';

/** Cores are apart that need more than so many times the least that they have ever needed. */
const APART = 2;

/** How often is looked whether they are back, and in which intervals, in ms: two minutes. */
const LOOKS = 240;
const INTERVAL = 500;

export class Distance {
  #measure;
  #pause;
  #least = Number.POSITIVE_INFINITY;
  /** They have been waited for in vain, and may stay where they are: nothing is waited for until they are back. */
  #isGivenUp = false;

  /**
   * @param {() => number} measure the time from one core to the other and back, in ns
   * @param {(milliseconds: number) => Promise<unknown>} pause
   */
  constructor(measure, pause = delay) {
    this.#measure = measure;
    this.#pause = pause;
  }

  /**
   * Runs when the cores are near each other.
   *
   * @template T
   * @param {() => Promise<T>} run
   * @returns {Promise<{ result: T, distance: number }>} `distance` is the larger one of before and behind, in ns
   */
  async near(run) {
    const before = await this.#wait();
    const result = await run();
    return { result, distance: Math.max(before, this.#look()) };
  }

  /** Whether that was far, by all that is known by now: the first runs have nothing to be held against. */
  isApart(distance) {
    return distance > APART * this.#least;
  }

  async #wait() {
    let distance = this.#look();
    for (let looks = 1; this.isApart(distance) && !this.#isGivenUp; looks += 1) {
      this.#isGivenUp = looks >= LOOKS;
      await this.#pause(INTERVAL);
      distance = this.#look();
    }
    return distance;
  }

  #look() {
    const distance = this.#measure();
    this.#least = Math.min(this.#least, distance);
    if (!this.isApart(distance)) this.#isGivenUp = false;
    return distance;
  }
}

/**
 * What is kept of the runs of a work: the distance, how often one was repeated, how many count although the cores were apart.
 *
 * @param {{ distance?: number, tries: number, isApart: boolean }[]} runs
 */
export function summaryOf(runs) {
  const noted = runs.filter(({ distance }) => distance !== undefined);
  if (noted.length === 0) return undefined;
  return {
    nanoseconds: median(noted.map(({ distance }) => distance)),
    repeated: noted.reduce((sum, { tries }) => sum + tries - 1, 0),
    apart: noted.filter(({ isApart }) => isApart).length,
  };
}
