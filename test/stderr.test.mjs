// What a thread without handleError writes: enough to find a fault, and no more however often clients provoke it.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';

/** Serves with these handlers until a client that has sent so many messages has got the answer to its last one. */
const flood = (handlers, messages) => `
  const { registerWorkerThread, send, start } = await import('wsbroker');
  const { WebSocket } = await import('ws');
  registerWorkerThread({ ${handlers} });
  const server = start({ bind: '127.0.0.1:0' });
  const client = new WebSocket(server.url.replace('http', 'ws'));
  await once(client, 'open');
  for (let n = 0; n < ${messages}; n += 1) client.send('message ' + n);
  client.send('last');
  await once(client, 'message');
  client.close();
  await once(client, 'close');
  await server.stop();`;

/** Of all lines that tell of errors that were left out. */
function countedIn(log, handler) {
  const counts = Array.from(log.matchAll(new RegExp(`([\\d,]+) more errors? of ${handler}`, 'g')), ([, count]) =>
    Number(count.replaceAll(',', '')),
  );
  return counts.reduce((sum, count) => sum + count, 0);
}

const ANSWER_LAST = `if (data === 'last') return send(socketId, data);`;

test('a client that makes a handler throw 10,000 times gets one stack written, and a count', async () => {
  const log = await runsTo(
    {},
    flood(`handleSocketMessage(data, socketId) { ${ANSWER_LAST} throw new Error('cannot handle ' + data); }`, 10_000),
  );
  assert.match(log, /^wsbroker: handleSocketMessage failed: Error: cannot handle message 0\n\s+at /);
  assert.equal(log.match(/failed: /g).length, 1);
  assert.match(log, /^wsbroker: … and [\d,]+ more errors of handleSocketMessage in the last (second|\d+ s)$/m);
  assert.equal(countedIn(log, 'handleSocketMessage'), 9999);
});

test('rejections are told in the same way', async () => {
  const log = await runsTo(
    {},
    flood(
      `async handleSocketMessage(data, socketId) { ${ANSWER_LAST} throw new Error('cannot handle ' + data); }`,
      1000,
    ),
  );
  assert.equal(log.match(/failed: /g).length, 1);
  assert.equal(countedIn(log, 'handleSocketMessage'), 999);
});

test('a handleError that throws itself is told once as well, and so is what it was given', async () => {
  const handlers = `
    handleSocketMessage(data, socketId) { ${ANSWER_LAST} throw new Error('cannot handle ' + data); },
    handleError(error) { throw new Error('cannot tell of ' + error.message); }`;
  const log = await runsTo({}, flood(handlers, 1000));
  assert.equal(log.match(/handleSocketMessage failed: /g).length, 1);
  assert.equal(log.match(/handleError failed as well: /g).length, 1);
  assert.equal(countedIn(log, 'handleSocketMessage'), 999);
  assert.equal(countedIn(log, 'handleError'), 999);
});

test('a function of origins that throws for each client is told once', async () => {
  const log = await runsTo(
    { stdout: '500 '.repeat(50).trim() },
    `const { registerWorkerThread, start } = await import('wsbroker');
    const { WebSocket } = await import('ws');
    registerWorkerThread({ handleSocketMessage() {} });
    const server = start({ bind: '127.0.0.1:0', origins(origin) { throw new Error('no idea of ' + origin); } });
    const statuses = [];
    for (let n = 0; n < 50; n += 1) {
      const client = new WebSocket(server.url.replace('http', 'ws'), { origin: 'http://client-' + n + '.example' });
      client.on('error', () => {});
      statuses.push((await once(client, 'unexpected-response'))[1].statusCode);
      client.terminate();
    }
    console.log(statuses.join(' '));
    await server.stop();`,
  );
  assert.equal(log.match(/origins failed: /g).length, 1);
  assert.equal(countedIn(log, 'origins'), 49);
});

test('faults of different places are all told, and what makes more places than that is bounded', async () => {
  // Each of these functions throws at a place of its own.
  const log = await runsTo(
    {},
    flood(
      `handleSocketMessage(data, socketId) {
        ${ANSWER_LAST}
        const n = Number(data.slice(8));
        const place = n < 3 ? n : n * 7;
        new Function('\\n'.repeat(place) + 'throw new Error("place ' + place + '");')();
      }`,
      2000,
    ),
  );
  for (const place of [0, 1, 2]) assert.match(log, new RegExp(`failed: Error: place ${place}\n`));
  const told = log.match(/failed: /g).length;
  assert.equal(told + countedIn(log, 'handleSocketMessage'), 2000);
  assert.ok(log.length < 400_000, `${log.length} characters`);
});

test('an error as long as what its client sent is cut', async () => {
  const log = await runsTo(
    {},
    flood(`handleSocketMessage(data, socketId) { ${ANSWER_LAST} throw new Error(data.repeat(100_000)); }`, 1),
  );
  assert.ok(log.length < 10_000, `${log.length} characters`);
  assert.match(log, /… \([\d,]+ more characters\)/);
});
