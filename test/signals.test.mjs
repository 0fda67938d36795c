// An AbortSignal for each socket: what a handler has begun ends with its client.

import assert from 'node:assert/strict';
import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { test } from 'node:test';
import { close, signalOf } from 'wsbroker';
import { connect, observed, throwsCode } from './helpers/serving.mjs';
import { eventually, Inbox } from './helpers/waiting.mjs';

test('the signal of a socket aborts when its client leaves, though its handler is busy', async (t) => {
  const asked = new Inbox();
  const settled = new Inbox();
  const { server, closes } = observed(
    t,
    {},
    {
      async handleSocketMessage(_data, socketId) {
        const signal = signalOf(socketId);
        assert.equal(signal, signalOf(socketId), 'it is one');
        asked.push(signal.aborted);
        await new Promise((resolve) => {
          signal.addEventListener('abort', resolve, { once: true });
        });
        settled.push(socketId);
      },
    },
  );
  const ends = [
    (client) => client.close(),
    (client) => client.terminate(),
    (client) => client._socket.end(),
    (client) => client._socket.write(Buffer.alloc(6, 0xff)),
  ];
  for (const end of ends) {
    const client = await connect(t, server);
    client.send('subscribe');
    assert.equal(await asked.next(), false);
    end(client);
    const socketId = await settled.next();
    assert.equal((await closes.next()).socketId, socketId, 'the close comes behind the promise');
    assert.equal(signalOf(socketId).aborted, true);
  }
  throwsCode(() => signalOf('1'), 'WSB_INVALID_ARGUMENT');
});

test('the signal of a socket aborts when the application closes it', async (t) => {
  const { server, opened } = observed(t, {});
  await connect(t, server);
  const socketId = await opened.next();
  const signal = signalOf(socketId);
  close(socketId);
  await eventually(() => assert.equal(signal.aborted, true));
});

test('what a listener of one signal enters is not seen by those of the next', async (t) => {
  const storage = new AsyncLocalStorage();
  const seen = new Inbox();
  const ready = new Inbox();
  const { server } = observed(
    t,
    {},
    {
      handleSocketOpen(socketId) {
        signalOf(socketId).addEventListener('abort', () => {
          seen.push(storage.getStore());
          storage.enterWith(socketId);
        });
        ready.push(socketId);
      },
    },
  );
  for (let n = 0; n < 3; n += 1) {
    const client = await connect(t, server);
    await ready.next();
    client.terminate();
    assert.equal(await seen.next(), undefined);
  }
});

test('the signal of a socket whose client has left is aborted from the beginning', async (t) => {
  const asked = new Inbox();
  const { server, closes } = observed(
    t,
    {},
    {
      async handleSocketMessage(data, socketId) {
        const signal = signalOf(socketId);
        asked.push([data, signal.aborted]);
        if (!signal.aborted) await once(signal, 'abort');
      },
    },
  );
  const client = await connect(t, server);
  for (const data of ['first', 'second', 'third']) client.send(data);
  assert.deepEqual(await asked.next(), ['first', false]);
  client.close();
  assert.deepEqual(await asked.take(2), [
    ['second', true],
    ['third', true],
  ]);
  await closes.next();
});
