/**
 * What the package uses of the runtime that applications' tests put fakes in the place of: timers, clocks and promises,
 * taken once, when the package is loaded. A faked timer stands still until its test moves it (`node:test`, Sinon, Jest,
 * Vitest), and a worker that waited for one would handle nothing any more.
 */

import { performance } from 'node:perf_hooks';
// Of the module, for the globals may be faked when the package is loaded, and are others under jsdom.
import timers from 'node:timers';

export const { setImmediate, setTimeout, clearTimeout } = timers;

/** Milliseconds of a clock that nobody sets. */
export const now: () => number = performance.now.bind(performance);

export const { AbortController } = globalThis;

/** The class of the promises that async functions return, whatever the global of that name is. */
export const IntrinsicPromise = (async () => {})().constructor as PromiseConstructor;

/** Its `then`. */
export const promiseThen = IntrinsicPromise.prototype.then;

const { apply } = Reflect;
const settled = IntrinsicPromise.resolve();

/** Runs a function, which must not throw, when the running code gives way. */
export function queueMicrotask(task: () => void): void {
  apply(promiseThen, settled, [task]);
}
