/** Runs a few lines of a program that uses the package, in a process of its own. */

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { text } from 'node:stream/consumers';
import { fileURLToPath } from 'node:url';
import { within } from './waiting.mjs';

const PROGRAM = fileURLToPath(new URL('../fixtures/program.mjs', import.meta.url));

/**
 * Runs a program to its end, which must come by itself, and expects this of it; gives what it wrote to stderr. It may have as
 * many `descriptors` open, where that is given.
 */
export async function runsTo(expected, program, env = {}, { descriptors } = {}) {
  const node = [process.execPath, PROGRAM, program];
  const limited = ['sh', '-c', `ulimit -n ${descriptors} && exec "$0" "$@"`, ...node];
  const [command, ...args] = descriptors === undefined ? node : limited;
  const child = spawn(command, args, {
    env: { ...process.env, WSBROKER_IO_THREADS: '2', ...env },
  });
  const exited = new Promise((resolve) => child.on('close', (code, signal) => resolve({ code, signal })));
  try {
    const ended = Promise.all([exited, text(child.stdout), text(child.stderr)]);
    const [end, stdout, stderr] = await within(ended, 'the end of the program', 60_000);
    assert.deepEqual({ ...end, stdout: stdout.trim() }, { code: 0, signal: null, stdout: '', ...expected }, stderr);
    return stderr;
  } finally {
    child.kill('SIGKILL');
  }
}
