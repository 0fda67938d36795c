// The thread that judges origins ends. A file of its own: nobody can stop the servers that it leaves behind.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { test } from 'node:test';
import { Worker } from 'node:worker_threads';
import { connectionCount, registerWorkerThread, stats } from 'wsbroker';
import { connect, refusal } from './helpers/serving.mjs';
import { eventually, within } from './helpers/waiting.mjs';

/** What a page of this origin would send. */
const from = (origin) => ({ headers: { Origin: origin } });

/** A thread that starts a server with a function of origins, and may be told to block in it. */
const STARTER = `
  const { parentPort, workerData } = require('node:worker_threads');
  import(workerData.wsbroker).then(({ start }) => {
    const shared = new Int32Array(new SharedArrayBuffer(4));
    const server = start({ bind: '127.0.0.1:0', requestTimeout: 60_000, origins(origin) {
      if (origin === 'https://block.example') {
        parentPort.postMessage('blocked');
        Atomics.wait(shared, 0, 0);
      }
      return true;
    } });
    parentPort.on('message', () => {}); // or it would end by itself
    parentPort.postMessage(server.address);
  });`;

test('a thread that is terminated with its function of origins leaves 503, at once', async (t) => {
  const { unregister } = registerWorkerThread({});
  t.after(unregister);
  for (const isBlocked of [true, false, true]) {
    const starter = new Worker(STARTER, { eval: true, workerData: { wsbroker: import.meta.resolve('wsbroker') } });
    t.after(() => starter.terminate());
    const [address] = await within(once(starter, 'message'), 'its server runs');
    const server = { address };
    const client = await connect(t, server, from('https://good.example'));
    const waiting = [];
    if (isBlocked) {
      waiting.push(refusal(t, server, from('https://block.example')));
      await within(once(starter, 'message'), 'the thread is blocked');
      for (let n = 0; n < 3; n += 1) waiting.push(refusal(t, server, from('https://good.example')));
      await eventually(() => assert.equal(stats().pendingRequests, 4));
    }
    await starter.terminate();
    for (const { status, headers } of await Promise.all(waiting)) {
      assert.deepEqual([status, headers['retry-after']], [503, '1']);
    }
    assert.equal((await refusal(t, server, from('https://good.example'))).status, 503, 'closed, and not open');
    assert.equal((await refusal(t, server, {})).status, 503);
    assert.equal(stats().pendingRequests, 0);
    assert.equal(client.readyState, client.OPEN, 'sockets have nothing to do with it');
    client.close();
    await eventually(() => assert.equal(connectionCount(), 0));
  }
});
