// Memory that crosses between Rust and JavaScript while something ends: threads with batches and large texts in their hands,
// strings whose characters the addon keeps, views that change their length. `npm run sanitize -- address` runs these with
// AddressSanitizer, see docs/safety.md.

import assert from 'node:assert/strict';
import { test } from 'node:test';
import { broadcast, send, sendToChannel, setToken, subscribe } from 'wsbroker';
import { runsTo } from './helpers/program.mjs';
import { connect, request, serve, throwsCode } from './helpers/serving.mjs';

/** A server, its URL, `ws`, and threads that are registered when they say so. */
const SERVE = `
  const { registerWorkerThread, start, stats } = await import('wsbroker');
  const { WebSocket } = await import('ws');
  const first = registerWorkerThread({});
  const server = start({ bind: '127.0.0.1:0' });
  first.unregister();
  const url = 'ws://127.0.0.1:' + server.address.port;
  const startThread = async (handlers) => {
    const worker = thread(\`
      const { broadcast, registerWorkerThread, send, setToken, subscribe } = await import('wsbroker');
      const kept = [];
      const registration = registerWorkerThread({ handleError() {}, \${handlers} });
      parentPort.postMessage('ready');\`);
    worker.exited = once(worker, 'exit');
    await once(worker, 'message');
    return worker;
  };
  /** Clients that say texts, bytes and large texts without a pause, until they are told. */
  const flood = async (count) => {
    const clients = Array.from({ length: count }, () => new WebSocket(url));
    await Promise.all(clients.map((client) => once(client, 'open')));
    const large = 'x'.repeat(150_000);
    let isOver = false;
    const pour = (client) => {
      if (isOver) return client.terminate();
      if (client.readyState !== WebSocket.OPEN) return; // too slow for all that is said to everybody
      for (let n = 0; n < 20; n += 1) client.send(n % 2 ? Buffer.alloc(n * 50, n) : 'text ' + n);
      client.send(large);
      client.send(large + '\\u00e9', () => setImmediate(pour, client));
    };
    clients.forEach(pour);
    return () => {
      isOver = true;
    };
  };`;

const KEEP_ALL = `
  handleSocketMessage(data, socketId) {
    kept.push(data, data.slice(1));
    if (kept.length > 200) kept.length = 0;
    send(socketId, data);
    if (typeof data === 'string' && data.length > 1000) broadcast(data);
  },`;

test('threads are terminated while batches, bytes and large texts are in their hands', () =>
  runsTo(
    { stdout: '0' },
    `${SERVE}
    for (let n = 0; n < 15; n += 1) {
      const worker = await startThread(${JSON.stringify(KEEP_ALL)});
      const end = await flood(3);
      for (let turn = 0; turn < n; turn += 1) await new Promise(setImmediate);
      await worker.terminate();
      end();
    }
    await server.stop({ timeout: 1000 });
    console.log(stats().workers.length);`,
  ));

test('a thread ends in the handler of whatever comes', () =>
  runsTo(
    { stdout: '7 7 7 7' },
    `${SERVE}
    const codes = [];
    const open = () =>
      new Promise((resolve) => {
        const client = new WebSocket(url, { handshakeTimeout: 1000 });
        client.on('open', () => client.terminate());
        client.on('error', resolve);
        client.on('close', resolve);
      });
    const body = 'x'.repeat(9000);
    const post = () => fetch(url.replace('ws', 'http'), { method: 'POST', body }).then((answer) => answer.text(), () => {});
    let end;
    for (const ending of [
      "handleSocketMessage(data) { if (typeof data === 'string' && data.length > 1000) process.exit(7); },",
      "handleSocketMessage(data) { if (typeof data !== 'string') process.exit(7); },",
      'handleSocketOpen() { process.exit(7); },',
      'handleHttpRequest() { process.exit(7); },',
    ]) {
      const worker = await startThread(ending);
      end ??= await flood(2);
      // While the flood fills the thread everybody else is turned away, and comes again.
      let isOver = false;
      const ask = ending.includes('Open') ? open : ending.includes('Http') ? post : undefined;
      const asking = (async () => {
        while (ask && !isOver) await ask();
      })();
      codes.push((await worker.exited)[0]);
      isOver = true;
      await asking;
    }
    end();
    await server.stop({ timeout: 1000 });
    console.log(codes.join(' '));
    process.exit();`,
  ));

test('strings of large texts are collected while threads come and go', () =>
  runsTo(
    { stdout: 'collected' },
    `${SERVE}
    const { setFlagsFromString } = await import('node:v8');
    const { runInNewContext } = await import('node:vm');
    setFlagsFromString('--expose-gc');
    const collectGarbage = runInNewContext('gc');
    for (let n = 0; n < 10; n += 1) {
      const worker = await startThread(${JSON.stringify(
        KEEP_ALL.replace('kept.push', 'if (data.length > 1000) parentPort.postMessage(data.slice(9, 99)); kept.push'),
      )});
      const end = await flood(2);
      const [piece] = await once(worker, 'message');
      const ended = worker.terminate();
      collectGarbage();
      if (piece !== 'x'.repeat(90)) console.log('another text:', piece);
      await ended;
      end();
      collectGarbage();
    }
    await server.stop({ timeout: 1000 });
    console.log('collected');`,
  ));

test('views of every kind go out as what they hold at the call', async (t) => {
  const shrinking = new ArrayBuffer(8, { maxByteLength: 64 });
  const tracking = new Uint8Array(shrinking);
  const outOfBounds = new Uint8Array(shrinking, 4, 4);
  const server = serve(t, {
    handleSocketOpen: (socketId) => subscribe(socketId, 'room'),
    handleSocketMessage(_, socketId) {
      tracking.fill(7);
      send(socketId, tracking);
      shrinking.resize(64);
      sendToChannel('room', tracking);
      shrinking.resize(2);
      broadcast(tracking);
      throwsCode(() => send(socketId, outOfBounds), 'WSB_INVALID_ARGUMENT');
      setToken(socketId, tracking);
      shrinking.resize(0);
      send(socketId, tracking);
    },
    handleHttpRequest: () => ({ body: tracking }),
  });
  const client = await connect(t, server);
  client.send('go');
  const expected = [Buffer.alloc(8, 7), Buffer.concat([Buffer.alloc(8, 7), Buffer.alloc(56)]), Buffer.alloc(2, 7)];
  assert.deepEqual(await client.inbox.take(3), expected);
  assert.deepEqual(await client.inbox.next(), Buffer.alloc(0));
  assert.equal((await request(server)).body, '');
});
