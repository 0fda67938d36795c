// Bad input, and what it gets. Whatever comes, the answer is the one that the RFC gives, and the server goes on
// serving everybody else. What application code may do wrong is in failing-handlers.test.mjs, api-arguments.test.mjs and
// start-options.test.mjs.

import assert from 'node:assert/strict';
import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { test } from 'node:test';
import { setTimeout as delay } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { connectionCount, send, stats } from 'wsbroker';
import { closeFrame, connectRaw, frame, handshake, OPCODE, upgradeRaw } from './helpers/raw.mjs';
import { connect, serve, stillServes } from './helpers/serving.mjs';
import { eventually, Inbox, within } from './helpers/waiting.mjs';

const PROGRAM = fileURLToPath(new URL('fixtures/program.mjs', import.meta.url));

const { binary, close, continuation, ping, pong, text } = OPCODE;

/** A server that echoes, collects close events, and has a client that nothing may disturb. */
async function serveWithBystander(t, options) {
  const closes = new Inbox();
  const server = serve(
    t,
    {
      handleHttpRequest: ({ body }) => ({ body: body.length > 0 ? body : 'fine' }),
      handleSocketMessage: (data, socketId) => void send(socketId, data),
      handleSocketClose: (_socketId, _token, code, reason) => closes.push({ code, reason }),
    },
    options,
  );
  const bystander = await connect(t, server);
  return { server, closes, bystander, stillServes: () => stillServesAlone(t, server, bystander) };
}

/** And of those who came for it nobody is left. */
async function stillServesAlone(t, server, bystander) {
  const newcomer = await stillServes(t, server, bystander);
  newcomer.terminate();
  await eventually(() => assert.equal(connectionCount(), 1));
}

const LIMIT = 1000;

/** What a client sends on a socket, and the code that it is closed with. */
const BAD_FRAMES = {
  'an unmasked frame': [frame(text, 'hello', { masked: false }), 1002],
  'an unmasked empty frame': [frame(text, '', { masked: false }), 1002],
  'an unmasked ping': [frame(ping, 'x', { masked: false }), 1002],
  ...Object.fromEntries(
    [3, 4, 5, 6, 7, 11, 12, 13, 14, 15].map((opcode) => [`opcode ${opcode}`, [frame(opcode), 1002]]),
  ),
  ...Object.fromEntries([4, 2, 1, 7].map((rsv) => [`reserved bits ${rsv}`, [frame(text, 'x', { rsv }), 1002]])),
  'a reserved bit of a ping': [frame(ping, '', { rsv: 4 }), 1002],
  'a fragmented ping': [frame(ping, 'x', { fin: false }), 1002],
  'a fragmented pong': [frame(pong, 'x', { fin: false }), 1002],
  'a fragmented close': [frame(close, '', { fin: false }), 1002],
  'a ping of 126 bytes': [frame(ping, 'x'.repeat(126)), 1002],
  'a continuation of nothing': [frame(continuation, 'x'), 1002],
  'a message inside of another': [[frame(text, 'x', { fin: false }), frame(text, 'y')], 1002],
  'a byte that begins no UTF-8': [frame(text, [0xff]), 1007],
  'UTF-8 that is cut off': [frame(text, [0xe2, 0x82]), 1007],
  'an overlong slash': [frame(text, [0xc0, 0xaf]), 1007],
  'a surrogate in UTF-8': [frame(text, [0xed, 0xa0, 0x80]), 1007],
  'bad UTF-8 across fragments': [
    [frame(text, [0xe2, 0x82], { fin: false }), frame(continuation, [0x41], { fin: false })],
    1007,
  ],
  'a length of 2^63': [frame(binary, '', { length: 2n ** 63n }), 1002],
  'a length of 2^63 - 1': [frame(binary, '', { length: 2n ** 63n - 1n }), 1009],
  'a length of 4 GiB': [frame(binary, '', { length: 2n ** 32n }), 1009],
  'a message over the limit': [frame(binary, Buffer.alloc(LIMIT + 1)), 1009],
  'a message over the limit, of which nothing came': [frame(binary, '', { length: LIMIT + 1 }), 1009],
  'fragments over the limit': [
    [frame(binary, Buffer.alloc(LIMIT), { fin: false }), frame(continuation, '', { length: 1 })],
    1009,
  ],
  'a close of one byte': [frame(close, 'x'), 1002],
  ...Object.fromEntries(
    [0, 999, 1004, 1005, 1006, 1015, 2999, 5000, 65_535].map((code) => [
      `close code ${code}`,
      [closeFrame(code), 1002],
    ]),
  ),
  'a close reason that is no UTF-8': [frame(close, [0x03, 0xe8, 0xff]), 1007],
};

test('a client that breaks the protocol is closed with the code of the RFC', async (t) => {
  const { server, closes, stillServes } = await serveWithBystander(t, { maxMessageSize: LIMIT });
  for (const [what, [bytes, code]] of Object.entries(BAD_FRAMES)) {
    const { violations } = stats().dropped;
    const client = await upgradeRaw(t, server);
    const { payload } = await client.write(frame(text, 'before')).frame('the echo');
    assert.equal(payload.toString(), 'before', what);
    client.write(...[bytes].flat(), frame(text, 'behind'));
    assert.equal((await client.closeFrame()).code, code, what);
    await client.end();
    assert.equal(client.error, undefined, `${what}: the connection ends in order`);
    assert.equal((await closes.next()).code, code, what);
    assert.equal(stats().dropped.violations, violations + 1, what);
  }
  await stillServes();
  assert.equal((await closes.next()).code, 1006, 'that of the newcomer');
  assert.equal(closes.length, 0, 'one close event for each');
});

test('what came before a breach is answered before the close frame, by handlers that wait too', async (t) => {
  const events = new Inbox();
  const server = serve(t, {
    async handleSocketMessage(data, socketId) {
      await delay(1);
      events.push(send(socketId, data));
    },
    handleSocketClose: (socketId) => events.push(send(socketId, 'too late')),
  });
  for (let n = 0; n < 20; n += 1) {
    const client = await upgradeRaw(t, server);
    client.write(Buffer.concat([frame(text, 'one'), frame(text, 'two'), frame(text, 'x', { rsv: 1 })]));
    assert.equal((await client.frame('the first echo')).payload.toString(), 'one');
    assert.equal((await client.frame('the second echo')).payload.toString(), 'two');
    assert.equal((await client.closeFrame()).code, 1002);
    await client.end();
    assert.deepEqual(await events.take(3), [true, true, false]);
  }
});

/** The longest string that V8 can make, and so the largest limit for messages. */
const HUGE = 2 ** 29 - 24;

test('a length is no reason to take memory', async (t) => {
  const { server, closes } = await serveWithBystander(t, { maxMessageSize: HUGE });
  const clients = [];
  for (let n = 0; n < 20; n += 1) clients.push(await upgradeRaw(t, server));
  const { rss } = process.memoryUsage();
  for (const client of clients) client.write(frame(binary, 'begun', { length: HUGE }), Buffer.alloc(1));
  const marker = await upgradeRaw(t, server);
  marker.write(frame(text, 'read behind all of them'));
  await marker.frame();
  // 20 messages of 512 MiB were announced, and a few bytes of each came.
  assert.ok(process.memoryUsage().rss - rss < 64 << 20);
  clients.push(marker);
  for (const client of clients) client.socket.destroy();
  for (const closed of await closes.take(clients.length)) assert.equal(closed.code, 1006);
});

/** Far longer than an answer to a ping takes on a busy machine. */
const HEARTBEAT = { interval: 100, timeout: 3000 };

test('half of something and then nothing is closed by the heartbeat, with 1006', async (t) => {
  const { server, closes, stillServes } = await serveWithBystander(t, { heartbeat: HEARTBEAT });
  const { heartbeatTimeouts } = stats().dropped;
  const halves = [
    frame(binary, 'ten bytes!').subarray(0, 9),
    frame(binary, Buffer.alloc(300)).subarray(0, 3),
    frame(text, 'to be continued', { fin: false }),
    Buffer.alloc(0),
  ];
  const clients = [];
  for (const half of halves) clients.push((await upgradeRaw(t, server)).write(half));
  for (const client of clients) assert.equal((await client.frame('a ping')).opcode, ping);
  for (const closed of await closes.take(halves.length)) assert.deepEqual(closed, { code: 1006, reason: '' });
  for (const client of clients) await client.end();
  assert.equal(stats().dropped.heartbeatTimeouts, heartbeatTimeouts + halves.length);
  await stillServes();
});

test('a client that vanishes without a FIN is closed by the heartbeat, with 1006', async (t) => {
  const { server, closes, stillServes } = await serveWithBystander(t, { heartbeat: HEARTBEAT });
  const program = `
    const socket = new (require('ws'))('ws://127.0.0.1:${server.address.port}/');
    socket.on('open', () => console.log('open'));
  `;
  const child = spawn(process.execPath, ['--eval', program], {
    cwd: import.meta.dirname,
    stdio: ['ignore', 'pipe', 2],
  });
  t.after(() => child.kill('SIGKILL'));
  await within(once(child.stdout, 'data'), 'the other process is connected');
  // It answers pings, and so outlives one that came later and does not.
  await upgradeRaw(t, server);
  assert.equal((await closes.next()).code, 1006);
  assert.equal(connectionCount(), 2);
  child.kill('SIGSTOP'); // a process that is stopped answers nothing, and its kernel sends no FIN
  assert.deepEqual(await closes.next(), { code: 1006, reason: '' });
  assert.equal(connectionCount(), 1);
  await stillServes();
});

test('a server that was stopped for longer than the timeout does not blame its clients', async (t) => {
  const program = `
    const { registerWorkerThread, send, start } = await import('wsbroker');
    registerWorkerThread({ handleSocketMessage: (data, socketId) => void send(socketId, data) });
    const heartbeat = { interval: 100, timeout: 1000 };
    console.log(start({ bind: '127.0.0.1:0', heartbeat }).address.port);`;
  const child = spawn(process.execPath, [PROGRAM, program], { stdio: ['ignore', 'pipe', 2] });
  t.after(() => child.kill('SIGKILL'));
  const [port] = await within(once(child.stdout, 'data'), 'the server runs');
  const client = await connect(t, { address: { host: '127.0.0.1', port: Number(port) } });
  child.kill('SIGSTOP');
  await delay(2000); // the time itself is what is tested
  child.kill('SIGCONT');
  for (let n = 0; n < 3; n += 1) await within(once(client, 'ping'), 'the heartbeat goes on');
  client.send('still there');
  assert.equal(await client.inbox.next(), 'still there');
});

/** What a client asks for, and the status that it gets. */
const BAD_REQUESTS = {
  'a request line of 1 MB': { bytes: `GET /${'x'.repeat(1 << 20)} HTTP/1.1\r\nHost: x\r\n\r\n`, status: 431 },
  '10 000 headers': { bytes: `GET / HTTP/1.1\r\nHost: x\r\n${'a: b\r\n'.repeat(10_000)}\r\n`, status: 431 },
  'a header of 1 MB': { bytes: `GET / HTTP/1.1\r\nHost: x\r\na: ${'b'.repeat(1 << 20)}\r\n\r\n`, status: 431 },
  'no HTTP at all': { bytes: '\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n', status: 400 },
  'a header without a colon': { bytes: 'GET / HTTP/1.1\r\nHost x\r\n\r\n', status: 400 },
  'a header folded over lines': { bytes: 'GET / HTTP/1.1\r\nHost: x\r\na: b\r\n c\r\n\r\n', status: 400 },
  'two lengths of a body': {
    bytes: 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab',
    status: 400,
  },
  'a length that is no number': { bytes: 'POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n', status: 400 },
  'a chunk without a length': {
    bytes: 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n',
    status: 400,
  },
  'a tunnel': { bytes: 'CONNECT a:80 HTTP/1.1\r\nHost: a:80\r\n\r\n', status: 501 },
  'a target without a slash': { bytes: 'GET admin HTTP/1.1\r\nHost: x\r\n\r\n', status: 400 },
  'a star that is no OPTIONS': { bytes: 'GET * HTTP/1.1\r\nHost: x\r\n\r\n', status: 400 },
  'a URL with a user': { bytes: 'GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n', status: 400 },
  'a host that is none': { bytes: 'GET / HTTP/1.1\r\nHost: a b\r\n\r\n', status: 400 },
  'a body that is coded twice': {
    bytes: 'POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n',
    status: 501,
  },
  'a body over the limit': {
    bytes: `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${LIMIT + 1}\r\n\r\n${'x'.repeat(LIMIT + 1)}`,
    status: 413,
  },
  'a body over the limit, of which nothing came': {
    bytes: `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${2n ** 62n}\r\n\r\n`,
    status: 413,
  },
  'a body of more bytes than fit 64 bits': {
    bytes: `POST / HTTP/1.1\r\nHost: x\r\nContent-Length: ${2n ** 64n}\r\n\r\n`,
    status: 413,
  },
  'chunks over the limit': {
    bytes: `POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n${`64\r\n${'x'.repeat(100)}\r\n`.repeat(11)}`,
    status: 413,
  },
};

test('a request that makes no sense or is too large gets its status, and the connection ends', async (t) => {
  const { server, stillServes } = await serveWithBystander(t, { maxBodySize: LIMIT });
  const { requests } = stats();
  for (const [what, { bytes, status }] of Object.entries(BAD_REQUESTS)) {
    const client = await connectRaw(t, server);
    const answer = await client.write(Buffer.from(bytes, 'latin1')).response();
    assert.equal(answer.status, status, what);
    await client.end(`${what}: the connection ends`);
    assert.equal(client.error, undefined, `${what}: it ends in order`);
  }
  assert.equal(stats().requests, requests, 'no handler has seen any of them');
  await stillServes();
});

test('a handshake that lacks something is refused, and the connection can go on', async (t) => {
  const { server, stillServes } = await serveWithBystander(t);
  const bad = {
    'no key': [handshake({ 'Sec-WebSocket-Key': undefined }), 400],
    'a key that is none': [handshake({ 'Sec-WebSocket-Key': 'short' }), 400],
    'no version': [handshake({ 'Sec-WebSocket-Version': undefined }), 426],
    'another version': [handshake({ 'Sec-WebSocket-Version': '8' }), 426],
    'a method that does not upgrade': [handshake({ 'Content-Length': '0' }, 'POST / HTTP/1.1'), 405],
  };
  for (const [what, [bytes, status]] of Object.entries(bad)) {
    const client = await connectRaw(t, server);
    const answer = await client.write(bytes).response();
    assert.equal(answer.status, status, what);
    if (status === 426) assert.equal(answer.headers['sec-websocket-version'], '13');
    assert.equal((await client.write('GET / HTTP/1.1\r\nHost: x\r\n\r\n').response()).body, 'fine', what);
    client.socket.destroy();
  }
  assert.equal(connectionCount(), 1);
  await stillServes();
});

test('half of a request and then nothing is cut after its timeout', async (t) => {
  const { server, stillServes } = await serveWithBystander(t, { headerTimeout: 1000, bodyTimeout: 1000 });
  const nothing = await connectRaw(t, server);
  const head = await connectRaw(t, server);
  head.write('GET / HTTP/1.1\r\nHost: x\r\n');
  const body = await connectRaw(t, server);
  body.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nhalf');
  assert.equal((await body.response()).status, 408);
  for (const client of [nothing, head, body]) await client.end();
  await stillServes();
});

test('what a client does wrong is one line at debug level', async (t) => {
  const program = `
    const { registerWorkerThread, start } = await import('wsbroker');
    registerWorkerThread({});
    console.log(start({ bind: '127.0.0.1:0', maxMessageSize: ${LIMIT}, maxBodySize: ${LIMIT} }).address.port);`;
  const env = { ...process.env, WSBROKER_LOG: 'debug' };
  const child = spawn(process.execPath, [PROGRAM, program], { env, stdio: ['ignore', 'pipe', 'pipe'] });
  t.after(() => child.kill('SIGKILL'));
  const [port] = await within(once(child.stdout, 'data'), 'the server runs');
  const server = { address: { host: '127.0.0.1', port: Number(port) } };
  let log = '';
  child.stderr.on('data', (data) => {
    log += data;
  });
  /** The line that is new since the last one. */
  const nextLine = async (what) => {
    await eventually(() => assert.match(log, /\n/, what));
    const lines = log.split('\n').slice(0, -1);
    assert.equal(lines.length, 1, `${what}: ${log}`);
    log = '';
    return lines[0];
  };

  for (const [what, [bytes, code]] of Object.entries(BAD_FRAMES)) {
    const client = await upgradeRaw(t, server);
    await client.write(...[bytes].flat()).end();
    assert.match(await nextLine(what), new RegExp(`DEBUG .*a peer broke the protocol.* code=${code}`));
  }
  for (const [what, { bytes }] of Object.entries(BAD_REQUESTS)) {
    const client = await connectRaw(t, server);
    await client.write(Buffer.from(bytes, 'latin1')).end();
    assert.match(await nextLine(what), /DEBUG /);
  }
});
