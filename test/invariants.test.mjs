// Random traffic on 200 sockets, 20 channels and 4 worker threads that end and are replaced, and what must hold of it:
//
// - every message comes exactly once and in order; what a terminated thread was holding is excepted and counted;
// - every socket that was opened has exactly one close event, with the right code;
// - afterwards the registries are empty, and the memory is back where it was.
//
// It runs for 20 s, WSBROKER_INVARIANTS_SECONDS for another time. WSBROKER_TEST_SEED repeats the choices of a run; what
// happens between threads and on the network is new each time.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chooseSeed } from './helpers/random.mjs';
import { within } from './helpers/waiting.mjs';

const PROGRAM = fileURLToPath(new URL('fixtures/invariants.mjs', import.meta.url));

/**
 * glibc keeps what is freed, a bit more with each peak of traffic. These let it give memory back at once, so that what
 * is still held is what somebody holds. Elsewhere they mean nothing.
 */
const GIVE_BACK = { MALLOC_ARENA_MAX: '2', MALLOC_MMAP_THRESHOLD_: '8192', MALLOC_TRIM_THRESHOLD_: '131072' };

const seconds = Number(process.env.WSBROKER_INVARIANTS_SECONDS ?? 20);
const seed = chooseSeed();

test(`everything once and in order, whatever ends meanwhile (WSBROKER_TEST_SEED=${seed})`, async (t) => {
  assert.ok(seconds > 0, 'WSBROKER_INVARIANTS_SECONDS is a number of seconds');
  t.diagnostic(`WSBROKER_TEST_SEED=${seed} repeats the choices of this run of ${seconds} s`);
  const child = spawn(process.execPath, [PROGRAM, String(seed), String(seconds)], {
    env: { ...process.env, ...GIVE_BACK },
    stdio: ['ignore', 'pipe', 'pipe'],
  });
  t.after(() => child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
    });
  }
  const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  const end = await within(ended, 'the end of all rounds', 2000 * seconds + 120_000);
  for (const line of output.trimEnd().split('\n')) t.diagnostic(line);
  assert.deepEqual(end, { code: 0, signal: null }, output);
});
