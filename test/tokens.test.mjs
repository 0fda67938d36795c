// Tokens: bytes that the application ties to a socket, given back with its events.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { close, getToken, send, setToken, stats } from 'wsbroker';
import { connect, serve, throwsCode } from './helpers/serving.mjs';
import { Inbox, within } from './helpers/waiting.mjs';

test('a token is bytes, given back as a copy', async (t) => {
  const ids = new Inbox();
  const server = serve(t, { handleSocketOpen: (socketId) => ids.push(socketId) });
  await connect(t, server);
  const id = await ids.next();
  assert.equal(getToken(id), undefined);
  for (const token of [
    'ünï',
    Buffer.from('ünï'),
    new Uint8Array(Buffer.from('ünï')),
    Uint8Array.from(Buffer.from('ünï')).buffer,
  ]) {
    assert.equal(setToken(id, token), true);
    assert.deepEqual(getToken(id), Buffer.from('ünï'));
  }
  getToken(id).fill(0);
  assert.equal(getToken(id).toString(), 'ünï');
  const mine = Buffer.from('mine');
  setToken(id, mine);
  mine.fill(0);
  assert.equal(getToken(id).toString(), 'mine');

  setToken(id, '');
  assert.deepEqual(getToken(id), Buffer.alloc(0), 'an empty token is a token');
  assert.equal(setToken(id, undefined), true);
  assert.equal(getToken(id), undefined);
  setToken(id, Buffer.alloc(65_536, 7));
  assert.equal(getToken(id).length, 65_536);
  throwsCode(() => setToken(id, Buffer.alloc(65_537)), 'WSB_INVALID_ARGUMENT');
  throwsCode(() => setToken(id, 'ü'.repeat(32_769)), 'WSB_INVALID_ARGUMENT');
  close(id);
  assert.equal(setToken(id, 'late'), false);
  assert.equal(getToken(id), undefined);
});

test('events come with the token at the time they were read', async (t) => {
  const events = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: () => ({ token: 'first' }),
    handleSocketOpen: (_id, _request, token) => events.push(['open', String(token)]),
    handleSocketMessage(data, socketId, token) {
      events.push([data, String(token)]);
      setToken(socketId, data === 'clear' ? undefined : `after ${data}`);
      send(socketId, 'done');
    },
    handleSocketClose: (_id, token) => events.push(['close', String(token)]),
  });
  const client = await connect(t, server);
  for (const word of ['a', 'bb', 'clear', 'dddd']) {
    client.send(word);
    await client.inbox.next(); // the next message is read after the token was set
  }
  client.close();
  assert.deepEqual(await events.take(6), [
    ['open', 'first'],
    ['a', 'first'],
    ['bb', 'after a'],
    ['clear', 'after bb'],
    ['dddd', 'undefined'],
    ['close', 'after dddd'],
  ]);
});

test('tokens of every length do not disturb the payload behind them', async (t) => {
  const seen = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: ({ query }) => ({ token: 't'.repeat(Number(query)) }),
    handleSocketOpen: (_id, { path, query }, token) => seen.push([path, Number(query), token.length]),
    handleSocketMessage: (data, _id, token) => seen.push([String(data), data.length, token.length]),
  });
  for (let length = 0; length < 9; length += 1) {
    const client = await connect(t, server, { path: `/path?${length}` });
    client.send('é'.repeat(length));
    client.send(Buffer.alloc(length, 'x'));
    assert.deepEqual(await seen.take(3), [
      ['/path', length, length],
      ['é'.repeat(length), length, length],
      ['x'.repeat(length), length, length],
    ]);
  }
});

test('a long token does not multiply what waits for a worker', async (t) => {
  const received = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: () => ({ token: Buffer.alloc(16_384, 7) }),
    handleSocketMessage(data, _socketId, token) {
      assert.equal(token.length, 16_384);
      received.push(data);
    },
  });
  const client = await connect(t, server);
  const count = 20_000;
  for (let n = 0; n < count; n += 1) client.send(String(n));
  // 320 MB of tokens in all. The limit is 16 MiB, and what one read adds to it is far below that.
  let most = 0;
  while (received.length < count) {
    most = Math.max(most, ...stats().workers.map(({ queuedBytes }) => queuedBytes));
    await within(new Promise(setImmediate), 'the next batch');
  }
  assert.ok(most < 24 << 20, `${most} bytes were queued`);
  assert.deepEqual(
    await received.take(count),
    Array.from({ length: count }, (_, n) => String(n)),
  );
});
