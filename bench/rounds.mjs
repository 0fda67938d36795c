// The rounds of a work: server after server, then again, and at the end once more what the machine has spoilt.

import { isFaultless } from './results.mjs';

/** A run in which the machine's cores were apart is tried so often. */
const TRIES = 3;

/**
 * @typedef {{ about?: object, report?: object, error?: string, distance?: number, tries: number }} Run
 *
 * @param {string[]} contenders
 * @param {number} rounds
 * @param {(contender: string) => Promise<{ about?: object, report?: object, error?: string }>} measure
 * @param {import('./distance.mjs').Distance | undefined} distance without it no run is repeated
 * @param {(contender: string, round: number, run: Run) => void} tell
 * @returns {Promise<Map<string, Run[]>>} by contender, one run per round
 */
export async function measureRounds(contenders, rounds, measure, distance, tell) {
  const runs = new Map(contenders.map((name) => [name, []]));
  const measureOnce = async (name, round, tries) => {
    const measured = distance ? await distance.near(() => measure(name)) : { result: await measure(name) };
    const run = { ...measured.result, distance: measured.distance, tries };
    tell(name, round, run);
    const before = runs.get(name)[round - 1];
    // What failed counts, wherever the cores were. Else that counts for which they were nearer.
    const isKept = before === undefined || !isFaultless(run) || run.distance < before.distance;
    runs.get(name)[round - 1] = isKept ? run : { ...before, tries };
  };
  for (let round = 1; round <= rounds; round += 1) {
    for (const name of contenders) await measureOnce(name, round, 1);
  }
  for (let tries = 2; distance && tries <= TRIES; tries += 1) {
    for (const [name, round] of spoilt(runs, distance)) {
      // They may stay apart: to measure again would bring nothing.
      if (distance.isGivenUp) return runs;
      await measureOnce(name, round, tries);
    }
  }
  return runs;
}

/** Contender and round of each run that the machine has spoilt. */
function spoilt(runs, distance) {
  return [...runs].flatMap(([name, rounds]) =>
    rounds.flatMap((run, index) => (distance.isApart(run.distance) && isFaultless(run) ? [[name, index + 1]] : [])),
  );
}
