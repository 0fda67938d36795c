/**
 * Calls that command I/O threads are collected for the rest of the task they are made in, so that a burst of them wakes
 * each thread once instead of once per call.
 */

import { native } from './native.cjs';
import { queueMicrotask } from './primordials.cjs';

let isCorked = false;

/** To be called before a command. The task's first one schedules the release. */
export function corkForThisTask(): void {
  if (isCorked) return;
  isCorked = true;
  native.cork();
  queueMicrotask(uncork);
}

/** While events are handled, the addon corks by itself from batch to batch. */
export function corkedByBatches(run: () => void): void {
  isCorked = true;
  try {
    run();
  } finally {
    uncork();
  }
}

function uncork(): void {
  isCorked = false;
  native.uncork();
}
