// Much to send to one client: how much of it may be sent at once, and how to give the client time to read.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { bufferedAmount, drained, send, sendToChannel, stats } from 'wsbroker';
import { connect, observed, throwsCode } from './helpers/serving.mjs';
import { within } from './helpers/waiting.mjs';

const KIB = 1024;

test('a replay of more than maxBackpressure in one task reaches a client that reads', async (t) => {
  const { server } = observed(
    t,
    {},
    {
      handleSocketMessage: (data, socketId) => {
        for (let n = 0; n < 1100; n += 1) assert.ok(send(socketId, `${n} `.padEnd(10_000)), `${data} ${n}`);
      },
    },
  );
  const client = await connect(t, server);
  for (const name of ['first', 'second']) {
    client.send(name);
    for (let n = 0; n < 1100; n += 1) assert.equal(Number.parseInt(await client.inbox.next(), 10), n);
  }
  assert.equal(client.readyState, client.OPEN);
});

test('a burst to a channel reaches every member that reads', async (t) => {
  const { server } = observed(
    t,
    { maxBackpressure: 128 * KIB },
    {
      handleSocketUpgrade: () => ({ channels: ['history'] }),
    },
  );
  const clients = [await connect(t, server), await connect(t, server)];
  for (let n = 0; n < 100; n += 1) assert.equal(sendToChannel('history', `${n} `.padEnd(10_000)), 2);
  for (const client of clients) {
    for (let n = 0; n < 100; n += 1) assert.equal(Number.parseInt(await client.inbox.next(), 10), n);
  }
});

test('what is sent at once beyond sixteen times maxBackpressure is refused, and told from slowness', async (t) => {
  const { server, opened, closes } = observed(t, { maxBackpressure: 1000, closeTimeout: 500 });
  const client = await connect(t, server);
  const socketId = await opened.next();
  const before = stats().dropped;
  let queued = 0;
  while (send(socketId, Buffer.alloc(64 * KIB))) queued += 1;
  assert.ok(queued >= 1, 'one of any size passes');
  const { code, reason } = await within(client.closed, 'the close');
  const after = stats().dropped;
  const isFull = after.queueFull - before.queueFull === 1;
  // Which of the two depends on whether the I/O thread has found the kernel full before.
  assert.deepEqual({ code, reason }, { code: 1013, reason: isFull ? 'send queue full' : 'slow consumer' });
  assert.equal(after.queueFull + after.slowConsumer - before.queueFull - before.slowConsumer, 1);
  assert.equal((await closes.next()).code, 1013);
});

test('who waits for drained() between pieces is never refused, however much it is', async (t) => {
  const { server, opened } = observed(t, { maxBackpressure: 64 * KIB });
  const client = await connect(t, server);
  const socketId = await opened.next();
  const replay = (async () => {
    for (let n = 0; n < 2000; n += 1) {
      assert.ok(send(socketId, `${n} `.padEnd(10_000)), `message ${n}`);
      if (bufferedAmount(socketId) > 32 * KIB) assert.equal(await drained(socketId), true);
    }
  })();
  for (let n = 0; n < 2000; n += 1) assert.equal(Number.parseInt(await client.inbox.next(), 10), n);
  await replay;
});

test('drained() is false when the socket is gone, or goes before', async (t) => {
  const { server, opened } = observed(t, {});
  const client = await connect(t, server);
  const socketId = await opened.next();
  assert.equal(await within(drained(socketId), 'nothing waits'), true);
  client.pause();
  for (let n = 0; n < 15; n += 1) send(socketId, Buffer.alloc(1024 * KIB));
  const waits = drained(socketId);
  client.terminate();
  assert.equal(await within(waits, 'the end'), false);
  assert.equal(await within(drained(socketId), 'an answer'), false);
  throwsCode(() => drained(0), 'WSB_INVALID_ARGUMENT');
});
