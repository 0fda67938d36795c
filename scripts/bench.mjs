// npm run bench [-- options]
//
//   --only <text,…>      only the works whose id begins with one of these: echo, fanout-100, http, growth
//   --servers <name,…>   only these: wsbroker, bun, uws, deno, ws, socket.io, node-http
//   --rounds <n>         interleaved rounds, 5 by default
//   --seconds <s>        the measured window of a run, 3 by default
//   --quick              one round of short windows and fewer sockets: that everything works, not how fast it is
//   --smoke              the same for some works and for this package, ws and node:http only, which installs nothing
//   --unpinned           nothing is pinned
//   --write              also writes docs/bench/results.json, docs/bench/results.md, chart.svg and growth.svg
//   --add                with --write: what is recorded there already and not measured now stays
//
// Builds, installs the peers into target/bench/peers, and runs each server as a process of its own against the load
// generator of crates/load. docs/performance.md says what is measured and how. Without --write the results are in
// target/bench only. The exit code is 1 when a run failed or a message was missing, duplicated, disordered or damaged;
// it never depends on time.

import { execFileSync } from 'node:child_process';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { chart, growthChart } from '../bench/chart.mjs';
import { Distance } from '../bench/distance.mjs';
import { chooseCores, describeMachine, mostDescriptors } from '../bench/machine.mjs';
import { ensurePeers } from '../bench/peers.mjs';
import { markdown } from '../bench/report.mjs';
import { checkConditions, isSound, joined, resultOf } from '../bench/results.mjs';
import { measureRounds } from '../bench/rounds.mjs';
import { Runner } from '../bench/runner.mjs';
import { CONTENDERS, SERVERS, unavailable } from '../bench/servers.mjs';
import { threeDigits } from '../bench/statistics.mjs';
import { FIGURES, quick, SMOKE, WORKS } from '../bench/works.mjs';
import { ensureAll, main, ROOT, run, StepFailed, say } from './setup.mjs';

const OPTIONS = {
  only: { type: 'string' },
  servers: { type: 'string' },
  rounds: { type: 'string' },
  seconds: { type: 'string' },
  quick: { type: 'boolean', default: false },
  smoke: { type: 'boolean', default: false },
  unpinned: { type: 'boolean', default: false },
  write: { type: 'boolean', default: false },
  add: { type: 'boolean', default: false },
};

const SMOKE_SERVERS = ['wsbroker', 'ws', 'node-http', 'bare'];

const RECORDED = path.join(ROOT, 'docs', 'bench');

/** What a server needs beside its sockets. */
const OTHER_DESCRIPTORS = 300;

/** Starting and ending a server, connecting, in seconds: for the estimate only. */
const BESIDE_WINDOW = 2;

await main(async (args) => {
  const plan = makePlan(readOptions(args));
  await ensureAll();
  say('building the load generator');
  run('cargo', ['build', '--release', '--package', 'wsbroker-load']);
  const peers = ensurePeers(plan.servers.map((name) => SERVERS[name].peer).filter(Boolean));
  const recorded = plan.options.add ? readRecorded() : undefined;
  const conditions = conditionsOf(plan);
  if (recorded) checkConditions(recorded, conditions);
  const measured = { ...conditions, ...(await measureAll(plan, new Runner(peers, plan.cores, plan.window))) };
  write(measured, path.join(ROOT, 'target', 'bench'));
  const results = recorded ? joined(recorded, measured, WORKS) : measured;
  if (plan.options.write) write(results, RECORDED);
  console.log(markdown(results));
  if (!results.works.every(isSound)) throw new StepFailed('not every message came once, in order and whole: see above');
});

function readOptions(args) {
  let parsed;
  try {
    parsed = parseArgs({ args, options: OPTIONS }).values;
  } catch (error) {
    throw new StepFailed(`${error.message}. The options are at the top of scripts/bench.mjs.`);
  }
  const number = (name, otherwise, pattern) => {
    const value = parsed[name] ?? String(otherwise);
    if (!pattern.test(value)) throw new StepFailed(`--${name}: expected a number, got ${value}`);
    return Number(value);
  };
  const short = parsed.quick || parsed.smoke;
  if (parsed.add && !parsed.write) throw new StepFailed('--add: goes with --write');
  if (short && parsed.write) throw new StepFailed('--write: what --quick and --smoke measure is not worth keeping');
  return {
    ...parsed,
    short,
    rounds: number('rounds', short ? 1 : 5, /^[1-9]\d?$/),
    seconds: number('seconds', short ? 0.3 : 3, /^\d+(\.\d+)?$/),
  };
}

/** What is run, in its order; what cannot be run here, and why. */
function makePlan(options) {
  if (process.platform !== 'linux') {
    throw new StepFailed('the benchmark reads /proc and pins with taskset, so it runs on Linux');
  }
  const wanted = options.servers?.split(',') ?? (options.smoke ? SMOKE_SERVERS : Object.keys(SERVERS));
  for (const name of wanted) {
    if (!SERVERS[name])
      throw new StepFailed(`--servers: there is no ${name}; expected ${Object.keys(SERVERS).join(', ')}`);
  }
  const skipped = {};
  const servers = wanted.filter((name) => {
    const reason = unavailable(name);
    if (reason) skipped[name] = reason;
    return !reason;
  });
  const cores = options.unpinned ? undefined : chooseCores();
  const only = options.only?.split(',') ?? [''];
  const works = WORKS.filter(({ id }) => only.some((beginning) => id.startsWith(beginning)))
    .filter(({ id }) => !options.smoke || SMOKE.includes(id))
    .map((work) => (options.short ? quick(work) : work))
    .map((work) => ({
      ...work,
      placement: cores ? work.placement : 'unpinned',
      contenders: work.contenders.filter((name) => servers.includes(CONTENDERS[name].server)),
    }))
    .filter(({ id, sockets, contenders }) => {
      const enough = sockets + OTHER_DESCRIPTORS <= mostDescriptors();
      if (!enough) skipped[id] = `${sockets} sockets need more descriptors than ulimit -Hn allows`;
      return enough && contenders.length > 0;
    });
  if (works.length === 0) throw new StepFailed('nothing is left to measure: see --only and --servers');
  const window = { seconds: options.seconds, warmUp: options.short ? 0.1 : 1, warmUpCount: options.short ? 10 : 2000 };
  return { options, servers, skipped, cores, works, window };
}

/** What results have to have in common to stand in one table. */
function conditionsOf({ options, cores, window }) {
  return { machine: describeMachine(), node: process.versions.node, pinned: cores, rounds: options.rounds, window };
}

async function measureAll({ options, skipped, cores, works, window }, runner) {
  const count = works.reduce((sum, { contenders }) => sum + contenders.length, 0) * options.rounds;
  const minutes = (count * (window.seconds + window.warmUp + BESIDE_WINDOW)) / 60;
  say(`${works.length} works, ${count} runs, about ${Math.ceil(minutes)} min`);
  if (!cores && !options.unpinned) say('nothing is pinned: that takes two cores and taskset');
  // Who asks only whether it runs need not wait for anything.
  const distance = cores && !options.short ? new Distance(() => runner.distance()) : undefined;
  const servers = {};
  const measured = [];
  for (const work of works) {
    const runs = await measureRounds(
      work.contenders,
      options.rounds,
      (name) => runner.measure(work, name),
      // Memory is the same wherever cores are.
      work.figure === 'resident' ? undefined : distance,
      (name, round, run) => tell(work, name, round, run),
    );
    for (const [name, rounds] of runs) {
      for (const { about } of rounds) {
        if (about) servers[name] = { title: CONTENDERS[name].title, version: about.version, options: about.options };
      }
    }
    measured.push({ work, runs, date: today(), commit: commit() });
  }
  return {
    date: today(),
    short: options.short,
    servers,
    skipped,
    // Where the cores were is judged by all that is known at the end.
    works: measured.map(({ work, runs, ...when }) => ({ ...resultOf(work, runs, distance), ...when })),
  };
}

function tell(work, name, round, { report, error }) {
  const { of, unit } = FIGURES[work.figure];
  console.error(`${work.id}, round ${round}, ${name}: ${error ?? `${threeDigits(of(report))} ${unit}`}`);
}

function today() {
  return new Date().toISOString().slice(0, 10);
}

/** With a + when the checkout has been changed since. */
function commit() {
  const git = (...args) =>
    execFileSync('git', args, { cwd: ROOT, encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  try {
    return `${git('rev-parse', '--short', 'HEAD').trim()}${git('status', '--porcelain').trim() ? '+' : ''}`;
  } catch {
    return 'unknown';
  }
}

function readRecorded() {
  const file = path.join(RECORDED, 'results.json');
  if (!existsSync(file)) throw new StepFailed('--add: nothing has been recorded yet');
  return JSON.parse(readFileSync(file, 'utf8'));
}

function write(results, folder) {
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'results.json'), `${JSON.stringify(results, null, 2)}\n`);
  writeFileSync(path.join(folder, 'results.md'), `${markdown(results)}\n`);
  writeFileSync(path.join(folder, 'chart.svg'), chart(results));
  if (results.works.some(({ curve }) => curve)) writeFileSync(path.join(folder, 'growth.svg'), growthChart(results));
  say(`the results are in ${path.relative(ROOT, folder)}`);
}
