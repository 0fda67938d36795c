// npm run stress -- [--minutes 10] [--seed N] [--io-threads 1..4]
//
// Random clients, threads, servers, channels, bans and requests against the release build, and what must hold of them, see
// stress/process.mjs. A process for each number of I/O threads, which share the time. The first thing that does not hold ends
// it, with the seed, which repeats the choices of a run; what happens between threads and on the network is new each time.

import { spawnSync } from 'node:child_process';
import { fileURLToPath } from 'node:url';
import { parseArgs } from 'node:util';
import { ensureAll, main, StepFailed, say } from './setup.mjs';

/** glibc keeps what is freed, a bit more with each peak. These let it give memory back at once; elsewhere they mean nothing. */
const GIVE_BACK = {
  MALLOC_ARENA_MAX: '2',
  MALLOC_MMAP_THRESHOLD_: '8192',
  MALLOC_TRIM_THRESHOLD_: '131072',
};

const PROGRAM = fileURLToPath(new URL('stress/process.mjs', import.meta.url));

await main(async (args) => {
  const { minutes, seed, ioThreads } = parse(args);
  await ensureAll();
  const seconds = Math.ceil((minutes * 60) / ioThreads.length);
  for (const count of ioThreads) {
    say(`${seconds} s with ${count} I/O threads, seed ${seed}`);
    const { status, signal } = spawnSync(process.execPath, [PROGRAM, String(seed), String(seconds), String(count)], {
      stdio: 'inherit',
      env: { ...process.env, ...GIVE_BACK },
    });
    if (status !== 0) {
      const again = `npm run stress -- --seed ${seed} --io-threads ${count} --minutes ${seconds / 60}`;
      throw new StepFailed(`failed (${signal ?? status}); again: ${again}`, status ?? 1);
    }
  }
});

function parse(args) {
  const { values } = parseArgs({
    args,
    options: {
      minutes: { type: 'string', default: '10' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 32)) },
      'io-threads': { type: 'string', default: '1..4' },
    },
  });
  const { minutes, seed, 'io-threads': range } = values;
  const [, from, to = from] = /^(\d+)(?:\.\.(\d+))?$/.exec(range) ?? [];
  if (!(Number(minutes) > 0)) throw new StepFailed(`--minutes: expected a number, got ${minutes}`);
  if (!/^\d{1,10}$/.test(seed)) throw new StepFailed(`--seed: expected a whole number, got ${seed}`);
  if (!(Number(from) >= 1 && Number(from) <= Number(to))) {
    throw new StepFailed(`--io-threads: expected a number or a range such as 1..4, got ${range}`);
  }
  const ioThreads = Array.from({ length: Number(to) - Number(from) + 1 }, (_, at) => Number(from) + at);
  return { minutes: Number(minutes), seed: Number(seed), ioThreads };
}
