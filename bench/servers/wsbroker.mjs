// This package. BENCH_IO_THREADS: its I/O threads, else its default. BENCH_WORKERS: threads with handlers; without it
// the main thread has them. BENCH_ROUTE: the native route of messages; `echo` for all of them, `relay` for those of sockets
// that have joined a channel, to that channel.

import { createRequire } from 'node:module';
import { isMainThread, parentPort, threadId, Worker } from 'node:worker_threads';
import { registerWorkerThread, send, sendToChannel, setMessageRoute, start, subscribe } from 'wsbroker';
import { answer, GREETING, JOIN, kindOf, nameIn, PUBLISH, ready } from './protocol.mjs';

const WORKERS = Number(process.env.BENCH_WORKERS ?? 0);
const IO_THREADS = Number(process.env.BENCH_IO_THREADS ?? 0);
const ROUTE = process.env.BENCH_ROUTE;

function handle() {
  const thread = `thread ${threadId}`;
  registerWorkerThread({
    // Without a route there is nothing to decide, as in the other servers.
    handleSocketUpgrade: ROUTE === 'echo' ? () => ({ route: 'echo' }) : undefined,
    handleSocketMessage(data, socketId) {
      const kind = kindOf(data);
      if (kind === PUBLISH) {
        sendToChannel(nameIn(data), data);
        return;
      }
      if (kind === JOIN) {
        const relay = nameIn(data);
        subscribe(socketId, relay);
        if (ROUTE === 'relay') setMessageRoute(socketId, { relay, echo: true });
      }
      send(socketId, answer(data, kind, thread));
    },
    handleHttpRequest(request) {
      return { body: request.method === 'GET' ? GREETING : request.body };
    },
  });
}

if (!isMainThread) {
  handle();
  parentPort.postMessage('registered');
} else {
  if (WORKERS === 0) handle();
  const threads = Array.from({ length: WORKERS }, () => new Worker(new URL(import.meta.url)));
  // A thread is online before its program has run; the first message means that it has registered.
  await Promise.all(threads.map(waitForRegistration));
  const options = IO_THREADS > 0 ? { ioThreads: IO_THREADS } : {};
  const server = start({ bind: '127.0.0.1:0', ...options });
  const { version } = createRequire(import.meta.url)('wsbroker/package.json');
  ready({
    port: server.address.port,
    version,
    options: { ...options, ...(WORKERS > 0 ? { workers: WORKERS } : {}), ...(ROUTE ? { route: ROUTE } : {}) },
  });
}

function waitForRegistration(thread) {
  return new Promise((resolve, reject) => {
    thread.once('message', resolve);
    thread.once('error', reject);
  });
}
