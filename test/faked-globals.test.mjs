// Timers, clocks and promises that tests of applications put fakes in the place of: the package goes on with the real ones.

import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';

/** Puts functions that do nothing in the place of everything that a framework fakes. */
const FAKE_TIMERS = `
  const doesNothing = () => 0;
  for (const name of [
    'setImmediate', 'clearImmediate', 'setTimeout', 'clearTimeout', 'setInterval', 'clearInterval', 'queueMicrotask',
  ]) globalThis[name] = doesNothing;
  process.nextTick = doesNothing;
  process.hrtime = Object.assign(() => [0, 0], { bigint: () => 0n });
  Date = class { static now = doesNothing; };
  globalThis.AbortController = class {};`;

const FAKE = `${FAKE_TIMERS}
  performance.now = doesNothing;
  globalThis.Promise = class { constructor() { throw new Error('a faked promise'); } };`;

/**
 * A thread whose globals are faked; the main thread, whose clients need them, has the server. Each message is answered twice:
 * from the handler and, behind a promise, in a task of its own.
 */
const faked = (before, after) => `
  ${before}
  const { registerWorkerThread, send } = await import('wsbroker');
  registerWorkerThread({
    handleSocketMessage: async (data, socketId) => {
      send(socketId, data);
      await null;
      send(socketId, data + ' later');
      if (data === 'hang') await new IntrinsicPromise(() => {});
    },
    handleHttpRequest: async () => ({ body: 'ok' }),
  });
  const IntrinsicPromise = (async () => {})().constructor;
  parentPort.postMessage('ready');
  ${after}`;

const DRIVE = (program) => `
  const { registerWorkerThread, start } = await import('wsbroker');
  const { WebSocket } = await import('ws');
  const worker = thread(${JSON.stringify(program)});
  await once(worker, 'message');
  const server = start({ bind: '127.0.0.1:0', handlerTimeout: 200 });
  const clients = [];
  for (let n = 0; n < 3; n += 1) {
    const client = new WebSocket(server.url.replace('http', 'ws'));
    await once(client, 'open');
    clients.push(client);
  }
  // More than a turn takes, and more than a socket may have behind a promise.
  const COUNT = 2000;
  let left = COUNT * clients.length * 2;
  await new Promise((resolve) => {
    for (const client of clients) {
      client.on('message', () => {
        left -= 1;
        if (left === 0) resolve();
      });
      for (let n = 0; n < COUNT; n += 1) client.send('message ' + n);
    }
  });
  console.log('all messages');
  console.log(await (await fetch(server.url)).text());
  clients[0].send('hang');
  console.log((await once(clients[0], 'close'))[0]);
  const again = start({ bind: '127.0.0.1:0' });
  await server.stop({ timeout: 1000 });
  console.log(await (await fetch(again.url)).text());
  await again.stop();
  await worker.terminate();`;

const EXPECTED = { stdout: 'all messages\nok\n1011\nok' };

test('a worker whose globals are overwritten after it has registered serves as before', () =>
  runsTo(EXPECTED, DRIVE(faked('', FAKE))));

test('a worker whose globals are overwritten when the package is there already', () =>
  runsTo(EXPECTED, DRIVE(faked(`await import('wsbroker'); ${FAKE}`, ''))));

test('a package that is loaded where the globals are fakes already', () =>
  // Of the clock and the promises there is no other place to have them from, and Node loads nothing without the latter.
  runsTo(EXPECTED, DRIVE(faked(FAKE_TIMERS, ''))));

const MOCK = `(await import('node:test')).mock.timers.enable();`;

test('a worker with the mock timers of node:test', async () => {
  await runsTo(EXPECTED, DRIVE(faked('', MOCK)));
  await runsTo(EXPECTED, DRIVE(faked(`await import('wsbroker'); ${MOCK}`, '')));
});

test('a main thread whose globals are overwritten starts, serves and stops', () =>
  runsTo(
    { stdout: 'message 0 later\nok\nstopped' },
    `const { registerWorkerThread, send, start } = await import('wsbroker');
    const client = thread(\`
      const { WebSocket } = await import('ws');
      const [url] = await once(parentPort, 'message');
      const client = new WebSocket(url.replace('http', 'ws'));
      await once(client, 'open');
      for (let n = 0; n < 500; n += 1) client.send('message ' + n);
      let left = 500;
      let first;
      await new Promise((resolve) => client.on('message', (data) => {
        first ??= String(data);
        left -= 1;
        if (left === 0) resolve();
      }));
      client.close();
      parentPort.postMessage([first, await (await fetch(url, { headers: { connection: 'close' } })).text()]);
    \`);
    await once(client, 'online');
    ${FAKE}
    registerWorkerThread({
      handleSocketMessage: async (data, socketId) => {
        await null;
        send(socketId, data + ' later');
      },
      handleHttpRequest: async () => ({ body: 'ok' }),
    });
    const server = start({ bind: '127.0.0.1:0' });
    client.postMessage(server.url);
    client.on('message', async ([first, answer]) => {
      console.log(first + '\\n' + answer);
      await server.stop({ timeout: 2000 });
      console.log('stopped');
    });`,
  ));
