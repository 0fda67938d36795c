// npm run memory [-- sockets]
//
// Prints what an idle socket costs the server's process: the growth of its resident memory from before the sockets are
// opened to when all of them are open, have sent one message and got it back, over their number. The clients are other
// processes. Before both measurements the garbage is collected. A few sockets are opened and closed before, so that
// code, threads and first buffers are not counted; no more than a few, for memory that sockets had left behind would be
// taken again and not be seen. For the same reason each kind of socket has a server process of its own. What the kernel
// holds for a connection is not in it.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { tooManySockets } from './idle-clients.mjs';
import { ensureAll, main, ROOT, StepFailed } from './setup.mjs';

const DEFAULT_SOCKETS = 5000;
const PROGRAM = fileURLToPath(new URL('memory-of-sockets.mjs', import.meta.url));

/** A message that browsers and this server compress, and one that fills the largest window. */
const [SHORT, LONG] = [2048, 65_536];

const KINDS = [
  { name: 'plain', compressed: 0, compression: false },
  { name: 'compressed, shared, 2 KiB each way', compressed: SHORT, compression: true },
  { name: 'compressed, dedicated, 2 KiB each way', compressed: SHORT, compression: { memory: 'dedicated' } },
  { name: 'compressed, dedicated, 64 KiB each way', compressed: LONG, compression: { memory: 'dedicated' } },
  {
    name: 'compressed, dedicated, windowBits 12',
    compressed: LONG,
    compression: { memory: 'dedicated', windowBits: 12 },
  },
];

const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));

await main(async ([argument = String(DEFAULT_SOCKETS)]) => {
  if (!/^[1-9]\d{0,5}$/.test(argument)) throw new StepFailed(`expected a number of sockets, got ${argument}`);
  const count = Number(argument);
  const obstacle = tooManySockets(count);
  if (obstacle) throw new StepFailed(obstacle);
  await ensureAll();

  const rows = [];
  let ioThreads;
  for (const kind of KINDS) {
    const measured = await measure(count, kind);
    ioThreads = measured.ioThreads;
    const bytes = Math.round((measured.after - measured.before) / count);
    rows.push([kind.name, `${bytes} bytes per socket (${mebibytes(measured.before)} to ${mebibytes(measured.after)})`]);
  }
  print([
    ['idle sockets', String(count)],
    ...rows,
    ['I/O threads', String(ioThreads)],
    ['machine', `${os.cpus()[0]?.model ?? os.arch()}, ${os.availableParallelism()} cores`],
    ['system', `${os.type()} ${os.release()} ${os.arch()}`],
    ['versions', `wsbroker ${version}, Node ${process.versions.node}`],
    ['date', new Date().toISOString().slice(0, 10)],
  ]);
});

/** Runs a server of its own for this kind of socket. */
async function measure(count, { name, compressed, compression }) {
  const child = fork(
    PROGRAM,
    [count, compressed, compression].map((argument) => JSON.stringify(argument)),
  );
  const ended = once(child, 'exit').then(([code]) => {
    throw new StepFailed(`${name}: the server ended with ${code}`);
  });
  ended.catch(() => {}); // it ends after its answer as well
  const [measured] = await Promise.race([once(child, 'message'), ended]);
  return measured;
}

function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function print(rows) {
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`);
}
