// Keeps runs comparable on a machine whose cores move.
//
// The cores of a virtual machine are threads of its host. For some seconds the two that a row is pinned to are neighbours, for
// some they are in different parts of a processor. Whatever goes from one to the other takes several times as long then, and
// every server up to three times the CPU time for the same work. So the distance is measured before each run and behind it.

import { setTimeout as delay } from 'node:timers/promises';
import { median } from './statistics.mjs';

/** Cores are apart that need more than so many times the least that they have ever needed. */
const APART = 2;

/** A run in which they have moved apart is tried so often. */
const TRIES = 3;

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
   * Waits until the cores are near each other and runs; once more if they were apart behind it. What `isFinal` says so of is
   * kept in any case.
   *
   * @template T
   * @param {() => Promise<T>} run
   * @param {(result: T) => boolean} isFinal
   * @returns {Promise<{ result: T, stood: Stood }>}
   */
  async near(run, isFinal) {
    for (let tries = 1; ; tries += 1) {
      const before = await this.#wait();
      const result = await run();
      const now = this.#look();
      const isApart = before.isApart || now.isApart;
      if (!now.isApart || this.#isGivenUp || tries === TRIES || isFinal(result)) {
        return { result, stood: { nanoseconds: Math.max(before.nanoseconds, now.nanoseconds), isApart, tries } };
      }
    }
  }

  async #wait() {
    let now = this.#look();
    for (let looks = 1; now.isApart && !this.#isGivenUp; looks += 1) {
      this.#isGivenUp = looks > LOOKS;
      await this.#pause(INTERVAL);
      now = this.#look();
    }
    return now;
  }

  #look() {
    const nanoseconds = this.#measure();
    this.#least = Math.min(this.#least, nanoseconds);
    const isApart = nanoseconds > APART * this.#least;
    if (!isApart) this.#isGivenUp = false;
    return { nanoseconds, isApart };
  }
}

/**
 * Where the cores were in one run, the further one of before and behind it.
 *
 * @typedef {{ nanoseconds: number, isApart: boolean, tries: number }} Stood
 */

/**
 * What is kept of all runs of a work.
 *
 * @param {Stood[]} runs
 */
export function summaryOf(runs) {
  if (runs.length === 0) return undefined;
  return {
    nanoseconds: median(runs.map(({ nanoseconds }) => nanoseconds)),
    repeated: runs.reduce((sum, { tries }) => sum + tries - 1, 0),
    apart: runs.filter(({ isApart }) => isApart).length,
  };
}
