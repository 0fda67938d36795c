/**
 * The chat's main thread: starts the workers, then the server, and ends both on a signal.
 *
 * Environment: HOST (default 127.0.0.1), PORT (default 3000; 0 takes any free port), WORKERS (default 3).
 */
import { once } from 'node:events';
import { Worker } from 'node:worker_threads';
import { start } from 'wsbroker';

const host = process.env.HOST ?? '127.0.0.1';
const port = process.env.PORT ?? '3000';
const workers = Number(process.env.WORKERS ?? 3);

// Each worker says one word when it has registered; before that there is nobody to serve a visitor.
// An error in a worker ends the process, as Node does by default; the pages reconnect to the next one.
await Promise.all(
  Array.from({ length: workers }, () => once(new Worker(new URL('worker.mjs', import.meta.url)), 'message')),
);

const server = listen();

// Closes the sockets with 1001 (going away) and frees the port. Nothing else keeps the process alive, so it ends.
for (const signal of ['SIGINT', 'SIGTERM']) process.once(signal, () => server.stop());

console.log(`listening on ${server.url}`);

function listen() {
  try {
    // A chat message is short. The limit leaves room for 2000 characters, however JSON escapes them.
    return start({ bind: `${host}:${port}`, maxMessageSize: 16 * 1024 });
  } catch (error) {
    const taken = error.code === 'WSB_ADDRESS_IN_USE';
    console.error(taken ? `Port ${port} is in use. Choose another one, for example PORT=3001.` : error.message);
    process.exit(1); // not just an exit code: the workers are still there
  }
}
