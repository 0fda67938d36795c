// The process: it stays alive while it serves, and never when it should end.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { runsTo } from './helpers/program.mjs';

const REGISTER = `
  const { registerWorkerThread, send, start, stats } = await import('wsbroker');
  const registration = registerWorkerThread({
    handleHttpRequest: () => ({ body: 'ok' }),
    handleSocketMessage: (data, socketId) => send(socketId, data),
  });`;

const SERVE = `
  ${REGISTER}
  const server = start({ bind: '127.0.0.1:0' });
  const url = 'http://127.0.0.1:' + server.address.port;`;

test('loading the package keeps nothing alive', () => runsTo({}, `await import('wsbroker');`));

test('a registration alone does not keep the main thread alive', () => runsTo({}, REGISTER));

test('a server keeps the process alive, and after the last stop it ends', () =>
  runsTo(
    { stdout: 'ok\none left\nexit' },
    `${SERVE}
    const second = start({ bind: '127.0.0.1:0' });
    process.on('exit', () => console.log('exit'));
    const client = thread(\`parentPort.postMessage(await (await fetch(data)).text());\`, url);
    client.once('message', async (body) => {
      console.log(body);
      await second.stop();
      console.log('one left');
      setImmediate(() => server.stop());
    });
    client.unref(); // the server alone keeps the process`,
  ));

test('unregister lets the process end although a server runs', () => runsTo({}, `${SERVE} registration.unregister();`));

test('a server started after the last stop keeps the process alive again', () =>
  runsTo(
    { stdout: 'ok' },
    `${SERVE}
    await server.stop();
    const again = start({ bind: '127.0.0.1:0' });
    const client = thread(\`parentPort.postMessage(await (await fetch(data)).text());\`, url.replace(/\\d+$/, again.address.port));
    client.once('message', (body) => {
      console.log(body);
      again.stop();
    });
    client.unref();`,
  ));

test('a stop that is not over keeps the process alive', () =>
  runsTo(
    { stdout: '{ closed: 0, forced: 1 }' },
    `${SERVE}
    const { WebSocket } = await import('ws');
    const client = new WebSocket(url);
    await once(client, 'open');
    client.pause();
    client._socket.unref();
    registration.unregister();
    server.stop({ timeout: 100 }).then((summary) => console.log(summary));`,
  ));

test('process.exit with a live server and a flood', () =>
  runsTo(
    { code: 3 },
    `${SERVE}
    const { WebSocket } = await import('ws');
    const client = new WebSocket(url);
    await once(client, 'open');
    const flood = () => {
      for (let n = 0; n < 100; n += 1) client.send('x'.repeat(100));
      setImmediate(flood);
    };
    flood();
    await once(client, 'message');
    process.exit(3);`,
  ));

test('an uncaught exception ends the process as everywhere', async () => {
  const stderr = await runsTo({ code: 1 }, `${SERVE} setImmediate(() => { throw new Error('uncaught on purpose'); });`);
  assert.match(stderr, /uncaught on purpose/);
});

test('threads stay from their registration to the last stop, and then end by themselves', () =>
  runsTo(
    { stdout: 'ok\n0,0' },
    `const workers = [1, 2].map(() => THREAD);
    await Promise.all(workers.map((worker) => once(worker, 'message')));
    const { start } = await import('wsbroker');
    const server = start({ bind: '127.0.0.1:0' });
    console.log(await (await fetch('http://127.0.0.1:' + server.address.port)).text());
    const exits = Promise.all(workers.map((worker) => once(worker, 'exit')));
    await server.stop();
    console.log((await exits).flat().join());`.replace(
      'THREAD',
      threadOf(`${REGISTER} parentPort.postMessage('ready');`),
    ),
  ));

test('process.exit in the main thread with servers and busy threads', () =>
  runsTo(
    { code: 4 },
    `const workers = [1, 2, 3].map(() => THREAD);
    const ports = (await Promise.all(workers.map((worker) => once(worker, 'message')))).flat();
    for (let n = 0; n < 30; n += 1) fetch('http://127.0.0.1:' + ports[n % 3]).catch(() => {});
    await fetch('http://127.0.0.1:' + ports[0]);
    process.exit(4);`.replace(
      'THREAD',
      threadOf(`const { registerWorkerThread, start } = await import('wsbroker');
        registerWorkerThread({ handleHttpRequest() { for (const end = Date.now() + 20; Date.now() < end; ); } });
        parentPort.postMessage(start({ bind: '127.0.0.1:0' }).address.port);`),
    ),
  ));

const mapped = `(await import('node:fs')).readFileSync('/proc/self/maps', 'latin1').includes('.node')`;

test(
  'the addon stays in memory when the only thread that loaded it ends',
  { skip: process.platform !== 'linux' && 'reads /proc' },
  () =>
    runsTo(
      { stdout: 'false true' },
      `const before = ${mapped};
      await once(${threadOf(`await import("wsbroker");`)}, "exit");
      console.log(before, ${mapped});`,
    ),
);

test('only threads load the package, one after the other', () =>
  runsTo(
    { stdout: 'ok\nended 0\nok\nended 0\nok\nterminated 1' },
    `for (const end of ['stop', 'stop', 'terminate']) {
      const worker = THREAD;
      console.log(...(await once(worker, 'message')));
      worker.postMessage(end);
      if (end === 'stop') console.log('ended', ...(await once(worker, 'exit')));
      else console.log('terminated', await worker.terminate());
    }`.replace(
      'THREAD',
      threadOf(`${SERVE}
        parentPort.once('message', (end) => end === 'stop' && server.stop());
        parentPort.postMessage(await (await fetch(url)).text());`),
    ),
  ));

test('many threads are terminated in the middle of a flood', () =>
  runsTo(
    { stdout: '0 1' },
    `${SERVE}
    const { WebSocket } = await import('ws');
    for (let n = 0; n < 25; n += 1) {
      const worker = THREAD;
      await once(worker, 'message');
      const clients = [1, 2, 3, 4].map(() => new WebSocket(url));
      await Promise.all(clients.map((client) => once(client, 'open')));
      for (let m = 0; m < 300; m += 1) for (const client of clients) client.send('flood ' + m);
      await once(clients[n % 4], 'message');
      await worker.terminate();
      for (const client of clients) client.terminate();
    }
    await server.stop({ timeout: 1000 });
    console.log(stats().connections, stats().workers.length);`.replace(
      'THREAD',
      threadOf(`const { broadcast, connections, registerWorkerThread, send, setToken, stats } = await import('wsbroker');
        registerWorkerThread({
          handleSocketMessage(data, socketId) {
            send(socketId, data);
            setToken(socketId, data);
            broadcast('to all');
            return stats().connections + [...connections()].length;
          },
        });
        parentPort.postMessage('ready');`),
    ),
  ));

test('a server outlives the thread that started it', () =>
  runsTo(
    { stdout: 'terminated 1\nok' },
    `const starter = STARTER;
    const [url] = await once(starter, 'message');
    const other = OTHER;
    await once(other, 'message');
    console.log('terminated', await starter.terminate());
    console.log(await (await fetch(url)).text());
    process.exit(); // nobody is left who could stop the server`
      .replace('STARTER', threadOf(`${SERVE} parentPort.postMessage(url);`))
      .replace('OTHER', threadOf(`${REGISTER} parentPort.postMessage('ready');`)),
  ));

/** The call that runs a piece in a thread, to be put into another piece. */
function threadOf(source) {
  return `thread(${JSON.stringify(source)})`;
}
