// npm run memory [-- sockets]
//
// Prints what an idle socket costs the server's process: the growth of its resident memory from before the sockets are
// opened to when all of them are open, have sent one message and got it back, over their number. The clients are other
// processes. Before both measurements the garbage is collected. A few sockets are opened and closed before, so that
// code, threads and first buffers are not counted; no more than a few, for memory that sockets had left behind would be
// taken again and not be seen. What the kernel holds for a connection is not in it.

import { readFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { IdleClients, tooManySockets } from './idle-clients.mjs';
import { settledMemory } from './settled-memory.mjs';
import { ensureAll, main, ROOT, StepFailed } from './setup.mjs';

const DEFAULT_SOCKETS = 5000;
const WARM_UP_SOCKETS = 100;

const { version } = JSON.parse(readFileSync(path.join(ROOT, 'package.json'), 'utf8'));

await main(async ([argument = String(DEFAULT_SOCKETS)]) => {
  if (!/^[1-9]\d{0,5}$/.test(argument)) throw new StepFailed(`expected a number of sockets, got ${argument}`);
  const count = Number(argument);
  const obstacle = tooManySockets(count);
  if (obstacle) throw new StepFailed(obstacle);
  await ensureAll();
  const broker = await import('wsbroker');

  const registration = broker.registerWorkerThread({
    handleSocketMessage: (data, socketId) => void broker.send(socketId, data),
  });
  const server = broker.start({ bind: '127.0.0.1:0' });
  await withSockets(broker, server, WARM_UP_SOCKETS, async () => {});
  const { resident: before } = await settledMemory();
  const { resident: after } = await withSockets(broker, server, count, settledMemory);
  const { ioThreads } = broker.stats();
  await server.stop();
  registration.unregister();

  print([
    ['idle sockets', String(count)],
    ['resident before', mebibytes(before)],
    ['resident with all open', mebibytes(after)],
    ['bytes per socket', String(Math.round((after - before) / count))],
    ['I/O threads', String(ioThreads)],
    ['machine', `${os.cpus()[0]?.model ?? os.arch()}, ${os.availableParallelism()} cores`],
    ['system', `${os.type()} ${os.release()} ${os.arch()}`],
    ['versions', `wsbroker ${version}, Node ${process.versions.node}`],
    ['date', new Date().toISOString().slice(0, 10)],
  ]);
});

/** Measures while `count` sockets are open, and closes them. */
async function withSockets({ connectionCount }, { address }, count, measure) {
  const clients = new IdleClients(address, count);
  try {
    await clients.open();
    if (connectionCount() !== count) throw new StepFailed(`${connectionCount()} of ${count} sockets are open`);
    return await measure();
  } finally {
    await clients.end();
    while (connectionCount() > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
}

function mebibytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

function print(rows) {
  const width = Math.max(...rows.map(([name]) => name.length));
  for (const [name, value] of rows) console.log(`${name.padEnd(width)}  ${value}`);
}
