// npm run attacks [-- --write] [part of a name …]
//
// Attacks a server on this machine, one attack after the other, and prints what the attacker got, what a well-behaved
// client beside it noticed, and how much memory the server took for it. Each process runs where the scheduler puts it;
// the attacker's has the lowest priority. Loopback only. Linux, for it reads the memory of the server from /proc.
//
//   --write   also writes the table to docs/attacks.md; for all attacks

import { writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { ensureAll, main, ROOT, StepFailed, say } from './setup.mjs';

const TIMES = { quiet: 3000, duration: 5000 };

const FILE = path.join(ROOT, 'docs/attacks.md');

const HEAD = `# Attacks

What hostile clients get, and what a client beside them notices. \`npm run attacks -- --write\` has written this; the attacks
are in [test/attacks](../test/attacks/attacks.mjs), and a moment of each is a test.

A server with one worker echoes messages. The client beside the attacker sends one, waits for its echo, and sends the next 2 ms
later; its round trips are told as the median and, in brackets, the 99th percentile. Server, attacker and client have a process
each, and where that is more than there are cores, they also compete for these: the attacker with the lowest priority, and most
attacks take all the time they can get. Of the server's memory the table has the highest resident size during the attack above
the one before.
`;

await main(async (args) => {
  if (process.platform !== 'linux') throw new StepFailed('this reads /proc, which only Linux has');
  const isWriting = args.includes('--write');
  const parts = args.filter((arg) => arg !== '--write');
  if (isWriting && parts.length > 0) throw new StepFailed('--write is for all attacks');
  await ensureAll();
  const { ATTACKS } = await import('../test/attacks/attacks.mjs');
  const { fight } = await import('../test/attacks/arena.mjs');
  const names = Object.keys(ATTACKS).filter((name) => parts.length === 0 || parts.some((part) => name.includes(part)));
  if (names.length === 0) {
    throw new StepFailed(`no attack has such a name; there are: ${Object.keys(ATTACKS).join('; ')}`);
  }
  const lines = [];
  const print = (line) => {
    console.log(line);
    lines.push(line);
  };
  print('| attack | options | the attacker got | round trip beside it | quiet | memory |');
  print('| --- | --- | --- | --: | --: | --: |');
  for (const name of names) {
    const { outcome, before, during, memory } = await fight(name, TIMES);
    const got = Object.entries(outcome).map(([what, count]) => `${what} × ${count.toLocaleString('en')}`);
    const cells = [name, options(ATTACKS[name]), got.join(', '), times(during), times(before)];
    print(`| ${[...cells, mebibytes(memory.peak - memory.resident)].join(' | ')} |`);
  }
  const { version } = process;
  const machine = `${os.cpus()[0]?.model ?? os.arch()}, ${os.availableParallelism()} cores, ${os.type()} ${os.release()}`;
  print(`\n${machine}, Node ${version.slice(1)}, ${new Date().toISOString().slice(0, 10)}.`);
  if (!isWriting) return;
  writeFileSync(FILE, `${HEAD}\n${lines.join('\n')}\n`);
  say(`${path.relative(ROOT, FILE)} written`);
});

function options({ options = {} }) {
  const entries = Object.entries(options).map(([name, value]) => `${name}: ${literal(value)}`);
  return entries.length > 0 ? `\`${entries.join(', ')}\`` : '';
}

/** As it stands in a program. */
function literal(value) {
  if (typeof value === 'string') return `'${value}'`;
  if (typeof value !== 'object')
    return typeof value === 'number' ? value.toLocaleString('en').replaceAll(',', '_') : value;
  const entries = Object.entries(value).map(([name, inner]) => `${name}: ${literal(inner)}`);
  return `{ ${entries.join(', ')} }`;
}

function times(sorted) {
  const at = (share) => sorted[Math.floor((sorted.length - 1) * share)];
  return `${at(0.5).toFixed(2)} ms (${at(0.99).toFixed(2)})`;
}

function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
