/** Waiting for things to happen: always for the thing itself, never for some time, and never for ever. */

import { setTimeout as delay } from 'node:timers/promises';

/** How long anything may take before it counts as failed, in ms. Generous: a busy machine is no failure. */
export const DEADLINE = 15_000;

/** The promise's value, or an error that says what did not happen in time. */
export async function within(promise, what, milliseconds = DEADLINE) {
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not within ${milliseconds} ms: ${what}`)), milliseconds);
  });
  try {
    return await Promise.race([promise, late]);
  } finally {
    clearTimeout(timer);
  }
}

/** Repeats an assertion until it holds, and returns its value. After the deadline its last error is thrown. */
export async function eventually(assertion, milliseconds = DEADLINE) {
  const end = performance.now() + milliseconds;
  for (;;) {
    try {
      return await assertion();
    } catch (error) {
      if (performance.now() > end) throw error;
    }
    await delay(5);
  }
}

/** A promise and the functions that settle it. */
export function deferred() {
  let resolve;
  let reject;
  const promise = new Promise((...settle) => {
    [resolve, reject] = settle;
  });
  return { promise, resolve, reject };
}

/** Collects what is pushed and lets a test wait for the next thing, or for some. */
export class Inbox {
  #items = [];
  #waiting = [];

  push(item) {
    const waiting = this.#waiting.shift();
    if (waiting) waiting(item);
    else this.#items.push(item);
  }

  /** What came and was not taken. */
  get length() {
    return this.#items.length;
  }

  /** The next item, in the order they came. */
  next(what = 'the next item') {
    if (this.#items.length > 0) return Promise.resolve(this.#items.shift());
    return within(new Promise((resolve) => this.#waiting.push(resolve)), what);
  }

  /** The next `count` items. */
  async take(count, what = `${count} items`) {
    const items = [];
    while (items.length < count) items.push(await this.next(`${what}; came so far: ${items.length}`));
    return items;
  }
}
