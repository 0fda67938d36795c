/**
 * The main thread of several workers. It only starts them and the server: events go straight from the broker to the
 * workers' threads.
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { start } from 'wsbroker';

// One after the other, so that they are numbered in the order in which sockets are dealt to them.
for (let number = 1; number <= Number(process.env.WORKERS ?? 3); number += 1) {
  await once(new Worker(new URL('worker.mjs', import.meta.url), { workerData: number }), 'message');
}

const server = start({ bind: `127.0.0.1:${process.env.PORT ?? 3000}` });

// Once the server has stopped, nothing keeps the threads and the process alive.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());

console.log(`listening on ${server.url}`);
