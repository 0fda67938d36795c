// npm run attacks [-- part of a name …]
//
// Attacks a server on this machine, one attack after the other, and prints what the attacker got, what a well-behaved
// client beside it noticed, and how much memory the server took for it. Each process runs where the scheduler puts it;
// the attacker's has the lowest priority. Loopback only. Linux, for it reads the memory of the server from /proc.

import os from 'node:os';
import { ensureAll, main, StepFailed } from './setup.mjs';

const TIMES = { quiet: 3000, duration: 5000 };

await main(async (parts) => {
  if (process.platform !== 'linux') throw new StepFailed('this reads /proc, which only Linux has');
  await ensureAll();
  const { ATTACKS } = await import('../test/attacks/attacks.mjs');
  const { fight } = await import('../test/attacks/arena.mjs');
  const names = Object.keys(ATTACKS).filter((name) => parts.length === 0 || parts.some((part) => name.includes(part)));
  if (names.length === 0)
    throw new StepFailed(`no attack has such a name; there are: ${Object.keys(ATTACKS).join('; ')}`);
  console.log('| attack | the attacker got | round trip beside it, median (p99) | quiet | memory, peak above before |');
  console.log('|---|---|---|---|---|');
  for (const name of names) {
    const { outcome, before, during, memory } = await fight(name, TIMES);
    const got = Object.entries(outcome).map(([what, count]) => `${what} × ${count}`);
    const cells = [name, got.join(', '), times(during), times(before), mebibytes(memory.peak - memory.resident)];
    console.log(`| ${cells.join(' | ')} |`);
  }
  console.log(
    `\n${os.cpus()[0]?.model ?? os.arch()}, ${os.availableParallelism()} cores, ${os.type()} ${os.release()},`,
  );
  console.log(`Node ${process.versions.node}, ${new Date().toISOString().slice(0, 10)}`);
});

function times(sorted) {
  const at = (share) => sorted[Math.floor((sorted.length - 1) * share)];
  return `${at(0.5).toFixed(2)} ms (${at(0.99).toFixed(2)})`;
}

function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}
