// The same scenarios on every runtime that the package promises to work in.

import assert from 'node:assert/strict';
import path from 'node:path';
import { before, describe, it } from 'node:test';
import { ensureRuntimes, RUNTIME_NAMES, runtimesUnavailable } from '../scripts/runtimes.mjs';
import { execute, ROOT } from './helpers/package.mjs';

/** A scenario takes a second; the rest is for a busy machine. A process that does not end by itself fails here. */
const DEADLINE = 60_000;

describe('on other runtimes', { skip: runtimesUnavailable() }, () => {
  let binaries;

  before(() => {
    binaries = ensureRuntimes();
  });

  for (const name of RUNTIME_NAMES) {
    const run = (fixture) => {
      const file = path.join(ROOT, 'test/fixtures', fixture);
      const args = name === 'Deno' ? ['run', '--allow-all', '--no-prompt', file] : [file];
      return execute(binaries[name], args, { cwd: ROOT, timeout: DEADLINE, killSignal: 'SIGKILL' });
    };

    it(`${name} serves from the main thread and ends by itself`, async () => {
      const { code, stdout, stderr } = await run('runtime-smoke.cjs');
      assert.deepEqual({ code, stdout }, { code: 0, stdout: 'smoke test passed\n' }, stderr);
    });

    // The promise for Bun and Deno is the main thread.
    if (name.startsWith('Node')) {
      it(`${name} serves from worker threads, survives the end of one and ends by itself`, async () => {
        const { code, stdout, stderr } = await run('runtime-workers.cjs');
        assert.deepEqual({ code, stdout }, { code: 0, stdout: 'worker test passed\n' }, stderr);
      });
    }
  }
});
