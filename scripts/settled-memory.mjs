// How much memory this process holds when nothing moves any more.

import { setTimeout as delay } from 'node:timers/promises';
import v8 from 'node:v8';
import vm from 'node:vm';

/** Measurements that differ by less are the same. */
const STILL = 256 << 10;

/**
 * The process's memory after the garbage is collected: measured until the resident bytes are the same three times in a
 * row, for threads that have ended and pages that are given back do so a little later. After 5 s the last one counts.
 *
 * @returns {Promise<{ resident: number, heap: number, outside: number }>} in bytes: all of it, what JavaScript of this
 *   thread uses, and what is neither that nor room that V8 keeps for it, so the addon, other threads, shared buffers
 */
export async function settledMemory() {
  v8.setFlagsFromString('--expose-gc');
  const collect = vm.runInNewContext('gc');
  const measured = [];
  do {
    collect();
    await delay(50);
    measured.push(process.memoryUsage());
  } while (measured.length < 100 && !isStill(measured.slice(-3).map(({ rss }) => rss)));
  const { rss, heapUsed, heapTotal } = measured.at(-1);
  return { resident: rss, heap: heapUsed, outside: rss - heapTotal };
}

function isStill(resident) {
  return resident.length === 3 && Math.max(...resident) - Math.min(...resident) < STILL;
}
