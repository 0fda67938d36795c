// How events reach a thread: by its event loop, whether that is libuv's or another, and nothing of it is left when the
// registration or the thread ends.

import { describe, it } from 'node:test';
import { runsTo } from './helpers/program.mjs';

const LOOPS = {
  "libuv's event loop": { prepare: '', handles: 1 },
  // The package believes a runtime that says it is not built on libuv, and wakes its threads in another way.
  "a runtime's own event loop": { prepare: `process.versions.bun = '0.0.0';`, handles: 0 },
};

for (const [loop, { prepare, handles }] of Object.entries(LOOPS)) {
  const LOAD = `
    ${prepare}
    const { registerWorkerThread, send, start, stats } = await import('wsbroker');`;

  /** A client, and with the first one a server. */
  const CONNECT = `
    ${LOAD}
    const { WebSocket } = await import('ws');
    let server;
    const connect = async () => {
      server ??= start({ bind: '127.0.0.1:0' });
      const client = new WebSocket('ws://127.0.0.1:' + server.address.port);
      await once(client, 'open');
      return client;
    };`;

  /** A thread that is registered when it says so. */
  const startThread = (registration) => `
    const startThread = async () => {
      const worker = thread(${JSON.stringify(`${LOAD} ${registration} parentPort.postMessage('ready');`)});
      worker.exited = once(worker, 'exit');
      await once(worker, 'message');
      return worker;
    };`;

  describe(`on ${loop}`, () => {
    it('what a handler leaves for later runs in the order that Node gives it', () =>
      runsTo(
        { stdout: 'handler tick promise immediate' },
        `${CONNECT}
        const order = [];
        registerWorkerThread({
          handleSocketMessage(data, socketId) {
            setImmediate(() => {
              order.push('immediate');
              send(socketId, order.join(' '));
            });
            Promise.resolve().then(() => order.push('promise'));
            process.nextTick(() => order.push('tick'));
            order.push('handler');
          },
        });
        const client = await connect();
        client.send('go');
        console.log(String((await once(client, 'message'))[0]));
        await server.stop();`,
      ));

    it('what is thrown behind a handler is an uncaught exception, and the next event comes', () =>
      runsTo(
        { stdout: 'thrown behind one\nthrown behind two' },
        `${CONNECT}
        registerWorkerThread({
          handleSocketMessage(data, socketId) {
            process.nextTick(() => {
              throw new Error('thrown behind ' + data);
            });
          },
        });
        const client = await connect();
        for (const data of ['one', 'two']) {
          client.send(data);
          const [error] = await once(process, 'uncaughtException');
          console.log(error.message);
        }
        await server.stop();`,
      ));

    it('the process ends in a handler, in the middle of a flood', () =>
      runsTo(
        { code: 5 },
        `${CONNECT}
        registerWorkerThread({ handleSocketMessage: (data) => data === 'exit' && process.exit(5) });
        const clients = await Promise.all([connect(), connect(), connect()]);
        for (let n = 0; n < 1000; n += 1) for (const client of clients) client.send(n === 500 ? 'exit' : 'go on');`,
      ));

    it('a thread ends in a handler, in the middle of a flood', () =>
      runsTo(
        { stdout: '6' },
        `${CONNECT}
        ${startThread(`registerWorkerThread({ handleSocketMessage: (data) => data === 'exit' && process.exit(6) });`)}
        const worker = await startThread();
        const clients = await Promise.all([connect(), connect(), connect()]);
        for (let n = 0; n < 1000; n += 1) for (const client of clients) client.send(n === 500 ? 'exit' : 'go on');
        console.log(...(await worker.exited));
        process.exit(); // its sockets wait for another thread`,
      ));

    it('threads are terminated again and again while their sockets are never silent', () =>
      runsTo(
        { stdout: '1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\nlast\n0 0' },
        `${CONNECT}
        ${startThread(`registerWorkerThread({ handleSocketMessage: (data, socketId) => void send(socketId, data) });`)}
        let worker = await startThread();
        const clients = await Promise.all([connect(), connect(), connect(), connect()]);
        let flood = setImmediate(function more() {
          for (const client of clients) for (let n = 0; n < 10 && client.bufferedAmount < 65536; n += 1) client.send('more');
          flood = setImmediate(more);
        });
        const codes = [];
        for (let n = 0; n < 20; n += 1) {
          const next = await startThread();
          await once(clients[n % 4], 'message');
          codes.push(await worker.terminate());
          worker = next;
        }
        console.log(...codes);
        clearImmediate(flood);
        clients[0].send('last');
        await new Promise((resolve) => clients[0].on('message', (data) => String(data) === 'last' && resolve()));
        console.log('last');
        await server.stop();
        await worker.exited;
        console.log(stats().connections, stats().workers.length);`,
      ));

    it('fifty threads, one after the other, end by themselves when they have unregistered in a handler', () =>
      runsTo(
        { stdout: '50 times 0' },
        `${CONNECT}
        ${startThread(`const { unregister } = registerWorkerThread({
          handleSocketMessage(data, socketId) {
            send(socketId, data);
            unregister();
          },
        });`)}
        let client;
        let times = 0;
        for (let n = 0; n < 50; n += 1) {
          const worker = await startThread();
          client ??= await connect();
          client.send('go');
          await once(client, 'message');
          const [code] = await worker.exited;
          if (code === 0) times += 1;
        }
        console.log(times, 'times 0');
        client.terminate();
        process.exit(); // nobody is left for the close event`,
      ));

    it('a registration leaves no handle in the event loop', () =>
      runsTo(
        { stdout: `0 ${handles} 0` },
        `${LOAD}
        const handles = async () => {
          // Closing a handle takes a turn of the event loop.
          for (let turn = 0; turn < 2; turn += 1) await new Promise((resolve) => setImmediate(resolve));
          return process.report.getReport().libuv.filter(({ type }) => type === 'async').length;
        };
        registerWorkerThread({}).unregister();
        const before = await handles();
        for (let n = 0; n < 100; n += 1) registerWorkerThread({}).unregister();
        const after = await handles();
        const { unregister } = registerWorkerThread({});
        const registered = await handles();
        unregister();
        console.log(after - before, registered - before, (await handles()) - before);`,
      ));
  });
}
