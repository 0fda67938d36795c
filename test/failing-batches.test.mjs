// What is in the way of a whole batch, or of an event before it has come to its handler: nothing of it may be lost for that.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';
import { connect, serve } from './helpers/serving.mjs';
import { deferred, eventually, Inbox } from './helpers/waiting.mjs';

test('what is in the way of a batch is told, and the batch comes when it is over', () =>
  runsTo(
    { stdout: 'events no memory\nevents no memory\n0 1 2 3 4 5 6 7 8 9' },
    `const { createRequire } = await import('node:module');
    const addon = createRequire(${JSON.stringify(import.meta.url)})('../index.node');
    let failures = 1;
    for (const name of ['take', 'takeAgain']) {
      const original = addon[name];
      addon[name] = (...args) => {
        if (failures > 0) {
          failures -= 1;
          throw new RangeError('no memory');
        }
        return original(...args);
      };
    }
    const { registerWorkerThread, start } = await import('wsbroker');
    const { WebSocket } = await import('ws');
    const handled = [];
    const isDone = new Promise((resolve) => {
      registerWorkerThread({
        handleSocketMessage(data) {
          handled.push(String(data));
          if (handled.length === 10) resolve();
          if (handled.length !== 6) return;
          // What is left of the batch has to be taken again, or the next one has to be taken.
          failures = 1;
          const { port1, port2 } = new MessageChannel();
          port1.postMessage(data, [data.buffer]);
          port2.close();
        },
        handleError: (error, { handler }) => console.log(handler, error.message),
      });
    });
    const server = start({ bind: '127.0.0.1:0' });
    const client = new WebSocket(server.url.replace('http', 'ws'));
    await once(client, 'open');
    for (let n = 0; n < 10; n += 1) client.send(Buffer.from(String(n)));
    await isDone;
    console.log(handled.join(' '));
    client.close();
    await server.stop();`,
  ));

test('memory that is not there for what has to wait loses no message', async (t) => {
  const door = deferred();
  const handled = new Inbox();
  const server = serve(t, {
    handleSocketMessage(data) {
      handled.push(data.toString());
      return handled.length === 1 ? door.promise : undefined;
    },
  });
  const client = await connect(t, server);
  client.send(Buffer.from('first'));
  await eventually(() => assert.equal(handled.length, 1));
  const { from } = Buffer;
  t.mock.method(Buffer, 'from', (...args) => {
    if (Buffer.isBuffer(args[0]) && args.length === 1) throw new RangeError('Array buffer allocation failed');
    return from(...args);
  });
  client.send('second', { binary: true });
  client.send('third', { binary: true });
  const other = await connect(t, server);
  other.send('other');
  await eventually(() => assert.ok(handled.length >= 2));
  door.resolve();
  const all = await handled.take(4);
  assert.deepEqual(
    all.filter((data) => data !== 'other'),
    ['first', 'second', 'third'],
  );
});
