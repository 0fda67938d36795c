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
  #isGivenUp = false;

  /**
   * @param {() => number | undefined} measure the time from one core to the other and back, in ns, if it can be known
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
   * @returns {Promise<{ result: T, distance: number | undefined }>} `distance` is the larger one of before and behind, in ns
   */
  async near(run) {
    const before = await this.#wait();
    const result = await run();
    const behind = this.#look();
    return { result, distance: before > behind ? before : (behind ?? before) };
  }

  /** They have been waited for in vain, and may stay where they are: nothing is waited for until they are back. */
  get isGivenUp() {
    return this.#isGivenUp;
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
    if (distance < this.#least) this.#least = distance;
    if (!this.isApart(distance)) this.#isGivenUp = false;
    return distance;
  }
}

/**
 * What is kept of the runs of a work: the distance, how often one was repeated, how many count although the cores were apart.
 *
 * @param {import('./rounds.mjs').Run[]} runs
 * @param {Distance | undefined} distance
 */
export function summaryOf(runs, distance) {
  const noted = runs.filter((run) => run.distance !== undefined);
  if (!distance || noted.length === 0) return undefined;
  return {
    nanoseconds: median(noted.map((run) => run.distance)),
    repeated: noted.reduce((sum, { tries }) => sum + tries - 1, 0),
    apart: noted.filter((run) => distance.isApart(run.distance)).length,
  };
}
