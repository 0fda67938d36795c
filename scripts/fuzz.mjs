// npm run fuzz -- <target> [seconds] [options of libFuzzer]
// npm run fuzz -- --keep <target>
//
// Runs a fuzzer of fuzz/ for a minute, or for so many seconds, from the seeds in the repository and what earlier runs
// found. A finding is printed and kept in target/fuzz/artifacts: put it into the seeds, which `npm test` runs.
// `--keep` chooses from what was found the smallest inputs that reach all that was reached, and puts them into the seeds.
//
// cargo-fuzz is installed into target/tools. It needs options of the compiler that are not stable, so it runs with
// RUSTC_BOOTSTRAP=1 and whatever compiler there is.

import { spawnSync } from 'node:child_process';
import { cpSync, existsSync, mkdirSync, readdirSync, rmSync, statSync } from 'node:fs';
import path from 'node:path';
import { checkTools, main, ROOT, run, StepFailed, say } from './setup.mjs';

const CARGO_FUZZ = '0.13.1';

const DEFAULT_SECONDS = 60;

/** What may be kept of one target: git is no place for a corpus. */
const MAX_KEPT_FILES = 100;
const MAX_KEPT_BYTES = 200 * 1024;

const TOOLS = path.join(ROOT, 'target/tools');
const WORK = path.join(ROOT, 'target/fuzz');

await main((args) => {
  checkTools();
  if (process.platform === 'win32') throw new StepFailed('cargo-fuzz does not run on Windows');
  const isKeeping = args[0] === '--keep';
  const [target, ...rest] = isKeeping ? args.slice(1) : args;
  checkTarget(target);
  ensureCargoFuzz();
  if (isKeeping) keep(target);
  else fuzz(target, rest);
});

function checkTarget(target) {
  const targets = readdirSync(path.join(ROOT, 'fuzz/fuzz_targets')).map((file) => path.basename(file, '.rs'));
  if (!targets.includes(target)) throw new StepFailed(`expected a target (${targets.join(', ')}), got ${target}`);
}

function ensureCargoFuzz() {
  const binary = path.join(TOOLS, 'bin/cargo-fuzz');
  const installed = spawnSync(binary, ['--version'], { encoding: 'utf8' }).stdout ?? '';
  if (installed.trim() === `cargo-fuzz ${CARGO_FUZZ}`) return;
  say(`installing cargo-fuzz ${CARGO_FUZZ}`);
  run('cargo', ['install', 'cargo-fuzz', '--version', CARGO_FUZZ, '--locked', '--root', TOOLS]);
}

function fuzz(target, rest) {
  const seconds = /^\d+$/.test(rest[0] ?? '') ? rest.shift() : String(DEFAULT_SECONDS);
  const artifacts = `${folder('artifacts', target)}${path.sep}`;
  cargoFuzz(target, [
    folder('corpus', target),
    seedsOf(target),
    '--',
    `-artifact_prefix=${artifacts}`,
    `-max_total_time=${seconds}`,
    '-print_final_stats=1',
    ...rest,
  ]);
}

function keep(target) {
  const merged = folder('merged', target);
  rmSync(merged, { recursive: true, force: true });
  mkdirSync(merged);
  // The first folder gets what the others have that reaches something new, the smallest inputs first.
  cargoFuzz(target, [merged, seedsOf(target), folder('corpus', target), '--', '-merge=1']);
  const files = readdirSync(merged).map((name) => ({ name, size: statSync(path.join(merged, name)).size }));
  files.sort((a, b) => a.size - b.size);
  let kept = readdirSync(seedsOf(target)).length;
  let bytes = 0;
  for (const { name, size } of files) {
    const seed = path.join(seedsOf(target), name);
    if (existsSync(seed)) continue;
    kept += 1;
    bytes += size;
    if (kept > MAX_KEPT_FILES || bytes > MAX_KEPT_BYTES) break;
    cpSync(path.join(merged, name), seed);
  }
  say(`${readdirSync(seedsOf(target)).length} seeds of ${target}`);
}

function cargoFuzz(target, args) {
  run(
    path.join(TOOLS, 'bin/cargo-fuzz'),
    ['run', '--fuzz-dir', path.join(ROOT, 'fuzz'), '--target-dir', path.join(WORK, 'build'), target, ...args],
    { env: { ...process.env, RUSTC_BOOTSTRAP: '1' } },
  );
}

function seedsOf(target) {
  return path.join(ROOT, 'fuzz/seeds', target);
}

function folder(name, target) {
  const made = path.join(WORK, name, target);
  mkdirSync(made, { recursive: true });
  return made;
}
