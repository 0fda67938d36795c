// `serial: false`: the handlers of a socket are called in order and need not wait for each other's promises.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { registerWorkerThread, send, stats } from 'wsbroker';
import { connect, listen, serve, stopAll, throwsCode } from './helpers/serving.mjs';
import { deferred, eventually, Inbox, within } from './helpers/waiting.mjs';

/** A server whose main thread is registered with these handlers and `serial: false`. */
function serveParallel(t, handlers, options) {
  const errors = new Inbox();
  handlers.handleError ??= (error) => void errors.push(error);
  const registration = registerWorkerThread(handlers, { serial: false });
  t.after(async () => {
    try {
      await stopAll();
    } finally {
      registration.unregister();
    }
  });
  return { server: listen(options), errors, registration };
}

/** Handlers whose promises the test settles, by the message. */
function pending() {
  const called = new Inbox();
  const promises = new Map();
  const closes = new Inbox();
  return {
    called,
    closes,
    settle: (data) => promises.get(data).resolve(),
    fail: (data) => promises.get(data).reject(new Error(data)),
    handlers: {
      handleSocketMessage(data, socketId) {
        called.push(data);
        const promise = deferred();
        promises.set(data, promise);
        return promise.promise.then(() => send(socketId, `done ${data}`));
      },
      handleSocketClose: (_socketId, _token, code) => void closes.push(code),
    },
  };
}

test('messages are handled in order while the promises of those before are pending', async (t) => {
  const { called, settle, closes, handlers } = pending();
  const { server } = serveParallel(t, handlers);
  const client = await connect(t, server);
  for (const data of ['a', 'b', 'c']) client.send(data);
  assert.deepEqual(await called.take(3), ['a', 'b', 'c']);
  settle('c');
  assert.equal(await client.inbox.next(), 'done c');
  client.close();
  assert.equal(await closes.next(), 1005, 'the close waits for none of them');
  settle('a');
  settle('b');
});

test('by default they wait for each other, and so does the close', async (t) => {
  const { called, settle, closes, handlers } = pending();
  const server = serve(t, handlers);
  const client = await connect(t, server);
  for (const data of ['a', 'b']) client.send(data);
  assert.equal(await called.next(), 'a');
  client.close();
  await eventually(() => assert.equal(stats().workers[0].queuedEvents, 0));
  assert.equal(called.length, 0);
  settle('a');
  assert.equal(await called.next(), 'b');
  assert.equal(closes.length, 0);
  settle('b');
  assert.equal(await closes.next(), 1005);
});

test('a rejection is told, and ends nobody else', async (t) => {
  const { called, settle, fail, handlers } = pending();
  const { server, errors } = serveParallel(t, handlers);
  const client = await connect(t, server);
  for (const data of ['a', 'b']) client.send(data);
  await called.take(2);
  fail('a');
  assert.equal((await errors.next()).message, 'a');
  settle('b');
  assert.equal(await client.inbox.next(), 'done b');
});

test('a client with many handlers under way is not read until half of them have ended', async (t) => {
  const { called, settle, handlers } = pending();
  const { server } = serveParallel(t, handlers);
  const client = await connect(t, server);
  const other = await connect(t, server);
  const count = 100_000;
  for (let n = 0; n < count; n += 1) client.send(`${n}`.padEnd(300));
  await called.take(257);
  other.send('another socket');
  for (;;) if ((await called.next()) === 'another socket') break;
  const before = stats().messagesIn;
  assert.ok(before < count, 'the rest waits in the kernel');
  let settled = 0;
  const more = () => {
    for (; settled < count; settled += 1) {
      try {
        settle(`${settled}`.padEnd(300));
      } catch {
        return; // it has not come yet
      }
    }
  };
  await eventually(() => {
    more();
    assert.equal(settled, count);
  }, 60_000);
  for (let n = 0; n < count; n += 1) assert.equal((await client.inbox.next()).trimEnd(), `done ${n}`);
});

test('a handler that does not settle within handlerTimeout closes its socket once, with one close event', async (t) => {
  const { called, settle, closes, handlers } = pending();
  const { server, errors } = serveParallel(t, handlers, { handlerTimeout: 100, closeTimeout: 500 });
  const before = stats().dropped.handlerTimeouts;
  const client = await connect(t, server);
  for (const data of ['hangs', 'hangs too', 'answers']) client.send(data);
  await called.take(3);
  settle('answers');
  assert.equal(await client.inbox.next(), 'done answers');
  assert.equal((await within(client.closed, 'the close')).code, 1011);
  assert.equal(await closes.next(), 1011);
  for (let n = 0; n < 2; n += 1) assert.equal((await errors.next()).code, 'WSB_HANDLER_TIMEOUT');
  assert.equal(stats().dropped.handlerTimeouts - before, 2);
  settle('hangs');
  const next = await connect(t, server);
  next.send('again');
  settle(await called.next());
  assert.equal(await next.inbox.next(), 'done again');
  assert.equal(closes.length, 0);
});

test('a thread that unregisters keeps a socket until its handlers are done', async (t) => {
  const { called, settle, handlers } = pending();
  const { server, registration } = serveParallel(t, handlers);
  const client = await connect(t, server);
  for (const data of ['a', 'b']) client.send(data);
  await called.take(2);
  registration.unregister();
  const heard = new Inbox();
  const next = registerWorkerThread({ handleSocketMessage: (data) => void heard.push(data) });
  t.after(() => next.unregister());
  client.send('c');
  settle('a');
  assert.equal(await client.inbox.next(), 'done a');
  assert.equal(heard.length, 0, 'it is busy with b');
  settle('b');
  assert.equal(await heard.next(), 'c');
});

test('options that are none are refused', () => {
  for (const options of [null, 1, { serial: 1 }, { seriall: false }]) {
    throwsCode(() => registerWorkerThread({}, options), 'WSB_INVALID_ARGUMENT');
  }
  registerWorkerThread({}, undefined).unregister();
  registerWorkerThread({}, { serial: undefined }).unregister();
});
