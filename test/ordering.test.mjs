// The promises about order: per socket, per sender, and who waits for whom.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broadcast, close, registerWorkerThread, send, sendToChannel, subscribe, unsubscribe } from 'wsbroker';
import { connect, listen, serve, stopAll } from './helpers/serving.mjs';
import { deferred, eventually, Inbox } from './helpers/waiting.mjs';

const nextTurn = () => new Promise(setImmediate);

test('the next handler of a socket waits for the promise of the last', async (t) => {
  const log = new Inbox();
  const step = async (name) => {
    log.push(`${name} starts`);
    await nextTurn();
    log.push(`${name} ends`);
  };
  const server = serve(t, {
    handleSocketOpen: () => step('open'),
    handleSocketMessage: (data) => (data.startsWith('sync') ? log.push(data) : step(data)),
    handleSocketClose: () => step('close'),
  });
  const client = await connect(t, server);
  for (const data of ['one', 'sync two', 'three', 'sync four', 'sync five']) client.send(data);
  client.close();
  assert.deepEqual(await log.take(11), [
    'open starts',
    'open ends',
    'one starts',
    'one ends',
    'sync two',
    'three starts',
    'three ends',
    'sync four',
    'sync five',
    'close starts',
    'close ends',
  ]);
});

test('whoever takes over from a worker waits for the handlers it is still busy with', async (t) => {
  const log = new Inbox();
  const held = deferred();
  const heir = {
    handleSocketMessage: (data) => log.push(`heir: ${data}`),
    handleSocketClose: (_socketId, _token, code) => log.push(`heir: close ${code}`),
  };
  const leaving = registerWorkerThread({
    async handleSocketMessage(data, socketId) {
      log.push(`leaving: ${data} starts`);
      leaving.unregister();
      const { unregister } = registerWorkerThread(heir);
      t.after(async () => {
        await stopAll();
        unregister();
      });
      send(socketId, 'taken over');
      await held.promise;
      log.push(`leaving: ${data} ends`);
    },
  });
  const server = listen();
  const busy = await connect(t, server);
  const idle = await connect(t, server);
  busy.send('one');
  assert.equal(await busy.inbox.next(), 'taken over');
  busy.send('two');
  busy.close(4000);
  idle.send('other socket');
  assert.deepEqual(await log.take(2), ['leaving: one starts', 'heir: other socket']);
  assert.equal(log.length, 0);
  held.resolve();
  assert.deepEqual(await log.take(3), ['leaving: one ends', 'heir: two', 'heir: close 4000']);
});

test('a rejected promise lets the next handler run as well', async (t) => {
  const log = new Inbox();
  const server = serve(t, {
    async handleSocketMessage(data) {
      log.push(data);
      await nextTurn();
      throw new Error(`after ${data}`);
    },
    handleError: (error) => log.push(error.message),
  });
  const client = await connect(t, server);
  for (const data of ['one', 'two']) client.send(data);
  assert.deepEqual(await log.take(4), ['one', 'after one', 'two', 'after two']);
});

test('sockets do not wait for each other', async (t) => {
  const held = deferred();
  const server = serve(t, {
    handleSocketMessage: (data, socketId) => (data === 'hold' ? held.promise : void send(socketId, data)),
  });
  const slow = await connect(t, server);
  const quick = await connect(t, server);
  slow.send('hold');
  slow.send('behind');
  for (let n = 0; n < 10; n += 1) {
    quick.send(`${n}`);
    assert.equal(await quick.inbox.next(), `${n}`);
  }
  assert.equal(slow.inbox.length, 0);
  held.resolve();
  assert.equal(await slow.inbox.next(), 'behind');
});

test('data that waited is what it was when it came', async (t) => {
  const held = deferred();
  const seen = new Inbox();
  const server = serve(t, {
    handleSocketUpgrade: () => ({ token: 'token' }),
    async handleSocketMessage(data, _socketId, token) {
      await held.promise;
      seen.push([data, token.toString()]);
    },
  });
  const client = await connect(t, server);
  const sent = Array.from({ length: 100 }, (_, n) => (n % 2 ? `text ${n}` : Buffer.from(`bytes ${n}`)));
  for (const data of sent) client.send(data);
  held.resolve();
  assert.deepEqual(
    await seen.take(100),
    sent.map((data) => [data, 'token']),
  );
});

test('a socket is not read while much waits behind a promise, and nothing of it is lost', async (t) => {
  const held = deferred();
  let handled = 0;
  const inOrder = [];
  const server = serve(t, {
    async handleSocketMessage(data) {
      await held.promise;
      inOrder.push(data.readUInt32LE(0));
      handled += 1;
    },
  });
  const client = await connect(t, server);
  // 64 MB, which fits neither the kernel's buffers nor what may wait behind a handler.
  const count = 1000;
  for (let n = 0; n < count; n += 1) {
    const data = Buffer.alloc(64 * 1024);
    data.writeUInt32LE(n);
    client.send(data);
  }
  // It stands still: the client's own buffer no longer shrinks although everybody has time.
  let before;
  await eventually(async () => {
    before = client.bufferedAmount;
    await new Promise((resolve) => setTimeout(resolve, 50));
    assert.ok(client.bufferedAmount === before && before > 0);
  });
  assert.equal(handled, 0);
  held.resolve();
  await eventually(() => assert.equal(handled, count));
  assert.deepEqual(
    inOrder,
    Array.from({ length: count }, (_, n) => n),
  );
});

test('what one thread sends to one socket arrives in the order of the calls', async (t) => {
  const ids = new Inbox();
  const server = serve(t, { handleSocketOpen: (socketId) => ids.push(socketId) });
  const client = await connect(t, server);
  const id = await ids.next();
  subscribe(id, 'a');
  subscribe(id, 'b');
  const expected = [];
  for (let n = 0; n < 2000; n += 1) {
    const text = String(n);
    expected.push(text);
    const how = [
      () => send(id, text),
      () => sendToChannel('a', text),
      () => sendToChannel('b', text),
      () => broadcast(text),
    ];
    how[n % how.length]();
    if (n % 100 === 0) await nextTurn();
  }
  assert.deepEqual(await client.inbox.take(expected.length), expected);
});

test('the receivers are the subscribers at the moment of the call', async (t) => {
  const ids = new Inbox();
  const server = serve(t, { handleSocketOpen: (socketId) => ids.push(socketId) });
  const client = await connect(t, server);
  const id = await ids.next();
  for (let n = 0; n < 100; n += 1) {
    assert.equal(sendToChannel('room', 'before'), 0);
    subscribe(id, 'room');
    assert.equal(sendToChannel('room', `inside ${n}`), 1);
    unsubscribe(id, 'room');
    assert.equal(sendToChannel('room', 'after'), 0);
  }
  send(id, 'end');
  const expected = Array.from({ length: 100 }, (_, n) => `inside ${n}`);
  assert.deepEqual(await client.inbox.take(101), [...expected, 'end']);
});

test('messages that came together with a close are handled before it', async (t) => {
  const log = new Inbox();
  const server = serve(t, {
    handleSocketMessage: async (data) => {
      await nextTurn();
      log.push(data);
    },
    handleSocketClose: (_id, _token, code) => log.push(code),
  });
  const client = await connect(t, server);
  for (let n = 0; n < 20; n += 1) client.send(String(n));
  client.close(4000);
  assert.deepEqual(await log.take(21), [...Array.from({ length: 20 }, (_, n) => String(n)), 4000]);
});

test('a handler that closes its socket hears of the close afterwards', async (t) => {
  const log = new Inbox();
  const server = serve(t, {
    async handleSocketMessage(_data, socketId) {
      close(socketId, 4001);
      await nextTurn();
      log.push('message handled');
    },
    handleSocketClose: (_id, _token, code) => log.push(code),
  });
  const client = await connect(t, server);
  client.send('close me');
  assert.deepEqual(await log.take(2), ['message handled', 4001]);
});
