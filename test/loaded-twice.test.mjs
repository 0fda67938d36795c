// The package loaded several times in one thread, as test runners do: the thread is one worker all the same.

import assert from 'node:assert/strict';
import { cp, mkdtemp, rm, symlink } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';

/** Loads the package anew: a copy of its JavaScript and of what its addon knows of this thread. */
const LOAD = `
  const require = (await import('node:module')).createRequire(${JSON.stringify(import.meta.url)});
  const load = () => {
    for (const file of Object.keys(require.cache)) delete require.cache[file];
    return require('wsbroker');
  };
  const [first, second] = [load(), load()];
  if (first.registerWorkerThread === second.registerWorkerThread) throw new Error('loaded once');
  const attempt = (register) => {
    try {
      return register();
    } catch (error) {
      console.log(error.code, /another copy of this package/.test(error.message));
    }
  };`;

test('a second copy cannot register while the first one is registered, and serves when it is not', () =>
  runsTo(
    {
      stdout:
        'WSB_ALREADY_REGISTERED true\nWSB_ALREADY_REGISTERED false\n20 by first\n20 by second\nWSB_ALREADY_REGISTERED true',
    },
    `${LOAD}
    const handlers = (name) => ({ handleHttpRequest: () => ({ body: 'by ' + name }) });
    const registration = first.registerWorkerThread(handlers('first'));
    attempt(() => second.registerWorkerThread(handlers('second')));
    attempt(() => first.registerWorkerThread(handlers('first again')));
    const server = second.start({ bind: '127.0.0.1:0' });
    const ask = async () => {
      const answers = [];
      for (let n = 0; n < 20; n += 1) answers.push(await (await fetch(server.url)).text());
      console.log(answers.length, ...new Set(answers));
    };
    await ask();
    registration.unregister();
    second.registerWorkerThread(handlers('second'));
    registration.unregister();
    await ask();
    attempt(() => first.registerWorkerThread(handlers('first')));
    await server.stop();`,
  ));

test('what the first copy is busy with when it unregisters it finishes beside the second one', () =>
  runsTo(
    { stdout: 'first: 1\nsecond: 2' },
    `${LOAD}
    let open;
    const registration = first.registerWorkerThread({
      async handleSocketMessage(data, socketId) {
        await new Promise((resolve) => (open = resolve));
        first.send(socketId, 'first: ' + data);
      },
    });
    const server = first.start({ bind: '127.0.0.1:0' });
    const { WebSocket } = await import('ws');
    const client = new WebSocket(server.url.replace('http', 'ws'));
    let left = 2;
    const isDone = new Promise((resolve) => {
      client.on('message', (data) => {
        console.log(String(data));
        left -= 1;
        if (left === 0) resolve();
      });
    });
    await once(client, 'open');
    client.send('1');
    while (open === undefined) await new Promise(setImmediate);
    registration.unregister();
    second.registerWorkerThread({ handleSocketMessage: (data, socketId) => second.send(socketId, 'second: ' + data) });
    client.send('2');
    open();
    await isDone;
    client.close();
    await server.stop();`,
  ));

test('a thread that ends leaves nothing of it to the next one', () =>
  runsTo(
    { stdout: `${'WSB_ALREADY_REGISTERED true\n0\n'.repeat(3)}served` },
    `for (let n = 0; n < 3; n += 1) {
      const worker = thread(\`${LOAD}
        first.registerWorkerThread({ handleHttpRequest: () => ({ body: 'served' }) });
        attempt(() => second.registerWorkerThread({}));
        setImmediate(() => process.exit(0));\`);
      console.log((await once(worker, 'exit'))[0]);
    }
    ${LOAD}
    second.registerWorkerThread({ handleHttpRequest: () => ({ body: 'served' }) });
    const server = first.start({ bind: '127.0.0.1:0' });
    console.log(await (await fetch(server.url)).text());
    await server.stop();`,
  ));

test('copies at two places have two brokers, and say so', async (t) => {
  const folder = await mkdtemp(path.join(tmpdir(), 'wsbroker-'));
  t.after(() => rm(folder, { recursive: true }));
  const root = path.join(import.meta.dirname, '..');
  for (const name of ['lib', 'index.node', 'package.json'])
    await cp(path.join(root, name), path.join(folder, name), { recursive: true });
  await symlink(path.join(root, 'node_modules'), path.join(folder, 'node_modules'));
  const log = await runsTo(
    { stdout: '1 0\n1 1' },
    `const require = (await import('node:module')).createRequire(${JSON.stringify(import.meta.url)});
    const one = require('wsbroker');
    for (const file of Object.keys(require.cache)) delete require.cache[file];
    require('wsbroker'); // the same place
    const other = require(${JSON.stringify(path.join(folder, 'lib', 'index.cjs'))});
    one.registerWorkerThread({});
    console.log(one.stats().workers.length, other.stats().workers.length);
    other.registerWorkerThread({});
    console.log(one.stats().workers.length, other.stats().workers.length);`,
  );
  assert.equal(log.match(/\[WSB_LOADED_TWICE\] WsBrokerWarning: wsbroker is loaded from two places/g).length, 1);
  assert.ok(log.includes(`This one is in ${path.join(folder, 'lib')}`));
});
