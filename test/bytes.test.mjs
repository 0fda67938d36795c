// Bytes that handlers get: views of the memory that their batch came in, which is lent to JavaScript if it is large.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { createRequire } from 'node:module';
import { test } from 'node:test';
import { setFlagsFromString } from 'node:v8';
import { runInNewContext } from 'node:vm';
import { Worker } from 'node:worker_threads';
import { send, setToken } from 'wsbroker';
import { chooseSeed, Random } from './helpers/random.mjs';
import { connect, listen, serve } from './helpers/serving.mjs';
import { within } from './helpers/waiting.mjs';

const require = createRequire(import.meta.url);

/** Sends all in one write, so that they come in one batch, or in few. */
function sendTogether(client, messages) {
  client._socket.cork();
  for (const message of messages) client.send(message);
  client._socket.uncork();
}

/** Collects garbage now. */
function collectGarbage() {
  setFlagsFromString('--expose-gc');
  runInNewContext('gc')();
}

/** Takes its memory from a buffer, as `ArrayBuffer.prototype.transfer` of later versions does. */
function detach(buffer) {
  setFlagsFromString('--allow-natives-syntax');
  new Function('buffer', '%ArrayBufferDetach(buffer)')(buffer);
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
      send(socketId, data.subarray(1));
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

test('bytes stay as they are for as long as a handler keeps them, and no longer', async (t) => {
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
  const { rss } = process.memoryUsage();
  for (let round = 0; round < 300; round += 1) {
    sendTogether(client, messages);
    await client.inbox.take(messages.length);
    if (round % 50 === 0) collectGarbage();
  }
  assert.equal(kept.length, Math.floor((300 * 400) / 97));
  for (const [at, bytes] of kept.entries()) {
    const number = (97 * (at + 1) - 1) % 400;
    assert.deepEqual(bytes, Buffer.alloc(1000, number), `kept ${at}`);
  }
  // Each keeps a batch of 64 KiB or some more; 120 MB have come.
  kept.length = 0;
  for (let round = 0; round < 5; round += 1) {
    sendTogether(client, messages);
    await client.inbox.take(messages.length);
    collectGarbage();
  }
  const { arrayBuffers } = process.memoryUsage();
  assert.ok(arrayBuffers < 64 << 20, `${arrayBuffers} bytes are lent`);
  assert.ok(process.memoryUsage().rss - rss < 256 << 20);
});

for (const [size, kind] of [
  [5, 'copied'],
  [2000, 'lent'],
]) {
  test(`what came with bytes that a handler takes away comes all the same: a batch that was ${kind}`, async (t) => {
    const server = serve(t, {
      handleSocketMessage(data, socketId) {
        if (typeof data === 'string') {
          send(socketId, data);
          return;
        }
        const before = Buffer.from(data);
        detach(data.buffer);
        assert.equal(data.length, 0);
        send(socketId, data);
        send(socketId, before);
      },
    });
    const client = await connect(t, server);
    const sent = Array.from({ length: 20 }, (_, number) =>
      number % 3 === 0 ? `text ${number}` : Buffer.alloc(size, number),
    );
    sendTogether(client, sent);
    const expected = sent.flatMap((message) => (typeof message === 'string' ? message : [Buffer.alloc(0), message]));
    assert.deepEqual(await client.inbox.take(expected.length), expected);
  });

  test(`bytes cannot be transferred, for others have views of the same: a batch that was ${kind}`, async (t) => {
    const earlier = [];
    const server = serve(t, {
      handleSocketMessage(data, socketId) {
        earlier.push(data);
        try {
          const moved = structuredClone(data, { transfer: [data.buffer] });
          send(socketId, Buffer.from(moved));
        } catch (error) {
          send(socketId, error.name);
        }
      },
    });
    const client = await connect(t, server);
    const sent = Array.from({ length: 20 }, (_, number) => Buffer.alloc(size, number));
    sendTogether(client, sent);
    // Node 20 copies what is not to be transferred, later versions say so.
    for (const message of sent) {
      const answer = await client.inbox.next();
      assert.deepEqual(answer, typeof answer === 'string' ? 'DataCloneError' : message);
    }
    assert.deepEqual(earlier, sent);
  });
}

test('a thread may end while it keeps bytes, with and without being asked', async (t) => {
  for (const isTerminated of [true, false]) {
    const program = `
      const { parentPort, workerData } = require('node:worker_threads');
      const { registerWorkerThread, send } = require(workerData);
      const kept = [];
      const registration = registerWorkerThread({
        handleSocketMessage(data, socketId) {
          kept.push(data);
          send(socketId, data);
        },
      });
      parentPort.once('message', () => registration.unregister());
      parentPort.postMessage('ready');`;
    const thread = new Worker(program, { eval: true, workerData: require.resolve('wsbroker') });
    await within(once(thread, 'message'), 'the thread');
    const server = listen();
    const client = await connect(t, server);
    for (let round = 0; round < 5; round += 1) {
      const messages = Array.from({ length: 50 }, (_, number) => Buffer.alloc(1000, number));
      sendTogether(client, messages);
      assert.deepEqual(await client.inbox.take(50), messages);
    }
    if (isTerminated) await within(thread.terminate(), 'the end of the thread');
    else {
      thread.postMessage('unregister');
      assert.deepEqual(await within(once(thread, 'exit'), 'the end of the thread'), [0]);
    }
    await server.stop({ timeout: 2000 });
  }
});
