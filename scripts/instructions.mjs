// npm run instructions [-- options]
//
//   --check        fails when a case takes more than 2 % more than docs/bench/instructions.json says
//   --write        writes that file
//   --if-possible  without valgrind: says so, and succeeds
//
// Counts with callgrind how many instructions the codec takes for a message. That is the same each time, however busy
// the machine is; it differs between compilers and processors, so only counts of the same ones are compared.

import { execFileSync, spawnSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { checkTools, main, ROOT, StepFailed, say } from './setup.mjs';

const BASELINE = path.join(ROOT, 'docs', 'bench', 'instructions.json');

/** A case may take so much more before it counts as a regression: what the placement of code and memory may change. */
const TOLERANCE = 0.02;

/** A case is counted with so many runs, and with twice as many. Nothing is left to chance, so few are enough. */
const RUNS = 20;

const OPTIONS = {
  check: { type: 'boolean', default: false },
  write: { type: 'boolean', default: false },
  'if-possible': { type: 'boolean', default: false },
};

await main((args) => {
  const options = readOptions(args);
  checkTools();
  if (!hasValgrind()) {
    const message = 'valgrind was not found: `apt-get install valgrind` brings it, or the package of your system';
    if (!options['if-possible']) throw new StepFailed(message);
    say(`${message}. Nothing was counted.`);
    return;
  }
  const program = build();
  const counted = { ...environment(), counts: countAll(program) };
  const baseline = existsSync(BASELINE) ? JSON.parse(readFileSync(BASELINE, 'utf8')) : undefined;
  const grown = report(counted, baseline);
  if (options.write) {
    mkdirSync(path.dirname(BASELINE), { recursive: true });
    writeFileSync(BASELINE, `${JSON.stringify(counted, null, 2)}\n`);
    say(`${path.relative(ROOT, BASELINE)} written`);
  } else if (options.check && grown.length > 0) {
    throw new StepFailed(`more instructions than before: ${grown.join(', ')}. When that is meant, use --write.`);
  }
});

function readOptions(args) {
  try {
    return parseArgs({ args, options: OPTIONS }).values;
  } catch (error) {
    throw new StepFailed(`${error.message}. The options are at the top of scripts/instructions.mjs.`);
  }
}

function hasValgrind() {
  return spawnSync('valgrind', ['--version'], { stdio: 'ignore' }).status === 0;
}

/** Builds the benchmarks as `cargo bench` does; the program. */
function build() {
  say('building the benchmarks of the engine');
  const args = ['bench', '--package', 'wsbroker-engine', '--bench', 'hot_paths', '--no-run'];
  const { status, stdout } = spawnSync('cargo', [...args, '--message-format=json-render-diagnostics'], {
    cwd: ROOT,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'inherit'],
    maxBuffer: 1 << 26,
  });
  const artifact = stdout
    .split('\n')
    .filter((line) => line.includes('"compiler-artifact"'))
    .map((line) => JSON.parse(line))
    .find(({ target, executable }) => target.name === 'hot_paths' && executable);
  if (status !== 0 || !artifact) throw new StepFailed(`cargo ${args.join(' ')}: exit code ${status}`);
  return artifact.executable;
}

/** What counts depend on beside the code. */
function environment() {
  const compiler = execFileSync('rustc', ['--version'], { cwd: ROOT, encoding: 'utf8' }).trim();
  return { compiler, architecture: process.arch };
}

/** name → instructions per message */
function countAll(program) {
  const cases = execFileSync(program, ['count'], { encoding: 'utf8' }).trim().split('\n');
  return Object.fromEntries(
    cases.map((line) => {
      const [name, messages] = line.split(' ');
      // The difference: what the program does before and after is the same in both.
      const instructions = count(program, name, 2 * RUNS) - count(program, name, RUNS);
      return [name, Math.round((instructions / RUNS / Number(messages)) * 10) / 10];
    }),
  );
}

function count(program, name, runs) {
  const args = ['--tool=callgrind', '--callgrind-out-file=/dev/null', program, 'count', name, String(runs)];
  const { status, stderr } = spawnSync('valgrind', args, { encoding: 'utf8' });
  const collected = /Collected\s*:\s*(\d+)/.exec(stderr)?.[1];
  if (status !== 0 || !collected) throw new StepFailed(`valgrind ${args.join(' ')}:\n${stderr}`);
  return Number(collected);
}

/** Prints a line per case; the cases that take more than before. */
function report({ compiler, architecture, counts }, baseline) {
  const comparable = baseline?.compiler === compiler && baseline?.architecture === architecture;
  if (baseline && !comparable) {
    say(`docs/bench/instructions.json is of ${baseline.compiler}, ${baseline.architecture}: not compared`);
  }
  const grown = [];
  console.log(`instructions per message, ${compiler}, ${architecture}`);
  for (const [name, value] of Object.entries(counts)) {
    const before = comparable ? baseline.counts[name] : undefined;
    const change = before === undefined ? '' : `  ${((value / before - 1) * 100).toFixed(1).padStart(6)} %`;
    console.log(`${name.padEnd(20)} ${value.toLocaleString('en').padStart(12)}${change}`);
    if (before !== undefined && value > before * (1 + TOLERANCE)) grown.push(name);
  }
  return grown;
}
