/** A server in the main thread, and clients that this project did not write. */

import assert from 'node:assert/strict';
import { once } from 'node:events';
import http from 'node:http';
import WebSocket from 'ws';
import { registerWorkerThread, start, stats } from 'wsbroker';
import { eventually, Inbox, within } from './waiting.mjs';

/** The servers of the running test. */
const running = new Set();

/**
 * Registers the main thread with these handlers and starts a server on a free port. At the end of the test both end,
 * and nothing may be left in the broker.
 */
export function serve(t, handlers = {}, options = {}) {
  const registration = registerWorkerThread(withErrorHandler(handlers));
  t.after(async () => {
    try {
      await stopAll();
    } finally {
      registration.unregister();
    }
  });
  return listen(options);
}

/** The same, taking down who opens and closes. */
export function observed(t, options, handlers = {}) {
  const opened = new Inbox();
  const closes = new Inbox();
  const server = serve(
    t,
    {
      handleSocketOpen: (socketId) => void opened.push(socketId),
      handleSocketClose: (socketId, _token, code, reason) => void closes.push({ socketId, code, reason }),
      ...handlers,
    },
    options,
  );
  return { server, opened, closes };
}

/** Stops all servers of the test. Nothing may be left in the broker then. */
export async function stopAll() {
  const servers = [...running];
  running.clear();
  await Promise.all(servers.map((server) => server.stop({ timeout: 2000 })));
  await eventually(() => {
    const { connections, channels, subscriptions, pendingRequests, workers } = stats();
    assert.deepEqual({ connections, channels, subscriptions, pendingRequests }, NOTHING);
    for (const { queuedEvents } of workers) assert.equal(queuedEvents, 0);
  });
}

const NOTHING = { connections: 0, channels: 0, subscriptions: 0, pendingRequests: 0 };

/** A server without a worker of its own. It ends with the test's workers. */
export function listen(options = {}) {
  const server = start({ bind: '127.0.0.1:0', ...options });
  running.add(server);
  return server;
}

/** The same object, so that handlers are still methods of it. */
function withErrorHandler(handlers) {
  // Errors that a test provokes belong into the test, not on the console of whoever runs it.
  handlers.handleError ??= () => {};
  return handlers;
}

export function socketUrl({ address: { host, port } }, path = '/') {
  return `ws://${host.includes(':') ? `[${host}]` : host}:${port}${path}`;
}

export function httpUrl(server, path = '/') {
  return socketUrl(server, path).replace('ws:', 'http:');
}

/**
 * A `ws` client that is open. Its messages are in `inbox`: strings and Buffers; `closed` is a promise of
 * `{ code, reason }`.
 */
export async function connect(t, server, { path = '/', protocols = [], ...options } = {}) {
  const client = open(t, server, { path, protocols, ...options });
  await within(once(client, 'open'), `the client opens ${path}`);
  return client;
}

/** The same before it is open. */
export function open(t, server, { path = '/', protocols = [], ...options } = {}) {
  const client = new WebSocket(socketUrl(server, path), protocols, { perMessageDeflate: false, ...options });
  client.inbox = new Inbox();
  client.on('error', () => {}); // whoever waits for the opening hears of it, and `closed` comes behind it
  client.on('message', (data, isBinary) => client.inbox.push(isBinary ? data : data.toString()));
  client.closed = new Promise((resolve) => {
    client.on('close', (code, reason) => resolve({ code, reason: reason.toString() }));
  });
  t.after(() => client.terminate());
  return client;
}

/** The answer to a handshake that was refused: `{ status, headers, body }`. */
export async function refusal(t, server, options) {
  const client = open(t, server, options);
  const [, response] = await within(once(client, 'unexpected-response'), 'the handshake is refused');
  return readResponse(response);
}

/** One request by node:http: `{ status, headers, rawHeaders, body }`. */
export async function request(server, path = '/', { body, signal, ...options } = {}) {
  const { address } = server;
  const where = address.path ? { socketPath: address.path } : address;
  const outgoing = http.request({ ...where, path, agent: false, signal, ...options });
  outgoing.end(body);
  const [response] = await within(once(outgoing, 'response'), `an answer to ${path}`);
  return readResponse(response);
}

async function readResponse(response) {
  const chunks = [];
  for await (const chunk of response) chunks.push(chunk);
  const { statusCode: status, headers, rawHeaders } = response;
  return { status, headers, rawHeaders, body: Buffer.concat(chunks).toString() };
}

/** A call that must throw a WsBrokerError of this code; returns the error. */
export function throwsCode(call, code) {
  try {
    call();
  } catch (error) {
    assert.equal(error.code, code, error.stack);
    assert.equal(error.name, 'WsBrokerError');
    return error;
  }
  assert.fail(`expected an error with the code ${code}`);
}

/** Whoever was there is still served by an echo, and so is whoever comes: the newcomer. */
export async function stillServes(t, server, bystander) {
  bystander.send('still there');
  assert.equal(await bystander.inbox.next(), 'still there');
  assert.equal((await request(server)).body, 'fine');
  const newcomer = await connect(t, server);
  newcomer.send('hello');
  assert.equal(await newcomer.inbox.next(), 'hello');
  return newcomer;
}
