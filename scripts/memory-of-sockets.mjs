// A process of memory.mjs: a server, and what so many idle sockets make it grow by.
// Arguments: number of sockets, bytes of a compressed first message or 0, the option `compression` as JSON.

import { registerWorkerThread, send, start, stats } from 'wsbroker';
import { IdleClients } from './idle-clients.mjs';
import { settledMemory } from './settled-memory.mjs';

const WARM_UP_SOCKETS = 100;

const [count, compressed, compression] = process.argv.slice(2).map((argument) => JSON.parse(argument));

const registration = registerWorkerThread({
  handleSocketMessage: (data, socketId) => void send(socketId, data),
});
const server = start({ bind: '127.0.0.1:0', compression });
await withSockets(WARM_UP_SOCKETS, async () => {});
const { resident: before } = await settledMemory();
const { resident: after } = await withSockets(count, settledMemory);
const { ioThreads } = stats();
await server.stop();
registration.unregister();
process.send({ before, after, ioThreads });
process.disconnect();

/** Measures while `sockets` are open, and closes them. */
async function withSockets(sockets, measure) {
  const clients = new IdleClients(server.address, sockets, { compressed });
  try {
    await clients.open();
    const { connections } = stats();
    if (connections !== sockets) throw new Error(`${connections} of ${sockets} sockets are open`);
    return await measure();
  } finally {
    await clients.end();
    while (stats().connections > 0) await new Promise((resolve) => setTimeout(resolve, 10));
  }
}
