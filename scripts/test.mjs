// npm test [-- files or node --test options]
//
// Sets the checkout up, then runs the cargo tests of the workspace and the node tests of the built package.
// Given files (`npm test -- test/echo.test.mjs`), it runs only these. Both halves run even when the first
// fails, so that one run tells everything.

import { existsSync, readdirSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ensureAll, main, ROOT, run, StepFailed, say } from './setup.mjs';

/** One file may take this long, in ms. The stress tests take a minute; the rest seconds. */
const FILE_TIMEOUT = 300_000;

await main(async (args) => {
  const options = args.filter((arg) => arg.startsWith('-'));
  const files = args.filter((arg) => !arg.startsWith('-'));
  await ensureAll();

  const failures = [];
  if (args.length === 0) attempt(failures, 'cargo test', cargoTests);
  attempt(failures, 'node --test', () => nodeTests(options, files.length > 0 ? files : allTestFiles()));
  if (failures.length > 0) throw new StepFailed(`failed: ${failures.join(', ')}`);
});

function attempt(failures, name, step) {
  try {
    step();
  } catch (error) {
    if (!(error instanceof StepFailed)) throw error;
    console.error(error.message);
    failures.push(name);
  }
}

function cargoTests() {
  say('cargo test --workspace');
  run('cargo', ['test', '--workspace']);
}

function nodeTests(options, files) {
  say(`node --test, ${files.length} ${files.length === 1 ? 'file' : 'files'}`);
  for (const file of files) if (!existsSync(path.resolve(ROOT, file))) throw new StepFailed(`${file} does not exist`);
  // Half of the cores: the other half is busy with the servers' own threads and their clients.
  const concurrency = Math.max(1, Math.floor(os.availableParallelism() / 2));
  run(process.execPath, [
    '--test',
    '--test-reporter=spec',
    `--test-concurrency=${concurrency}`,
    `--test-timeout=${FILE_TIMEOUT}`,
    ...options,
    ...files,
  ]);
}

// Node 20 takes a folder, later ones take a glob; a list of files means the same to all of them.
function allTestFiles() {
  return readdirSync(path.join(ROOT, 'test'))
    .filter((name) => name.endsWith('.test.mjs'))
    .sort()
    .map((name) => path.join('test', name));
}
