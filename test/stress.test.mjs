// A moment of the stress, which `npm run stress` runs for minutes: everything at once, and what must hold of it.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { test } from 'node:test';
import { fileURLToPath } from 'node:url';
import { chooseSeed } from './helpers/random.mjs';
import { within } from './helpers/waiting.mjs';

const PROGRAM = fileURLToPath(new URL('../scripts/stress/process.mjs', import.meta.url));
const SECONDS = 4;
const IO_THREADS = 2;

const seed = chooseSeed();

test(`a moment of the stress (WSBROKER_TEST_SEED=${seed})`, async (t) => {
  const child = spawn(process.execPath, [PROGRAM, String(seed), String(SECONDS), String(IO_THREADS)]);
  t.after(() => child.kill('SIGKILL'));
  let output = '';
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (data) => {
      output += data;
    });
  }
  const ended = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  const end = await within(ended, 'the end of all rounds', 120_000);
  for (const line of output.trimEnd().split('\n')) t.diagnostic(line);
  assert.deepEqual(end, { code: 0, signal: null }, output);
});
