/** The promises of the application: anything that has a `then`, whatever it does when it is called. */

import { IntrinsicPromise, promiseThen } from './primordials.cjs';

/** Throws what a getter of the value throws. */
export function isThenable(value: unknown): value is PromiseLike<unknown> {
  // What most handlers return that are called for each message.
  if (value === undefined) return false;
  const mayHaveThen = (typeof value === 'object' && value !== null) || typeof value === 'function';
  return mayHaveThen && typeof (value as PromiseLike<unknown>).then === 'function';
}

/**
 * What to `await` for an application's promise. `await` itself settles once, but reads a native promise without a call of
 * the `then` that it may have of its own, as lazy promises do: that one is called by a fresh promise, which takes the first
 * answer and no other, and what it throws instead.
 */
export function adopt(promise: PromiseLike<unknown>): PromiseLike<unknown> {
  return promise.then === promiseThen ? promise : new IntrinsicPromise((resolve) => resolve(promise));
}

/** Calls back if the promise is rejected. What it calls must not throw. */
export async function onRejection(promise: PromiseLike<unknown>, callback: (error: unknown) => void): Promise<void> {
  try {
    await adopt(promise);
  } catch (error) {
    callback(error);
  }
}
