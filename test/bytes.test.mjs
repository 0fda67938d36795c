// Bytes that handlers get: views of a buffer that their batch came in, and what becomes of the batch when handlers do to that
// buffer what they like.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { registerWorkerThread, send, sendToChannel, setToken, subscribe } from 'wsbroker';
import { chooseSeed, Random } from './helpers/random.mjs';
import { connect, listen, serve, stopAll, throwsCode } from './helpers/serving.mjs';
import { within } from './helpers/waiting.mjs';

/** Sends all in one write, so that they come in one batch, or in few. */
function sendTogether(client, messages) {
  client._socket.cork();
  for (const message of messages) client.send(message);
  client._socket.uncork();
}

/** Bytes with texts among them: each number as one or the other. */
function mixed(count, size = 5) {
  return Array.from({ length: count }, (_, number) =>
    number % 3 === 0 ? `text ${number}` : Buffer.alloc(size, number),
  );
}

test('bytes go out as they came, as they are now, and as others, among texts and with tokens', async (t) => {
  const seed = chooseSeed();
  const chance = new Random(seed);
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      if (data === 'token') setToken(socketId, 'a token');
      send(socketId, data);
      if (typeof data === 'string') {
        send(socketId, `${data}!`);
        return;
      }
      if (data.length > 0) data[0] = 0x21;
      send(socketId, data);
      send(socketId, new Uint8Array(data.subarray(1)));
    },
  });
  const client = await connect(t, server);
  for (let round = 0; round < 20; round += 1) {
    // Batches of every size: of a message, of some hundred, of large ones.
    const most = chance.of([4, 100, 3000, 30_000]);
    const messages = Array.from({ length: 1 + chance.below(most < 3000 ? 500 : 20) }, () => {
      const bytes = Buffer.alloc(chance.below(most), chance.below(256));
      return chance.oneIn(8) ? bytes.toString('latin1') : bytes;
    });
    if (round === 10) messages.unshift('token');
    sendTogether(client, messages);
    for (const [number, message] of messages.entries()) {
      const where = `seed ${seed}, round ${round}, message ${number}`;
      assert.deepEqual(await client.inbox.next(), message, where);
      if (typeof message === 'string') {
        assert.deepEqual(await client.inbox.next(), `${message}!`, where);
        continue;
      }
      const changed = Buffer.concat([Buffer.from('!').subarray(0, message.length), message.subarray(1)]);
      assert.deepEqual(await client.inbox.next(), changed, where);
      assert.deepEqual(await client.inbox.next(), message.subarray(1), where);
    }
  }
});

test('bytes stay as they are for as long as a handler keeps them', async (t) => {
  setFlagsFromString('--expose-gc');
  const collectGarbage = runInNewContext('gc');
  const kept = [];
  let count = 0;
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      count += 1;
      if (count % 97 === 0) kept.push(data);
      send(socketId, data);
    },
  });
  const client = await connect(t, server);
  const messages = Array.from({ length: 400 }, (_, number) => Buffer.alloc(1000, number));
  for (let round = 0; round < 100; round += 1) {
    sendTogether(client, messages);
    await client.inbox.take(messages.length);
    if (round % 20 === 0) collectGarbage();
  }
  assert.equal(kept.length, Math.floor((100 * 400) / 97));
  for (const [at, bytes] of kept.entries()) {
    const number = (97 * (at + 1) - 1) % 400;
    assert.deepEqual(bytes, Buffer.alloc(1000, number), `kept ${at}`);
  }
});

test('a handler may transfer the bytes that it got, and the others of its batch come all the same', async (t) => {
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      if (typeof data === 'string') {
        send(socketId, data);
        return;
      }
      const before = Buffer.from(data);
      structuredClone(data.buffer, { transfer: [data.buffer] });
      assert.equal(data.length, 0);
      send(socketId, before);
    },
  });
  const client = await connect(t, server);
  for (const size of [5, 2000]) {
    const sent = mixed(20, size);
    sendTogether(client, sent);
    assert.deepEqual(await client.inbox.take(20), sent);
  }
});

test('a handler may fill the whole buffer behind its bytes, and the others of its batch come all the same', async (t) => {
  let fill;
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      send(socketId, data);
      if (typeof data !== 'string') new Uint8Array(data.buffer).fill(fill);
    },
  });
  const client = await connect(t, server);
  for (fill of [0, 1, 0x61, 0xff]) {
    const sent = mixed(20);
    sendTogether(client, sent);
    assert.deepEqual(await client.inbox.take(20), sent, `filled with ${fill}`);
  }
});

test('a worker that has transferred its bytes can retire in the same handler, and nothing is lost', async (t) => {
  const events = [];
  const handlers = (name) => ({
    handleSocketMessage(data, socketId) {
      events.push([name, typeof data === 'string' ? data : data[0]]);
      if (data[0] === 1) {
        structuredClone(data.buffer, { transfer: [data.buffer] });
        first.unregister();
        second = registerWorkerThread(handlers('second'));
      }
      send(socketId, 'handled');
    },
  });
  const first = registerWorkerThread(handlers('first'));
  let second;
  t.after(async () => {
    await stopAll();
    second?.unregister();
  });
  const client = await connect(t, listen());
  sendTogether(client, mixed(20));
  await client.inbox.take(20);
  const numbers = events.map(([, data]) => (typeof data === 'string' ? Number(data.slice(5)) : data));
  assert.deepEqual(
    numbers,
    Array.from({ length: 20 }, (_, number) => number),
  );
});

test('a handler that has transferred its bytes has no more time than others', async (t) => {
  const server = serve(
    t,
    {
      handleSocketMessage(data) {
        structuredClone(data.buffer, { transfer: [data.buffer] });
        return new Promise(() => {});
      },
      handleError() {},
    },
    { handlerTimeout: 50 },
  );
  const client = await connect(t, server);
  client.send(Buffer.from('bytes'));
  assert.deepEqual(await within(client.closed, 'the close'), { code: 1011, reason: 'handler timed out' });
});

test('bytes that their handler has changed go out changed from another handler of their batch', async (t) => {
  let kept;
  const server = serve(t, {
    handleSocketMessage(data, socketId) {
      if (data === 'listener') {
        listener = socketId;
        send(socketId, 'here');
        return;
      }
      kept = data;
      // All that is left of the batch, which the addon has to give once more.
      new Uint8Array(data.buffer).fill(0x78);
    },
    handleSocketClose() {
      send(listener, kept);
    },
  });
  let listener;
  const other = await connect(t, server);
  other.send('listener');
  assert.equal(await other.inbox.next(), 'here');
  for (let round = 0; round < 20; round += 1) {
    const client = await connect(t, server);
    client._socket.cork();
    client.send(Buffer.from('bytes'));
    client.close();
    client._socket.uncork();
    assert.deepEqual(await other.inbox.next(), Buffer.from('xxxxx'), `round ${round}`);
  }
});

test('bytes that their handler has changed go out changed when it has retired its worker', async (t) => {
  const handlers = {
    handleSocketMessage(data, socketId) {
      if (data[0] !== 1) return;
      new Uint8Array(data.buffer).fill(0x78);
      first.unregister();
      second = registerWorkerThread({});
      send(socketId, data);
    },
  };
  const first = registerWorkerThread(handlers);
  let second;
  t.after(async () => {
    await stopAll();
    second?.unregister();
  });
  const client = await connect(t, listen());
  sendTogether(client, mixed(20).slice(1));
  assert.deepEqual(await client.inbox.next(), Buffer.from('xxxxx'));
});

test('bytes that a handler has taken away are refused, whatever it says of them', async (t) => {
  const takeAway = (data) => structuredClone(data.buffer, { transfer: [data.buffer] });
  const server = serve(t, {
    handleSocketOpen: (socketId) => subscribe(socketId, 'room'),
    handleSocketMessage(data, socketId) {
      const options = {
        get except() {
          takeAway(data);
          return undefined;
        },
      };
      let call = () => sendToChannel('room', data, options);
      if (data[0] === 0) {
        takeAway(data);
        Object.defineProperty(data, 'length', { value: 5 });
        call = () => send(socketId, data);
      }
      if (data.length === 0) {
        send(socketId, data);
        return;
      }
      send(socketId, throwsCode(call, 'WSB_INVALID_ARGUMENT').message);
    },
  });
  const client = await connect(t, server);
  for (const number of [0, 1]) {
    client.send(Buffer.alloc(5, number));
    assert.match(await client.inbox.next(), /^data: expected .+, got .+ whose memory was transferred/);
  }
  client.send(Buffer.alloc(0));
  assert.deepEqual(await client.inbox.next(), Buffer.alloc(0), 'what is empty is not gone');
});

test('a worker that retires sees damage further on in its batch, and what it reads is what it sends', async (t) => {
  const RECORD = 36; // of five bytes
  const HEAD = 28;
  let second;
  const first = registerWorkerThread({
    handleSocketMessage(data, socketId) {
      if (data[0] === 1) {
        const lastHead = data.byteOffset - HEAD + 2 * RECORD;
        if (lastHead + RECORD <= data.buffer.byteLength) new Uint8Array(data.buffer, lastHead, HEAD).fill(0);
        first.unregister();
        second = registerWorkerThread({});
      } else {
        data[0] = 0x21;
      }
      send(socketId, data);
    },
  });
  t.after(async () => {
    await stopAll();
    second?.unregister();
  });
  const client = await connect(t, listen());
  const messages = [1, 2, 3].map((number) => Buffer.alloc(5, number));
  sendTogether(client, messages);
  const changed = messages.map((message, at) =>
    at === 0 ? message : Buffer.concat([Buffer.from('!'), message.subarray(1)]),
  );
  assert.deepEqual(await client.inbox.take(3), changed);
});
